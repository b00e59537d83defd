"""Group commit, a worker's half: what is to be made durable waits here until the group before it has been acknowledged.

Exactly one group is in flight; all that arrives meanwhile is the next one. Of a channel only the newest state is written.
A waiter gets an `EntryStatus`, or LOST: the store is gone, and whether the write took effect is unknown. After anything but
OK the channel is forgotten, and will be read from the store again.
"""

import asyncio

from .._fast.channel import ChannelTable
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import ENTRIES_MAX, Entry, EntryStatus, encode_commit

LOST = -1
WAITING_MAX = 20_000
"""Requests that wait for the disk in one worker: about a second's worth. Beyond it, answering 503 is kinder than queueing."""

_Waiters = list["asyncio.Future[int]"]


class _Write:
    """A channel's state that waits to be written. `serial` tells which loading of the channel it was judged on: what was
    loaded afresh meanwhile does not hold the payments of these waiters, and must not be written for them."""

    __slots__ = ("serial", "waiters")

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.waiters: _Waiters = []


class Committer:
    """Owned by one event loop."""

    def __init__(self, channels: ChannelTable, store: StoreClient) -> None:
        self._channels, self._store = channels, store
        self._queue: dict[bytes, _Write] = {}
        self._entries: list[tuple[Entry, asyncio.Future[int]]] = []
        self._in_flight: dict[bytes, _Write] = {}
        self._is_busy = False
        self._waiting = 0

    @property
    def is_full(self) -> bool:
        return self._waiting >= WAITING_MAX

    def make_durable(self, outpoint: bytes) -> "asyncio.Future[int]":
        """Write a loaded channel's newest state in the next group; the future gives how that ended."""
        future = self._new_future()
        write = self._queue.get(outpoint)
        serial = self._channels.serial(outpoint)
        if write is None or write.serial != serial:
            if write is not None:
                _resolve(write.waiters, EntryStatus.STALE_EPOCH)
            write = self._queue[outpoint] = _Write(serial)
            self._wake()
        write.waiters.append(future)
        return future

    def wait_for(self, outpoint: bytes) -> "asyncio.Future[int]":
        """Wait for the newest write of a channel that has one queued or in flight; OK at once if it has none."""
        future = self._new_future()
        write = self._queue.get(outpoint) or self._in_flight.get(outpoint)
        if write is None:
            future.set_result(EntryStatus.OK)
        else:
            write.waiters.append(future)
        return future

    def write(self, entry: Entry) -> "asyncio.Future[int]":
        """Write one update that the channel table does not hold: a creation, or a step of a settlement."""
        future = self._new_future()
        self._entries.append((entry, future))
        self._wake()
        return future

    def _new_future(self) -> "asyncio.Future[int]":
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting += 1
        future.add_done_callback(self._forget)
        return future

    def _forget(self, _: "asyncio.Future[int]") -> None:
        self._waiting -= 1

    def _wake(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            asyncio.get_running_loop().create_task(self._write_groups())

    async def _write_groups(self) -> None:
        """Write group after group until nothing waits. The first starts after what this turn of the loop still brings."""
        try:
            while self._queue or self._entries:
                await self._write_group()
        finally:
            self._is_busy = False

    async def _write_group(self) -> None:
        group, entries = self._take_group()
        if not group and not entries:
            return  # all that was queued has been forgotten meanwhile
        self._in_flight = group
        statuses = b""
        try:
            sealed = [self._channels.seal(outpoint) for outpoint in group]
            statuses = await self._store.commit(encode_commit(sealed + [entry.encode() for entry, _ in entries]))
        except (ConnectionGone, RemoteRefusal):
            pass  # answered below: nobody knows what became of the group
        finally:
            self._in_flight = {}
            if len(statuses) == len(group) + len(entries):
                self._complete(group, entries, statuses)
            else:
                self._fail(group, entries)

    def _complete(
        self, group: dict[bytes, _Write], entries: list[tuple[Entry, "asyncio.Future[int]"]], statuses: bytes
    ) -> None:
        for (outpoint, write), status in zip(group.items(), statuses[: len(group)], strict=True):
            if status != EntryStatus.OK:
                self._drop(outpoint, status)
            elif self._channels.serial(outpoint) == write.serial:
                self._channels.acknowledge(outpoint)
            _resolve(write.waiters, status)
        for (_, future), status in zip(entries, statuses[len(group) :], strict=True):
            _resolve([future], status)

    def _take_group(self) -> tuple[dict[bytes, _Write], list[tuple[Entry, "asyncio.Future[int]"]]]:
        """Return what is queued, at most ENTRIES_MAX. A channel that was forgotten meanwhile cannot be written."""
        entries, self._entries = self._entries[:ENTRIES_MAX], self._entries[ENTRIES_MAX:]
        room = ENTRIES_MAX - len(entries)
        queue, self._queue = self._queue, {}
        group: dict[bytes, _Write] = {}
        for outpoint, write in queue.items():
            if self._channels.serial(outpoint) != write.serial:
                _resolve(write.waiters, EntryStatus.STALE_EPOCH)
            elif len(group) < room:
                group[outpoint] = write
            else:
                self._queue[outpoint] = write
        return group, entries

    def _drop(self, outpoint: bytes, status: int) -> None:
        """Forget a channel, and fail what was judged on the state that did not become durable."""
        self._channels.drop(outpoint)
        queued = self._queue.pop(outpoint, None)
        if queued is not None:
            _resolve(queued.waiters, status)

    def _fail(self, group: dict[bytes, _Write], entries: list[tuple[Entry, "asyncio.Future[int]"]]) -> None:
        for outpoint, write in group.items():
            self._drop(outpoint, LOST)
            _resolve(write.waiters, LOST)
        for _, future in entries:
            _resolve([future], LOST)


def _resolve(waiters: _Waiters, status: int) -> None:
    for future in waiters:
        if not future.done():
            future.set_result(status)
