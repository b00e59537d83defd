"""The purse's ledger: what was signed away, to whom, when; and with whom channels were agreed. One SQLite file for all processes.

A row is on disk before the payment that it is about is signed, so budgets hold across processes and crashes. A row that was
written and whose payment never came to be (a crash in between) is above everything that its channel's record has signed: it is
taken back when the channel is next used. So of each channel, the rows' sum is what its newest payment has signed away.
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..client.database import Database
from ..client.storage import make_directory
from .budget import DAY, HOUR, Budget, Entry, Question, Spent, exceeded
from .errors import BudgetExceeded

BUSY_SECONDS = 30.0
WHAT_SIZE_MAX = 200

_TABLES = """
CREATE TABLE IF NOT EXISTS payments (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,          -- unix seconds
    origin TEXT NOT NULL,         -- scheme://host[:port]
    channel TEXT NOT NULL,        -- its name in the purse
    what TEXT NOT NULL,           -- method and path, for people
    amount INTEGER NOT NULL,      -- satoshi for goods
    opening INTEGER NOT NULL,     -- satoshi for opening the channel
    cumulative INTEGER NOT NULL,  -- satoshi that the channel's payment signs away in all
    state TEXT NOT NULL           -- sent: outcome unknown; taken: the server has it; unanswered: it has it, and we no answer
);
CREATE INDEX IF NOT EXISTS payments_at ON payments (at);
CREATE INDEX IF NOT EXISTS payments_channel ON payments (channel, cumulative);
CREATE TABLE IF NOT EXISTS servers (
    origin TEXT PRIMARY KEY,
    recipient TEXT NOT NULL,      -- the server's public key
    network TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS credits (channel TEXT PRIMARY KEY, credit INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS purchases (channel TEXT PRIMARY KEY, count INTEGER NOT NULL);  -- whose outcome is known
"""


@dataclass(frozen=True)
class Row:
    """A day's spending at a host on a channel; satoshi. unanswered: of these, what was paid for requests that were not answered."""

    day: str
    origin: str
    channel: str
    payments: int
    amount: int
    opening: int
    unanswered: int


class Ledger:
    """Threads may share it; processes share the file. Raises StateError if it cannot be read or written."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        make_directory(path.parent)
        self._clock = clock
        self._file = Database(path, _TABLES, BUSY_SECONDS)

    def _now(self) -> int:
        return int(self._clock())

    # --- spending ---

    def spent(self, origin: str) -> Spent:
        """Return what was signed away in the windows before now."""
        now = self._now()
        with self._file.reading() as db:
            row = db.execute(
                "SELECT sum(amount * (origin = ?)), sum(amount * (at > ?)), sum(amount), sum(opening) FROM payments WHERE at > ?",
                (origin, now - HOUR, now - DAY),
            ).fetchone()
        return Spent(*(value or 0 for value in row))

    def enter(self, entry: Entry, budget: Budget, ask: Callable[[Question], bool] | None = None, already: int = 0) -> None:
        """Write a payment down, if the budget allows it, or who is asked does. Raises BudgetExceeded; nothing is written then.

        already: satoshi that were entered for the same request before.
        Nobody is asked while the file is held: what others spend meanwhile is looked at again afterwards.
        """
        allowed: set[str] = set()
        while True:
            with self._file.changing() as db:
                found = exceeded(budget, self.spent(entry.origin), entry, already)
                open_questions = [question for question in found if question.limit not in allowed]
                if not open_questions:
                    self._insert(db, entry, "sent")
                    return
            for question in open_questions:
                if ask is None or not ask(question):
                    raise BudgetExceeded(str(question))
                allowed.add(question.limit)

    def _insert(self, db: sqlite3.Connection, entry: Entry, state: str) -> None:
        values = (entry.origin, entry.channel, entry.what[:WHAT_SIZE_MAX], entry.amount, entry.opening, entry.cumulative)
        columns = "at, origin, channel, what, amount, opening, cumulative, state"
        db.execute(f"INSERT INTO payments ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (self._now(), *values, state))

    def take_back(self, channel: str, cumulative: int) -> None:
        """Take back what was written and never signed: of a channel, all above what its record has signed away."""
        above = "FROM payments WHERE channel = ? AND cumulative > ?"
        with self._file.reading() as db:
            found = db.execute(f"SELECT 1 {above}", (channel, cumulative)).fetchone()
        if found:
            with self._file.changing() as db:
                db.execute(f"DELETE {above}", (channel, cumulative))

    def note(self, channel: str, cumulative: int, credit: int, state: str = "taken", purchases: int = 0) -> None:
        """Note what became of payments up to a cumulative value, and the channel's credit by the server's own word; satoshi.
        purchases: so many more have an outcome that is known."""
        with self._file.changing(is_vital=False) as db:
            db.execute(
                "UPDATE payments SET state = ? WHERE channel = ? AND cumulative <= ? AND state = 'sent'",
                (state, channel, cumulative),
            )
            db.execute("INSERT OR REPLACE INTO credits VALUES (?, ?)", (channel, credit))
            if purchases:
                db.execute(
                    "INSERT INTO purchases VALUES (?, ?) ON CONFLICT (channel) DO UPDATE SET count = count + excluded.count",
                    (channel, purchases),
                )

    def adopt(self, entry: Entry) -> None:
        """Write down what was signed away and is not in this ledger, as the payer's own signature proves."""
        with self._file.changing() as db:
            known = self.signed_away(entry.channel)
            if entry.cumulative > known:
                self._insert(db, replace(entry, amount=entry.cumulative - known, opening=0), "taken")

    def credit(self, channel: str) -> int:
        """Return the channel's credit as the server told it last, in satoshi."""
        with self._file.reading() as db:
            row = db.execute("SELECT credit FROM credits WHERE channel = ?", (channel,)).fetchone()
        return int(row[0]) if row else 0

    def purchases(self, channel: str) -> int:
        """Return how many purchases on the channel have an outcome that is known."""
        with self._file.reading() as db:
            row = db.execute("SELECT count FROM purchases WHERE channel = ?", (channel,)).fetchone()
        return int(row[0]) if row else 0

    def signed_away(self, channel: str) -> int:
        """Return the sum of a channel's rows: what its newest payment signs away, in satoshi."""
        with self._file.reading() as db:
            row = db.execute("SELECT sum(amount + opening) FROM payments WHERE channel = ?", (channel,)).fetchone()
        return row[0] or 0

    def rows(self, since: int = 0) -> list[Row]:
        """Return what was spent since a unix time, by day (UTC), host and channel; the newest day first."""
        with self._file.reading() as db:
            found = db.execute(
                "SELECT date(at, 'unixepoch') AS day, origin, channel, count(*), sum(amount), sum(opening),"
                " sum(amount * (state = 'unanswered')) FROM payments WHERE at >= ?"
                " GROUP BY day, origin, channel ORDER BY day DESC, origin, channel",
                (since,),
            ).fetchall()
        return [Row(*row) for row in found]

    # --- servers ---

    def agreed(self, origin: str) -> tuple[str, str] | None:
        """Return the key (hex) and the network that were agreed with a server, None if it is new."""
        with self._file.reading() as db:
            row = db.execute("SELECT recipient, network FROM servers WHERE origin = ?", (origin,)).fetchone()
        return (row[0], row[1]) if row else None

    def agree(self, origin: str, recipient: str, network: str) -> None:
        """Remember whom channels with a server pay."""
        with self._file.changing() as db:
            db.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?)", (origin, recipient, network))

    def forget(self, origin: str) -> None:
        """Forget whom channels with a server pay: the next that it names is agreed to."""
        with self._file.changing() as db:
            db.execute("DELETE FROM servers WHERE origin = ?", (origin,))

    def close(self) -> None:
        """Close the file, if this process has opened it."""
        self._file.close()
