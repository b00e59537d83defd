"""Aim: a stream of events has an end, whoever reads it, and a cursor from which it cannot be gone on without a gap is refused.
Method: the pieces as granian gets them, from a store that has more than one stream takes."""

import asyncio
import re
from types import SimpleNamespace

import pytest

from paychan.core.errors import Rejection
from paychan.events.event import Event, Type
from paychan.operator import events
from paychan.rpc.event_messages import Stream

BODY = Event(Type.EXPIRING, {"why": "x" * 900}, at=1).encode()


class Store:
    """Keeps so many events, from the oldest on."""

    def __init__(self, oldest, newest):
        self.oldest, self.newest = oldest, newest

    async def events(self, after, limit):
        found = range(max(after + 1, self.oldest), self.newest + 1)[:limit]
        return Stream(self.oldest, self.newest, True, [(number, BODY) for number in found])


@pytest.fixture
def pieces(monkeypatch):
    def begin(store, after=0):
        monkeypatch.setattr(events, "of", lambda _: SimpleNamespace(store=store))

        async def read():
            return [piece async for piece in events._pieces(None, after)]

        return asyncio.run(read())

    return begin


def ids(found):
    return [int(re.match(rb"id: (\d+)\n", piece)[1]) for piece in found]


def test_a_stream_ends_after_a_mebibyte_and_the_next_goes_on_with_nothing_left_out(pieces):
    """granian takes all that it is given, read or not."""
    store, seen = Store(1, 5000), []
    while not seen or seen[-1] < 2000:
        found = pieces(store, seen[-1] if seen else 0)
        assert events.STREAM_BYTES_MAX <= sum(map(len, found)) < 2 * events.STREAM_BYTES_MAX
        seen += ids(found)
    assert seen == list(range(1, len(seen) + 1))


def test_a_stream_ends_after_an_hour(pieces, monkeypatch):
    ticks = iter([0.0, 1.0, 2.0, events.STREAM_SECONDS_MAX + 1])
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    monkeypatch.setattr(events, "POLL_SECONDS", 0)
    assert len(pieces(Store(1, 3))) == 3


def test_a_stream_ends_where_what_comes_next_is_kept_no_more(pieces):
    assert pieces(Store(100, 600), 50) == []


@pytest.mark.parametrize(
    ("oldest", "newest", "after", "code"),
    [
        (0, 0, 0, None), (0, 0, 1, "invalid_query"), (1, 9, 9, None), (1, 9, 10, "invalid_query"), (5, 9, 0, None),
        (5, 9, 4, None), (5, 9, 5, None), (5, 9, 3, "events_gone"), (5, 9, 1, "events_gone"), (9, 9, 8, None),
    ],
)  # fmt: skip
def test_cursors(oldest, newest, after, code):
    found = Stream(oldest, newest, True, [])
    if code is None:
        assert events._check(found, after) is found
        return
    with pytest.raises(Rejection) as refused:
        events._check(found, after)
    assert refused.value.code == code
