"""Several stores active on one database: each looks at the others' rows, takes over who is silent, and gives away what is too much.

Nobody is in charge, and no clock is compared with another's. Each store computes from the same rows the same division of the
leases among the stores that live (`share_out`, by their workers), and gives away what it has beyond its share. Who has not moved
for a lease of our own clock is taken over by the living store with the lowest name, which then gives. A look, and all that follows
from it, is a step of the sequencer: no group is judged or in flight meanwhile.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from paychan.rpc.store_messages import OwnerTable, Unsettled
from paychan.rpc.stores_messages import Life, StoreSeen

from ...elsewhere import Elsewhere, theirs
from ...ending import die
from ...leases import share_out
from ...sequencer import Step
from .engine import BEATS_PER_LEASE, LOOKS_PER_BEAT, Row
from .opening import Opened

log = logging.getLogger("paychan.store")

CHANNEL = "owners"
LEAVE_SECONDS_MAX = 2.0
"""A store that is stopped gives its leases away; what takes longer is left to the others' take-over."""


class Owning(Protocol):
    """The store's half that knows workers and leases (store/server.py)."""

    def run_alone(self, step: Step) -> None: ...
    def kinds(self) -> tuple[range, range]: ...
    def holds(self, lease: int) -> bool: ...
    def in_turns(self) -> list[int]: ...
    def hold(self, epochs: dict[int, int]) -> None: ...
    def let_go(self, leases: list[int]) -> None: ...
    def hear(self, elsewhere: Elsewhere) -> None: ...
    def saw(self, stores: list[StoreSeen]) -> None: ...


@dataclass
class _Seen:
    """figures: of a row, as seen last, first at `since_ms`. has_moved: while it was watched."""

    figures: tuple[int, ...]
    since_ms: int
    has_moved: bool


class Watch:
    """Who lives and who is silent, by our own clock alone. Pure."""

    def __init__(self, own: str, lease_ms: int) -> None:
        self._own, self._lease_ms = own, lease_ms
        self._seen: dict[str, _Seen] = {}
        self._beats: dict[str, _Seen] = {}
        self._is_first = True
        self._asked_ms = 0

    def see(self, rows: list[Row], asked_ms: int, now_ms: int) -> None:
        """Take in what the database answered. asked_ms, now_ms: before the question and after the answer."""
        for row in rows:
            self._note(self._seen, row.name, (row.fence, row.groups), now_ms)
            self._note(self._beats, row.name, (row.groups,), now_ms)
        self._is_first, self._asked_ms = False, asked_ms

    def _note(self, seen: dict[str, _Seen], name: str, figures: tuple[int, ...], now_ms: int) -> None:
        before = seen.get(name)
        if before is None or before.figures != figures:
            seen[name] = _Seen(figures, now_ms, not self._is_first)

    def is_silent(self, row: Row) -> bool:
        """Return whether a store was the same for a whole lease."""
        return row.name != self._own and self._asked_ms - self._seen[row.name].since_ms > self._lease_ms

    def lives(self, row: Row) -> bool:
        """Return whether a store has moved within the last lease, or is this one."""
        return row.name == self._own or (self._seen[row.name].has_moved and not self.is_silent(row))

    def sign_of(self, row: Row) -> tuple[Life, int]:
        """Return what who operates is told: whether a store writes, and for how many milliseconds it has written nothing. By what
        it writes alone: whoever takes it over raises its fence."""
        beat = self._beats[row.name]
        unmoved_ms = max(0, self._asked_ms - beat.since_ms)
        if row.name == self._own:
            return Life.ALIVE, unmoved_ms
        if unmoved_ms > self._lease_ms:
            return Life.SILENT, unmoved_ms
        return (Life.ALIVE if beat.has_moved else Life.UNKNOWN), unmoved_ms


def excess(
    rows: list[Row], weights: dict[int, int], own: Row, kinds: tuple[range, range], in_turns: list[int]
) -> dict[str, list[int]]:
    """Return which of our leases are whose, once all are shared out. weights: workers of each store that lives, by its number.
    in_turns: our leases; the last ones go first."""
    names = {row.number: row.name for row in rows}
    holder = {lease: row.number for row in rows if row.number in weights for lease in row.leases}
    given: dict[str, list[int]] = {}
    if not any(weights.values()):
        return given
    for kind in kinds:
        leases = [lease for lease in kind if lease in holder]
        shared = zip(leases, share_out([holder[lease] for lease in leases], weights), strict=True)
        takers = [names[number] for lease, number in shared if lease in own.leases and number != own.number]
        ours = [lease for lease in reversed(in_turns) if lease in own.leases and lease in kind]
        for taker, lease in zip(takers, ours, strict=False):
            given.setdefault(taker, []).append(lease)
    return given


