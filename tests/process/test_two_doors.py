"""Aim: granian's port and a worker's own answer the same request alike, and every difference is known. Method: raw requests to both
ports of one real system; a table of those that are answered alike, and one of those that are not, with both answers and the reason.

docs/PROTOCOL.md tells the differences to people. Payments through all doors are compared in test_four_doors.py; routes and
parameters in test_bad_input.py and test_conformance.py, which run over both.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from paychan.server.doors.headers import PREFLIGHT_SECONDS
from tests.raw_http import CORS, RawAnswer, exchange
from tests.system import System, running

KEY = b"0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
INFO = b"/v1/fundingInfo?client_pubkey=" + KEY + b"&exp_time=%d"
HOST = b"Host: h:1"


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("two"), door="own") as system:
        yield system
        assert not any("Traceback" in line or "internal error" in line for line in system.output)


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return b"".join(part + b"\r\n" for part in (line, *headers)) + b"\r\n" + body


def get(*headers: bytes, target: bytes = b"/healthz") -> bytes:
    return request(b"GET " + target + b" HTTP/1.1", HOST, *headers)


def line(request_line: bytes) -> bytes:
    return request(request_line, HOST)


def answer_of(port: int, raw: bytes) -> tuple[int, str]:
    answer = exchange(port, raw, is_head=raw.startswith(b"HEAD"))
    return answer.status, answer.code


ALIKE = {
    "least": (get(), 200, ""),
    "HTTP/1.0 without a Host": (b"GET /healthz HTTP/1.0\r\n\r\n", 200, ""),
    "a host with an underscore": (request(b"GET /healthz HTTP/1.1", b"Host: pay_server:80"), 200, ""),
    "asterisk": (line(b"OPTIONS * HTTP/1.1"), 200, ""),
    "asterisk of another method": (line(b"GET * HTTP/1.1"), 404, "no_such_route"),
    "a payment for the asterisk": (line(b"PUT * HTTP/1.1"), 404, "no_such_route"),
    "absolute form": (line(b"GET http://other:99/healthz HTTP/1.1"), 200, ""),
    "absolute form, https": (line(b"GET https://other/healthz HTTP/1.1"), 200, ""),
    "absolute form, capitals": (line(b"GET HTTP://OTHER/healthz HTTP/1.1"), 200, ""),
    "absolute form, address": (line(b"GET http://[::1]:99/healthz HTTP/1.1"), 200, ""),
    "absolute form without a path": (line(b"GET http://other HTTP/1.1"), 404, "no_such_route"),
    "absolute form without a path, query": (line(b"GET http://other?a=b HTTP/1.1"), 404, "no_such_route"),
    "absolute form, OPTIONS of no path": (line(b"OPTIONS http://other HTTP/1.1"), 200, ""),
    "absolute form, payment": (line(b"PUT http://other/v1/channels/x/0?payment=x HTTP/1.1"), 400, "invalid_txid"),
    "absolute form in HTTP/1.0": (b"GET http://other/healthz HTTP/1.0\r\n\r\n", 200, ""),
    "letters above ASCII": (get("User-Agent: café 日本".encode()), 200, ""),
    "bytes above ASCII": (get(b"X: caf\xe9 \x80\x85\xa0\xff"), 200, ""),
    "bytes above ASCII with a payment": (
        request(b"PUT /v1/channels/x/0?payment=x HTTP/1.1", HOST, b"User-Agent: caf\xe9"), 400, "invalid_txid",
    ),
    "a type above ASCII": (get(b"Content-Type: \xe9"), 200, ""),
    "an empty type": (get(b"Content-Type:"), 200, ""),
    "two types": (get(b"Content-Type: a/b", b"Content-Type: c/d"), 200, ""),
    "Expect without a body": (get(b"Expect: 100-continue"), 200, ""),
    "Upgrade": (get(b"Connection: Upgrade", b"Upgrade: h2c"), 200, ""),
    "WebSocket": (get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + b"a" * 24), 200, ""),
    "a body": (request(b"GET /healthz HTTP/1.1", HOST, b"Content-Length: 5", body=b"hello"), 400, "body_not_allowed"),
    "64 headers": (get(*[b"X: y"] * 63), 200, ""),
    "a method that is none": (line(b"PATCH /healthz HTTP/1.1"), 404, "no_such_route"),
    "an escape in the path": (get(target=b"/%68ealthz"), 200, ""),
    "two slashes": (get(target=b"//healthz"), 404, "no_such_route"),
    "a batch without a length": (line(b"POST /v1/payments HTTP/1.1"), 411, "length_required"),
    "HEAD of nothing": (line(b"HEAD /nope HTTP/1.1"), 404, ""),
}  # fmt: skip

_TOLD = "granian's HTTP layer refuses it too, but with an empty body; the own port tells why"
_HOSTS = "RFC 9112 3.2: without exactly one good Host a request is not for us; granian does not look at it, and it is not reflected"
_TARGETS = "a fragment, a user or another scheme is no part of what a server is asked"
_FRAMING = "where a body ends is read strictly: this is what smuggled requests are made of"
_LINES = "a line ends with CR LF, and nothing stands before the first"
_EXPECT = "RFC 9110 10.1.1 lets a server refuse what it does not know; granian does not look at it"
_METHODS = "methods are upper-case words of up to 16 letters"
_CONNECTION = "what is no list of words could name `close`"
_CODING = "no transfer coding is understood, and none could be meant"
_VERSION = "the version is read, not guessed"
_BOUNDS = "a target has at most 4096 bytes, a head at most 8192 and 64 lines; through granian 16 kB and 100"
_BYTES = "a target is visible ASCII; granian takes UTF-8 too"
_QUERY = "printable ASCII in a target is taken; granian refuses <, > and others"

BAD = (400, "malformed_request")
CHUNKED = b"Transfer-Encoding: chunked"
DIFFERENT = {
    "no Host": (request(b"GET /healthz HTTP/1.1"), (200, ""), BAD, _HOSTS),
    "two Hosts": (get(b"Host: h:1"), (200, ""), BAD, _HOSTS),
    "an empty Host": (request(b"GET /healthz HTTP/1.1", b"Host:"), (200, ""), BAD, _HOSTS),
    "a Host with a path": (request(b"GET /healthz HTTP/1.1", b"Host: a/b"), (200, ""), BAD, _HOSTS),
    "a Host above ASCII": (request(b"GET /healthz HTTP/1.1", "Host: é".encode()), (200, ""), BAD, _HOSTS),
    "absolute form without a Host": (request(b"GET http://other/healthz HTTP/1.1"), (200, ""), BAD, _HOSTS),
    "absolute form, a port of letters": (line(b"GET http://other:x/healthz HTTP/1.1"), (200, ""), BAD, _HOSTS),
    "absolute form with a user": (line(b"GET http://u@other/healthz HTTP/1.1"), (200, ""), BAD, _TARGETS),
    "absolute form of another scheme": (line(b"GET ftp://other/healthz HTTP/1.1"), (200, ""), BAD, _TARGETS),
    "a fragment": (get(target=b"/healthz#f"), (200, ""), BAD, _TARGETS),
    "authority form": (line(b"CONNECT other:80 HTTP/1.1"), (404, "no_such_route"), BAD, _TARGETS),
    "absolute form without an authority": (line(b"GET http:///healthz HTTP/1.1"), (400, ""), BAD, _TOLD),
    "no path": (line(b"GET ?x HTTP/1.1"), (400, ""), BAD, _TOLD),
    "bare LF": (b"GET /healthz HTTP/1.1\nHost: h\n\n", (200, ""), BAD, _LINES),
    "an empty line first": (b"\r\n" + get(), (200, ""), BAD, _LINES),
    "a folded header": (get(b"X: a", b" b"), (400, ""), BAD, _TOLD),
    "a blank before the colon": (get(b"X : a"), (400, ""), BAD, _TOLD),
    "a control character": (get(b"X: a\x01b"), (400, ""), BAD, _TOLD),
    "DEL": (get(b"X: a\x7fb"), (400, ""), BAD, _TOLD),
    "bare CR": (get(b"X: a\rb"), (400, ""), BAD, _TOLD),
    "two blanks": (line(b"GET  /healthz HTTP/1.1"), (400, ""), BAD, _TOLD),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50), (400, ""), BAD, _TOLD),
    "another expectation": (get(b"Expect: 200-ok"), (200, ""), (417, "unknown_expectation"), _EXPECT),
    "an expectation above ASCII": (get(b"Expect: \xe9"), (200, ""), (417, "unknown_expectation"), _EXPECT),
    "two expectations": (get(b"Expect: 100-continue", b"Expect: 100-continue"), (200, ""), BAD, _EXPECT),
    "a connection of two words": (get(b"Connection: a b"), (200, ""), BAD, _CONNECTION),
    "a connection above ASCII": (get(b"Connection: \xe9"), (200, ""), BAD, _CONNECTION),
    "two equal lengths": (get(b"Content-Length: 0", b"Content-Length: 0"), (200, ""), BAD, _FRAMING),
    "a length with leading zeros": (get(b"Content-Length: 00"), (400, "body_not_allowed"), BAD, _FRAMING),
    "a length with a sign": (get(b"Content-Length: +0"), (400, ""), BAD, _TOLD),
    "an empty length": (get(b"Content-Length:"), (400, ""), BAD, _TOLD),
    "a length above ASCII": (get(b"Content-Length: \xb2"), (400, ""), BAD, _TOLD),
    "chunked": (get(CHUNKED) + b"0\r\n\r\n", (400, "body_not_allowed"), (501, "transfer_encoding"), _CODING),
    "identity": (get(b"Transfer-Encoding: identity"), (400, ""), (501, "transfer_encoding"), _TOLD),
    "a coding above ASCII": (get(b"Transfer-Encoding: \xa0chunked"), (400, ""), (501, "transfer_encoding"), _TOLD),
    "a lower-case method": (line(b"get /healthz HTTP/1.1"), (404, "no_such_route"), BAD, _METHODS),
    "a method with a dash": (line(b"M-SEARCH /healthz HTTP/1.1"), (404, "no_such_route"), BAD, _METHODS),
    "a long method": (line(b"M" * 17 + b" /healthz HTTP/1.1"), (404, "no_such_route"), BAD, _METHODS),
    "HTTP/1.2": (line(b"GET /healthz HTTP/1.2"), (400, ""), (505, "http_version"), _VERSION),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (0, ""), (505, "http_version"), _VERSION),
    "UTF-8 in the path": (get(target="/healthzé".encode()), (404, "no_such_route"), BAD, _BYTES),
    "UTF-8 in the query": (get(target="/healthz?é".encode()), (200, ""), BAD, _BYTES),
    "no UTF-8 in the query": (get(target=b"/healthz?\xe9"), (400, ""), BAD, _TOLD),
    "a query in brackets": (get(target=b"/healthz?<>"), (400, ""), (200, ""), _QUERY),
    "a head of 12 kB": (get(b"X: " + b"x" * 12_000), (200, ""), (431, "head_too_large"), _BOUNDS),
    "65 headers": (get(*[b"X: y"] * 64), (200, ""), (431, "head_too_large"), _BOUNDS),
    "101 headers": (get(*[b"X: y"] * 101), (431, ""), (431, "head_too_large"), _BOUNDS),
    "a target of 5 kB": (get(target=b"/healthz?" + b"x" * 5000), (200, ""), (414, "target_too_long"), _BOUNDS),
}  # fmt: skip


@pytest.mark.parametrize("case", ALIKE)
def test_both_answer_alike(system, case):
    raw, *expected = ALIKE[case]
    assert answer_of(system.port, raw) == answer_of(system.asked_port, raw) == tuple(expected)


@pytest.mark.parametrize("case", DIFFERENT)
def test_where_they_differ(system, case):
    raw, shared, own, reason = DIFFERENT[case]
    assert (answer_of(system.port, raw), answer_of(system.asked_port, raw)) == (shared, own)
    assert shared != own and reason


# --- Location ---

LOCATIONS = [
    (b"", b"1.1\r\nHost: h:1", "http://h:1"),
    (b"", b"1.1\r\nHost: pay_server", "http://pay_server"),
    (b"", b"1.1\r\nHost: [::1]:80", "http://[::1]:80"),
    (b"http://other_one:99", b"1.1\r\nHost: h:1", "http://other_one:99"),
    (b"https://[::1]", b"1.1\r\nHost: h:1", "http://[::1]"),  # we speak http, whatever was asked for
    (b"http://other", b"1.0", "http://other"),
    (b"", b"1.0", ""),
]


@pytest.mark.parametrize("door", ["shared", "own"])
@pytest.mark.parametrize(("authority", "rest", "root"), LOCATIONS)
def test_a_location_leads_where_the_client_found_us(system, door, authority, rest, root):
    """Without a host it is relative."""
    path = INFO % (1 << 31)
    raw = b"GET " + authority + path + b" HTTP/" + rest + b"\r\n\r\n"
    answer = exchange(system.port if door == "shared" else system.asked_port, raw)
    assert answer.headers["location"] == root + path.decode().replace("fundingInfo", "channels/new")


@pytest.mark.parametrize("host", ["a/b", "a@b", "a b", "", "é", "a" * 254])
def test_a_host_that_is_not_reflected_makes_a_location_relative(system, host):
    raw = b"GET " + INFO % (1 << 31) + b" HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n"
    assert exchange(system.port, raw).headers["location"].startswith("/v1/channels/new?")
    assert "location" not in exchange(system.asked_port, raw).headers  # refused


@pytest.mark.parametrize("door", ["shared", "own"])
def test_a_payment_to_a_proxy_s_target_counts(system, door):
    port = system.port if door == "shared" else system.asked_port
    payer = system.payer(f"two doors {door}")
    payer.newest = payer.sender.pay(100_000)
    opened = exchange(port, line(b"POST http://a_b" + payer.sender.open_target(payer.newest).encode() + b" HTTP/1.1"))
    path = opened.headers["location"].removeprefix("http://a_b")
    assert (opened.status, path) == (201, payer.sender.channel_target(payer.newest).split("?")[0])
    paid = exchange(port, line(b"PUT http://a_b" + payer.sender.channel_target(payer.sender.pay(7)).encode() + b" HTTP/1.1"))
    assert (paid.status, paid.json["value_received"]) == (200, 7)


# --- HEAD and OPTIONS ---

ROUTES = [INFO % (1 << 31), b"/v1/openapi.json", b"/healthz", b"/readyz"]


def all_that_comes(port: int, raw: bytes) -> bytes:
    """Return what is sent until the connection ends, or nothing comes for a while."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection, suppress(TimeoutError):
        connection.sendall(raw)
        while piece := connection.recv(65536):
            received += piece
    return received


