"""Aim: where metrics may be served. Method: config/debug with a table `[metrics]`."""

from pathlib import Path

import pytest

from paychan.core.errors import ConfigError
from paychan.settings.agreement import needs_restart
from paychan.settings.load import load_server_config
from paychan.settings.models import MetricsConfig

DEBUG = (Path(__file__).parents[3] / "config" / "debug" / "server.toml").read_text()


def load(tmp_path, *lines: str):
    file = tmp_path / "server.toml"
    file.write_text("\n".join([DEBUG, "[metrics]", *lines]))
    return load_server_config(file, {"PAYCHAN_STATE_DIR": str(tmp_path / "state")})


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:9108", "127.0.0.1", 9108),
        ("localhost:1", "127.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("10.1.2.3:9108", "10.1.2.3", 9108),
    ],
)
def test_a_near_address_is_taken(tmp_path, listen, host, port):
    assert load(tmp_path, f'listen = "{listen}"').metrics == MetricsConfig(host=host, port=port)


def test_without_listen_nothing_is_served(tmp_path):
    assert not load(tmp_path).metrics.is_on


def test_a_socket_is_below_the_state_directory(tmp_path):
    assert load(tmp_path, 'listen = "unix:run/metrics.sock"').metrics.socket == tmp_path / "state" / "run" / "metrics.sock"
    for path in ("/tmp/metrics.sock", "../metrics.sock"):
        with pytest.raises(ConfigError, match=r"metrics\.listen: must"):
            load(tmp_path, f'listen = "unix:{path}"')


@pytest.mark.parametrize("listen", ["0.0.0.0:9108", "[::]:9108", "1.1.1.1:9108", "[::ffff:0.0.0.0]:9108", "[2606:4700::1]:9108"])
def test_an_address_of_the_open_network_takes_a_word_of_consent(tmp_path, listen):
    with pytest.raises(ConfigError, match=r"metrics\.listen: is open to the network.*public = true"):
        load(tmp_path, f'listen = "{listen}"')
    assert load(tmp_path, f'listen = "{listen}"', "public = true").metrics.is_on


@pytest.mark.parametrize("listen", ["9108", ":9108", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "a.b:80", "unix:", "*:9108"])
def test_what_is_no_address_is_refused_by_name(tmp_path, listen):
    with pytest.raises(ConfigError, match=r"metrics\.listen: "):
        load(tmp_path, f'listen = "{listen}"')


def test_a_reload_does_not_move_it(tmp_path):
    one, two = (load(tmp_path, f'listen = "127.0.0.1:{port}"') for port in (9108, 9109))
    assert needs_restart(one, two) == ["metrics.listen"]
