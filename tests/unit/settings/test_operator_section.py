"""Aim: the operator's API is served where its configuration says, and tokens cross no network in plain text. Method: server.toml
with tables as operators may write them."""

from pathlib import Path

import pytest

from paychan.core.errors import ConfigError
from paychan.settings.load import load_server_config
from tests.system import ROOT


def load(tmp_path, *lines, state=None):
    """state: the state directory, unless it is below the test's own directory, whose name may be too long for a socket's."""
    text = (ROOT / "config" / "debug" / "server.toml").read_text()
    file = tmp_path / "server.toml"
    file.write_text("\n".join([text, "[operator]", *lines, ""]))
    return load_server_config(file, {"PAYCHAN_STATE_DIR": str(state or tmp_path / "state")}).operator


def test_without_listen_there_is_none(tmp_path):
    assert not load(tmp_path).is_on
    assert load(tmp_path, 'listen = "127.0.0.1:9109"').port == 9109
    found = load(tmp_path, 'listen = "unix:run/operator.sock"', state="/srv/state")
    assert found.socket == Path("/srv/state/run/operator.sock")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.168.1.7", "10.0.0.1"])
def test_what_is_not_this_machine_alone_takes_tls(tmp_path, host):
    with pytest.raises(ConfigError, match=r"operator\.key: is missing: tokens"):
        load(tmp_path, f'listen = "{host}:9109"')
    found = load(tmp_path, f'listen = "{host}:9109"', 'certificate = "a.pem"', 'key = "a.key"')
    assert found.key == tmp_path / "state" / "a.key"


@pytest.mark.parametrize(
    "lines",
    [
        ('listen = "9109"',), ('listen = "127.0.0.1:0"',), ('listen = "unix:"',), ('listen = "unix:/tmp/x.sock"',),
        ('listen = "127.0.0.1:9109"', 'key = "a.key"'), ('certificate = "a"', 'key = "b"'), ('more = 1',),
        ('listen = "unix:run/o.sock"', 'certificate = "a"', 'key = "b"'), (f'listen = "unix:run/{"x" * 100}.sock"',),
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(tmp_path, lines):
    with pytest.raises(ConfigError, match=r"server\.toml: operator\."):
        load(tmp_path, *lines)


def test_a_key_that_others_may_read_is_refused(tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    key = tmp_path / "state" / "a.key"
    key.write_text("x")
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        load(tmp_path, 'listen = "0.0.0.0:9109"', 'certificate = "a.pem"', 'key = "a.key"')
