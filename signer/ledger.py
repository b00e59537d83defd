"""The signer's memory: for each outpoint, what was signed and what was noted. A row is on disk before an answer leaves the process.

`STATE_DIR/signer/signed.db`, SQLite with a rollback journal and synchronous=EXTRA: a commit returns when file, journal
and directory are synced. `STATE_DIR/signer/lock` is locked while a signer runs: there is one memory and not two.
The tables cannot change; new ones take a new `user_version`. Format 1 had no `noted` and no `fees`, format 2 no `shared`; opening
it adds them. Where several machines sign with one key there is a second memory besides (shared.py).
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from paychan.core.errors import ConfigError
from paychan.durable import sync_directory

from .files import make_directory
from .policy import Memory, Record

FORMAT_VERSION = 3

DAY_SECONDS = 86_400

_ADDED_IN_2 = """
CREATE TABLE noted (
    outpoint BLOB PRIMARY KEY,
    change_value INTEGER NOT NULL,   -- satoshi, the lowest noted
    noted_at INTEGER NOT NULL        -- unix seconds
) STRICT, WITHOUT ROWID;
CREATE TABLE fees (                  -- of the last day only
    outpoint BLOB NOT NULL,
    fee INTEGER NOT NULL,            -- satoshi, of one version
    signed_at INTEGER NOT NULL,
    PRIMARY KEY (outpoint, fee)
) STRICT, WITHOUT ROWID;
"""

_ADDED_IN_3 = """
CREATE TABLE shared (                -- one row
    instance BLOB NOT NULL,          -- 16 random bytes, by which the shared ledger knows this one
    ledger BLOB,                     -- which one it is; none before the first
    writes INTEGER NOT NULL          -- of ours that it has confirmed
) STRICT;
INSERT INTO shared VALUES (randomblob(16), NULL, 0);
"""

_SCHEMA = f"""
BEGIN;
CREATE TABLE identity (network TEXT NOT NULL, pubkey BLOB NOT NULL) STRICT;
CREATE TABLE signed (
    outpoint BLOB PRIMARY KEY,       -- 36 bytes
    change_value INTEGER NOT NULL,   -- satoshi, the lowest signed
    fee INTEGER NOT NULL,            -- satoshi, of the newest version
    versions INTEGER NOT NULL,
    txid BLOB NOT NULL,              -- 32 bytes, internal order, of the newest version
    signed_at INTEGER NOT NULL       -- unix seconds
) STRICT, WITHOUT ROWID;
{_ADDED_IN_2}
{_ADDED_IN_3}
PRAGMA user_version = {FORMAT_VERSION};
COMMIT;
"""

_UPGRADES = {
    1: f"BEGIN; {_ADDED_IN_2} {_ADDED_IN_3} PRAGMA user_version = 3; COMMIT;",
    2: f"BEGIN; {_ADDED_IN_3} PRAGMA user_version = 3; COMMIT;",
}

_NAME_ONCE = "INSERT INTO identity SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM identity)"

# The conditions repeat the policy's rules where they cannot be raced or forgotten: no row moves back, or behind what was noted.
_PUT = """
INSERT INTO signed SELECT :outpoint, :change_value, :fee, :versions, :txid, :now
WHERE :again OR NOT EXISTS (SELECT 1 FROM noted WHERE outpoint = :outpoint AND change_value < :change_value)
ON CONFLICT (outpoint) DO UPDATE SET
    change_value = excluded.change_value, fee = excluded.fee, versions = excluded.versions,
    txid = excluded.txid, signed_at = excluded.signed_at
