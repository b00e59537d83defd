"""Aim: `[limits]` is read strictly, and believes nobody by mistake. Method: the shipped file with the table added."""

import pytest

from paychan.core.errors import ConfigError
from paychan.settings.limits import LimitsConfig
from paychan.settings.load import load_server_config
from tests.system import make_config


def read(directory, text):
    config = make_config(directory, {"server.toml": {"[processes]": f"[limits]\n{text}\n\n[processes]"}})
    return load_server_config(config / "server.toml", {"PAYCHAN_STATE_DIR": str(directory / "state")}).limits


def test_without_the_table_the_defaults_hold(tmp_path):
    usual, found = LimitsConfig(), read(tmp_path, "")
    assert (found.opens_per_minute, found.failures_per_minute, found.connections) == (1200, 600, 2048)
    assert (found.header, found.trusted_proxies.texts, found.exempt.texts) == (usual.header, (), usual.exempt.texts)


def test_everything_is_read(tmp_path):
    text = (
        'trusted_proxies = ["10.0.0.0/8", "2001:db8::/32", "unix"]\nheader = "Forwarded"\nexempt = []\n'
        "opens_per_minute = 5\nfailures_per_minute = 0\nconnections = 7"
    )
    found = read(tmp_path, text)
    assert (found.opens_per_minute, found.failures_per_minute, found.connections) == (5, 0, 7)
    assert (found.header, found.exempt.texts) == ("forwarded", ())
    assert found.trusted_proxies.texts == ("10.0.0.0/8", "2001:db8::/32", "unix")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('trusted_proxies = ["0.0.0.0/0"]', "limits.trusted_proxies: must not be everybody"),
        ('trusted_proxies = ["::/0"]', "limits.trusted_proxies: must not be everybody"),
        ('trusted_proxies = ["10.0.0.1/8"]', "limits.trusted_proxies: must be networks"),
        ('trusted_proxies = ["proxy.example"]', "limits.trusted_proxies: must be networks"),
        ('exempt = ["nobody"]', "limits.exempt: must be networks"),
        ('header = "X-Real-IP"', "limits.header: must be X-Forwarded-For or Forwarded"),
        ("connections = -1", "limits.connections: "),
        ("opens = 1", "limits.opens: "),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, text, key):
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    assert any(key in line for line in refused.value.problems)
