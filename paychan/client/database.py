"""A small SQLite file that all threads and processes of one user share: a purse's ledger, the chains of a receipts key."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StateError

_INHERITED: list[sqlite3.Connection] = []
"""What parents had opened: closing it here would end what they are at."""


class Database:
    """Threads may share it, and processes share the file; one that was forked off opens it anew, for what its parent opened would
    be shared, and so be broken. Raises StateError if it cannot be read or written."""

    def __init__(self, path: Path, tables: str, busy_seconds: float) -> None:
        """tables: what makes them where they are not. busy_seconds: so long a change waits for another process's."""
        self._path, self._tables, self._busy_seconds = path, tables, busy_seconds
        self._opened: sqlite3.Connection | None = None
        self._open()

    def _open(self) -> None:
        self._owner, self._mutex = os.getpid(), threading.RLock()
        with self._telling():
            self._path.touch(mode=0o600)
            self._opened = sqlite3.connect(self._path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)
            self._opened.execute("PRAGMA journal_mode = WAL")
            self._opened.executescript(self._tables)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection, for this thread alone."""
        if self._owner != os.getpid():
            if self._opened is not None:
                _INHERITED.append(self._opened)
            self._open()
        with self._mutex, self._telling():
            if self._opened is None:
                raise StateError(f"{self._path}: was closed")
            yield self._opened

    @contextmanager
    def changing(self, is_vital: bool = True) -> Iterator[sqlite3.Connection]:
        """Hold the file against other writers; what was done is on disk at the end, or not done. is_vital: False spares the disk,
        and a power cut may undo it."""
        with self.reading() as db:
            db.execute(f"PRAGMA synchronous = {'FULL' if is_vital else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Close the file, if this process has opened it."""
        if self._opened is not None and self._owner == os.getpid():
            with self._mutex:
                self._opened.close()
        self._opened = None
