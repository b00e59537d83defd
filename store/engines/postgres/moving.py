"""A PostgreSQL database as a place that a store is moved from or to (store/moving.py). The schema's owner does it: a store's role
may not, for a whole store is removed or kept from starting here (cluster.sql)."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from paychan.core.errors import ConfigError
from paychan.database import on_warning
from paychan.exits import EXIT_FAILED
from paychan.printing import say
from paychan.settings.models import StoreConfig

from ... import keys
from ...backup import BackupError
from ...check import Records, Report, check_records
from ...identity import Identity
from ...moved import Moved
from . import pinned as pins
from .command import connect_as_admin
from .opening import SCHEMA_VERSION
from .records import PostgresRecords
from .restoring import Filling

Compare = Callable[[Records, Records], None]
_STATE = "SELECT version, identity IS NOT NULL, moved FROM paychan.cluster"
_SETTLE = "UPDATE paychan.cluster SET moved = moved"
"""A write of our own, before anything is read: it waits for whatever a killed command left in flight."""

_SYSTEM = "SELECT system_identifier FROM pg_control_system()"


class Database:
    """A `Place`. Its one connection is the administrator's."""

    def __init__(self, name: str, config: StoreConfig, database: Path, admin: str, host: str | None, compare: Compare) -> None:
        """database: path that an embedded store would have. compare: raises if two have not the same records. Raises OSError,
        asyncpg's errors, ConfigError."""
        assert config.postgres is not None
        if database.exists():
            raise ConfigError(f"{config.common.source}: state_dir: {database.parent} holds an embedded store")
        self.name, self.config, self._directory, self._compare = name, config, database.parent, compare
        self._loop = asyncio.new_event_loop()
        self._connection = self._run(connect_as_admin(config.postgres, admin, host))
        self._release = on_warning(self._connection, _end)
        self._run(self._connection.execute(_SETTLE))
        version, *_ = self._run(self._connection.fetchrow(_STATE))
        if version != SCHEMA_VERSION:
            raise ConfigError(f"{config.common.source}: postgres: the schema has version {version}, {SCHEMA_VERSION} is needed")

    def _run(self, steps: Any) -> Any:
        return self._loop.run_until_complete(steps)

    def _call(self, statement: str, *arguments: object) -> None:
        self._run(self._connection.fetch(f"SELECT paychan.{statement}", *arguments))

    def close(self) -> None:
        self._release()
        self._connection.terminate()
        self._loop.close()

    def holds_store(self) -> bool:
        return bool(self._run(self._connection.fetchrow(_STATE))[1])

    def mark(self) -> Moved | None:
        moved = self._run(self._connection.fetchrow(_STATE))[2]
        return None if moved is None else Moved.parse(moved)

    def set_mark(self, mark: Moved) -> None:
        self._call("set_moved($1)", str(mark))

    @contextmanager
    def records(self) -> Iterator[Records]:
        self._run(self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        try:
            yield PostgresRecords(self._loop, self._connection)
        finally:
            self._run(self._connection.execute("ROLLBACK"))

    def fill(self, source: Records) -> Report:
        (identity,) = source.get([keys.IDENTITY])
        pinned, mark = pins.read_or_make(self._directory), self.mark()
        self._run(self._connection.execute("BEGIN"))
        try:
            self._call("clear_moved()")
            filling = Filling(self._connection, self.config, Identity.decode(identity or b""), bytes.fromhex(pinned.instance))
            self._run(filling.run(source.walk(b""), {}))
            records = PostgresRecords(self._loop, self._connection)
            report = check_records(records)
            self._compare(source, records)
            if records.mismatched:
                raise BackupError(records.mismatched[0])
            self._call("set_moved($1)", str(mark))
        except BaseException:
            self._run(self._connection.execute("ROLLBACK"))
            raise
        self._run(self._connection.execute("COMMIT"))
        system = self._run(self._connection.fetchval(_SYSTEM))
        pins.write(self._directory, pins.Pinned(pinned.instance, system, (identity or b"").hex()))
        return report

    def start(self) -> None:
        self._call("unset_moved()")


def _end(error: Exception) -> NoReturn:
    """Nothing is lost by it: said again, the command goes on."""
    say(f"paychan-store migrate: {error}")
    os._exit(EXIT_FAILED)
