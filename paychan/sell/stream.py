"""A stream of server-sent events that is paid while it runs (docs/PAYMENT_SCHEME.md section 2.8).

    @app.get("/tokens")
    @till.price(Price(1, units=20, unit="token"))
    async def tokens(request: Request) -> StreamingResponse:
        return StreamingResponse(paid_events(request.scope, generate()), media_type="text/event-stream")

Each event is a unit. So many units as the price says are charged before the first event, and again whenever they are used up: each
part is on disk before it is delivered. Without credit the stream pauses and asks for a voucher. What of the last part was not
delivered is given back; the receipt is the last event. Flask's and Django's tills have `stream` for the same.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from ..core.errors import PaychanError, Rejection
from ..mpp import problems, sse
from . import blocking
from .asgi import VISIT, Visit
from .facts import Sale
from .rules import Rules
from .steps import Pause, Steps, Tell

LOOK_SECONDS = 0.2
"""Between two looks for credit while a stream pauses: the voucher may come to any process."""


def as_event(item: str | bytes) -> bytes:
    """Return a text as the data of one event; bytes are one already."""
    if isinstance(item, bytes):
        return item
    return b"".join(b"data: " + line.encode() + b"\n" for line in item.split("\n")) + b"\n"


class _Parts:
    """What was charged for a stream, and how much of it was delivered; without I/O."""

    def __init__(self, rules: Rules, sale: Sale, pause_seconds: float) -> None:
        self._rules, self._sale, self._pause_seconds = rules, sale, pause_seconds
        self._key, self._number = sale.key, sale.number
        self._parts, self._used = 1, 0
        self._is_over = False

    def take_unit(self) -> Steps[None]:
        """Return when one more unit may be delivered. Raises PaychanError."""
        if self._used == self._sale.price.units:
            yield from self._take_part()
        self._used += 1

    def _take_part(self) -> Steps[None]:
        waited, told = 0.0, None
        while isinstance(found := (yield from self._rules.extend(self._sale, self._parts)), sse.NeedVoucher):
            if found != told:
                told = found
                yield Tell(found.render())
            if waited > self._pause_seconds:
                raise Rejection("insufficient_credit")
            yield Pause(LOOK_SECONDS)
            waited += LOOK_SECONDS
        (self._key, self._number), self._used = found, 0
        self._parts += 1

    def end(self) -> Steps[None]:
        """Give back what was not delivered. Once."""
        if self._is_over:
            return
        self._is_over = True
        if self._used < self._sale.price.units and not self._sale.is_repeated:
            yield from self._rules.end_part(self._sale, self._key, self._number, self._used)
        self._sale.used = (self._parts - 1) * self._sale.price.units + self._used

    def receipt(self) -> Steps[None]:
        """Tell the last event."""
        told = yield from self._rules.signed_receipt(self._sale, self._number if self._parts > 1 else 0)
        yield Tell(sse.render_receipt(told))


def paid_events(
    scope: Any, events: AsyncIterable[str | bytes], pause_seconds: float = sse.PAUSE_SECONDS_MAX
) -> AsyncIterator[bytes]:
    """Yield events as they are paid for. scope: the request's, which must be behind a till and have a price.

    pause_seconds: so long a voucher is waited for; then the stream ends with `payment-error`.
    """
    visit: Visit | None = scope.get(VISIT)
    if visit is None or visit.sale is None:
        raise RuntimeError("this stream has no price")
    visit.sale.is_stream = True
    return _paid_events(visit, _Parts(visit.till.rules, visit.sale, pause_seconds), events)


async def _paid_events(visit: Visit, parts: _Parts, events: AsyncIterable[str | bytes]) -> AsyncIterator[bytes]:
    async def take(steps: Steps[None]) -> AsyncIterator[bytes]:
        result: Any = None
        try:
            while True:
                step = steps.send(result)
                result = None
                if isinstance(step, Tell):
                    yield step.event
                else:
                    result = await visit.till.do(step)
        except StopIteration:
            return

    async def end() -> None:
        async for _ in take(parts.end()):
            pass

    try:
        async for event in events:
            async for asked in take(parts.take_unit()):
                yield asked
            yield as_event(event)
        await end()
        async for told in take(parts.receipt()):
            yield told
    except PaychanError as error:
        yield sse.render_error(problems.document(error))
    finally:
        await asyncio.shield(end())


def paid_events_now(
    till: blocking.Till, sale: Sale, events: Iterable[str | bytes], pause_seconds: float = sse.PAUSE_SECONDS_MAX
) -> Iterator[bytes]:
    """The same for threads. sale: what the request has bought."""
    sale.is_stream = True
    return _paid_events_now(till, _Parts(till.rules, sale, pause_seconds), events)


def _paid_events_now(till: blocking.Till, parts: _Parts, events: Iterable[str | bytes]) -> Iterator[bytes]:
    def take(steps: Steps[None]) -> Iterator[bytes]:
        result: Any = None
        try:
            while True:
                step = steps.send(result)
                result = None
                if isinstance(step, Tell):
                    yield step.event
                else:
                    result = till.do(step)
        except StopIteration:
            return

    try:
        for event in events:
            yield from take(parts.take_unit())
            yield as_event(event)
        yield from take(parts.end())
        yield from take(parts.receipt())
    except PaychanError as error:
        yield sse.render_error(problems.document(error))
    finally:
        for _ in take(parts.end()):
            pass
