"""The signer's memory: for each outpoint, what was signed. A row is on disk before the signature leaves the process.

`STATE_DIR/signer/signed.db`, SQLite with a rollback journal and synchronous=EXTRA: a commit returns when file, journal
and directory are synced. `STATE_DIR/signer/lock` is locked while a signer runs: there is one memory and not two.
The tables cannot change; new ones take a new `user_version`.
"""

import fcntl
import os
import sqlite3
from pathlib import Path

from paychan.core.errors import ConfigError

from .files import make_directory, sync_directory
from .policy import Record

FORMAT_VERSION = 1

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
PRAGMA user_version = {FORMAT_VERSION};
COMMIT;
"""

_NAME_ONCE = "INSERT INTO identity SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM identity)"

# The condition repeats the policy's rule where it cannot be raced or forgotten: a row never moves back.
_PUT = """
INSERT INTO signed VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (outpoint) DO UPDATE SET
    change_value = excluded.change_value, fee = excluded.fee, versions = excluded.versions,
    txid = excluded.txid, signed_at = excluded.signed_at
WHERE excluded.change_value <= signed.change_value AND excluded.versions > signed.versions
"""


class LedgerError(Exception):
    """The ledger cannot be read or written. Whether the last row is on disk is unknown: sign nothing any more."""


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
            self._db.execute(_NAME_ONCE, (network, pubkey))
            identity = self._db.execute("SELECT network, pubkey FROM identity").fetchall()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"{source}: state_dir: {path} cannot be used: {error}") from error
        if version not in (0, FORMAT_VERSION):
            raise ConfigError(f"{source}: state_dir: {path} has format {version}, this signer knows {FORMAT_VERSION}")
        if identity != [(network, pubkey)]:
            raise ConfigError(f"{source}: state_dir: {path} belongs to another key or network")

    def get(self, outpoint: bytes) -> Record | None:
        """Return what was signed for an outpoint. Raises LedgerError."""
        query = "SELECT change_value, fee, versions, txid FROM signed WHERE outpoint = ?"
        try:
            row = self._db.execute(query, (outpoint,)).fetchone()
        except sqlite3.Error as error:
            raise LedgerError(str(error)) from error
        return Record(*row) if row else None

    def put(self, outpoint: bytes, record: Record, signed_at: int) -> None:
        """Make a record durable: it is on disk on return. Raises LedgerError, also if the row would move back."""
        row = (outpoint, record.change_value, record.fee, record.versions, record.txid, signed_at)
        try:
            changed = self._db.execute(_PUT, row).rowcount
        except sqlite3.Error as error:
            raise LedgerError(str(error)) from error
        if changed != 1:
            raise LedgerError("a row would have moved back")

    def close(self) -> None:
        """Close the database; every row that was put is on disk already."""
        self._db.close()
