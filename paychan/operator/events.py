"""The events: a page after a cursor, or a stream of server-sent events that goes on where its reader left off."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import orjson

from ..core.errors import PaychanError, Rejection, Unavailable
from ..events.event import NUMBER_MAX, Event, Numbered
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.event_messages import EVENTS_MAX
from ..rpc.event_messages import Stream as Found
from ..rpc.store_messages import MessageError
from .answers import NO_STORE, Answer, Request, Stream, json_answer
from .context import Context
from .telling import POLL_SECONDS, of

LIMIT_DEFAULT = 100
QUIET_SECONDS = 15.0
"""A stream without events says so often that it is there."""

STREAM_BYTES_MAX, STREAM_SECONDS_MAX = 1 << 20, 3600.0
"""After so much, or so long, a stream ends, and its reader goes on with another from the last id that it has. granian takes
what is sent whether it is read or not: without an end, who never reads would have all events in memory, and a place for ever."""

_SSE = (("content-type", "text/event-stream"), *NO_STORE)


async def events(context: Context, request: Request) -> Answer | Stream:
    """Answer GET /operator/v1/events."""
    query = parse_qs(request.query, keep_blank_values=True)
    is_stream = "text/event-stream" in request.headers.get("accept", "")
    last = request.headers.get("last-event-id", "") if is_stream else ""
    after = number(last or _one(query, "after", "0"), 0, NUMBER_MAX)
    if is_stream:
        await _read(context, after, 1)  # a store that is away, and a cursor that is no good, are told by the status
        return Stream(_pieces(context, after), _SSE)
    limit = number(_one(query, "limit", str(LIMIT_DEFAULT)), 1, EVENTS_MAX)
    found = await _read(context, after, limit)
    shown = _shown(found)
    return json_answer({"events": shown, "next": shown[-1]["id"] if len(shown) == limit else None, "oldest": found.oldest})


async def _read(context: Context, after: int, limit: int) -> Found:
    try:
        return _check(await of(context).store.events(after, limit), after)
    except (ConnectionGone, RemoteRefusal, MessageError) as error:
        raise Unavailable("store_unavailable") from error


def _check(found: Found, after: int) -> Found:
    """Refuse a cursor that is none of this stream's, or from which it cannot be gone on without a gap. 0 is from the oldest on.
    Raises Rejection."""
    if after > found.newest:
        raise Rejection("invalid_query", f"There is no event {after}: the newest is {found.newest}", "after")
    if after and after + 1 < found.oldest:
        detail = f"The oldest event that is kept is {found.oldest}: after={found.oldest - 1} goes on from there"
        raise Rejection("events_gone", detail, "after")
    return found


def _shown(found: Found) -> list[dict[str, Any]]:
    return [Numbered(number, Event.parse(body)).members() for number, body in found.events]


async def _pieces(context: Context, after: int) -> AsyncIterator[bytes]:
    """Yield events as they come. The stream also ends when the store is away, or what comes next is kept no more."""
    said_at, sent, until = 0.0, 0, time.monotonic() + STREAM_SECONDS_MAX
    while sent < STREAM_BYTES_MAX and time.monotonic() < until:
        try:
            shown = _shown(await _read(context, after, EVENTS_MAX))
        except PaychanError:
            return
        for event in shown:
            after = event["id"]
            piece = b"id: %d\nevent: %s\ndata: %s\n\n" % (after, event["type"].encode(), orjson.dumps(event))
            sent += len(piece)
            yield piece
        if shown:
            said_at = time.monotonic()
        elif time.monotonic() - said_at > QUIET_SECONDS:
            said_at = time.monotonic()
            yield b": quiet\n\n"
        if len(shown) < EVENTS_MAX:
            await asyncio.sleep(POLL_SECONDS)


def _one(query: dict[str, list[str]], name: str, default: str) -> str:
    values = query.get(name, [default])
    if len(values) != 1:
        raise Rejection("invalid_query", f"{name} is given twice", name)
    return values[0]


def number(text: str, low: int, high: int) -> int:
    """Return a number out of a query. Raises Rejection."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16) or not low <= int(text) <= high:
        raise Rejection("invalid_query", f"A number from {low} to {high} is expected")
    return int(text)