WHERE excluded.change_value <= signed.change_value AND excluded.versions > signed.versions
"""

_COUNT_FEE = "INSERT OR REPLACE INTO fees VALUES (:outpoint, :fee, :now)"

# Each version of a settlement may be the one that is mined, so of each channel the dearest counts.
_SUM_FEES = """
SELECT coalesce(sum(dearest), 0) FROM (
    SELECT max(fee) AS dearest FROM fees WHERE outpoint != ? AND signed_at BETWEEN ? AND ? GROUP BY outpoint
)
"""

_FORGET_FEES = "DELETE FROM fees WHERE signed_at NOT BETWEEN ? AND ?"

_NOTE = """
INSERT INTO noted VALUES (?, ?, ?)
ON CONFLICT (outpoint) DO UPDATE SET change_value = excluded.change_value, noted_at = excluded.noted_at
WHERE excluded.change_value < noted.change_value
"""


class LedgerError(Exception):
    """The ledger cannot be read or written. Whether the last row is on disk is unknown: sign nothing any more."""


class Shared(NamedTuple):
    """instance: by which the shared ledger knows ours. ledger: which one it is. writes: of ours that it has confirmed."""

    instance: bytes
    ledger: bytes | None
    writes: int


def lock_directory(directory: Path, source: str) -> int:
    """Make and lock the ledger's directory; return the lock's descriptor, which must stay open.

    Raises ConfigError naming the configuration file `source` if another signer has it.
    """
    make_directory(directory)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(f"{source}: state_dir: another signer runs on {directory}") from None
    return descriptor


class Ledger:
    """The open database. The caller holds the directory's lock."""

    def __init__(self, directory: Path, network: str, pubkey: bytes, source: str) -> None:
        """Open or create it. Raises ConfigError if it belongs to another key or network, or cannot be used."""
        path = directory / "signed.db"
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.execute("PRAGMA synchronous = EXTRA")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(_SCHEMA)
                sync_directory(directory)
            elif version in _UPGRADES:
                self._db.executescript(_UPGRADES[version])
            self._db.execute(_NAME_ONCE, (network, pubkey))
            identity = self._db.execute("SELECT network, pubkey FROM identity").fetchall()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"{source}: state_dir: {path} cannot be used: {error}") from error
        if version not in (0, *_UPGRADES, FORMAT_VERSION):
            raise ConfigError(f"{source}: state_dir: {path} has format {version}, this signer knows {FORMAT_VERSION}")
        if identity != [(network, pubkey)]:
            raise ConfigError(f"{source}: state_dir: {path} belongs to another key or network")

    def get(self, outpoint: bytes, now: int) -> Memory:
        """Return what a judgement over an outpoint depends on. now: unix seconds. Raises LedgerError."""
        since = max(0, now - DAY_SECONDS + 1)
        try:
            signed = self._row("SELECT change_value, fee, versions, txid FROM signed WHERE outpoint = ?", outpoint)
            noted = self._row("SELECT change_value FROM noted WHERE outpoint = ?", outpoint)
            # what a clock that was ahead has stamped does not count: it would for as long as it was ahead
            others = self._row(_SUM_FEES, outpoint, since, now)
        except sqlite3.Error as error:
            raise LedgerError(str(error)) from error
        return Memory(Record(*signed) if signed else None, noted[0] if noted else None, others[0] if others else 0)

    def _row(self, query: str, *parameters: bytes | int) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(query, parameters).fetchone()
        return row

    def keep(self, outpoint: bytes, memory: Memory, record: Record, now: int) -> bool:
        """Make durable what was judged on `memory`; return True: nobody else writes here. Raises LedgerError."""
        if record != memory.signed:
            self.put(outpoint, record, now)
        return True

    def put(self, outpoint: bytes, record: Record, now: int, again: bool = False) -> None:
        """Make a record durable: it is on disk on return. again: it was signed before, so what was noted since does not matter.
        Raises LedgerError, also if the row would move back."""
        row = {
            "outpoint": outpoint,
            "change_value": record.change_value,
            "fee": record.fee,
            "versions": record.versions,
            "txid": record.txid,
            "now": now,
            "again": again,
        }
        with self._transaction():
            if self._db.execute(_PUT, row).rowcount != 1:
                raise LedgerError("a row would have moved back")
            self._db.execute(_FORGET_FEES, (max(0, now - DAY_SECONDS + 1), now))
            self._db.execute(_COUNT_FEE, {name: row[name] for name in ("outpoint", "fee", "now")})

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all or nothing; on return it is on disk. Raises LedgerError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except LedgerError:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise LedgerError(str(error)) from error

    def note(self, outpoint: bytes, change_value: int, now: int) -> None:
        """Make it durable that a payment left the payer so much (satoshi), unless less was noted before. Raises LedgerError."""
        try:
            self._db.execute(_NOTE, (outpoint, change_value, now))
        except sqlite3.Error as error:
            raise LedgerError(str(error)) from error

    def forget_note(self, outpoint: bytes) -> bool:
        """Forget what was noted for an outpoint; return whether anything was. Raises LedgerError."""
        try:
            return self._db.execute("DELETE FROM noted WHERE outpoint = ?", (outpoint,)).rowcount == 1
        except sqlite3.Error as error:
            raise LedgerError(str(error)) from error

    # beside the ledger that all machines share

    def shared(self) -> "Shared":
        """Return what is known of it. Raises LedgerError."""
        try:
            return Shared(*self._db.execute("SELECT instance, ledger, writes FROM shared").fetchone())
        except sqlite3.Error as error:
            raise LedgerError(str(error)) from error

    def note_shared(self, ledger: bytes, writes: int) -> None:
        """Make durable which one it is, and how many of our writes it has confirmed. Raises LedgerError."""
        with self._transaction():
            self._db.execute("UPDATE shared SET ledger = ?, writes = ?", (ledger, writes))

    def all_signed(self) -> list[tuple[Any, ...]]:
        """Return (outpoint, change value, fee, versions, txid, signed at) of all channels, in satoshi and unix seconds."""
        return self._db.execute("SELECT outpoint, change_value, fee, versions, txid, signed_at FROM signed").fetchall()

    def all_noted(self) -> list[tuple[Any, ...]]:
        """Return (outpoint, change value, noted at) of all channels."""
        return self._db.execute("SELECT outpoint, change_value, noted_at FROM noted").fetchall()

    def all_fees(self) -> list[tuple[Any, ...]]:
        """Return (outpoint, fee, signed at) of the last day's versions."""
        return self._db.execute("SELECT outpoint, fee, signed_at FROM fees").fetchall()

    def close(self) -> None:
        """Close the database; every row that was put is on disk already."""
        self._db.close()
