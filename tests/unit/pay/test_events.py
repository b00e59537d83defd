"""Aim: a stream's events come out whole, however its bytes are cut. Method: every cut of some streams, and Hypothesis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan.client import Refused
from paychan.pay.sse import EVENT_BYTES_MAX, EventReader

STREAM = b": hello\n\nevent: word\ndata: one\ndata: two\nid: 7\n\ndata:three\r\n\r\ndata: four\r\revent: x\ndata\n\n"
FOUND = [("message", ""), ("word", "one\ntwo"), ("message", "three"), ("message", "four"), ("x", "")]


def read(*pieces):
    reader = EventReader()
    return [(event.name, event.data) for piece in pieces for event in reader.feed(piece)]


def test_every_cut_reads_the_same():
    assert read(STREAM) == FOUND
    for at in range(len(STREAM)):
        assert read(STREAM[:at], STREAM[at:]) == FOUND, at
    assert read(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == FOUND


def test_the_bytes_of_events_are_those_of_the_stream():
    reader = EventReader()
    assert b"".join(event.raw for event in reader.feed(STREAM)) == STREAM


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_no_bytes_are_too_strange(pieces):
    assert read(*pieces) == read(b"".join(pieces))


def test_an_event_without_end_is_refused():
    reader = EventReader()
    with pytest.raises(Refused, match="without end"):
        for _ in range(EVENT_BYTES_MAX // 1000 + 2):
            reader.feed(b"data: " + b"x" * 1000 + b"\n")
