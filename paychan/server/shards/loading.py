"""Reading channels of our own shards into the table, many in one frame: what is asked for meanwhile goes into the next one.

A restart reads nothing: each channel comes with the first request for it. Unknown outpoints cost the same, so this must be cheap.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum

from ..._fast.channel import ChannelTable, shard_of
from ...core.channel import ChannelState, ChannelTerms
from ...core.errors import Unavailable
from ...core.outpoint import format_outpoint
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.growing import let_grow
from ...rpc.store_client import StoreClient
from ...rpc.store_messages import LOAD_MAX, Stored
from .ownership import NotOwner

log = logging.getLogger("paychan.loading")


class Loaded(Enum):
    """How a reading ended."""

    FOUND = 1
    MISSING = 2
    MOVED = 3  # the shard is not ours, or was not for a moment: what was read may be older than what another owner wrote since
    FAILED = 4
    REFUSED = 5  # too many wait


WAITING_MAX = 20_000
"""Requests that wait for channels to be read: as many as may wait for the disk. A read takes a millisecond, but one that the store
does not answer holds everybody up for two seconds."""

_Waiters = list[Callable[[Loaded], None]]


class Loader:
    """Owned by one event loop. Requests for one channel share one read."""

    def __init__(self, channels: ChannelTable, shard_count: int, store: StoreClient) -> None:
        self._channels, self._shard_count, self._store = channels, shard_count, store
        self._queue: dict[bytes, _Waiters] = {}
        self._reading: dict[bytes, _Waiters] = {}
        self._last = self._waiting = 0
        self._task: asyncio.Task[None] | None = None

    def want(self, outpoint: bytes, done: Callable[[Loaded], None]) -> None:
        """Enter a channel into the table; `done` is told how that ended."""
        if self._waiting >= WAITING_MAX:
            done(Loaded.REFUSED)
            return
        self._waiting += 1
        waiters = self._reading.get(outpoint) or self._queue.setdefault(outpoint, [])
        waiters.append(done)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read_all())

    async def load(self, outpoint: bytes) -> bool:
        """Make sure that a channel is in the table; return whether it exists. Raises NotOwner, Unavailable."""
        if not self._channels.owns(outpoint):
            raise NotOwner(outpoint)
        if self._channels.is_loaded(outpoint):
            return True
        future: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self.want(outpoint, lambda loaded: None if future.done() else future.set_result(loaded))
        loaded = await future
        if loaded is Loaded.FAILED:
            raise Unavailable("store_unavailable")
        if loaded is Loaded.REFUSED:
            raise Unavailable("overloaded")
        if loaded is Loaded.MOVED or (loaded is Loaded.FOUND and not self._channels.is_loaded(outpoint)):
            raise NotOwner(outpoint)
        return loaded is Loaded.FOUND

    async def _read_all(self) -> None:
        try:
            while self._queue:
                await let_grow(lambda: len(self._queue), self._last)
                taken = list(self._queue)[:LOAD_MAX]
                self._last = len(taken)
                self._reading = {outpoint: self._queue.pop(outpoint) for outpoint in taken}
                await self._read(taken)
        finally:
            self._task = None

    async def _read(self, outpoints: list[bytes]) -> None:
        epochs = [self._epoch(outpoint) for outpoint in outpoints]
        found: list[Stored | None] | None = None
        try:
            found = await self._store.load_many(outpoints)
        except (ConnectionGone, RemoteRefusal):
            pass
        finally:
            reading, self._reading = self._reading, {}
            for number, (outpoint, waiters) in enumerate(reading.items()):
                outcome = self._enter(outpoint, epochs[number], found[number]) if found is not None else Loaded.FAILED
                self._waiting -= len(waiters)
                for done in waiters:
                    done(outcome)

    def _epoch(self, outpoint: bytes) -> int:
        return self._channels.epoch_of(shard_of(outpoint, self._shard_count))

    def _enter(self, outpoint: bytes, epoch: int, stored: Stored | None) -> Loaded:
        if epoch == 0 or self._epoch(outpoint) != epoch:
            return Loaded.MOVED
        if stored is None:
            return Loaded.MISSING
        if self._channels.is_loaded(outpoint):
            return Loaded.FOUND
        try:
            self._channels.load(ChannelTerms.parse(outpoint, stored.terms), ChannelState.parse(stored.state))
        except ValueError as error:  # one damaged record must keep nobody waiting who asked for another channel
            log.error("the records of %s are damaged: %s", format_outpoint(outpoint), error)
            return Loaded.FAILED
        return Loaded.FOUND
