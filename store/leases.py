"""Who owns which lease: the shards, and what else must be single (`Lease`). Pure; time comes in as milliseconds.

A lease may get a new owner at any moment, even while the old one still writes: its epoch rises, and the store refuses
writes under the old epoch. That refusal is the safety; expiry only decides how soon somebody else serves the shard.

Where several stores are active (engines/postgres), each shares out among its workers what it holds, and the same rule shares the
leases out among the stores.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from paychan.rpc.store_messages import LEASE_COUNT, OwnerTable

NOBODY = 0
NOT_HELD = (1 << 64) - 1
"""The epoch here of a lease that another store holds: an update that says it is stale, too (`paychan/_fast/group.pyx`)."""

WORKERS_MAX = (1 << 16) - 1
"""Of one store at a time. In a cluster a worker's number is its store's times 65536, and its own."""


class Leases:
    """The workers of one store, their leases and the epochs as planned. Lease numbers: shards 0 to S-1, then S + `Lease`.

    epochs: the newest durable ones, NOT_HELD for a lease that another store holds. They only rise; the caller makes each rise
    durable before it shows the table. store: its number, 0 where there is one store.
    """

    def __init__(self, shard_count: int, epochs: Iterable[int], store: int = 0) -> None:
        self._shard_count, self._first = shard_count, store << 16
        self._epochs = list(epochs)
        self._owners = [NOBODY] * (shard_count + LEASE_COUNT)
        self._addresses: dict[int, str] = {}
        self._seen_ms: dict[int, int] = {}
        self._newest_worker = 0
        self._version = 0
        self._stopped: dict[int, str] = {}

    def join(self, address: str, now_ms: int) -> int:
        """Take a worker in; return its number, from 1 up, which nobody has and hardly anybody had. It owns nothing before
        `rebalance`."""
        number = self._next_number()
        self._addresses[number], self._seen_ms[number] = address, now_ms
        return number

    def _next_number(self) -> int:
        while True:
            self._newest_worker = self._newest_worker % WORKERS_MAX + 1
            if self._first + self._newest_worker not in self._addresses:
                return self._first + self._newest_worker

    def leave(self, worker: int) -> None:
        """Forget a worker. Its leases are nobody's (and keep their epochs) until `rebalance`."""
        del self._addresses[worker], self._seen_ms[worker]
        self._owners = [NOBODY if owner == worker else owner for owner in self._owners]

    def saw(self, worker: int, now_ms: int) -> None:
        """Note a sign of life."""
        self._seen_ms[worker] = now_ms

    def forgive_silence(self, now_ms: int) -> None:
        """Count every worker as just seen: the store itself was away, and their frames wait in its sockets."""
        self._seen_ms = dict.fromkeys(self._seen_ms, now_ms)

    def silent(self, now_ms: int, lease_ms: int) -> list[int]:
        """Return the workers that gave no sign of life for longer than `lease_ms`."""
        return [worker for worker, seen in self._seen_ms.items() if now_ms - seen > lease_ms]

    def rebalance(self) -> dict[int, int]:
        """Share the leases that are held out among the workers; return the new epoch of each lease that got a new owner."""
        old, weights = self._owners, dict.fromkeys(self._addresses, 1)
        self._owners = [NOBODY] * len(old)
        for leases in self.kinds():
            held = [lease for lease in leases if self.holds(lease)]
            for lease, owner in zip(held, share_out([old[lease] for lease in held], weights), strict=True):
                self._owners[lease] = owner
        raised = {}
        for lease, owner in enumerate(self._owners):
            if owner not in (NOBODY, old[lease]):
                self._epochs[lease] += 1
                raised[lease] = self._epochs[lease]
        self._version += 1
        return raised

    def kinds(self) -> tuple[range, range]:
        """Return the shards, and the other leases: each kind is shared out by itself."""
        return range(self._shard_count), range(self._shard_count, len(self._owners))

    def holds(self, lease: int) -> bool:
        """Return whether a lease is this store's."""
        return self._epochs[lease] != NOT_HELD

    def hold(self, epochs: Mapping[int, int]) -> None:
        """Take leases from another store, at these epochs. They are nobody's until `rebalance`."""
        for lease, epoch in epochs.items():
            self._epochs[lease] = epoch

    def let_go(self, leases: Iterable[int]) -> None:
        """Leases are another store's from now on."""
        for lease in leases:
            self._epochs[lease], self._owners[lease] = NOT_HELD, NOBODY
        self._version += 1

    def in_turns(self) -> list[int]:
        """Return the leases that are held, one of each worker in turns: so whoever gives the last ones away takes of all alike."""
        before = Counter[tuple[int, bool]]()  # of the same worker, by kind
        places = []
        for lease, owner in enumerate(self._owners):
            if self.holds(lease):
                kind = owner, lease < self._shard_count
                places.append((before[kind], lease))
                before[kind] += 1
        return [lease for _, lease in sorted(places)]

    def still(self, raised: Mapping[int, int]) -> dict[int, int]:
        """Return which of these epochs, that `rebalance` gave, are still the newest planned."""
        return {lease: epoch for lease, epoch in raised.items() if self._epochs[lease] == epoch}

    def stop(self, shards: Mapping[int, str]) -> None:
        """Note that shards have been stopped, and why. They keep their owners, who settle their channels."""
        self._stopped.update(shards)
        self._version += 1

    def table(self) -> OwnerTable:
        """Return the owner table after the last `rebalance` or `stop`; a lease that is not held is nobody's in it."""
        owners = [
            (owner, epoch) if self.holds(lease) else (NOBODY, 0)
            for lease, (owner, epoch) in enumerate(zip(self._owners, self._epochs, strict=True))
        ]
        return OwnerTable(self._version, dict(self._addresses), owners, dict(self._stopped))


def share_out(owners: Sequence[int], weights: Mapping[int, int]) -> list[int]:
    """Return new owners: everybody has as many as their weight says, to within less than one, and as few as possible change hands.

    owners: number of each lease's owner now, or NOBODY; every other number is among those that have a weight. Said again of what it
    returned, it changes nothing.
    """
    total = sum(weights.values())
    if not total:
        return [NOBODY] * len(owners)
    held = Counter(owners)
    room = {owner: len(owners) * weight // total for owner, weight in weights.items()}
    over = len(owners) - sum(room.values())
    # Of those whose share is no whole number, who holds most beyond it keeps one more: that moves fewest.
    rounded = (owner for owner, weight in weights.items() if len(owners) * weight % total)
    for owner in sorted(rounded, key=lambda owner: (room[owner] - held[owner], owner))[:over]:
        room[owner] += 1
    shared = list(owners)
    for lease, owner in enumerate(owners):
        if owner != NOBODY and room[owner]:
            room[owner] -= 1
        else:
            shared[lease] = NOBODY
    takers = iter([owner for owner in weights for _ in range(room[owner])])
    return [owner or next(takers) for owner in shared]
