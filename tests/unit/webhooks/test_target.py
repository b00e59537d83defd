"""Aim: no endpoint leads inside, however it is spelled, unless the configuration says so."""

import ipaddress

import pytest

from paychan.webhooks.target import check_url, may_reach, parse_target

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1", "192.0.2.1", "198.18.0.1",
    ],
)  # fmt: skip
def test_addresses_inside(address):
    assert not may_reach(address, ())


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_outside(address):
    assert may_reach(address, ())


def test_what_is_allowed_may_be_reached():
    assert may_reach("127.0.0.1", LOOPBACK) and may_reach("::ffff:127.0.0.1", LOOPBACK)
    assert not may_reach("10.0.0.1", LOOPBACK) and not may_reach("::1", LOOPBACK)


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "ftp://a/", "https://", "https:///x", "https://a:0/", "https://a:99999/", "https://u@a/", "https://u:p@a/"),
        *("https://a/#x", "https://a\\b/", "https://a /", "https://a/\r\nX: y", "https://é/", "file:///etc/passwd"),
        *("https://[::1", "https://a/" + "x" * 2048),
    ],
)
def test_what_is_no_url(url):
    with pytest.raises(ValueError, match="must|is no"):
        parse_target(url)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]:8080/x", "https://localhost/", "http://10.0.0.1/"])
def test_what_points_inside_is_refused_when_it_is_named(url):
    with pytest.raises(ValueError, match="points inside"):
        check_url(url, ())


def test_plain_http_is_for_inside_alone():
    with pytest.raises(ValueError, match="must be https"):
        check_url("http://shop.example/hook", ())
    with pytest.raises(ValueError, match="must be https"):
        check_url("http://1.1.1.1/hook", LOOPBACK)
    assert check_url("http://127.0.0.1:9/hook?a=b", LOOPBACK).path == "/hook?a=b"
    target = check_url("https://shop.example/hook", ())
    assert (target.is_tls, target.host, target.port, target.authority) == (True, "shop.example", 443, "shop.example")
