"""What a purchase asks its driver to do, and the two drivers. A purchase is a generator of steps: it knows no socket, no loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. headers: (name in lower case, value), repeated ones repeated. body: of refusals only, else empty."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for known, value in self.headers if known == name]

    def one(self, name: str) -> str:
        """Return the first value of a header, empty if it is not there."""
        return next(iter(self.all(name)), "")


READ_STATUSES = frozenset((402, 409, 503))
"""An adapter gives the bodies of these answers to the purchase; all others stay untouched for who asked."""


@dataclass(frozen=True)
class Try:
    """Send the request with these headers set; the result is an Answer, or None if none came. method: instead of its own; such a
    request has no body."""

    headers: dict[str, str] = field(default_factory=dict)
    method: str = ""


@dataclass(frozen=True)
class Wait:
    """Wait; no result."""

    seconds: float


@dataclass(frozen=True)
class Do:
    """Do work on files, which may block; its result is the result."""

    work: Callable[[], Any]


Step = Try | Wait | Do
Flow = Generator[Step, Any, T]


def next_try(flow: Flow[T], result: object = None) -> Try:
    """Drive a purchase, blocking, until it wants a request sent. Raises StopIteration with its value, and what it raises."""
    step = flow.send(result)
    while not isinstance(step, Try):
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            step = flow.send(None)
            continue
        try:
            done = step.work()
        except Exception as error:
            step = flow.throw(error)
        else:
            step = flow.send(done)
    return step


class Over(Exception):
    """A purchase on asyncio's loop is over: a coroutine cannot raise StopIteration. value: what it returned."""

    def __init__(self, value: Any) -> None:
        self.value = value
        super().__init__()


async def next_try_async(flow: Flow[T], result: object = None) -> Try:
    """The same for asyncio; it raises Over."""
    try:
        step = flow.send(result)
        while not isinstance(step, Try):
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                step = flow.send(None)
                continue
            try:
                done = await _in_thread(step.work)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(done)
    except StopIteration as stop:
        raise Over(stop.value) from None
    return step


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Do work in a thread. Who is cancelled meanwhile goes on only after it: its locks are held until it has ended."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(future)
        raise


def drive(flow: Flow[T], send: Callable[[Try], Answer | None]) -> T:
    """Run a purchase, blocking. send: sends one request and returns its answer."""
    result: Answer | None = None
    try:
        while True:
            result = send(next_try(flow, result))
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


async def drive_async(flow: Flow[T], send: Callable[[Try], Awaitable[Answer | None]]) -> T:
    """Run a purchase on asyncio's loop."""
    result: Answer | None = None
    try:
        while True:
            result = await send(await next_try_async(flow, result))
    except Over as over:
        value: T = over.value
        return value
    finally:
        flow.close()
