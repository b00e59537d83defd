"""The asyncio client of the sellers' door: one connection, on which all sales of a process are pipelined.

What is asked for together goes out as one list, which is held back while each turn of the event loop brings it something, for a
millisecond at most. While LISTS_MAX lists wait for their answers, what is asked for is collected for the next: so the busier a
process is, the longer its lists, and the cheaper a sale. An answer that does not come within ANSWER_SECONDS ends the connection:
what was asked on it is unknown then.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .._fast.lane import read_sold
from ..rpc.connection import abort, reachable
from ..rpc.growing import let_grow
from .steps import UNSENT, Sold, Told
from .wire import ANSWER_BYTES_MAX, ANSWER_SECONDS, SALES, SALES_MAX, SLOW_SECONDS, Door, dumps, list_of, read_answer, read_answers

LISTS_MAX = 2
CALLS_MAX = 64
"""Other requests under way at once; more wait."""

Waiter = tuple[float, Callable[[int, bytes], None], Callable[[], None]]
"""When it was sent (the loop's seconds), what takes its answer's status and body, and what is called if there is none."""


class _Connection(asyncio.Protocol):
    """HTTP/1.1 answers in the order of the requests. on_end(): the connection is of no use any more."""

    def __init__(self, on_end: Callable[["_Connection"], None]) -> None:
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Waiter] = deque()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, data: bytes, take: Callable[[int, bytes], None], lose: Callable[[], None], seconds: float) -> None:
        """Send a request."""
        assert self._transport is not None
        self._waiting.append((self._loop.time(), take, lose))
        self._transport.write(data)
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._look, seconds)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _look(self, seconds: float) -> None:
        """End the connection if the oldest request is not answered in time."""
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][0] + seconds - self._loop.time()
        if left <= 0:
            self.close()
        else:
            self._timer = self._loop.call_later(left, self._look, seconds)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while self._buffer and self._waiting and self._take_one():
                pass
        except (ValueError, IndexError):
            self.close()
        if len(self._buffer) > ANSWER_BYTES_MAX or (self._buffer and not self._waiting):
            self.close()

    def _take_one(self) -> bool:
        """Take one whole answer out of the buffer. Raises ValueError if it is none."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        if not head.startswith(b"http/1.1 "):
            raise ValueError("not HTTP/1.1")
        at = head.index(b"\r\ncontent-length:") + 17
        stop = head.find(b"\r\n", at)
        size = int(head[at:] if stop < 0 else head[at:stop])
        if len(self._buffer) < end + 4 + size:
            return False
        body, self._buffer = self._buffer[end + 4 : end + 4 + size], self._buffer[end + 4 + size :]
        _, take, _ = self._waiting.popleft()
        take(int(head[9:12]), body)
        if b"\r\nconnection: close" in head:
            self.close()
            return False
        return True

    def connection_lost(self, _: Exception | None) -> None:
        self.close()

    def close(self) -> None:
        """End it, and let all know that wait for an answer."""
        if not self.is_open:
            return
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            abort(self._transport)
        waiting, self._waiting = self._waiting, deque()
        self._on_end(self)
        for _, _, lose in waiting:
            lose()


class AsyncDoor:
    """The door, for one event loop."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._asked: list[_Asked] = []
        self._last = 0  # sales in the last list
        self._sales: _Connection | None = None
        self._idle: list[_Connection] = []
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self._task: asyncio.Task[None] | None = None

    async def ask(self, sales: tuple[dict[str, Any], ...]) -> list[Told] | None:
        """Ask for sales, in order; return what each was answered, UNSENT for those that nobody heard; None: unknown."""
        told = [await future for future in [self.ask_one(sale) for sale in sales]]
        return None if None in told else told  # type: ignore[return-value]

    def ask_one(self, sale: dict[str, Any]) -> "asyncio.Future[Told | None]":
        """Ask for a sale; return what will have its answer: UNSENT if nobody heard it, None: unknown."""
        future: asyncio.Future[Told | None] = self._loop.create_future()
        self._asked.append((dumps(sale), future, False))
        self._flush_soon()
        return future

    def charge(self, text: bytes) -> "asyncio.Future[Sold | Told | None]":
        """The same for a charge, in JSON. Sold: that is what it was, just now; whatever else there is to say comes as a Told."""
        future: asyncio.Future[Sold | Told | None] = self._loop.create_future()
        self._asked.append((text, future, True))
        self._flush_soon()
        return future

    async def call(self, method: str, target: str) -> Told | None:
        """Make another request; return its answer, None: unknown."""
        async with self._calls:
            connection = self._idle.pop() if self._idle else None
            if connection is None or not connection.is_open:
                connection = await self._connect()
            if connection is None:
                return None
            future: asyncio.Future[Told | None] = self._loop.create_future()

            def take(status: int, body: bytes) -> None:
                if not future.done():
                    future.set_result(read_answer(status, body))

            def lose() -> None:
                if not future.done():
                    future.set_result(None)

            connection.send(self._door.render(method, target), take, lose, SLOW_SECONDS)
            told = await future
            if connection.is_open:
                self._idle.append(connection)
            return told

    def close(self) -> None:
        """End all connections."""
        for connection in [*self._idle, *([self._sales] if self._sales else [])]:
            connection.close()

    # --- lists ---

    def _flush_soon(self) -> None:
        if self._asked and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._flush())

    async def _flush(self) -> None:
        """Send what was asked for, if not too much is under way: list after list, each of them once it has grown."""
        while self._asked:
            connection = self._sales
            if connection is None or not connection.is_open:
                await self._reconnect()
                continue
            if connection.waiting >= LISTS_MAX:
                return
            await let_grow(lambda: len(self._asked), self._last)
            if connection.is_open:
                batch, self._asked = self._asked[:SALES_MAX], self._asked[SALES_MAX:]
                self._last = len(batch)
                self._send(connection, batch)

    def _send(self, connection: _Connection, batch: "list[_Asked]") -> None:
        def take(status: int, body: bytes) -> None:
            answers = _answers(status, body, batch)
            for number, (_, future, _) in enumerate(batch):
                if not future.done():
                    future.set_result(None if answers is None else answers[number])
            self._flush_soon()

        connection.send(
            self._door.render("POST", SALES, list_of([text for text, _, _ in batch])), take, lambda: _lose(batch), ANSWER_SECONDS
        )

    async def _reconnect(self) -> None:
        """Connect, or say of all that was asked for that nobody heard it."""
        self._sales = await self._connect()
        if self._sales is None:
            asked, self._asked = self._asked, []
            _lose(asked, UNSENT)

    async def _connect(self) -> _Connection | None:
        door = self._door

        def make() -> _Connection:
            return _Connection(self._ended)

        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                door.approach()
                if door.server is None:
                    with reachable(door.socket) as path:
                        _, connection = await self._loop.create_unix_connection(make, path)
                else:
                    tls = ssl.create_default_context(cafile=door.ca_file or None) if door.server.is_tls else None
                    _, connection = await self._loop.create_connection(make, door.server.host, door.server.port, ssl=tls)
                return connection
        except (OSError, ssl.SSLError):
            return None

    def _ended(self, connection: _Connection) -> None:
        if connection is self._sales:
            self._sales = None
            self._loop.call_soon(self._flush_soon)
        elif connection in self._idle:
            self._idle.remove(connection)


_Asked = tuple[bytes, "asyncio.Future[Any]", bool]
"""A sale's JSON, what will have its answer, and whether that may be a Sold."""


def _answers(status: int, body: bytes, batch: list[_Asked]) -> Sequence[Sold | Told] | None:
    """Return what a list was answered; None: nothing that makes sense."""
    plain = read_sold(body, len(batch)) if status == 200 and all(is_plain for _, _, is_plain in batch) else None
    return read_answers(status, body, len(batch)) if plain is None else plain


def _lose(asked: list[_Asked], told: Told | None = None) -> None:
    for _, future, _ in asked:
        if not future.done():
            future.set_result(told)
