"""What is paid while it runs (docs/PAYMENT_SCHEME.md section 2.8): units are charged some at a time, before they are sent;
without credit the answer waits, and says so where it can; what of the last ones was not sent is given back.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

from ..core.errors import PaychanError, Rejection
from ..mpp import problems, sse
from ..sell.facts import Sale
from ..sell.till import Till
from .models import Price, Unit
from .refusals import Refused

LOOK_SECONDS = 0.2
"""Between two looks for credit: the voucher may come to any process."""

KILOBYTE = 1000
EVENT_BYTES_MAX = 1 << 20
"""Of one event of an upstream: it is held until it is whole."""

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n")
_HAS_DATA = re.compile(rb"(?:\A|[\r\n])data")


class Meter:
    """Of one sale. Until `start` nothing is counted, and nothing is after `stop`."""

    def __init__(self, till: Till, sale: Sale, price: Price) -> None:
        self._till, self._sale, self.price = till, sale, price
        self._key, self._number = sale.key, sale.number
        self._parts, self._used = 1, 0
        self._is_on = False
        self._counted = self._size = 0
        self._started = self._paused = 0.0

    def start(self) -> None:
        """Begin to count: the answer is one that costs."""
        self._is_on, self._started = True, time.monotonic()

    @property
    def is_on(self) -> bool:
        """Whether the answer is one that costs."""
        return self._is_on

    @property
    def paid_bytes(self) -> int:
        """How many bytes may be sent before another kilobyte part is charged."""
        return (self._counted + self.price.ahead - self._used) * KILOBYTE - self._size

    async def take(self, size: int) -> AsyncIterator[sse.NeedVoucher]:
        """Return when the next event, or piece of `size` bytes, is paid for; yields what the payer must be asked for until then.
        Raises PaychanError: it will not be."""
        if not self._is_on:
            return
        self._size += size
        if self.price.unit is Unit.EVENT:
            wanted = self._counted + 1
        elif self.price.unit is Unit.KILOBYTE:
            wanted = -(-self._size // KILOBYTE)
        else:
            wanted = int(time.monotonic() - self._started - self._paused) + 1
        while self._counted < wanted:
            if self._used == self.price.ahead:
                async for asked in self._next_part():
                    yield asked
            self._used += 1
            self._counted += 1

    async def _next_part(self) -> AsyncIterator[sse.NeedVoucher]:
        began, told = time.monotonic(), None
        while isinstance(found := await self._till.extend(self._sale, self._parts), sse.NeedVoucher):
            if found != told:
                told = found
                yield found
            if time.monotonic() > began + sse.PAUSE_SECONDS_MAX:
                raise Rejection("insufficient_credit")
            await asyncio.sleep(LOOK_SECONDS)
        (self._key, self._number), self._used = found, 0
        self._parts += 1
        if told is not None:
            self._paused += time.monotonic() - began

    async def stop(self) -> None:
        """Give back what was not sent. Once; it is done even if the caller is cancelled meanwhile."""
        if not self._is_on:
            return
        self._is_on = False
        if self._used < self.price.ahead:
            await asyncio.shield(self._till.end_part(self._sale, self._key, self._number, self._used))
        self._sale.used = self._counted

    def tell_at_the_end(self) -> None:
        """The answer can say what it cost once it has stopped: the receipt is signed then, and not before it begins."""
        self._sale.is_stream = True

    async def receipt(self) -> bytes:
        """Return the event that a stream ends with, once it has stopped."""
        return sse.render_receipt(await self._till.signed_receipt(self._sale, self._number if self._parts > 1 else 0))


class PlainMeter:
    """Of an answer that cannot say anything about money."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._is_one_event = meter, False

    async def pay(self, piece: bytes) -> AsyncIterator[bytes]:
        """Yield a piece as it is paid for. Raises Refused."""
        unit = self._meter.price.unit
        while piece:
            step = max(self._meter.paid_bytes, KILOBYTE) if unit is Unit.KILOBYTE else len(piece)
            part, piece = piece[:step], piece[step:]
            if not (unit is Unit.EVENT and self._is_one_event):
                self._is_one_event = True
                try:
                    async for _ in self._meter.take(len(part)):
                        pass
                except PaychanError as error:
                    raise Refused("request_timeout", f"it is not paid any further: {error.code}") from error
            yield part

    async def end(self) -> AsyncIterator[bytes]:
        """Settle, and yield nothing."""
        await self._meter.stop()
        last: tuple[bytes, ...] = ()
        for said in last:
            yield said


class EventMeter:
    """Of a stream of server-sent events: what is about money are events between the upstream's. Comments cost nothing."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._held = meter, b""
        self._is_over = False

    async def pay(self, piece: bytes) -> AsyncIterator[bytes]:
        """Yield whole events as they are paid for; what is not whole yet is held. Raises Unpaid after having told why."""
        self._held += piece
        while found := _EVENT_END.search(self._held):
            event, self._held = self._held[: found.end()], self._held[found.end() :]
            if self._meter.price.unit is not Unit.EVENT or _HAS_DATA.search(event):
                try:
                    async for asked in self._meter.take(len(event)):
                        yield asked.render()
                except PaychanError as error:
                    yield sse.render_error(problems.document(error))
                    raise Unpaid from error
            yield event
        if len(self._held) > EVENT_BYTES_MAX:
            raise Refused("upstream_failed", "an event of it is too long")

    async def end(self) -> AsyncIterator[bytes]:
        """Settle, and yield what is left and the receipt."""
        await self._meter.stop()
        yield self._held + await self._meter.receipt()


class Unpaid(Exception):
    """A stream that has said that it ends, because it is not paid any further."""


def as_message(asked: sse.NeedVoucher) -> str:
    """Return what a WebSocket's client is told, as a text message."""
    data = asked.render().decode().partition("data: ")[2].strip()
    return json.dumps({"event": sse.NEED_VOUCHER, "data": json.loads(data)})
