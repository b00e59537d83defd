"""PostgreSQL on three machines: a primary and two standbys, `ANY 1` of which must have a commit on its disk before it is answered.

A commit is in the primary's log first. Until a standby has confirmed it, its rows stay locked and nobody sees them; whoever asked
may be gone by then. A primary that crashes and comes back shows all that its log has, confirmed or not. A wait that is cancelled is
answered as a success, with a warning. A standby copies the log in order and answers nothing but who it is.
"""

import asyncio
import pickle
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paychan import database

from ..kernel import Process
from .tables import READS, WRITES, Blocked, Changes, Key, SqlError, Tables, Transaction

if TYPE_CHECKING:
    from .world import ClusterWorld

NODES = ("n1", "n2", "n3")
SYSTEM = 7
CANCELLED = ("01000", "canceling wait for synchronous replication due to user request")
RETRY_SECONDS = 0.1
_SIZE = struct.Struct("<I")


def path_of(name: str) -> str:
    """Return where a node listens."""
    return f"pg:{name}"


class Messages(asyncio.Protocol):
    """Whole Python objects over a connection of bytes. `heard(message)`, `lost()`."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._rest)
            if len(self._rest) < _SIZE.size + size:
                return
            message, self._rest = self._rest[_SIZE.size : _SIZE.size + size], self._rest[_SIZE.size + size :]
            self.heard(*pickle.loads(message))

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None
        self.lost()

    def say(self, *message: Any) -> None:
        if self.transport is not None and not self.transport.is_closing():
            data = pickle.dumps(message)
            self.transport.write(_SIZE.pack(len(data)) + data)

    def heard(self, *message: Any) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        """Nothing to do."""


@dataclass
class Entry:
    """One transaction in the log. number: which no other has."""

    number: int
    changes: Changes


@dataclass
class Place:
    """What a node has on its disk, and what its manager has told it. upstream: whom it copies; empty: nobody."""

    name: str
    log: list[Entry] = field(default_factory=list)
    timeline: int = 1
    is_primary: bool = False
    upstream: str = ""

    def is_behind(self, other: "Place") -> bool:
        """Return whether its log is a beginning of the other's."""
        size = len(self.log)
        return size <= len(other.log) and (not size or self.log[-1].number == other.log[size - 1].number)


@dataclass
class Waiting:
    """A commit that a standby has not confirmed. end: of its entry in the log."""

    entry: Entry
    held: dict[Key, None]
    tells: bool
    end: int
    over: asyncio.Event
    is_cancelled: bool = False


class Server:
    """One life of a node's process."""

    def __init__(self, world: "ClusterWorld", place: Place, process: Process) -> None:
        self.world, self.place, self.process = world, place, process
        self.tables = Tables()
        self.locks: dict[Key, Waiting] = {}
        self.waiting: deque[Waiting] = deque()
        self.sessions: dict[Session, None] = {}
        self._receiver: Receiver | None = None
        for entry in place.log:
            self.tables.apply(entry.changes)

    def start(self) -> None:
        """Run in the node's process."""
        self.world.network.listen(self.process, lambda: Session(self), path_of(self.place.name))
        if not self.place.is_primary:
            self.process.create_task(self._follow())

    # --- the primary ---

    def commit(self, tx: Transaction) -> Waiting:
        """Write a transaction to the log, and let the standbys have it."""
        self.world.entries += 1
        entry = Entry(self.world.entries, tx.changes)
        self.place.log.append(entry)
        self.process.be_busy(self.world.sync_seconds())
        waiting = Waiting(entry, tx.held, tx.tells, len(self.place.log), asyncio.Event())
        self.waiting.append(waiting)
        self.locks.update(dict.fromkeys(tx.held, waiting))
        for session in self.sessions:
            session.send_log()
        return waiting

    def confirmed(self, end: int) -> None:
        """A standby has everything before `end` on its disk."""
        while self.waiting and self.waiting[0].end <= end:
            self.world.confirmed.add(self.waiting[0].entry.number)
            self._show(self.waiting.popleft())

    def _show(self, waiting: Waiting) -> None:
        if waiting.over.is_set():
            return
        self.tables.apply(waiting.entry.changes)
        if waiting.is_cancelled:
            self.world.show(waiting.entry)
        for key in waiting.held:
            if self.locks.get(key) is waiting:
                del self.locks[key]
        waiting.over.set()
        if waiting.tells:
            for session in self.sessions:
                session.notify()

    def cancel_waits(self) -> int:
        """Cancel the waits for a standby, as an administrator can; return how many there were."""
        cancelled = [waiting for waiting in self.waiting if not waiting.over.is_set()]
        for waiting in cancelled:
            waiting.is_cancelled = True
            self._show(waiting)
        return len(cancelled)

    # --- a standby ---

    async def _follow(self) -> None:
        while True:
            upstream = self.place.upstream
            if upstream:
                try:
                    place = path_of(upstream)
                    _, self._receiver = await self.world.network.connect(self.process, lambda: Receiver(self), place)
                    await self._receiver.over.wait()
                except OSError:
                    pass
            await asyncio.sleep(RETRY_SECONDS)

    def turn_to(self, upstream: str) -> None:
        """Copy another node from now on."""
        self.place.upstream = upstream
        if self._receiver is not None:
            self._receiver.stop()

    def append(self, start: int, entries: list[Entry]) -> int:
        """Write what the primary sent to the log; return where that ends now."""
        log = self.place.log
        if len(log) == start:
            log.extend(entries)
            self.process.be_busy(self.world.sync_seconds())
            self.world.on_second_disk(self.place)
        return len(log)


