"""Aim: nobody else may put a signer or a store of his own into our state directory. Method: directories of all modes, on the real
loading of the shipped configurations of each process.
"""

from pathlib import Path

import pytest

from paychan.core.errors import ConfigError
from paychan.settings.load import load_server_config, load_signer_config, load_store_config
from tests.unit.settings.test_config import CONFIGS

LOADS = {"server": load_server_config, "store": load_store_config, "signer": load_signer_config}


def refusal(state_dir: Path, process: str = "server", network: str = "regtest") -> str:
    try:
        LOADS[process](CONFIGS / network / f"{process}.toml", {"PAYCHAN_STATE_DIR": str(state_dir)})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("process", LOADS)
@pytest.mark.parametrize("open_one", ["state", "parent", "grandparent"])
def test_a_state_directory_that_others_may_write_to_is_refused(tmp_path, process, open_one):
    state = tmp_path / "grandparent" / "parent" / "state"
    state.mkdir(parents=True, mode=0o700)
    assert refusal(state, process) == ""
    place = next(way for way in (state, *state.parents) if way.name == open_one)
    place.chmod(0o777)
    told = refusal(state, process)
    assert f"others may write to {place}" in told and "state_dir" in told
    place.chmod(0o755)
    assert refusal(state, process) == ""


def test_one_that_is_not_there_yet_is_judged_by_its_parents(tmp_path):
    tmp_path.chmod(0o777)
    assert "others may write" in refusal(tmp_path / "a" / "state")


def test_a_sticky_parent_is_none_but_a_sticky_state_directory_is(tmp_path):
    state = tmp_path / "shared" / "state"
    state.mkdir(parents=True, mode=0o700)
    state.parent.chmod(0o1777)
    assert refusal(state) == ""
    state.chmod(0o1777)
    assert "others may write" in refusal(state)


def test_a_link_is_followed_and_its_place_looked_at(tmp_path):
    real, shared = tmp_path / "real" / "state", tmp_path / "shared"
    real.mkdir(parents=True, mode=0o700)
    shared.mkdir()
    (shared / "state").symlink_to(real)
    assert refusal(shared / "state") == ""
    real.parent.chmod(0o777)
    assert "real" in refusal(shared / "state")
    real.parent.chmod(0o700)
    shared.chmod(0o777)
    assert "shared" in refusal(shared / "state")


def test_debug_mode_has_nothing_to_lose(tmp_path):
    tmp_path.chmod(0o777)
    assert refusal(tmp_path / "state", network="debug") == ""
