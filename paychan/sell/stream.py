"""A stream of server-sent events that is paid while it runs (docs/PAYMENT_SCHEME.md section 2.8).

    @app.get("/tokens", dependencies=[till.price(Price(1, units=20, unit="token"))])
    async def tokens(request: Request) -> StreamingResponse:
        return StreamingResponse(paid_events(request.scope, generate()), media_type="text/event-stream")

Each event is a unit. So many units as the price says are charged before the first event, and again whenever they are used up: each
part is on disk before it is delivered. Without credit the stream pauses and asks for a voucher. What of the last part was not
delivered is given back; the receipt is the last event.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from ..core.errors import PaychanError, Rejection
from ..mpp import problems, sse
from .asgi import VISIT, Visit
from .facts import Sale
from .till import Till

LOOK_SECONDS = 0.2
"""Between two looks for credit while a stream pauses: the voucher may come to any process."""


def as_event(item: str | bytes) -> bytes:
    """Return a text as the data of one event; bytes are one already."""
    if isinstance(item, bytes):
        return item
    return b"".join(b"data: " + line.encode() + b"\n" for line in item.split("\n")) + b"\n"


async def paid_events(
    scope: Any, events: AsyncIterable[str | bytes], pause_seconds: float = sse.PAUSE_SECONDS_MAX
) -> AsyncIterator[bytes]:
    """Yield events as they are paid for. scope: the request's, which must be behind a till and have a price.

    pause_seconds: so long a voucher is waited for; then the stream ends with `payment-error`.
    """
    visit: Visit | None = scope.get(VISIT)
    if visit is None or visit.sale is None:
        raise RuntimeError("this stream has no price")
    stream = _Stream(visit.till, visit.sale)
    try:
        async for event in events:
            async for asked in stream.take_unit(pause_seconds):
                yield asked
            yield as_event(event)
        await stream.end()
        yield sse.render_receipt(visit.till.receipt_of(visit.sale))
    except PaychanError as error:
        yield sse.render_error(problems.document(error))
    finally:
        await asyncio.shield(stream.end())


class _Stream:
    """What was charged for a stream, and how much of it was delivered."""

    def __init__(self, till: Till, sale: Sale) -> None:
        self._till, self._sale = till, sale
        self._key, self._number = sale.key, sale.number
        self._parts, self._used = 1, 0
        self._is_over = False

    async def take_unit(self, pause_seconds: float) -> AsyncIterator[bytes]:
        """Return when one more unit may be delivered; yields what must be told until then. Raises PaychanError."""
        if self._used == self._sale.price.units:
            async for asked in self._take_part(pause_seconds):
                yield asked
        self._used += 1

    async def _take_part(self, pause_seconds: float) -> AsyncIterator[bytes]:
        deadline, told = asyncio.get_running_loop().time() + pause_seconds, None
        while isinstance(found := await self._till.extend(self._sale, self._parts), sse.NeedVoucher):
            if found != told:
                told = found
                yield found.render()
            if asyncio.get_running_loop().time() > deadline:
                raise Rejection("insufficient_credit")
            await asyncio.sleep(LOOK_SECONDS)
        (self._key, self._number), self._used = found, 0
        self._parts += 1

    async def end(self) -> None:
        """Give back what was not delivered. Once."""
        if self._is_over:
            return
        self._is_over = True
        if self._used < self._sale.price.units and not self._sale.is_repeated:
            await self._till.end_part(self._sale, self._key, self._number, self._used)
        self._sale.used = (self._parts - 1) * self._sale.price.units + self._used
