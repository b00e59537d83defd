"""What asyncpg is for the store's code: a connection whose calls and answers go over the simulated network.

A connection that ends under a call leaves its outcome unknown. A task that is cancelled during a call has it cancelled at the
server, too, as asyncpg does.
"""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import asyncpg

from ..hosts import Stage, _process
from .database import Messages, path_of


class Connection(Messages):
    """The methods of `asyncpg.Connection` that are used."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, tuple[str, asyncio.Future[Any], tuple[Any, ...]]] = {}
        self._number, self._was_warned = 0, False
        self._listeners: list[Callable[..., None]] = []
        self._log_listeners: list[Callable[..., None]] = []
        self._termination_listeners: list[Callable[..., None]] = []

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        self._number += 1
        number, answer = self._number, self._loop.create_future()
        if self.transport is None or self.transport.is_closing():
            raise asyncpg.InterfaceError("connection is closed")
        self._calls[number] = statement, answer, arguments
        self.say("call", number, statement, arguments)
        try:
            rows: list[Any] = await answer
        except asyncio.CancelledError:
            self.say("cancel", number)
            raise
        return rows

    async def fetchrow(self, statement: str, *arguments: Any) -> Any:
        rows = await self.fetch(statement, *arguments)
        return rows[0] if rows else None

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        row = await self.fetchrow(statement, *arguments)
        return row[0] if row is not None else None

    async def add_listener(self, channel: str, heard: Callable[..., None]) -> None:
        self._listeners.append(heard)
        self.say("listen", channel)

    def add_log_listener(self, heard: Callable[..., None]) -> None:
        self._log_listeners.append(heard)

    def add_termination_listener(self, heard: Callable[..., None]) -> None:
        self._termination_listeners.append(heard)

    def remove_termination_listener(self, heard: Callable[..., None]) -> None:
        self._termination_listeners.remove(heard)

    def terminate(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # --- what comes ---

    def heard(self, *message: Any) -> None:
        kind, *rest = message
        if kind == "notify":
            for listener in self._listeners:
                self._loop.call_soon(listener, self, 0, rest[0], "")
        elif kind == "warning":
            self._was_warned, warning = True, SimpleNamespace(sqlstate=rest[0])
            for listener in self._log_listeners:
                self._loop.call_soon(listener, self, warning)
        else:
            self._answer(kind, *rest)

    def _answer(self, kind: str, number: int, *rest: Any) -> None:
        statement, answer, arguments = self._calls.pop(number)
        if kind == "rows" and not self._was_warned:
            Stage.world.on_answer(_process().name, statement, arguments, rest[0])  # type: ignore[attr-defined]
        if answer.done():
            return
        if kind == "rows":
            answer.set_result(rest[0])
        else:
            error = asyncpg.PostgresError(rest[1])
            error.sqlstate = rest[0]
            answer.set_exception(error)

    def lost(self) -> None:
        calls, self._calls = self._calls, {}
        for _, answer, _ in calls.values():
            if not answer.done():
                answer.set_exception(asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"))
        for listener in self._termination_listeners:
            self._loop.call_soon(listener, self)


async def connect(*, host: str, timeout: float, **_: Any) -> Connection:
    """Stand in for `asyncpg.connect`. Raises OSError, TimeoutError."""
    _, connection = await asyncio.wait_for(Stage.world.network.connect(_process(), Connection, path_of(host)), timeout)
    return connection
