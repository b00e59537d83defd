"""The asyncio client of the sellers' door: one connection, on which all sales of a process are pipelined.

What is asked for in one turn of the event loop goes out as one list. While LISTS_MAX lists wait for their answers, what is asked
for is collected for the next: so the busier a process is, the longer its lists, and the cheaper a sale. An answer that does not
come within ANSWER_SECONDS ends the connection: what was asked on it is unknown then.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from ..rpc.connection import abort, reachable
from .steps import UNSENT, Told
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
        self._asked: list[tuple[bytes, asyncio.Future[Told | None]]] = []
        self._is_flushing = False
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
        self._asked.append((dumps(sale), future))
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
        if not self._is_flushing and self._asked:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what was asked for, if not too much is under way."""
        connection = self._sales
        if connection is None or not connection.is_open:
            self._task = self._loop.create_task(self._reconnect())
            return
        self._is_flushing = False
        while self._asked and connection.is_open and connection.waiting < LISTS_MAX:
            batch, self._asked = self._asked[:SALES_MAX], self._asked[SALES_MAX:]
            self._send(connection, batch)

    def _send(self, connection: _Connection, batch: list[tuple[bytes, "asyncio.Future[Told | None]"]]) -> None:
        futures = [future for _, future in batch]

        def take(status: int, body: bytes) -> None:
            answers = read_answers(status, body, len(futures))
            for number, future in enumerate(futures):
                if not future.done():
                    future.set_result(None if answers is None else answers[number])
            self._flush_soon()

        connection.send(
            self._door.render("POST", SALES, list_of([sale for sale, _ in batch])), take, lambda: _lose(futures), ANSWER_SECONDS
        )

    async def _reconnect(self) -> None:
        self._sales = await self._connect()
        self._is_flushing = False
        if self._sales is None:
            asked, self._asked = self._asked, []
            _lose([future for _, future in asked], UNSENT)
        else:
            self._flush_soon()

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


def _lose(futures: "list[asyncio.Future[Told | None]]", told: Told | None = None) -> None:
    for future in futures:
        if not future.done():
            future.set_result(told)
