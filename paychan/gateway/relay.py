"""An upstream's answer on its way out: whole if it is small, else piece by piece, and never shorter than it was without a sign."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import aiohttp

from ..sell.facts import KEPT_BYTES_MAX, Answer
from .fields import to_client
from .metering import EventMeter, Meter, PlainMeter, Unpaid
from .models import Route
from .refusals import Headers, Refused
from .wire import Wire

WHOLE_BYTES_MAX = KEPT_BYTES_MAX
"""An answer that says it is not longer than this is read whole before it is begun: if it breaks off, that is a failure like any
other; and it is kept for who paid for it and did not get it."""

FIRST_PIECE_SECONDS = 0.2
"""So long an answer of unknown length is held back for its first piece, for the same reason. A stream of events may have none for
long."""

_WITHOUT_BODY = (204, 304)
_ENDINGS = (aiohttp.ClientError, OSError, TimeoutError, Refused, RuntimeError)
"""How an answer breaks off: the upstream's end, or the client's (RSGIProtocolClosed is a RuntimeError)."""

Commit = Callable[[int], Awaitable[Headers]]
"""Called with the status before anything of the answer is sent; returns header fields of the gateway's own."""


class Toll(Protocol):
    """What is paid for while an answer runs."""

    def pay(self, piece: bytes) -> AsyncIterator[bytes]:
        """Yield a piece of the answer as it is paid for, with what the payer is to be told. Raises Refused, Unpaid."""

    def end(self) -> AsyncIterator[bytes]:
        """Settle, and yield what is said last."""


async def relay(
    response: aiohttp.ClientResponse, proto: Any, wire: Wire, route: Route, commit: Commit, meter: Meter | None = None
) -> Answer | None:
    """Send an upstream's answer on; return it if it was sent whole. Raises Refused if the upstream fails before it is begun.

    meter: of a stream that is paid while it runs.
    """
    headers = to_client([(name, value) for name, value in response.headers.items()], route.response_fields)
    length = response.content_length
    if response.method == "HEAD" or response.status in _WITHOUT_BODY:
        headers = _with(headers, await commit(response.status))
        proto.response_empty(response.status, headers)
        return Answer(response.status, tuple(headers))
    if meter is None and length is not None and length <= WHOLE_BYTES_MAX:
        body = await _whole(response, route.limits.answer_seconds)
        headers = _with(headers, await commit(response.status))
        proto.response_bytes(response.status, headers, body)
        return Answer(response.status, tuple(headers), body)
    first = await _first_piece(response)
    if meter is not None and _is_events(response):
        meter.tell_at_the_end()
    headers = _with(headers, await commit(response.status))
    toll = _toll_of(response, meter) if meter is not None and meter.is_on else None
    if isinstance(toll, EventMeter):  # what it says belongs to the body too
        headers = [pair for pair in headers if pair[0] != "content-length"]
    await _stream(response, first, proto, wire, route, headers, toll)
    return None


def _toll_of(response: aiohttp.ClientResponse, meter: Meter) -> Toll:
    return EventMeter(meter) if _is_events(response) else PlainMeter(meter)


def _is_events(response: aiohttp.ClientResponse) -> bool:
    return response.content_type == "text/event-stream" and "content-encoding" not in response.headers


def _with(headers: Headers, own: Headers) -> Headers:
    names = {name for name, _ in own}
    return [*(pair for pair in headers if pair[0] not in names), *own]


async def _whole(response: aiohttp.ClientResponse, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await response.read()
    except TimeoutError as error:
        raise Refused("upstream_timeout") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Refused("upstream_failed", "its answer broke off") from error


async def _first_piece(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the first piece; None if there is none for a while, b"" if there is none at all. Raises Refused."""
    try:
        async with asyncio.timeout(FIRST_PIECE_SECONDS):
            return await response.content.readany()
    except TimeoutError:
        return None
    except (aiohttp.ClientError, OSError) as error:
        raise Refused("upstream_failed", "its answer broke off") from error


async def _stream(
    response: aiohttp.ClientResponse,
    first: bytes | None,
    proto: Any,
    wire: Wire,
    route: Route,
    headers: Headers,
    toll: Toll | None,
) -> None:
    """Send an answer as it comes. Whatever breaks it off, the client sees that it is not whole."""
    transport = proto.response_stream(response.status, headers)
    gone = asyncio.ensure_future(proto.client_disconnect())
    gone.add_done_callback(lambda _: response.close())  # whoever reads from the upstream then finds it closed
    try:
        async with asyncio.timeout(route.limits.stream_seconds):
            await _pieces(response, first, transport, wire, route, toll)
    except Unpaid:
        pass
    except BaseException as error:
        wire.break_off()
        if not isinstance(error, _ENDINGS):
            raise
    finally:
        gone.cancel()
        wire.close()


async def _pieces(
    response: aiohttp.ClientResponse, piece: bytes | None, transport: Any, wire: Wire, route: Route, toll: Toll | None
) -> None:
    """Send piece by piece. Ends with an error if the upstream or the client does."""
    idle_seconds = route.limits.idle_seconds
    while piece is None or piece:
        if piece and toll is None:
            await transport.send_bytes(piece)
            await wire.pace(len(piece), idle_seconds)
        elif piece and toll is not None:
            async for part in toll.pay(piece):
                await transport.send_bytes(part)
                await wire.pace(len(part), idle_seconds)
        async with asyncio.timeout(idle_seconds):
            piece = await response.content.readany()
    if toll is not None:
        async for part in toll.end():
            await transport.send_bytes(part)
