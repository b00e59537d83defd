"""The whole-system simulation's kernel: one queue of events, a clock that jumps, and processes that are event loops of their own.

A process runs in turns, as a real loop does: what is ready is called, what becomes ready meanwhile waits for the next turn. Between
two turns it can be killed, stopped or slowed down; in the midst of one it can be killed at any callback and at any write.
"""

import asyncio
import contextlib
import heapq
import warnings
import zlib
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

TURN_SECONDS = 0.00003
"""Between two turns of a process that nobody disturbs."""

GRAVE = "grave"
"""What unwinds what processes had begun when a world ended."""


class Kernel:
    """The queue. `now`: simulated seconds. `trace`: a running checksum of all that was seen to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self.trace = 0
        self.steps = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._all: list[Process] = []
        self.errors: list[str] = []
        self.running: Process | None = None
        self.step_limit = 400_000
        """A world that takes more steps than this is running in circles."""

    def at(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have something called at a time, or now if that is over."""
        self._number += 1
        heapq.heappush(self._queue, (time if time > self.now else self.now, self._number, call, arguments))

    def note(self, data: bytes) -> None:
        """Add to the trace."""
        self.trace = zlib.crc32(data, self.trace)

    def run(self, is_over: Callable[[], bool], until: float) -> None:
        """Let things happen until it is over or late."""
        queue, self.running = self._queue, None
        try:
            while queue and not is_over():
                self.now, _, call, arguments = heapq.heappop(queue)
                if self.now > until:
                    return
                call(*arguments)
                if self.steps > self.step_limit:
                    self.errors.append(f"runs in circles: {self.steps} steps in {self.now:.1f} simulated seconds")
                    return
        finally:
            events._set_running_loop(None)

    def adopt(self, process: "Process") -> None:
        self._all.append(process)

    def bury(self) -> None:
        """End all processes; unwind what they had begun, so that nothing of it runs in another world."""
        for process in self._all:
            process.is_alive = False
        grave = Process(self, GRAVE)
        events._set_running_loop(grave)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of coroutines that were to be run later
                for process in self._all:
                    process.unwind()
        finally:
            events._set_running_loop(None)
        self._all.clear()
        self._queue.clear()


