"""Aim: what was put into a request comes out of it, and no single byte changes where its body ends, but in the header that says
so. Method: Hypothesis writes valid requests and changes one byte."""

import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paychan._fast.http import HttpStatus, Method, parse_request_head
from tests.differential.http_judge import judge

BODY_MAX = 10**6
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
TARGET = VISIBLE.replace("#", "")
KNOWN = {"host", "content-length", "connection", "expect", "transfer-encoding"}
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def nothing_swallowed(monkeypatch):
    """The parser cannot raise, so an overflow that the checked build finds in it would only be printed."""
    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", swallowed.append)
    yield
    assert swallowed == []


def any_case(word):
    return st.lists(st.booleans(), min_size=len(word), max_size=len(word)).map(
        lambda ups: "".join(letter.upper() if up else letter for letter, up in zip(word, ups, strict=True))
    )


BLANKS = st.text(" \t", max_size=3)
HOSTS = st.from_regex(r"[A-Za-z0-9._-]{1,40}(:[0-9]{1,5})?", fullmatch=True) | st.from_regex(
    r"\[[0-9a-f:.]{2,45}\](:[0-9]{1,5})?", fullmatch=True
)
FILLERS = st.tuples(
    st.text(TOKEN, min_size=1, max_size=20).filter(lambda name: name.lower() not in KNOWN),
    st.text(VISIBLE + " \té日\x85\xa0", max_size=60),
)


@st.composite
def requests(draw):
    """Return (request, what must come out of it)."""
    method = draw(st.sampled_from([method.name for method in Method if method is not Method.OTHER]) | st.just("PATCH"))
    path = "/" + draw(st.text(TARGET.replace("?", ""), max_size=40))
    query = draw(st.none() | st.text(TARGET, max_size=150))
    host = draw(HOSTS)
    length = draw(st.none() | st.integers(0, BODY_MAX))
    authority = draw(st.none() | HOSTS)
    closes, expects = draw(st.booleans()), draw(st.booleans())
    known = [("host", host)]
    known += [("content-length", str(length))] if length is not None else []
    known += [("connection", draw(st.sampled_from(["close", "Close", "x, close", "close,keep-alive"])))] if closes else []
    known += [("expect", "100-continue")] if expects else []
    known = [(draw(any_case(name)), value) for name, value in known]
    headers = draw(st.permutations(known + draw(st.lists(FILLERS, max_size=6))))
    lines = [f"{name}:{draw(BLANKS)}{value}{draw(BLANKS)}" for name, value in headers]
    path = "" if authority and path == "/" and draw(st.booleans()) else path
    target = path if query is None else f"{path}?{query}"
    target = f"{draw(st.sampled_from(['http', 'https', 'Http']))}://{authority}{target}" if authority else target
    request = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode()
    return request, {
        "method": int(Method[method]) if method != "PATCH" else int(Method.OTHER),
        "path": path.encode() or b"/",
        "query": (query or "").encode(),
        "host": (authority or host).encode(),
        "content_length": length or 0,
        "head_size": len(request),
        "keep_alive": not closes,
        "expects_continue": expects,
        "has_escapes": "%" in path,
        "authorization": None,
    }


@QUIET
@given(requests(), st.binary(max_size=40))
def test_what_was_written_is_read(case, follower):
    request, fields = case
    assert parse_request_head(request + follower, BODY_MAX) == (HttpStatus.COMPLETE, fields)


@QUIET
@given(requests(), st.data())
def test_a_part_of_a_valid_request_is_incomplete(case, data):
    request, _ = case
    cut = data.draw(st.integers(0, len(request) - 1))
    assert parse_request_head(request[:cut], BODY_MAX) == (HttpStatus.INCOMPLETE, None)
    assert parse_request_head(request, BODY_MAX, cut) == parse_request_head(request, BODY_MAX)


def length_line(request):
    """Return the places of the Content-Length line's bytes, its line end among them."""
    start = request.lower().find(b"\r\ncontent-length:") + 2
    return range(start, request.find(b"\n", start) + 1) if start > 1 else range(0)


def check_framing(request, changed, at, shift):
    """Assert that a changed request is refused, unfinished, or ends where the first did.

    A line feed before the last one is a line feed after it: the request itself is not changed then.
    """
    shift = 0 if changed.startswith(request) else shift
    follower = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"
    verdict = parse_request_head(changed + follower, BODY_MAX)
    assert verdict == judge(changed + follower, BODY_MAX)
    status, head = verdict
    if status == HttpStatus.COMPLETE:
        before = parse_request_head(request, BODY_MAX)[1]
        assert head["head_size"] == before["head_size"] + shift
        assert head["content_length"] == before["content_length"] or at in length_line(request)


BYTES = st.integers(0, 255) | st.sampled_from(b"\r\n\t :\0,-0+")


@QUIET
@given(requests(), st.data(), BYTES)
def test_no_changed_byte_moves_the_end(case, data, byte):
    request, _ = case
    at = data.draw(st.integers(0, len(request) - 1))
    check_framing(request, request[:at] + bytes([byte]) + request[at + 1 :], at, 0)


@QUIET
@given(requests(), st.data(), BYTES)
def test_no_byte_more_moves_the_end(case, data, byte):
    request, _ = case
    at = data.draw(st.integers(0, len(request) - 1))
    check_framing(request, request[:at] + bytes([byte]) + request[at:], at, 1)


@QUIET
@given(requests(), st.data())
def test_no_byte_less_moves_the_end(case, data):
    request, _ = case
    at = data.draw(st.integers(0, len(request) - 1))
    check_framing(request, request[:at] + request[at + 1 :], at, -1)


@QUIET
@given(st.binary(max_size=200), st.integers(-5, 300))
def test_any_bytes_get_the_judges_verdict(data, seen):
    assert parse_request_head(data, BODY_MAX) == judge(data, BODY_MAX)
    if parse_request_head(data[:seen], BODY_MAX)[0] == HttpStatus.INCOMPLETE:
        assert parse_request_head(data, BODY_MAX, seen) == judge(data, BODY_MAX)
