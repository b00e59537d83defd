"""The engine that is replicated: a PostgreSQL database that confirms a write when a second machine has it on its disk, too.

One connection, one call at a time, each a transaction of its own. A group carries the store's name, its fence and its own number:
if another process has raised the fence, or a group is missing, the database refuses it (schema.sql). Whatever fails, is not
answered within a lease, or comes with a warning, ends the process (ending.py): the next start raises the fence, and the number
tells whether the group that was in flight is there. Nothing is ever cancelled: PostgreSQL answers a cancelled commit with success.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

import asyncpg

from paychan.events.event import Event
from paychan.rpc.event_messages import NOTES_MAX
from paychan.rpc.store_messages import Stored, Unsettled

from ... import keys
from ...ending import die
from ...events import Stamp
from ...group import Group, Reader
from ...mark import Mark
from ...table import received
from ..interface import Kept, Unread

BEATS_PER_LEASE = 3
LOOKS_PER_BEAT = 4
PUT_GROUP = f"SELECT paychan.put_group({', '.join(f'${number}' for number in range(1, 21))})"
_TERMS = "LEFT JOIN paychan.record t ON t.key = '\\x54'::bytea || s.outpoint"  # keys.TERMS
_SETTLEMENT = "LEFT JOIN paychan.record x ON x.key = '\\x58'::bytea || s.outpoint"  # keys.SETTLEMENT
_ASKED = "WHERE s.outpoint = ANY ($1)"
LOAD = f"SELECT s.outpoint, s.record, t.value, x.value FROM paychan.state s {_TERMS} {_SETTLEMENT} {_ASKED}"
READ = f"SELECT s.outpoint, s.record, t.value FROM paychan.state s {_TERMS} {_ASKED}"
RECORD = "SELECT value FROM paychan.record WHERE key = $1"
SCAN = "SELECT key, value FROM paychan.record WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3"
PUT_TOLD_GROUP = PUT_GROUP.replace("put_group", "put_told_group")[:-1] + ", $21)"
PUT_NOTE = "SELECT * FROM paychan.put_note($1, $2, $3, $4)"
TELL = "SELECT paychan.tell_events($1)"
DROP = "SELECT paychan.drop_events($1)"
ENDS = """SELECT (SELECT key FROM paychan.record WHERE key >= $1 AND key < $2 ORDER BY key LIMIT 1),
    (SELECT key FROM paychan.record WHERE key >= $1 AND key < $2 ORDER BY key DESC LIMIT 1)"""
GIVE = f"SELECT paychan.give({', '.join(f'${number}' for number in range(1, 10))})"
TAKE_OVER = "SELECT paychan.take_over($1, $2, $3, $4, $5, $6)"
_HELD = "FROM paychan.shard h WHERE h.store = s.name ORDER BY h.shard"
LOOK = f"""SELECT s.name, s.number, s.fence, s.groups, s.open_value, s.begun_value, s.open_spent, s.owners,
    ARRAY (SELECT h.shard {_HELD}), ARRAY (SELECT h.epoch {_HELD}), s.confirmed FROM paychan.store s ORDER BY s.name"""
HIGHEST = "SELECT paychan.raise_highest($1)"


class Place(NamedTuple):
    """Who writes: the store's name, the fence that its start raised, and how many groups it has written."""

    store: str
    fence: int
    groups: int


class Sums(NamedTuple):
    """Satoshi: received on open channels and on those being settled, spent on open ones."""

    open: int
    begun: int
    spent: int

    @property
    def unsettled(self) -> Unsettled:
        return Unsettled(self.open, self.begun)


class Row(NamedTuple):
    """A store, as the database knows it at one moment. owners: what it told last of its workers. leases: their epochs. confirmed:
    how many of its groups it knew of itself when it began."""

    name: str
    number: int
    fence: int
    groups: int
    sums: Sums
    owners: bytes
    leases: dict[int, int]
    confirmed: int = 0


class Writes(NamedTuple):
    """What a group writes: the sums after it, the columns of `PaymentGroup.put_columns`, records put and gone, epochs raised, and
    the owner table if it has changed."""

    sums: Sums
    columns: tuple[list[Any], ...]
    puts: dict[bytes, bytes]
    gone: list[bytes]
    epochs: dict[int, int]
    owners: bytes | None = None
    events: list[bytes] = []  # noqa: RUF012  # nothing is ever added to it

    def __bool__(self) -> bool:
        return bool(self.columns[0] or self.puts or self.gone or self.epochs or self.owners is not None)


NO_COLUMNS: tuple[list[Any], ...] = ([], [], [], [], [], [], [], [])


class Known:
    """What was read for a group: a `Reader` of it, which raises `Unread` for everything else."""

    def __init__(self, records: dict[bytes, tuple[bytes | None, bytes | None]]) -> None:
        """records: outpoint -> state and terms."""
        self._records = records

    def states(self, outpoints: list[bytes]) -> list[bytes | None]:
        return self._take(outpoints, 0)

    def terms(self, outpoints: list[bytes]) -> list[bytes | None]:
        return self._take(outpoints, 1)

    def _take(self, outpoints: list[bytes], place: int) -> list[bytes | None]:
        try:
            return [self._records[outpoint][place] for outpoint in outpoints]
        except KeyError:
            raise Unread from None

    def funding(self, txid: bytes) -> bytes | None:
        """Return None: to write a funding transaction again, under its hash, changes nothing."""
        return None


