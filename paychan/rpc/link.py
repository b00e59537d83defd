"""A lasting connection to another process: it reconnects by itself, for ever, and says when it is up and when it is lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .connection import Address, ConnectionGone, FrameConnection, RemoteRefusal, connect

RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 0.2
"""A process that comes back is found at once; one that stays away costs five attempts a second."""

GREETING_SECONDS_MAX = 5.0


class Link:
    """Keeps one greeted connection. `greet(connection)` runs after each connect; the link is up when it has returned."""

    def __init__(
        self,
        name: str,
        address: Address,
        payload_max: int,
        greet: Callable[[FrameConnection], Awaitable[None]],
        on_frame: Callable[[FrameConnection, int, int, bytes], None] = lambda *_: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._name, self._address, self._payload_max = name, address, payload_max
        self._greet, self._on_frame, self._on_lost = greet, on_frame, on_lost
        self._log = logging.getLogger("paychan.link")
        self._connection: FrameConnection | None = None
        self._closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._was_up = self._is_stopping = False
        self.trouble = "not connected yet"
        """Why the link is down, for the log; empty while it is up."""
        self.refusal = ""
        """What the other process said when it refused us last, for /readyz; empty if it did not, or the link is up."""

    @property
    def is_up(self) -> bool:
        return self._connection is not None

    @property
    def connection(self) -> FrameConnection:
        """The greeted connection. Raises ConnectionGone while there is none."""
        if self._connection is None:
            raise ConnectionGone()
        return self._connection

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        self._is_stopping = True
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection:
            self._connection.close()

    async def _keep(self) -> None:
        wait = RETRY_SECONDS_MIN
        while True:
            try:
                await self._hold()
                wait = RETRY_SECONDS_MIN
            except (OSError, ConnectionGone, TimeoutError, RemoteRefusal, ValueError) as error:  # ValueError: no message of ours
                is_expected = isinstance(error, (FileNotFoundError, ConnectionRefusedError)) and not self._was_up  # it starts, too
                self._note(f"{type(error).__name__}: {error}", logging.INFO if is_expected else logging.WARNING)
                self.refusal = str(error) if isinstance(error, RemoteRefusal) else ""
            await asyncio.sleep(wait)
            wait = min(2 * wait, RETRY_SECONDS_MAX)

    async def _hold(self) -> None:
        """Connect, greet, and stay until the connection is lost. Raises what connecting and greeting raise."""
        self._closed = asyncio.Event()
        connection = await connect(self._address, self._make)
        try:
            await asyncio.wait_for(self._greet(connection), GREETING_SECONDS_MAX)
            if not connection.is_open:
                raise ConnectionGone()
            self._connection, self._was_up = connection, True
            self._note("", logging.INFO)
            self.refusal = ""
            await self._closed.wait()
        finally:
            was_up, self._connection = self._connection is not None, None
            connection.close()
            if was_up and not self._is_stopping:
                self._note("the connection was lost", logging.WARNING)
            if was_up:
                self._on_lost()

    def _make(self) -> FrameConnection:
        closed = self._closed
        return FrameConnection(self._payload_max, self._on_frame, lambda _: closed.set())

    def _note(self, trouble: str, level: int) -> None:
        if trouble != self.trouble:
            self._log.log(level, "%s: %s", self._name, trouble or "connected")
        self.trouble = trouble