class Sharing:
    """One store's dealings with the others, while its context lasts."""

    def __init__(self, opened: Opened, owning: Owning, lease_ms: int) -> None:
        self._engine = opened.engine
        self._owning, self._marks, self._number = owning, opened.marks, opened.number
        self._name = opened.engine.name
        self._watch = Watch(self._name, lease_ms)
        self._pause = lease_ms / BEATS_PER_LEASE / LOOKS_PER_BEAT / 1000
        self._is_due = self._is_leaving = False
        self._looks: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Sharing":
        await self._engine.listen(CHANNEL, self.wake)
        self._looks = asyncio.get_running_loop().create_task(self._look_on())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._looks is not None:
            self._looks.cancel()

    async def _look_on(self) -> None:
        while True:
            self.wake()
            await asyncio.sleep(self._pause)

    def wake(self) -> None:
        """Look soon: something has changed, or it is time."""
        if not self._is_due:
            self._is_due = True
            self._owning.run_alone(self._step)

    async def leave(self) -> None:
        """Give everything away before this store ends, if there is who would take it, and if that does not take too long."""
        left = asyncio.get_running_loop().create_future()

        async def step() -> None:
            self._is_leaving = True
            await self._step()
            await self._engine.tell(b"")
            if not left.done():
                left.set_result(None)

        self._owning.run_alone(step)
        with suppress(TimeoutError):
            await asyncio.wait_for(left, LEAVE_SECONDS_MAX)

    async def _step(self) -> None:
        """Look, and do what follows."""
        self._is_due = False
        rows = await self._look()
        for row in rows:
            if row.leases and self._watch.is_silent(row) and self._is_first_of(rows) and await self._engine.take_over(row):
                log.warning("store %s was silent: its %d leases are ours now", row.name, len(row.leases))
                rows = await self._look()
        own = self._own(rows)
        arrived = {lease: epoch for lease, epoch in own.leases.items() if not self._owning.holds(lease)}
        if arrived:
            log.info("%d leases have come from other stores", len(arrived))
            self._owning.hold(arrived)
        if await self._give(rows, own):
            rows = await self._look()
        self._owning.hear(self._elsewhere(rows))
        self._owning.saw([self._told(row) for row in rows])

    async def _look(self) -> list[Row]:
        asked_ms = _now_ms()
        rows = await self._engine.look()
        self._watch.see(rows, asked_ms, _now_ms())
        for row in rows:
            if row.name != self._name:
                self._hold_against_mark(row)
        return rows

    def _hold_against_mark(self, row: Row) -> None:
        """Note how far another store was seen; end if the database has lost some of that, or the other one says so."""
        mark = self._marks.of(row.name)
        if row.groups < max(mark.sequence, row.confirmed):
            die(RuntimeError(f"the database has lost what was answered: it knows {row.groups} groups of store {row.name}"))
        if row.groups > mark.sequence:
            mark.note(row.groups)
            mark.sequence = row.groups

    def _own(self, rows: list[Row]) -> Row:
        return next(row for row in rows if row.name == self._name)

    def _is_first_of(self, rows: list[Row]) -> bool:
        return next(row.name for row in rows if self._watch.lives(row)) == self._name

    async def _give(self, rows: list[Row], own: Row) -> bool:
        """Give away what is beyond our share; return whether anything was."""
        weights = {row.number: len(table.workers) if (table := _table(row)) else 0 for row in rows if self._watch.lives(row)}
        if self._is_leaving:
            weights[self._number] = 0
        given = excess(rows, weights, own, self._owning.kinds(), self._owning.in_turns())
        for name, leases in given.items():
            await self._engine.give(leases, name, b"" if self._is_leaving else None)  # so that nobody gives it back
            log.info("%d leases are given to store %s", len(leases), name)
            self._owning.let_go(leases)
        return bool(given)

    def _elsewhere(self, rows: list[Row]) -> Elsewhere:
        owners: dict[int, tuple[int, int]] = {}
        workers: dict[int, str] = {}
        stopped: dict[int, str] = {}
        others = [row for row in rows if row.name != self._name]
        for row in others:
            table = _table(row)
            owners |= theirs(row.leases, table)
            if table is not None and (row.leases or self._watch.lives(row)):
                workers |= table.workers
                stopped |= {shard: why for shard, why in table.stopped.items() if shard in row.leases}
        unsettled = Unsettled(sum(row.sums.open for row in others), sum(row.sums.begun for row in others))
        return Elsewhere(owners, workers, stopped, unsettled)

    def _told(self, row: Row) -> StoreSeen:
        """Return what who operates is told of a store."""
        table, is_this = _table(row), row.name == self._name
        owners = {lease: worker for lease, (worker, _) in theirs(row.leases, table).items()}
        workers = table.workers if table is not None else {}
        figures = (*self._watch.sign_of(row), row.fence, row.groups, row.sums.open, row.sums.begun)
        return StoreSeen(row.name, row.number, is_this, *figures, workers, owners)


def _table(row: Row) -> OwnerTable | None:
    """Return what a store told last of its workers. Raises MessageError."""
    return OwnerTable.decode(row.owners) if row.owners else None


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
