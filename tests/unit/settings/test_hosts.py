"""Aim: a host or URL in a configuration is one that can be used, or one line says what is wrong: no server starts with a traceback
for any text. Method: tables for each place where one stands; any text against what granian's own reader of addresses takes."""

import sys
from ipaddress import ip_address

import pytest
from granian._granian import ListenerSpec
from hypothesis import given, settings
from hypothesis import strategies as st

from paychan.core.errors import ConfigError
from paychan.server import serving as server
from paychan.settings import hosts
from paychan.settings.load import load_server_config
from tests.unit.settings.test_config import changed, complaint

ADDRESSES = {
    "127.0.0.1": "127.0.0.1",
    "0.0.0.0": "0.0.0.0",
    "10.1.2.3": "10.1.2.3",
    "::": "::",
    "::1": "::1",
    "0:0:0:0:0:0:0:1": "::1",
    "::FFFF:127.0.0.1": "::ffff:7f00:1",
    "localhost": "127.0.0.1",
}
NO_ADDRESSES = {
    "*": "0.0.0.0 (IPv4) or ::",
    "[::1]": "without brackets",
    "[::]": "without brackets",
    "pay.example.com": "must be an IP address",
    "LOCALHOST": "must be an IP address",
    "127.1": "must be an IP address",
    "127.0.0.01": "must be an IP address",
    "127.0.0.1:8000": "must be an IP address",
    "::1%lo": "must be an IP address",
    "http://127.0.0.1": "must be an IP address",
    " 127.0.0.1": "must be an IP address",
    "127.0.0.1\n": "must be an IP address",
    "١٢٧.٠.٠.١": "must be an IP address",
    "ü": "must be an IP address",
}
HOSTS = {
    "localhost": "localhost",
    "Pay.Example-1.org": "Pay.Example-1.org",
    "pay_server": "pay_server",
    "pay.example.": "pay.example.",
    "a" * 63 + ".b": "a" * 63 + ".b",
    "10.0.0.1": "10.0.0.1",
    "::1": "::1",
    "[::1]": "::1",
    "[FE80::1]": "fe80::1",
}
NO_HOSTS = {
    "http://127.0.0.1": "no scheme",
    "127.0.0.1/": "no path",
    "127.0.0.1:8332": "no port",
    "localhost:": "no port",
    "[::1]:8332": "is no IPv6 address",
    "[::1": "is no IPv6 address",
    "[10.0.0.1]": "is no IPv6 address",
    "[]": "is no IPv6 address",
    "[fe80::1%eth0]": "is no IPv6 address",
    "::g": "is no IPv6 address",
    "zürich.example": "xn--",
    "a..b": "neither",
    ".a": "neither",
    "-a": "neither",
    "a-": "neither",
    "a b": "neither",
    "u@a": "neither",
    "*": "neither",
    "a" * 64: "neither",
    "a." * 127 + "a": "neither",
    "a\r\nx: y": "no port",
    "a\0": "neither",
}
NO_URLS = {
    "pay.example.com": "must start with",
    "pay.example.com:443": "must start with",
    "ftp://pay.example.com": "must start with",
    "HTTP://pay.example.com": "must start with",
    "//pay.example.com": "must start with",
    "https:pay.example.com": "must start with",
    "https://": "",
    "https:///v1": "is no URL",
    "https://[": "is no URL",
    "https://[zz]": "",
    "https://a:0": "is no URL",
    "https://a:x": "is no URL",
    "https://a:65536": "is no URL",
    "https://zürich.example": "is no URL",
    "https://a/ü": "is no URL",
    "https://a b": "is no URL",
    "https://a\t": "is no URL",
    "https://a\n": "is no URL",
    'https://a/"x': "is no URL",
    "https://a..b": "names a host that",
    "https://-a": "names a host that",
    "https://" + "a" * 64: "names a host that",
    "https://[fe80::1%251]": "",
    "https://u@a": "credentials",
    "https://u:p@a": "credentials",
    "https://a?b": "query",
    "https://a?": "query",
    "https://a#": "query",
}
PLACES = [
    ("http.host", NO_ADDRESSES, {}),
    ("direct.public_host", NO_HOSTS, {"direct.base_port": 8001}),
    ("bitcoind.host", NO_HOSTS, {}),
    ("http.public_url", NO_URLS, {}),
    ("esplora.urls", NO_URLS, {"chain.backend": "esplora", "network": "test"}),
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_to_listen_on(text):
    assert hosts.listening_address(text) == str(ip_address(ADDRESSES[text]))  # Python 3.13 writes mapped ones in another form
    ListenerSpec(ADDRESSES[text], 8000, 128)


@pytest.mark.parametrize("text", HOSTS)
def test_a_host_to_connect_to_or_to_tell(text):
    assert hosts.host(text) == HOSTS[text]
    assert hosts.trouble_with_url(f"https://{hosts.in_url(HOSTS[text])}:443/prefix") == ""


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(max_size=40) | st.text("0123456789abcdef:.[]%*", max_size=40) | st.ip_addresses().map(str))
def test_what_is_taken_for_an_address_is_one_for_granian(text):
    try:
        address = hosts.listening_address(text)
    except ValueError as error:
        assert str(error)
    else:
        ListenerSpec(address, 8000, 128)  # granian raises here what would end every start in a traceback


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(max_size=300) | st.text("abZ09.-_:[]%/@", max_size=40))
def test_what_is_taken_for_a_host_can_be_looked_up_and_told(text):
    try:
        host = hosts.host(text)
    except ValueError as error:
        assert str(error)
    else:
        host.encode("idna")  # as a look-up does
        assert hosts.trouble_with_url(f"http://{hosts.in_url(host)}") == ""


