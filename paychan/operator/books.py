"""The operator's books: every channel as a row, in memory, with the indexes that its views need. No I/O.

Rows are put in by whoever reads the store (following.py), and may be as old as its last look; sums of days come of outcome records
alone, so they are the same after a restart. A view touches as many rows as it shows, times the phases, and no more; a search reads
one index through. Amounts are satoshi, times unix seconds, days are of UTC.
"""

import re
import sqlite3
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import merge
from itertools import islice
from typing import Any

from ..core.channel import Phase
from ..core.outcome import Outcome
from ..core.outpoint import format_outpoint
from ..core.units import LOCKTIME_MAX

SETTLED_KEPT = 20_000
"""Settled channels that have a row, the latest; older ones are found by their outpoint, in the store."""

DAY_SECONDS = 86_400
UNSETTLED = (Phase.OPEN, Phase.CLOSING, Phase.SIGNED, Phase.BROADCAST)
PHASES: dict[str, tuple[Phase, ...]] = {
    "": tuple(Phase),
    "unsettled": UNSETTLED,
    **{phase.name.lower(): (phase,) for phase in Phase},
}
"""What `phase` may ask for."""

ORDERS = {"expiry": ("expires_at", True), "value": ("received", False), "opened": ("opened_at", False)}
"""By what a list is ordered, and whether the least comes first."""

HORIZONS = (3600, 3 * 3600, 6 * 3600, 12 * 3600, DAY_SECONDS, 3 * DAY_SECONDS, 7 * DAY_SECONDS, 30 * DAY_SECONDS)
"""Seconds from now that part what is at risk by its expiry; the last part has no end."""

ASKED_MAX = 200
"""Settlements whose depth is asked for at a time."""

_SEARCH = re.compile(r"[0-9a-f]{0,64}(?:[/:][0-9]{0,10})?\Z")
_CURSOR = re.compile(r"([0-9]{1,19})-([0-9a-f]{64}/[0-9]{1,10})\Z")

_SCHEMA = """
CREATE TABLE channel (
    outpoint BLOB PRIMARY KEY, name TEXT NOT NULL, phase INT NOT NULL, funding INT NOT NULL, received INT NOT NULL,
    spent INT NOT NULL, expires_at INT NOT NULL, opened_at INT NOT NULL, look INT NOT NULL, phase_at INT NOT NULL,
    txid TEXT, fee INT, size INT, confirmations INT, settled_at INT, missing INT, is_lost INT
) WITHOUT ROWID;
CREATE INDEX by_expires_at ON channel (phase, expires_at, name, received);
CREATE INDEX by_received ON channel (phase, received, name);
CREATE INDEX by_opened_at ON channel (phase, opened_at, name);
CREATE INDEX by_settled_at ON channel (settled_at) WHERE settled_at IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A channel. phase_at: since when it was seen in its phase, by this process. txid, fee, size: of its newest settlement
    transaction, None while none is signed; confirmations: as the chain source said last, None if it was not asked. settled_at,
    missing, is_lost: of its outcome, None while there is none, or none was kept."""

    outpoint: bytes
    phase: Phase
    funding: int
    received: int
    spent: int
    expires_at: int
    opened_at: int
    phase_at: int = 0
    txid: str | None = None
    fee: int | None = None
    size: int | None = None
    confirmations: int | None = None
    settled_at: int | None = None
    missing: int | None = None
    is_lost: bool | None = None

    @property
    def name(self) -> str:
        return format_outpoint(self.outpoint)


_COLUMNS = tuple(Row.__slots__)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM channel"
_PUT = f"INSERT OR REPLACE INTO channel (look, name, {', '.join(_COLUMNS)}) VALUES ({', '.join('?' * (len(_COLUMNS) + 2))})"


def _row(fields: tuple[Any, ...]) -> Row:
    outpoint, phase, *rest = fields
    return Row(outpoint, Phase(phase), *rest)


@dataclass(frozen=True, slots=True)
class Cursor:
    """After which row of an order a page begins."""

    number: int
    name: str

    def __str__(self) -> str:
        return f"{self.number}-{self.name}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises ValueError."""
        match = _CURSOR.match(text)
        if match is None or int(match[1]) >= 1 << 63:
            raise ValueError("this is no cursor")
        return cls(int(match[1]), match[2])


def search_text(text: str) -> str:
    """Return what is looked for in outpoints: a part of a txid, maybe with an index behind it. Raises ValueError."""
    found = text.strip().lower()
    if not _SEARCH.match(found):
        raise ValueError("search takes a part of an outpoint: hexadecimal digits, or TXID/VOUT")
    return found.replace(":", "/")


