"""Aim: who sent a request is told by whom we believe; a proxy that asks about a request is answered about that very request.
Method: tables of header fields."""

from ipaddress import ip_network

import pytest

from paychan.gateway.fields import Sender, check_framing, is_payment, sender_of, to_upstream
from paychan.gateway.forward_auth import asked_about
from paychan.gateway.models import Fields
from paychan.gateway.refusals import Refused
from paychan.gateway.requests import Request

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("::1"))
FORWARDED = [("x-forwarded-for", "1.2.3.4, 5.6.7.8"), ("x-forwarded-proto", "https")]


@pytest.mark.parametrize(
    "peer, headers, expected",
    [
        ("9.9.9.9:1", FORWARDED, Sender("9.9.9.9", "http", "h")),
        ("10.0.0.1:1", FORWARDED, Sender("10.0.0.1", "https", "h", "1.2.3.4, 5.6.7.8")),
        ("[::1]:1", FORWARDED, Sender("::1", "https", "h", "1.2.3.4, 5.6.7.8")),
        ("10.0.0.1:1", [("x-forwarded-for", "evil\tx")], Sender("10.0.0.1", "http", "h")),
        ("10.0.0.1:1", [("x-forwarded-proto", "gopher")], Sender("10.0.0.1", "http", "h")),
        ("10.0.0.1:1", [], Sender("10.0.0.1", "http", "h")),
    ],
)
def test_only_a_trusted_proxy_is_believed(peer, headers, expected):
    assert sender_of(peer, "http", "h", headers, TRUSTED) == expected


@pytest.mark.parametrize("value", ["Payment x", "payment x", "PAYMENT x", "Basic a, Payment x", " Payment x", "Payment\tx"])
def test_a_payment_is_known_whatever_its_letters(value):
    assert is_payment(value)


@pytest.mark.parametrize("value", ["Bearer Payment", "Basic cGF5bWVudA==", "", "Payments x"])
def test_and_nothing_else_is_taken_for_one(value):
    assert not is_payment(value)


def test_a_client_cannot_have_the_gateways_own_fields_dropped_or_doubled():
    headers = [("connection", "x-forwarded-for, paychan-channel, x-key"), ("x-key", "theirs"), ("paychan-channel", "theirs")]
    made = to_upstream(headers, Fields(put=(("x-key", "ours"),)), Sender("9.9.9.9", "http", "h"), [("paychan-channel", "ours")])
    assert ("x-forwarded-for", "9.9.9.9") in made
    assert [value for name, value in made if name in ("x-key", "paychan-channel")] == ["ours", "ours"]


@pytest.mark.parametrize(
    "headers, version, expected",
    [
        ([], "1.1", 0),
        ([("content-length", "5")], "1.1", 5),
        ([("content-length", "5"), ("content-length", "5")], "1.1", "malformed_request"),
        ([("content-length", "0x5")], "1.1", "malformed_request"),
        ([("content-length", "\u0665")], "1.1", "malformed_request"),
        ([("transfer-encoding", "chunked")], "1.1", "length_required"),
        ([("transfer-encoding", "chunked"), ("content-length", "5")], "1.1", "length_required"),
        ([("transfer-encoding", "identity")], "1.1", "transfer_encoding"),
        ([("expect", "100-Continue")], "1.1", 0),
        ([("expect", "x")], "1.1", "unknown_expectation"),
        ([], "2", "http_version"),
    ],
)
def test_a_body_has_one_end(headers, version, expected):
    try:
        assert check_framing(headers, version) == expected
    except Refused as refused:
        assert refused.code == expected


def asks(uri="/x", method="GET", host="h", address="10.0.0.1", more=()):
    headers = [("x-forwarded-method", method), ("x-forwarded-uri", uri), ("x-forwarded-host", host), *more]
    sender = Sender(address, "http", "gateway")
    return Request("GET", "/auth", "", "gateway", "gateway", headers, 0, sender, f"{address}:1", "10.0.0.2:80", False)


def test_what_is_asked_about_is_the_request_that_the_proxy_holds():
    asked = asked_about(asks("/caf%C3%A9?a=%2F", "POST", "Shop.Example:80"), TRUSTED)
    assert (asked.method, asked.path, asked.query, asked.host) == ("POST", "/caf\u00e9", "a=%2F", "shop.example")


@pytest.mark.parametrize(
    "request_, code",
    [
        (asks(address="9.9.9.9"), "not_a_proxy"),
        (asks("/a%2fb"), "ambiguous_target"),
        (asks("/a/%2E%2e/b"), "ambiguous_target"),
        (asks("/a%5Cb"), "ambiguous_target"),
        (asks("/a//b"), "ambiguous_target"),
        (asks("/a/../b"), "ambiguous_target"),
        (asks("/a%ff"), "ambiguous_target"),
        (asks("http://h/x"), "ambiguous_target"),
        (asks(""), "ambiguous_target"),
        (asks("/x?a b"), "malformed_request"),
        (asks(host="a b"), "malformed_request"),
        (asks(method="CONNECT"), "method_unknown"),
        (asks(method="get"), "method_unknown"),
        (asks(more=(("x-forwarded-uri", "/free"),)), "malformed_request"),
    ],
)
def test_a_request_that_its_upstream_may_read_otherwise_is_refused(request_, code):
    with pytest.raises(Refused, match=code):
        asked_about(request_, TRUSTED)