class Postgres:
    """An `Engine`, and its `Reads` as coroutines. Made when the store has begun (opening.py), on a running event loop."""

    def __init__(
        self, connection: asyncpg.Connection, mark: Mark, place: Place, lease_ms: int, sums: Sums, epochs: list[int], sent_ms: int
    ) -> None:
        """sent_ms: when, by the monotonic clock, the newest call that the database has confirmed was sent."""
        self._connection, self._mark, self._place, self._lease_ms = connection, mark, place, lease_ms
        self._sums, self._epochs, self._sent_ms = sums, epochs, sent_ms
        self._stamp = Stamp(place.store)
        self._turn = asyncio.Lock()
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch = asyncio.create_task(self._keep_alive())

    def close(self) -> None:
        """Stop the beats; nothing that is in flight matters any more. Connection and mark are closed by who opened them."""
        self._is_closed = True
        self._watch.cancel()

    # as of the start

    def epochs(self, shard_count: int) -> list[int]:
        return list(self._epochs)

    def unsettled(self) -> Unsettled:
        return self._sums.unsettled

    def open_spent(self) -> int:
        return self._sums.spent

    # groups

    def run(self, steps: Coroutine[Any, Any, None]) -> None:
        """Let a coroutine run. One that fails ends the process."""
        task = asyncio.get_running_loop().create_task(steps)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._is_closed:
            die(error)

    async def prepare(self, missing: Callable[[], list[bytes]]) -> Reader:
        outpoints = missing()
        records: dict[bytes, tuple[bytes | None, bytes | None]] = dict.fromkeys(outpoints, (None, None))
        if outpoints:
            for outpoint, state, terms in await self._ask(READ, outpoints):
                records[outpoint] = state, terms
        return Known(records)

    def take(self, group: Group) -> Writes:
        columns = group.put_columns()
        puts: dict[bytes, bytes] = {}
        gone: list[bytes] = []
        for key, value in group.other_writes.items():
            if value is None:
                gone.append(key)
            else:
                puts[key] = value
        sums = Sums(*group.unsettled, group.open_spent)
        events = self._stamp.encode(group.events())
        return Writes(sums, columns, puts, gone, group.raised_epochs, group.owners or None, events)

    async def put(self, writes: Writes) -> None:
        async with self._turn:
            await self._put(writes)

    async def _put(self, writes: Writes) -> None:
        place, sent_ms = self._place._replace(groups=self._place.groups + 1), _now_ms()
        await self._connection.fetch(
            PUT_TOLD_GROUP if writes.events else PUT_GROUP,
            *place,
            *writes.sums,
            *writes.columns,
            list(writes.puts),
            list(writes.puts.values()),
            writes.gone,
            list(writes.epochs),
            list(writes.epochs.values()),
            writes.owners,
            *([writes.events] if writes.events else []),
        )
        self._confirmed(place, writes.sums, sent_ms)

    def _confirmed(self, place: Place, sums: Sums, sent_ms: int) -> None:
        """The database has answered: the group is on two machines."""
        self._place, self._sums, self._sent_ms = place, sums, sent_ms
        self._mark.note(place.groups)

    async def _keep_alive(self) -> None:
        """Write a beat when nothing was written for a while: others see by it that this store lives, and it sees that what it
        writes is confirmed. Without a confirmation for a lease, others may have taken over: the store ends."""
        beat_ms = self._lease_ms // BEATS_PER_LEASE
        look_ms = beat_ms // LOOKS_PER_BEAT
        while True:
            await asyncio.sleep(look_ms / 1000)
            silent_ms = _now_ms() - self._sent_ms
            if silent_ms > self._lease_ms - look_ms:
                die(TimeoutError(f"the database has confirmed nothing for {silent_ms} ms"))
            if silent_ms > beat_ms and not self._turn.locked():
                self.run(self._beat())

    async def _beat(self) -> None:
        async with self._turn:
            await self._put(Writes(self._sums, NO_COLUMNS, {}, [], {}))

    # other stores

    @property
    def name(self) -> str:
        """The store's."""
        return self._place.store

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Have `heard` called for each notification of a channel."""
        async with self._turn:
            await self._connection.add_listener(channel, lambda *_: heard())

    async def look(self) -> list[Row]:
        """Return all stores of one moment, in the order of their names."""
        return await look(self._ask)

    async def tell(self, owners: bytes) -> None:
        """Tell the other stores who serves our leases."""
        async with self._turn:
            await self._put(Writes(self._sums, NO_COLUMNS, {}, [], {}, owners))

    async def give(self, leases: list[int], to: str, owners: bytes | None) -> None:
        """Give leases to another store; on return it is durable. owners: as in `Writes`."""
        async with self._turn:
            place, sent_ms = self._place._replace(groups=self._place.groups + 1), _now_ms()
            await self._connection.fetch(GIVE, *place, *self._sums, leases, to, owners)
            self._confirmed(place, self._sums, sent_ms)

    async def take_over(self, silent: Row) -> int:
        """Take the leases of a store that was seen like this for a lease; return how many: none if it has moved since."""
        async with self._turn:
            place, sent_ms = self._place._replace(groups=self._place.groups + 1), _now_ms()
            taken: int = await self._connection.fetchval(TAKE_OVER, *place, silent.name, silent.fence, silent.groups)
            if taken:
                self._confirmed(place, self._sums, sent_ms)
            return taken

    # events and notes

    async def note(self, name: str, expected: bytes | None, value: bytes | None, events: list[Event]) -> tuple[bool, bytes | None]:
        ((is_done, now),) = await self._ask(PUT_NOTE, keys.note_key(name), expected, value, self._stamp.encode(events))
        return is_done, now

    async def tell_of(self, events: list[Event]) -> None:
        await self._ask(TELL, self._stamp.encode(events))

    async def drop(self, up_to: int) -> None:
        await self._ask(DROP, up_to)

    # reads

    async def stream(self, after: int, limit: int) -> Kept:
        """Return events, see `Reads`. Their order is that of their commits, so none with a lower number can come later
        (events.sql)."""
        ((oldest, newest),) = await self._ask(ENDS, keys.EVENT, keys.NEXT_TO_EVENT)
        rows = await self._ask(SCAN, keys.event_key(after), keys.NEXT_TO_EVENT, limit)
        events = [(keys.event_number(key), body) for key, body in rows]
        first, last = (keys.event_number(key) if key else 0 for key in (oldest, newest))
        return Kept(first, max([last, *(number for number, _ in events[-1:])]), events)

    async def notes(self, prefix: str) -> dict[str, bytes]:
        """Return all notes whose name begins so."""
        start = keys.note_key(prefix)
        rows = await self._ask(SCAN, start[:-1] + bytes((start[-1] - 1, 0xFF)), start[:-1] + bytes((start[-1] + 1,)), NOTES_MAX)
        return {key[1:].decode(): value for key, value in rows}

    async def answer(self, ask: Callable[["Postgres"], Any]) -> Any:
        try:
            return await ask(self)
        except BaseException as error:
            if not self._is_closed:
                die(error)
            raise

    async def _ask(self, statement: str, *arguments: object) -> list[Any]:
        async with self._turn:
            rows: list[Any] = await self._connection.fetch(statement, *arguments)
        return rows

    async def load(self, outpoints: list[bytes]) -> list[Stored | None]:
        rows = await self._ask(LOAD, outpoints)
        found = {outpoint: Stored(terms or b"", state, settlement or b"") for outpoint, state, terms, settlement in rows}
        return [found.get(outpoint) for outpoint in outpoints]

    async def funding(self, txid: bytes) -> bytes | None:
        rows = await self._ask(RECORD, keys.FUNDING + txid)
        return rows[0][0] if rows else None

    async def scan_expiring(self, before: int, after_number: int, after: bytes, limit: int) -> list[tuple[int, bytes]]:
        rows = await self._ask(SCAN, keys.expiring_key(after_number, after), keys.expiring_key(before), limit)
        return [keys.split_timed_key(key) for key, _ in rows]

    async def scan_unfinished(self, after: bytes, limit: int) -> list[tuple[int, bytes]]:
        end = bytes((keys.UNFINISHED[0] + 1,))
        return [(value[0], key[1:]) for key, value in await self._ask(SCAN, keys.UNFINISHED + after, end, limit)]

    async def scan_received(self, before: int, after_number: int, after: bytes, limit: int) -> list[tuple[int, int, bytes]]:
        found = await self.scan_expiring(before, after_number, after, limit)
        records = {
            outpoint: received(terms, state) for outpoint, state, terms in await self._ask(READ, [name for _, name in found])
        }
        return [(expiry, records.get(outpoint, 0), outpoint) for expiry, outpoint in found]

    async def scan_settled(self, after_number: int, after: bytes, limit: int) -> list[tuple[int, bytes, bytes]]:
        end = bytes((keys.DONE[0] + 1,))
        rows = await self._ask(SCAN, keys.done_key(after_number, after), end, limit)
        return [(*keys.split_timed_key(key), value) for key, value in rows]

    async def highest(self, seconds: int) -> int:
        ((highest,),) = await self._ask(HIGHEST, seconds)
        return int(highest)


async def look(fetch: Callable[[str], Awaitable[list[Any]]]) -> list[Row]:
    """Return all stores of one moment, in the order of their names."""
    return [
        Row(name, number, fence, groups, Sums(*sums), owners, dict(zip(leases, epochs, strict=True)), confirmed)
        for name, number, fence, groups, *sums, owners, leases, epochs, confirmed in await fetch(LOOK)
    ]


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
