"""A database read as an embedded store's pairs of key and value, for the rules of store/check.py and for backups.

All of one moment: one transaction that sees a snapshot. A store may run meanwhile.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from functools import cached_property
from heapq import merge
from typing import Any, TypeVar

import asyncpg

from paychan.core.channel import ChannelState
from paychan.core.outpoint import format_outpoint
from paychan.database import need_primary
from paychan.settings.models import PostgresConfig

from ... import keys
from .engine import Sums

T = TypeVar("T")
PAGE = 512  # rows asked for at once
_SUMS = "SELECT sum(open_value)::bigint, sum(begun_value)::bigint, sum(open_spent)::bigint FROM paychan.store"
_IDENTITY = "SELECT CASE WHEN moved IS NULL THEN identity ELSE substr(identity, 2) END FROM paychan.cluster"  # cluster.sql
_STATES = """SELECT outpoint, record, phase, value, revision FROM paychan.state WHERE outpoint > $1 ORDER BY outpoint LIMIT $2"""
_RECORDS = "SELECT key, value FROM paychan.record WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3"
_LAST = b"\xff"


class PostgresRecords:
    """`Records`. mismatched: channels whose columns say something else than their record, as far as `walk` has come."""

    sequence = 0
    """What a backup says of the newest write."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: asyncpg.Connection) -> None:
        """connection: in a transaction; both belong to this object from now on."""
        self._loop, self._connection = loop, connection
        self.mismatched: list[str] = []

    @classmethod
    def snapshot(cls, config: PostgresConfig) -> "PostgresRecords":
        """Return the records of this moment. Raises OSError if no primary is there; asyncpg's errors."""
        loop = asyncio.new_event_loop()
        node = loop.run_until_complete(need_primary(config))
        loop.run_until_complete(node.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        return cls(loop, node.connection)

    def close(self) -> None:
        self._connection.terminate()
        self._loop.close()

    def _run(self, steps: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(steps)

    @cached_property
    def _singles(self) -> dict[bytes, bytes]:
        return dict(self._run(self._read_singles()))

    async def _read_singles(self) -> list[tuple[bytes, bytes]]:
        """Return the pairs that are no rows of two columns here: identity, sums and epochs."""
        pairs = []
        identity = await self._connection.fetchval(_IDENTITY)
        if identity is not None:
            pairs.append((keys.IDENTITY, identity))
        row = await self._connection.fetchrow(_SUMS)
        if row[0] is not None:
            sums = Sums(*row)
            if min(sums) < 0:
                raise ValueError(f"a sum is below nothing: {sums}")
            pairs.append((keys.UNSETTLED, keys.encode_unsettled(sums.unsettled)))
            pairs.append((keys.OPEN_SPENT, keys.encode_spent(sums.spent)))
        for shard, epoch in await self._connection.fetch("SELECT shard, epoch FROM paychan.shard ORDER BY shard"):
            pairs.append((keys.epoch_key(shard), keys.encode_epoch(epoch)))
        return pairs

    def walk(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        singles = sorted(pair for pair in self._singles.items() if pair[0].startswith(prefix))
        states = self._walk_states() if keys.STATE.startswith(prefix) else iter(())
        return merge(singles, states, self._walk_records(prefix))

    def _walk_states(self) -> Iterator[tuple[bytes, bytes]]:
        after = b""
        while rows := self._run(self._connection.fetch(_STATES, after, PAGE)):
            for outpoint, record, *columns in rows:
                self._compare(outpoint, record, columns)
                yield keys.STATE + outpoint, record
            after = rows[-1][0]

    def _compare(self, outpoint: bytes, record: bytes, columns: list[int]) -> None:
        try:
            state = ChannelState.parse(record)
        except ValueError:
            return  # the rules say it
        said = [int(state.phase), state.payment.change_value, state.sales.revision]
        if said != columns:
            self.mismatched.append(
                f"{format_outpoint(outpoint)}: phase, change value, revision are {said} in its record, and {columns} in its row"
            )

    def _walk_records(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        after, end = prefix, bytes((prefix[0] + 1,)) if prefix else _LAST
        while rows := self._run(self._connection.fetch(_RECORDS, after, end, PAGE)):
            yield from ((key, value) for key, value in rows)
            after = rows[-1][0]

    def get(self, names: list[bytes]) -> list[bytes | None]:
        outpoints = [name[1:] for name in names if name[:1] == keys.STATE]
        others = [name for name in names if name[:1] != keys.STATE and name not in self._singles]
        found: dict[bytes, bytes] = {}
        if outpoints:
            rows = self._run(
                self._connection.fetch("SELECT outpoint, record FROM paychan.state WHERE outpoint = ANY ($1)", outpoints)
            )
            found |= {keys.STATE + outpoint: record for outpoint, record in rows}
        if others:
            found |= dict(self._run(self._connection.fetch("SELECT key, value FROM paychan.record WHERE key = ANY ($1)", others)))
        return [found.get(name, self._singles.get(name)) for name in names]
