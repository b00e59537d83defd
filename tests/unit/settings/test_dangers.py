"""Aim: what would lose money is refused where the configuration is read. Method: the rows of tests/hostile/test_dangers.py, each
given to the loaders alone; that the commands end with status 2 is tried there.
"""

import pytest

from paychan.core.errors import ConfigError
from paychan.settings.load import load_server_config, load_signer_config, load_store_config
from signer.keys import load_key
from tests.hostile.test_dangers import TABLE, prepare


def load(process: str, file: str, env: dict[str, str]) -> None:
    if process == "signer":
        load_key(load_signer_config(file, env))
    else:
        {"server": load_server_config, "store": load_store_config}[process](file, env)


@pytest.mark.parametrize("number", range(len(TABLE)), ids=lambda number: f"{number}-{TABLE[number].process}-{TABLE[number].key}")
def test_a_dangerous_configuration_is_not_loaded(tmp_path, number):
    danger = TABLE[number]
    row = prepare(danger, tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(danger.process, row["arguments"][0], row["env"])
    assert f"{danger.process}.toml: {danger.key}: " in str(caught.value)