class Receiver(Messages):
    """A standby's connection to its primary."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server, self.over = server, asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        log = self._server.place.log
        self.say("copy", len(log), log[-1].number if log else 0)

    def heard(self, *message: Any) -> None:
        if self.transport is not None and message[0] == "log":
            _, timeline, start, entries = message
            self._server.place.timeline = timeline
            self.say("has", self._server.append(start, entries))

    def stop(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    def lost(self) -> None:
        self.over.set()


class Session(Messages):
    """A node's end of a connection: of a client, or of a standby that copies."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._calls: deque[tuple[int, str, tuple[Any, ...]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._now: Waiting | None = None
        self._sent: int | None = None
        self._hears = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._server.sessions[self] = None

    def lost(self) -> None:
        """What waits for a standby goes on waiting: its rows stay locked."""
        self._server.sessions.pop(self, None)

    def heard(self, *message: Any) -> None:
        kind, *rest = message
        if kind == "call":
            self._calls.append(tuple(rest))  # type: ignore[arg-type]
            if self._worker is None or self._worker.done():
                self._worker = asyncio.get_running_loop().create_task(self._work())
        elif kind == "listen":
            self._hears = True
        elif kind == "cancel" and self._now is not None:
            self._now.is_cancelled = True
            self._server._show(self._now)
        elif kind == "copy":
            self._begin_copy(*rest)
        elif kind == "has":
            self._server.confirmed(rest[0])

    # --- standbys ---

    def _begin_copy(self, size: int, number: int) -> None:
        log = self._server.place.log
        if not self._server.place.is_primary or size > len(log) or (size and log[size - 1].number != number):
            self.transport.abort()  # it has left our history
            return
        self._sent = size
        self._server.confirmed(size)
        self.send_log(True)

    def send_log(self, even_nothing: bool = False) -> None:
        """Send what was written since the last time, if this is a standby's session."""
        log = self._server.place.log
        if self._sent is not None and (even_nothing or len(log) > self._sent):
            self.say("log", self._server.place.timeline, self._sent, log[self._sent :])
            self._sent = len(log)

    # --- clients ---

    def notify(self) -> None:
        if self._hears:
            self.say("notify", "owners")

    async def _work(self) -> None:
        while self._calls:
            number, statement, arguments = self._calls.popleft()
            try:
                rows, is_cancelled = await self._execute(statement, arguments)
            except SqlError as error:
                self.say("error", number, error.sqlstate, str(error))
                continue
            if is_cancelled:
                self.say("warning", *CANCELLED)
            self.say("rows", number, rows)

    async def _execute(self, statement: str, arguments: tuple[Any, ...]) -> tuple[list[tuple[Any, ...]], bool]:
        """Return the rows, and whether the wait for a standby was cancelled. Raises SqlError."""
        server = self._server
        if statement == database._WHO:
            is_primary = server.place.is_primary
            return [(not is_primary, f"{server.place.timeline:08X}" if is_primary else "", SYSTEM)], False
        if not server.place.is_primary:
            raise SqlError("25006", "cannot execute this in a standby")
        if statement in READS:
            return READS[statement](server.tables, *arguments), False
        while True:
            tx = Transaction(server.tables, server.locks, server.world.is_replicated, int(server.world.now()))
            try:
                rows = WRITES[statement](tx, *arguments)
                break
            except Blocked as error:
                await server.locks[error.key].over.wait()
        if not tx.is_logged:
            return rows, False
        self._now = server.commit(tx)
        await self._now.over.wait()
        waited, self._now = self._now, None
        return rows, waited.is_cancelled
