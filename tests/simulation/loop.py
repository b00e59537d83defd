"""A clock and an event loop that are simulated: nobody waits, and what is due at the same time runs in one order.

Processes are groups of tasks: what a process starts belongs to it, and dies with it.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

CURRENT: ContextVar["Process | None"] = ContextVar("process", default=None)


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks as any loop does; where another one would wait for a timer, this one's clock jumps to it."""

    def __init__(self) -> None:
        super().__init__()
        self._simulated = 0.0
        self._selector = self
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self._simulated

    def select(self, timeout: float | None) -> tuple[()]:
        """Be the selector: no event ever comes from outside, so the next timer is next."""
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        if timeout > 0:
            self._simulated = max(self._simulated, self._scheduled[0].when())
        return ()

    def _process_events(self, events: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""


def _make_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Any = None) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, context=context)
    process = CURRENT.get() if context is None else context.get(CURRENT)
    if process is not None:
        process.take(task)
    return task


class Process:
    """A process that can be killed: from one moment to the next nothing of it runs, and its memory is gone.

    What its tasks still do while they unwind reaches nobody: the stand-ins of what is outside ask `is_alive`.
    """

    def __init__(self) -> None:
        self.is_alive = True
        self.at_death: list[Callable[[], None]] = []
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine in this process."""
        return self.spawn_in(asyncio.get_running_loop(), work)

    def spawn_in(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """The same, on a loop that need not run yet."""
        context = copy_context()
        context.run(CURRENT.set, self)
        return loop.create_task(work, context=context)

    def take(self, task: "asyncio.Task[Any]") -> None:
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        if not self.is_alive:
            task.cancel()

    def kill(self) -> None:
        if self.is_alive:
            self.is_alive = False
            for hook in self.at_death:
                hook()
            for task in list(self._tasks):
                task.cancel()


class Wire:
    """What lies between a worker and another process: delay, and now and then the worker's death, before or after the effect.

    Messages of one wire arrive in the order in which they were sent.
    """

    def __init__(self, chance: random.Random, delay: float, crash: float) -> None:
        self.process = CURRENT.get()
        self._chance, self._delay, self._crash = chance, delay, crash
        self._arrives = 0.0

    async def cross(self) -> None:
        """Take one way, there or back. It does not return in a process that dies on the way."""
        loop, process = asyncio.get_running_loop(), self.process
        assert process is not None, "this wire begins nowhere"
        if process.is_alive and self._chance.random() < self._crash:
            loop.call_soon(process.kill)
        self._arrives = max(self._arrives + 1e-6, loop.time() + self._chance.expovariate(1 / self._delay))
        await asyncio.sleep(self._arrives - loop.time())
        if not process.is_alive:
            await loop.create_future()