@dataclass(slots=True)
class Day:
    """What became of channels on one day: how many were opened, settled and lost; of the settled and lost ones, what was received,
    which is what arrived, what fees took, and what is missing."""

    opened: int = 0
    settled: int = 0
    lost_channels: int = 0
    received: int = 0
    arrived: int = 0
    fees: int = 0
    lost: int = 0


class Books:
    """All rows, and the sums of days. kept: settled channels that have a row."""

    def __init__(self, kept: int = SETTLED_KEPT) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.executescript(_SCHEMA)
        self.kept = kept
        self._counts: Counter[Phase] = Counter()
        self._values: Counter[Phase] = Counter()
        self._days: dict[int, Day] = {}
        self._counted: deque[tuple[int, bytes]] = deque()
        self._is_counted: set[bytes] = set()
        self._opened: Counter[int] = Counter()
        self.touched = 0
        """Rows that the last view read: what a test holds on to, for times depend on the machine."""

    def close(self) -> None:
        self._db.close()

    # --- putting in ---

    def put(self, row: Row, look: int) -> None:
        """Put a channel's row in the place of the one before. look: the number of the look at the store that found it."""
        before = self.get(row.outpoint)
        if before is not None:
            self._forget_sums(before)
            is_same_phase = before.phase == row.phase
            row = replace(
                row,
                phase_at=before.phase_at if is_same_phase else row.phase_at,
                confirmations=before.confirmations if before.txid == row.txid else row.confirmations,
                settled_at=row.settled_at if row.settled_at is not None else before.settled_at,
                missing=row.missing if row.missing is not None else before.missing,
                is_lost=row.is_lost if row.is_lost is not None else before.is_lost,
            )
        self._db.execute(_PUT, (look, row.name, *(getattr(row, name) for name in _COLUMNS)))
        self._counts[row.phase] += 1
        self._values[row.phase] += row.received
        if row.phase != Phase.SETTLED:
            self._opened[row.opened_at // DAY_SECONDS] += 1

    def saw(self, outpoints: Iterable[bytes], look: int) -> None:
        """Note that a look found these as they are in their rows."""
        self._db.executemany("UPDATE channel SET look = ? WHERE outpoint = ?", ((look, outpoint) for outpoint in outpoints))

    def remove(self, outpoint: bytes) -> None:
        """Take out a channel that the store does not know any more, or that was settled long ago."""
        row = self.get(outpoint)
        if row is not None:
            self._forget_sums(row)
            self._db.execute("DELETE FROM channel WHERE outpoint = ?", (outpoint,))

    def confirmed(self, outpoint: bytes, txid: str, confirmations: int | None) -> None:
        """Note how deep a settlement transaction is."""
        self._db.execute("UPDATE channel SET confirmations = ? WHERE outpoint = ? AND txid = ?", (confirmations, outpoint, txid))

    def _forget_sums(self, row: Row) -> None:
        self._counts[row.phase] -= 1
        self._values[row.phase] -= row.received
        if row.phase != Phase.SETTLED:
            self._opened[row.opened_at // DAY_SECONDS] -= 1

    def count_outcome(self, outpoint: bytes, outcome: Outcome, forget_before: int) -> bool:
        """Count what became of a channel, once however often it is told; return whether it was news. forget_before: what was
        settled earlier than that (unix seconds) is not told again."""
        while self._counted and self._counted[0][0] < forget_before:
            self._is_counted.discard(self._counted.popleft()[1])
        if outpoint in self._is_counted:
            return False
        self._is_counted.add(outpoint)
        self._counted.append((outcome.settled_at, outpoint))
        self._days.setdefault(outcome.opened_at // DAY_SECONDS, Day()).opened += 1
        day = self._days.setdefault(outcome.settled_at // DAY_SECONDS, Day())
        day.settled += not outcome.is_lost
        day.lost_channels += outcome.is_lost
        day.received += outcome.received
        day.arrived += outcome.paid_out
        day.fees += outcome.fee
        day.lost += outcome.missing
        return True

    def drop_old(self) -> None:
        """Take out the settled channels beyond those that are kept."""
        excess = self._counts[Phase.SETTLED] - self.kept
        if excess > 0:
            oldest = "SELECT outpoint FROM channel WHERE phase = 5 ORDER BY COALESCE(settled_at, 0) LIMIT ?"
            for (outpoint,) in self._db.execute(oldest, (excess,)).fetchall():
                self.remove(outpoint)

    # --- looking ---

    def get(self, outpoint: bytes) -> Row | None:
        """Return a channel's row."""
        fields = self._db.execute(f"{_SELECT} WHERE outpoint = ?", (outpoint,)).fetchone()
        return None if fields is None else _row(fields)

    def on_their_way(self) -> list[Row]:
        """Return the settlements that are signed or published, those that expire first before others."""
        rows, _ = self.page((Phase.SIGNED, Phase.BROADCAST), "expiry", ASKED_MAX)
        return rows

    def unseen(self, look: int) -> list[bytes]:
        """Return the unsettled channels that a look did not find: they were settled meanwhile."""
        statement = "SELECT outpoint FROM channel WHERE phase < 5 AND look < ?"
        return [outpoint for (outpoint,) in self._db.execute(statement, (look,))]

    def counts(self) -> dict[Phase, tuple[int, int]]:
        """Return how many channels are in each phase, and what was received on them."""
        return {phase: (self._counts[phase], self._values[phase]) for phase in Phase}

    def page(
        self, phases: tuple[Phase, ...], order: str, limit: int, after: Cursor | None = None, search: str = ""
    ) -> tuple[list[Row], Cursor | None]:
        """Return a page of channels, and the cursor of the next one, None if there is none. order: of ORDERS; search: see
        `search_text`."""
        column, is_rising = ORDERS[order]
        found = [self._of_phase(phase, column, is_rising, limit + 1, after, search) for phase in phases]
        self.touched = sum(map(len, found))
        rows = list(islice(merge(*found, key=lambda row: (getattr(row, column), row.name), reverse=not is_rising), limit + 1))
        is_more = len(rows) > limit
        last = rows[limit - 1] if is_more else None
        return rows[:limit], None if last is None else Cursor(getattr(last, column), last.name)

    def _of_phase(self, phase: Phase, column: str, is_rising: bool, limit: int, after: Cursor | None, search: str) -> list[Row]:
        sign, direction = (">", "ASC") if is_rising else ("<", "DESC")
        where, values = ["phase = ?"], list[object]((phase,))
        if after is not None:
            where.append(f"({column}, name) {sign} (?, ?)")
            values += (after.number, after.name)
        if search:
            where.append("instr(name, ?) > 0")
            values.append(search)
        order = f"ORDER BY {column} {direction}, name {direction}"
        # The index alone says which rows these are. Asked for the columns at once, SQLite reads each row that it looks at.
        found = f"SELECT outpoint FROM channel INDEXED BY by_{column} WHERE {' AND '.join(where)} {order} LIMIT ?"
        statement = f"{_SELECT} WHERE outpoint IN ({found}) {order}"
        return [_row(fields) for fields in self._db.execute(statement, (*values, limit))]

    def total(self, phases: tuple[Phase, ...], search: str = "") -> int:
        """Return how many channels a list has in all."""
        if not search:
            return sum(self._counts[phase] for phase in phases)
        marks = ", ".join("?" * len(phases))
        statement = f"SELECT count(*) FROM channel INDEXED BY by_expires_at WHERE phase IN ({marks}) AND instr(name, ?) > 0"
        return int(self._db.execute(statement, (*phases, search)).fetchone()[0])

    def at_risk(self, now: int) -> list[tuple[int | None, int, int]]:
        """Return what expires unsettled until each of the HORIZONS from now, and after the last (None), each without those before:
        until when, how many channels, and satoshi."""
        bounds = [now + seconds for seconds in HORIZONS]
        return [
            (until, *self._expiring(since, until if until is not None else LOCKTIME_MAX))
            for since, until in zip([-1, *bounds], [*bounds, None], strict=True)
        ]

    def _expiring(self, since: int, until: int) -> tuple[int, int]:
        """Return how many unsettled channels expire after a time and not after another, and what was received on them."""
        statement = f"""SELECT count(*), COALESCE(sum(received), 0) FROM channel INDEXED BY by_expires_at
            WHERE phase IN ({", ".join(str(int(phase)) for phase in UNSETTLED)}) AND expires_at > ? AND expires_at <= ?"""
        count, value = self._db.execute(statement, (since, until)).fetchone()
        return count, value

    def days(self) -> dict[int, Day]:
        """Return the sums of each day on which anything happened, by its number since 1970."""
        found = {number: replace(day) for number, day in self._days.items()}
        for number, count in self._opened.items():
            if count:
                found.setdefault(number, Day()).opened += count
        return dict(sorted(found.items()))
