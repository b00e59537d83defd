"""Group commit, a worker's half: writes one group after the other, and wakes when there is something to write.

The groups themselves, and who waits for them, are compiled (`paychan/_fast/commit.pyx`). Exactly one group is in flight; all that
arrives meanwhile is the next one. A future of this class gives an `EntryStatus`, or LOST: the store is gone, and whether the write
took effect is unknown.
"""

import asyncio
import logging
import time

from ..._fast.channel import ChannelTable
from ..._fast.commit import CommitQueue, FutureWaiter, Group
from ..._fast.tally import NANOSECONDS_FROM, Tally
from ...metrics import families
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.growing import let_grow
from ...rpc.store_client import StoreClient
from ...rpc.store_messages import ENTRIES_MAX, Entry, EntryStatus

LOST = -1
WAITING_MAX = 20_000
"""Requests that wait for the disk in one worker: about a second's worth. Beyond it, answering 503 is kinder than queueing."""


log = logging.getLogger("paychan.committer")


class Committer:
    """Owned by one event loop. tally: where it is counted."""

    def __init__(self, channels: ChannelTable, store: StoreClient, tally: Tally | None = None) -> None:
        self._store, self._last, self._tally = store, 0, tally or Tally()
        self._writing: asyncio.Task[None] | None = None  # kept, for the event loop alone does not keep a task
        self.queue = CommitQueue(channels, self._wake, _report, ENTRIES_MAX, self._tally)
        self.queue.waiting_max = WAITING_MAX

    @property
    def is_full(self) -> bool:
        return self.queue.waiting >= self.queue.waiting_max

    def make_durable(self, outpoint: bytes) -> "asyncio.Future[int]":
        """Write a loaded channel's newest state in the next group; the future gives how that ended."""
        future = _new_future()
        self.queue.make_durable(outpoint, FutureWaiter(future))
        return future

    def wait_for(self, outpoint: bytes) -> "asyncio.Future[int]":
        """Wait for the newest write of a channel that has one queued or in flight; OK at once if it has none."""
        future = _new_future()
        if not self.queue.wait_for(outpoint, FutureWaiter(future)):
            future.set_result(EntryStatus.OK)
        return future

    def write(self, entry: Entry) -> "asyncio.Future[int]":
        """Write one update that the channel table does not hold: a creation, or a step of a settlement."""
        future = _new_future()
        self.queue.write(entry.encode(), FutureWaiter(future))
        return future

    def _wake(self) -> None:
        self._writing = asyncio.get_running_loop().create_task(self._write_groups())

    async def _write_groups(self) -> None:
        """Write group after group until nothing waits. The first starts after what this turn of the loop still brings."""
        try:
            while self.queue.waiting:
                await let_grow(lambda: self.queue.waiting, self._last)
                self._last = self.queue.waiting
                group = self.queue.take()
                if group is not None:
                    await self._write_group(group)
        finally:
            self.queue.rest()

    async def _write_group(self, group: Group) -> None:
        statuses = None
        try:
            payload = self.queue.seal(group)
            began = time.monotonic_ns()
            statuses = await self._store.commit(payload) if payload else b""
            self._tally.observe(families.COMMIT.at, NANOSECONDS_FROM, time.monotonic_ns() - began)
        except (ConnectionGone, RemoteRefusal):
            pass  # answered below: nobody knows what became of the group
        finally:
            try:
                if statuses is not None:
                    self.queue.complete(group, statuses)
            except ValueError:
                statuses = None
            if statuses is None:
                self.queue.fail(group)


def _new_future() -> "asyncio.Future[int]":
    return asyncio.get_running_loop().create_future()


def _report(error: Exception) -> None:
    """Log a bug of ours. Its text could hold a request's bytes, so only its kind is told."""
    log.error("internal error after a write: %s", type(error).__name__)
