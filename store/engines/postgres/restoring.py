"""A backup (store/backup.py) put into an empty database, in one transaction: it is there whole and checked, or not at all.

So an embedded store moves to PostgreSQL, too: `paychan-store backup` of the one, `restore` into the other.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg

from paychan.core.channel import ChannelState
from paychan.database import need_primary
from paychan.rpc.store_messages import LEASE_COUNT
from paychan.settings.models import StoreConfig

from ... import keys
from ...backup import EPOCHS_SKIPPED, BackupError, newest_event, read_backup, restored_records
from ...check import Report, check_records
from ...directory import hold_directory
from ...identity import Identity, hold_against
from . import pinned as pins
from .engine import NO_COLUMNS, PUT_GROUP, Place, Sums
from .opening import BEGIN, SCHEMA_VERSION
from .records import PostgresRecords

GROUP_PAIRS = 4096  # in one call
_IS_EMPTY = "SELECT version, identity IS NULL AND NOT EXISTS (SELECT FROM paychan.store) FROM paychan.cluster"


def restore(backup: Path, config: StoreConfig) -> Report:
    """Fill the database that `config` names; return what a check of it says. Raises BackupError, and leaves it empty; ConfigError
    if the state directory is in use, or the backup is another store's; OSError; asyncpg's errors."""
    assert config.postgres is not None
    with open(backup, "rb") as file, hold_directory(config) as database:
        identity = _identity_in(read_backup(file))  # all of it is read, before anything is written
        hold_against(identity, config, config.server_pubkey or identity.server_pubkey)
        file.seek(0)
        newest = newest_event(read_backup(file))
        file.seek(0)
        if pins.path_of(database.parent).exists() or database.exists():
            raise BackupError(f"{database.parent} belongs to a store already")
        loop = asyncio.new_event_loop()
        try:
            node = loop.run_until_complete(need_primary(config.postgres))
        except OSError as error:
            raise BackupError(str(error)) from error
        records = PostgresRecords(loop, node.connection)
        try:
            loop.run_until_complete(node.connection.execute("BEGIN"))
            filling = Filling(node.connection, config, identity, os.urandom(16))
            loop.run_until_complete(filling.need_empty())
            pairs = read_backup(file)
            _, taken_at = next(pairs)
            restored = restored_records(int.from_bytes(taken_at, "little"), newest)
            loop.run_until_complete(filling.run(pairs, restored))
            report = check_records(records)
            if report.problem_count:
                raise BackupError(f"the backup is not consistent: {report.problems[0]}")
            loop.run_until_complete(node.connection.execute("COMMIT"))
        finally:
            records.close()
        pins.write(database.parent, pins.Pinned(filling.instance.hex(), node.system, identity.encode().hex()))
    return report


def _identity_in(pairs: Iterator[tuple[bytes, bytes]]) -> Identity:
    found = None
    for key, value in pairs:
        if key == keys.IDENTITY:
            found = value
    if found is None:
        raise BackupError("the backup has no identity record")
    return Identity.decode(found)


class Filling:
    """The records of a store on their way into the database, GROUP_PAIRS in a call."""

    def __init__(self, connection: asyncpg.Connection, config: StoreConfig, identity: Identity, instance: bytes) -> None:
        assert config.postgres is not None
        self._connection, self._identity, self._database = connection, identity, config.postgres.database
        self._place = Place(config.postgres.name, 0, 0)
        self.instance = instance
        self._sums = Sums(0, 0, 0)
        self._epochs: dict[int, int] = {}
        self._states: list[tuple[Any, ...]] = []
        self._puts: dict[bytes, bytes] = {}

    async def need_empty(self) -> None:
        """Raises BackupError."""
        version, is_empty = await self._connection.fetchrow(_IS_EMPTY)
        if version != SCHEMA_VERSION or not is_empty:
            raise BackupError(f"database {self._database} holds a store already, or its schema is of another version")

    async def run(self, pairs: Iterator[tuple[bytes, bytes]], more: Mapping[bytes, bytes]) -> None:
        """Put all pairs, and then `more`; epochs go up."""
        leases = self._identity.shard_count + LEASE_COUNT
        row = await self._connection.fetchrow(BEGIN, self._place.store, self.instance, self._identity.encode(), leases, 0, 0, 0)
        self._place = self._place._replace(fence=row[0], groups=row[1])
        for key, value in pairs:
            self._take(key, value)
            if len(self._states) + len(self._puts) >= GROUP_PAIRS:
                await self._put({})
        self._puts |= more
        await self._put({lease: epoch + EPOCHS_SKIPPED for lease, epoch in self._epochs.items()})

    def _take(self, key: bytes, value: bytes) -> None:
        if key[:1] == keys.EPOCH:
            self._epochs[int.from_bytes(key[1:], "big")] = keys.decode_epoch(value)
        elif key == keys.UNSETTLED:
            unsettled = keys.decode_unsettled(value)
            self._sums = self._sums._replace(open=unsettled.open, begun=unsettled.begun)
        elif key == keys.OPEN_SPENT:
            self._sums = self._sums._replace(spent=keys.decode_spent(value))
        elif key[:1] == keys.STATE:
            state = ChannelState.parse(value)
            new = int(state.phase), state.payment.change_value, state.sales.revision
            self._states.append((key[1:], 0, 0, 0, *new, value))  # phase 0 before: it is opened
        elif key != keys.IDENTITY:
            self._puts[key] = value

    async def _put(self, epochs: dict[int, int]) -> None:
        self._place = self._place._replace(groups=self._place.groups + 1)
        columns = [list(column) for column in zip(*self._states, strict=True)] or NO_COLUMNS
        puts = list(self._puts), list(self._puts.values())
        await self._connection.fetch(
            PUT_GROUP, *self._place, *self._sums, *columns, *puts, [], list(epochs), list(epochs.values()), None
        )
        self._states, self._puts = [], {}
