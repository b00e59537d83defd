"""Which shards and leases this worker owns, as the store says and nobody else; and who owns the others."""

import asyncio
from collections.abc import Callable, Collection

from ..._fast.channel import ChannelTable, shard_of
from ...rpc.store_messages import Lease, OwnerTable, Welcome


class NotOwner(Exception):
    """This worker does not own the shard of the channel that a request is for."""

    def __init__(self, outpoint: bytes) -> None:
        super().__init__()
        self.outpoint = outpoint


class Ownership:
    """The newest owner table. The channel table is told of every change, and forgets what is no longer ours."""

    def __init__(self, channels: ChannelTable, shard_count: int, on_change: Callable[[], None] = lambda: None) -> None:
        self._channels, self.shard_count, self._on_change = channels, shard_count, on_change
        self._me = 0
        self._table: OwnerTable | None = None
        self._changed: asyncio.Future[None] | None = None

    def update(self, welcome: Welcome, table: OwnerTable) -> None:
        """Take a new owner table. One with another shard count is a misconfigured store: nothing is owned then."""
        if welcome.shard_count != self.shard_count or len(table.owners) != self.shard_count + len(Lease):
            self.lose()
            return
        self._me, self._table = welcome.worker_id, table
        self._channels.own([epoch if worker == self._me else 0 for worker, epoch in table.owners[: self.shard_count]])
        self._channels.stop(table.stopped)
        self._announce()

    def lose(self) -> None:
        """Forget everything: the store is gone, and with it every right to answer."""
        self._me, self._table = 0, None
        self._channels.own([0] * self.shard_count)
        self._announce()

    def peer_of(self, outpoint: bytes) -> str:
        """Return the address of the worker that owns an outpoint's shard; empty if nobody does, or it is us."""
        if self._table is None:
            return ""
        worker, _ = self._table.owners[shard_of(outpoint, self.shard_count)]
        return "" if worker == self._me else self._table.workers.get(worker, "")

    def holds(self, lease: Lease) -> bool:
        """Return whether this worker holds one of the leases that only one may hold."""
        return self._table is not None and self._table.owners[self.shard_count + lease][0] == self._me

    @property
    def peers(self) -> Collection[str]:
        """The addresses of all workers that the store knows, ours among them."""
        return self._table.workers.values() if self._table else ()

    @property
    def worker_count(self) -> int:
        """How many workers the store knows; 0 while the store is away."""
        return len(self._table.workers) if self._table else 0

    @property
    def stopped(self) -> dict[int, str]:
        """The shards that the store has stopped, whoever owns them, and why."""
        return self._table.stopped if self._table else {}

    @property
    def owned(self) -> int:
        """How many shards are ours."""
        owners = self._table.owners[: self.shard_count] if self._table else ()
        return sum(worker == self._me for worker, _ in owners)

    @property
    def is_complete(self) -> bool:
        """Whether every shard has an owner."""
        return self._table is not None and all(worker for worker, _ in self._table.owners[: self.shard_count])

    async def wait_for_change(self, seconds: float) -> None:
        """Return when the next owner table comes, or after so many seconds."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._changed], timeout=seconds)

    def _announce(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)
        self._on_change()