@pytest.mark.parametrize(("key", "table", "others"), PLACES, ids=[row[0] for row in PLACES])
def test_each_place_says_what_is_wrong(tmp_path, key, table, others):
    """In one line, which names file and key; also where the file is written with what TOML allows and `changed` does not."""
    for text, why in table.items():
        value = [text, "https://other.example"] if key == "esplora.urls" else text
        written = changed("debug", "server", {**others, key: "@"}).replace("'@'", toml_of(value))
        line = complaint(tmp_path, "server", written)
        assert line.startswith(f"{key}: ") and why in line, text


def toml_of(value) -> str:
    """Return a value as TOML's basic strings, which take any character."""
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    return '"' + "".join(f"\\U{ord(symbol):08x}" for symbol in value) + '"'


def test_hosts_are_kept_in_the_form_in_which_they_are_used(tmp_path):
    file = tmp_path / "server.toml"
    changes = {"http.host": "localhost", "direct.base_port": 8001, "direct.public_host": "::1", "bitcoind.host": "[::1]"}
    file.write_text(changed("debug", "server", changes))
    config = load_server_config(file, {})
    assert (config.http_host, config.direct_public_host, config.chain.bitcoind_host) == ("127.0.0.1", "[::1]", "::1")


@pytest.mark.parametrize(
    ("host", "is_near", "is_loopback"),
    [
        ("localhost", True, True),
        ("Localhost.", True, True),
        ("127.8.8.8", True, True),
        ("::1", True, True),
        ("[::1]", True, True),
        ("::ffff:127.0.0.1", True, True),
        ("10.0.0.1", True, False),
        ("fd00::1", True, False),
        ("::ffff:10.0.0.1", True, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("::ffff:0.0.0.0", False, False),
        ("::ffff:8.8.8.8", False, False),
        ("8.8.8.8", False, False),
        ("localhost.example", False, False),
        ("", False, False),
    ],
)
def test_who_is_near(host, is_near, is_loopback):
    assert (hosts.is_near(host), hosts.is_loopback(host)) == (is_near, is_loopback)


@pytest.mark.parametrize(("host", "where"), [("203.0.113.1", "203.0.113.1:"), ("2001:db8::1", "[2001:db8::1]:")])
def test_an_address_that_this_machine_does_not_have_is_named(tmp_path, monkeypatch, capsys, host, where):
    """It has the form of one; only the machine knows."""
    file = tmp_path / "server.toml"
    file.write_text(changed("debug", "server", {"http.host": host}))
    monkeypatch.setattr("paychan.server.port.PORT_WAIT_SECONDS", 0)
    monkeypatch.setattr(sys, "argv", ["paychan-server", str(file)])
    assert server.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file}: http.host: {where}" in line


def test_a_tcp_address_of_a_process_has_a_plain_port(tmp_path):
    for port in ("²", "١٢٣٤", "9" * 5000, "0", "65536", "+1", ""):
        line = complaint(tmp_path, "server", changed("debug", "server", {"processes.store": f"tcp:127.0.0.1:{port}"}))
        assert line == "processes.store: must be unix:PATH or tcp:127.0.0.1:PORT"
    with pytest.raises(ConfigError):
        load_server_config(tmp_path / "server.toml", {})
