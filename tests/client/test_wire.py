"""Aim: one HTTP answer is read right however it arrives, and nothing else is. Method: every cut of good answers; bad ones."""

import pytest

from paychan.client.wire import WireError, parse_response, parse_url, render_request

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"
TRAILERS = CHUNKED[:-2] + b"T: v\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH


@pytest.mark.parametrize("data", [LENGTH, CHUNKED, TRAILERS, CONTINUED], ids=["length", "chunked", "trailers", "continue"])
def test_an_answer_is_complete_at_its_last_byte_and_never_before(data):
    for end in range(len(data)):
        assert parse_response(data[:end], False) is None
        with pytest.raises(WireError):
            parse_response(data[:end], True)
    reply = parse_response(data, False)
    assert (reply.status, reply.body) == (200, b"hello")


def test_only_an_answer_that_tells_its_end_keeps_the_connection():
    assert parse_response(LENGTH, False).keeps_alive and parse_response(CHUNKED, False).keeps_alive
    assert not parse_response(LENGTH + b"more", False).keeps_alive
    assert not parse_response(LENGTH.replace(b"X: y", b"Connection: Close"), False).keeps_alive
    assert not parse_response(LENGTH.replace(b"1.1", b"1.0"), False).keeps_alive
    until_end = b"HTTP/1.1 200 OK\r\n\r\nhello"
    assert parse_response(until_end, False) is None
    reply = parse_response(until_end, True)
    assert reply.body == b"hello" and not reply.keeps_alive


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"x" * 20_000,
    ],
)
def test_anything_else_is_refused(data):
    with pytest.raises(WireError):
        parse_response(data, False)


BAD_URLS = [
    "",
    "x",
    "ftp://h",
    "http://",
    "http://h:99999",
    "http://u:p@h",
    "http://h/?q",
    "http://h/#f",
    "http://é",
    "http://a b",
    "http://h:x",
    "http://h:0",
    "http://[::1",
    "http://a..b",
    "https://.b",
    "http://" + "a" * 64,
    "http://:80",
    "http://@h",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_urls_are_refused(url):
    with pytest.raises(ValueError, match="the URL") as refusal:
        parse_url(url)
    assert "u:p" not in str(refusal.value)


def test_requests_go_below_the_server_s_prefix():
    request = render_request(parse_url("https://[::1]:8443/pay/v1/"), "PUT", "/v1/x?y=z")
    assert request.startswith(b"PUT /pay/v1/x?y=z HTTP/1.1\r\nHost: [::1]:8443\r\n") and request.endswith(b"\r\n\r\n")
    assert b"Host: h\r\n" in render_request(parse_url("http://h"), "GET", "/")