@pytest.mark.parametrize("door", ["shared", "own"])
@pytest.mark.parametrize("target", [*ROUTES, b"/v1/fundingInfo", b"/nope"], ids=lambda target: target.decode().split("?")[0])
def test_head_is_answered_as_get_without_the_body(system, door, target):
    port = system.port if door == "shared" else system.asked_port
    asked = exchange(port, line(b"GET " + target + b" HTTP/1.1"))
    head, _, body = all_that_comes(port, line(b"HEAD " + target + b" HTTP/1.1")).partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
    assert (int(status_line.split()[1]), body) == (asked.status, b"")
    assert headers.keys() == asked.headers.keys()
    assert all(headers[name] == asked.headers[name] for name in headers if name not in ("date",))
    assert int(headers["content-length"]) == len(asked.body) > 0


@pytest.mark.parametrize("door", ["shared", "own"])
@pytest.mark.parametrize("header", [b"Content-Length: 5", b"X: a\x01"])
def test_what_is_refused_of_a_head_request_has_no_body_either(system, door, header):
    port = system.port if door == "shared" else system.asked_port
    raw = request(b"HEAD /healthz HTTP/1.1", HOST, header, body=b"hello" if b"Length" in header else b"")
    head, end, body = all_that_comes(port, raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and end and body == b""


def preflight(port: int, path: str, method: str) -> RawAnswer:
    wanted = (b"Access-Control-Request-Method: " + method.encode(), b"Access-Control-Request-Headers: content-type")
    return exchange(port, request(f"OPTIONS {path} HTTP/1.1".encode(), HOST, b"Origin: https://shop.example", *wanted))


@pytest.mark.parametrize("door", ["shared", "own"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/fundingInfo?client_pubkey=x"),
        ("POST", "/v1/channels/new?payment=x"),
        ("PUT", "/v1/channels/" + "ab" * 32 + "/0?payment=x"),
        ("DELETE", "/v1/channels/" + "ab" * 32 + "/0?payment=x"),
        ("POST", "/v1/payments"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/"),
        ("GET", "/nope"),
        ("GET", "*"),
    ],
)
def test_every_path_passes_a_preflight(system, door, method, path):
    answer = preflight(system.port if door == "shared" else system.asked_port, path, method)
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    assert CORS.items() <= answer.headers.items()
    assert answer.headers["access-control-max-age"] == str(PREFLIGHT_SECONDS)
    assert method in answer.headers["access-control-allow-methods"].split(",")
    assert "content-type" in answer.headers["access-control-allow-headers"].lower().split(",")
    assert "content-type" not in answer.headers
