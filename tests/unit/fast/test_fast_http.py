"""Aim: a request's head is read one way only, and whatever is not fully understood is refused. Method: a table of requests with
their outcome, each tried at every cut and with more bytes behind; the stub's numbers against the compiled ones."""

import runpy
import sys
from pathlib import Path

import pytest

import paychan
from paychan._fast import http
from paychan._fast.http import HEAD_SIZE_MAX, HEADERS_MAX, REQUEST_LINE_SIZE_MAX, HttpStatus, Method, parse_request_head
from tests.differential.http_cases import BAD, BODY_MAX, GOOD, PAY, USUAL, filled, get, lines

GOOD_CASES = pytest.mark.parametrize("case", GOOD)
BAD_CASES = pytest.mark.parametrize("case", BAD)
FOLLOWERS = (b"\n", b"\r\n", b"\0", b"body", PAY, b"\xff" * 40, b"Content-Length: 9\r\n\r\n", b" folded\r\n\r\n")
PENDING = (HttpStatus.INCOMPLETE, None)


@pytest.fixture(autouse=True)
def nothing_swallowed(monkeypatch):
    """The parser cannot raise, so an overflow that the checked build finds in it would only be printed."""
    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", swallowed.append)
    yield
    assert swallowed == []


def parse(data, seen=0):
    return parse_request_head(data, BODY_MAX, seen)


@GOOD_CASES
def test_good_requests(case):
    request, fields = GOOD[case]
    assert parse(request) == (HttpStatus.COMPLETE, {**USUAL, "head_size": len(request), **fields})


@BAD_CASES
def test_bad_requests(case):
    request, status = BAD[case]
    assert parse(request) == (status, None)


def cuts(request):
    """Return every cut of a short request; of a long one the ends, what is around the bounds, and some between."""
    near = {bound + shift for bound in (REQUEST_LINE_SIZE_MAX, HEAD_SIZE_MAX) for shift in (-2, -1, 0, 1, 2)}
    return [cut for cut in range(len(request)) if cut < 300 or cut > len(request) - 100 or cut in near or cut % 97 == 0]


@GOOD_CASES
def test_good_requests_are_incomplete_until_their_last_byte(case):
    request, _ = GOOD[case]
    for cut in cuts(request):
        assert parse(request[:cut]) == PENDING
        assert parse(request[: cut + 1], cut) == parse(request[: cut + 1])


@BAD_CASES
def test_bad_requests_never_look_good_on_the_way(case):
    request, status = BAD[case]
    refused = False
    for cut in cuts(request):
        outcome = parse(request[:cut])
        assert outcome in (PENDING, (status, None))
        assert not refused or outcome != PENDING  # what was refused stays refused
        refused = outcome != PENDING
        if not refused:
            assert parse(request, cut) == (status, None)
            assert parse(request[: cut + 1], cut) == parse(request[: cut + 1])


@GOOD_CASES
def test_what_follows_a_head_changes_nothing(case):
    request, _ = GOOD[case]
    for follower in FOLLOWERS:
        assert parse(request + follower) == parse(request)


@BAD_CASES
def test_what_follows_a_refused_head_changes_nothing(case):
    request, status = BAD[case]
    for follower in FOLLOWERS:
        assert parse(request + follower) == (status, None)


def test_requests_in_a_row_are_read_one_by_one():
    row = [request + b"x" * fields.get("content_length", 0) for request, fields in GOOD.values()]
    rest, count = b"".join(row), 0
    while rest:
        status, head = parse(rest)
        assert status == HttpStatus.COMPLETE
        rest = rest[head["head_size"] + head["content_length"] :]
        count += 1
    assert count == len(row)


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_in_each_place(byte):
    """What may stand at the start, in the middle and at the end of a target, a name and a value: short ones and long ones."""
    symbol = bytes([byte])
    in_target = 0x21 <= byte <= 0x7E and symbol not in b"#?"
    in_name = symbol.isalnum() or symbol in b"!#$%&'*+-.^_`|~"
    in_value = byte >= 0x20 and byte != 0x7F or byte == 9
    in_host = symbol.isalnum() or symbol in b"._-"
    for left in (0, 1, 3, 7, 8, 9, 15, 16, 30):
        for right in (0, 1, 3, 7, 8, 9, 20):
            path = b"/" + b"p" * left + symbol + b"p" * right
            status, head = parse(lines(b"GET " + path + b" HTTP/1.1", b"Host: a"))
            if symbol == b"?":
                assert (head["path"], head["query"]) == tuple(path.split(b"?"))
            else:
                assert (status == 0) == in_target
            name = b"n" * left + symbol + b"n" * right
            if symbol != b":" or left == 0:
                assert (parse(get(name + b": v"))[0] == 0) == in_name
            value = b"v" * left + symbol + b"v" * right
            assert (parse(get(b"X: " + value))[0] == 0) == in_value
            host = b"h" * left + symbol + b"h" * right
            authority = parse(lines(b"GET http://" + host + b"/ HTTP/1.1", b"Host: a"))
            header = parse(lines(b"GET / HTTP/1.1", b"Host: " + host))
            if in_host:
                assert authority[1]["host"] == header[1]["host"] == host
            elif symbol not in b":/? \t":
                assert (authority[0], header[0]) == (HttpStatus.MALFORMED_REQUEST_LINE, header[0] or 1)


