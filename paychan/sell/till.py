"""The till for asyncio: decides what a request gets, and sees to what was sold. facts.py says how it is used."""

import asyncio
import time
from typing import Any, TypeVar

from ..mpp.receipt import Receipt
from ..mpp.sse import NeedVoucher
from .challenges import Challenges
from .door import AsyncDoor
from .facts import Answer, Decision, Headers, Price, Request, Sale, Sign
from .rules import Rules
from .steps import Ask, Await, Call, Do, Pause, Step, Steps, Told
from .wire import Door

T = TypeVar("T")


class Till:
    """See facts.py. realm: what challenges call the seller. secret: what signs them; without one it is made of the door's token, so
    that all processes with one token, and the same ones later, know each other's. sign: makes signed receipts."""

    def __init__(self, door: Door, realm: str = "paychan", secret: bytes = b"", sign: Sign | None = None) -> None:
        self._door = door
        challenges = Challenges(lambda: secret or door.secret, realm)
        self._rules = Rules(challenges, time.time, time.monotonic, door.explain, sign)
        self.finish_plainly, self.keep_texts = self._rules.finish_plainly, self._rules.keep_texts
        self._open: AsyncDoor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def decide(self, request: Request, price: Price) -> Decision:
        """Return the Answer that a request gets, or the Sale that it bought."""
        rules = self._rules
        plain = rules.begin_plainly(request, price)
        if plain is None:
            return await self._drive(rules.decide(request, price))
        try:
            told = await self._client().charge(plain.charge)
        except BaseException:  # we were stopped in between
            rules.abandon(plain)
            raise
        if told is None or isinstance(told, Told):
            return await self._drive(rules.go_on(request, price, plain, told))
        return rules.end_plainly(request, price, plain, told)

    async def manage(self, request: Request) -> Answer | None:
        """Return the answer to a request that handles a channel and buys nothing, whatever its price; None for any other."""
        return await self._drive(self._rules.manage(request))

    async def finish(self, sale: Sale, status: int) -> Headers | Answer:
        """Say that a sale is about to be answered with this status; return the headers to add."""
        headers = self._rules.finish_plainly(sale, status)
        if headers is not None:
            return headers
        return await self._see_through(self._rules.finish(sale, status))

    async def failed(self, sale: Sale) -> None:
        """Give a sale back that was not served. It is done even if the caller is cancelled meanwhile."""
        await self._see_through(self._rules.failed(sale))

    async def extend(self, sale: Sale, number: int) -> tuple[str, int] | NeedVoucher:
        """See Rules.extend."""
        return await self._see_through(self._rules.extend(sale, number))

    async def end_part(self, sale: Sale, key: str, number: int, units: int) -> None:
        """See Rules.end_part."""
        await self._see_through(self._rules.end_part(sale, key, number, units))

    async def signed_receipt(self, sale: Sale, number: int) -> Receipt:
        """See Rules.signed_receipt."""
        return await self._see_through(self._rules.signed_receipt(sale, number))

    @property
    def rules(self) -> Rules:
        """What decides; for streams, which drive it themselves."""
        return self._rules

    def keep(self, sale: Sale, answer: Answer) -> None:
        """Keep the answer for who asks again."""
        self._rules.keep(sale, answer)

    def forget(self, sale: Sale) -> None:
        """Keep no answer."""
        self._rules.forget(sale)

    def close(self) -> None:
        """End the connections to the door."""
        if self._open is not None:
            self._open.close()

    async def _see_through(self, steps: Steps[T]) -> T:
        """Take all steps, also if the caller is cancelled meanwhile. Mostly there are none: then no task is made for it."""
        try:
            first = steps.send(None)
        except StopIteration as stop:
            returned: T = stop.value
            return returned
        return await asyncio.shield(self._drive(steps, first))

    async def _drive(self, steps: Steps[T], first: Step | None = None) -> T:
        try:
            result: Any = None if first is None else await self.do(first)
            while True:
                step = steps.send(result)
                if type(step) is Ask and len(step.sales) == 1:  # as it mostly is: without a coroutine of its own
                    told = await self._client().ask_one(step.sales[0])
                    result = None if told is None else [told]
                else:
                    result = await self.do(step)
        except StopIteration as stop:
            returned: T = stop.value
            return returned
        finally:
            steps.close()

    async def do(self, step: Step) -> Any:
        """Do one step of the rules; return its result."""
        if isinstance(step, Ask):
            return await self._client().ask(step.sales)
        if isinstance(step, Call):
            return await self._client().call(step.method, step.target)
        if isinstance(step, Do):
            return await asyncio.to_thread(step.done)
        if isinstance(step, Await):
            try:
                return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(step.future)), step.seconds)
            except TimeoutError:
                return None
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        return None

    def _client(self) -> AsyncDoor:
        loop = asyncio.get_running_loop()
        if self._open is None or self._loop is not loop:
            self._open, self._loop = AsyncDoor(self._door), loop
        return self._open