class Handle:
    """One call that is to come."""

    __slots__ = ("callback", "arguments", "is_cancelled", "is_timer")

    def __init__(self, callback: Callable[..., Any], arguments: tuple[Any, ...], is_timer: bool = False) -> None:
        self.callback, self.arguments, self.is_cancelled, self.is_timer = callback, arguments, False, is_timer

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class Process(asyncio.AbstractEventLoop):
    """One simulated process, which is the event loop that its code sees. `network` makes its connections."""

    def __init__(self, kernel: Kernel, name: str, network: Any = None) -> None:
        self.kernel, self.name, self.network = kernel, name, network
        self.is_alive = True
        self.turn_seconds = TURN_SECONDS
        self.at_death: list[Callable[[], None]] = []
        self.ends: dict[Any, None] = {}
        self.steps = self.writes = self.disk_writes = 0
        self.dies_at_step = self.dies_at_write = self.dies_at_disk_write = 0
        self.dies_how = ""
        self.on_power_loss: Callable[[], None] | None = None
        self.door: Any = None
        self.tap: Callable[[Any, bytes, bool], None] | None = None
        self.signals: dict[int, Callable[[], object]] = {}
        self._ready: deque[Handle] = deque()
        self._is_due = False
        self._stopped_until = 0.0
        self._busy = 0.0
        self._tasks: dict[asyncio.Task[Any], None] = {}
        kernel.adopt(self)

    # --- what asyncio asks of a loop ---

    def time(self) -> float:
        return self.kernel.now + self._busy

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self.is_alive

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args)
        if self.is_alive:
            self._ready.append(handle)
            if not self._is_due:
                self._wake()
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, True)
        self.kernel.at(self.kernel.now + self._busy + delay, self._expire, handle)
        return handle

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        return self.call_later(when - self.time(), callback, *args)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], *, name: Any = None, context: Any = None) -> "asyncio.Task[Any]":  # type: ignore[override]
        task = asyncio.Task(coro, loop=self, name="task")
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.is_alive:
            self.kernel.errors.append(f"{self.name}: {context.get('message')}: {context.get('exception')!r}")

    async def create_unix_connection(self, protocol_factory: Callable[[], Any], path: str) -> Any:  # type: ignore[override]
        return await self.network.connect(self, protocol_factory, path)

    async def create_unix_server(self, protocol_factory: Callable[[], Any], *, sock: Any, **_: Any) -> Any:  # type: ignore[override]
        return self.network.listen(self, protocol_factory, sock.path)

    async def create_server(self, protocol_factory: Callable[[], Any], *, sock: Any, **_: Any) -> Any:  # type: ignore[override]
        return self.network.listen(self, protocol_factory, sock.path)

    async def create_connection(self, protocol_factory: Callable[[], Any], host: str, port: int, **_: Any) -> Any:  # type: ignore[override]
        return await self.network.connect(self, protocol_factory, f"tcp:{host}:{port}")

    async def sock_accept(self, sock: Any) -> Any:
        return await self.network.accept(self, sock)

    async def connect_accepted_socket(self, protocol_factory: Callable[[], Any], sock: Any, **_: Any) -> Any:  # type: ignore[override]
        return sock.give_to(protocol_factory())

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]
        self.signals[sig] = partial(callback, *args)

    # --- turns ---

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Exception):
            return  # our own: the process ended in it

    def _expire(self, handle: Handle) -> None:
        if self.is_alive and not handle.is_cancelled:
            self._ready.append(handle)
            if not self._is_due:
                self._wake()

    def _wake(self) -> None:
        self._is_due = True
        kernel = self.kernel
        soonest = kernel.now + self._busy + self.turn_seconds
        kernel.at(soonest if soonest > self._stopped_until else self._stopped_until, self._turn)

    def _turn(self) -> None:
        if not self.is_alive:
            return
        kernel = self.kernel
        if self._stopped_until > kernel.now:
            kernel.at(self._stopped_until, self._turn)
            return
        ready = self._ready
        self._busy = 0.0
        if kernel.running is not self:
            kernel.running = self
            events._set_running_loop(self)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.is_cancelled:
                continue
            self.steps += 1
            kernel.steps += 1
            if self.steps == self.dies_at_step:
                self.die()
                return
            try:
                handle.callback(*handle.arguments)
            except Killed:
                pass
            except Exception as error:
                if self.is_alive:
                    kernel.errors.append(f"{self.name}: a callback raised {error!r}")
            if not self.is_alive:
                return
        self._is_due = False
        if ready:
            self._wake()
        busy, self._busy = self._busy, 0.0
        if busy:
            self._stopped_until = max(self._stopped_until, kernel.now + busy)

    # --- what happens to a process ---

    @property
    def is_stopped(self) -> bool:
        return self._stopped_until > self.kernel.now

    def be_busy(self, seconds: float) -> None:
        """Let what runs now take so long, as a write to a slow disk does."""
        self._busy += seconds

    def stop_until(self, time: float, timers_first: bool) -> None:
        """SIGSTOP, and SIGCONT at `time`. Then its expired timers are seen before or after what has arrived."""
        self._stopped_until = max(self._stopped_until, time)
        self.kernel.at(time, self._continue, timers_first)

    def _continue(self, timers_first: bool) -> None:
        timers = [handle for handle in self._ready if handle.is_timer]
        others = [handle for handle in self._ready if not handle.is_timer]
        self._ready = deque([*timers, *others] if timers_first else [*others, *timers])

    def die(self) -> None:
        """SIGKILL: from now on nothing that it does reaches anybody."""
        if not self.is_alive:
            return
        self.is_alive = False
        self._ready.clear()
        ends, self.ends = list(self.ends), {}
        for end in ends:
            end.vanish()
        for hook in self.at_death:
            hook()
        if self.on_power_loss is not None:
            self.on_power_loss()

    def unwind(self) -> None:
        """Close what never ended."""
        for task in list(self._tasks):
            with contextlib.suppress(BaseException):
                task.get_coro().close()  # type: ignore[union-attr]
            if task.done() and not task.cancelled():
                task.exception()
        self._tasks.clear()
        self._ready.clear()
        self.at_death.clear()


class Killed(BaseException):
    """Leaves the code of a process that has just ended."""