def test_seen_never_changes_an_answer():
    for request in (PAY, filled(HEAD_SIZE_MAX), filled(HEAD_SIZE_MAX + 1), b"A" * 5000, BAD["bare LF after a header"][0]):
        for cut in cuts(request):
            if parse(request[:cut]) == PENDING:
                for later in {cut, cut + 1, cut + 2, cut + 50, len(request)} & set(range(len(request) + 1)):
                    assert parse(request[:later], cut) == parse(request[:later])


@pytest.mark.parametrize("seen", [-1, -(2**62), len(PAY) + 1, 2**62])
def test_impossible_seen_is_none(seen):
    assert parse(PAY, seen) == parse(PAY)


def test_seen_spares_the_work():
    """With `seen` a call that brings no line's end answers without looking: here at a head that is bad from the start."""
    assert parse(b"get / HTTP/1.1\r\nX: y", 18) == PENDING


@pytest.mark.parametrize("bound", [0, 1, 9, 10, 99, 2**31, 2**62, 2**63 - 1])
def test_the_bound_of_a_body_is_the_callers(bound):
    for length in (0, 1, min(max(bound - 1, 0), 10**18 - 1), min(bound, 10**18 - 1), 10**18 - 1):
        status, head = parse_request_head(get(b"Content-Length: %d" % length), bound)
        assert status == (HttpStatus.COMPLETE if length <= bound else HttpStatus.BODY_TOO_LARGE)
        assert status or head["content_length"] == length
    assert parse_request_head(get(b"Content-Length: 1" + b"0" * 18), bound)[0] == HttpStatus.BODY_TOO_LARGE


def test_the_first_bad_line_decides():
    assert parse(get(b"X y", b"Transfer-Encoding: chunked"))[0] == HttpStatus.MALFORMED_HEADER
    assert parse(get(b"Transfer-Encoding: chunked", b"X y"))[0] == HttpStatus.HAS_TRANSFER_ENCODING
    assert parse(lines(b"GET / HTTP/1.1", b"X y"))[0] == HttpStatus.MALFORMED_HEADER  # not the missing host
    assert parse(lines(b"GET /# HTTP/2.0"))[0] == HttpStatus.MALFORMED_REQUEST_LINE


def test_a_tenth_of_a_refusal_is_its_http_status():
    codes = {int(status) // 10 for status in HttpStatus if status > HttpStatus.INCOMPLETE}
    assert codes == {400, 413, 414, 417, 431, 501, 505}


def test_every_status_and_method_is_in_the_table():
    assert {status for _, status in BAD.values()} | {HttpStatus.COMPLETE, HttpStatus.INCOMPLETE} == set(HttpStatus)
    assert {fields.get("method", 0) for _, fields in GOOD.values()} == set(Method)
    assert len(GOOD) + len(BAD) > 170


def test_bounds_fit_together():
    assert http.METHOD_SIZE_MAX + http.TARGET_SIZE_MAX + len(b"  HTTP/1.1\r\n") == REQUEST_LINE_SIZE_MAX < HEAD_SIZE_MAX
    assert HEADERS_MAX == 64


def test_the_stub_has_the_compiled_numbers():
    stub = runpy.run_path(str(Path(paychan.__file__).parent / "_fast" / "http.pyi"))
    for name in ("Method", "HttpStatus"):
        assert {member.name: member.value for member in stub[name]} == {member.name: member.value for member in getattr(http, name)}


@pytest.mark.parametrize("bad", [None, "text", 5, bytearray(PAY), memoryview(PAY)])
def test_wrong_types_raise(bad):
    with pytest.raises(TypeError):
        parse_request_head(bad, BODY_MAX)
    with pytest.raises(TypeError):
        parse_request_head(PAY, "1")
