"""Who owns which lease: the shards, and what else must be single (`Lease`). Pure; time comes in as milliseconds.

A lease may get a new owner at any moment, even while the old one still writes: its epoch rises, and the store refuses
writes under the old epoch. That refusal is the safety; expiry only decides how soon somebody else serves the shard.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from paychan.rpc.store_messages import LEASE_COUNT, OwnerTable

NOBODY = 0


class Leases:
    """The workers, their leases and the epochs as planned. Lease numbers: shards 0 to S-1, then S + `Lease`.

    epochs: the newest durable ones. They only rise; the caller makes each rise durable before it shows the table.
    """

    def __init__(self, shard_count: int, epochs: Iterable[int]) -> None:
        self._shard_count = shard_count
        self._epochs = list(epochs)
        self._owners = [NOBODY] * (shard_count + LEASE_COUNT)
        self._addresses: dict[int, str] = {}
        self._seen_ms: dict[int, int] = {}
        self._newest_worker = 0
        self._version = 0
        self._stopped: dict[int, str] = {}

    def join(self, address: str, now_ms: int) -> int:
        """Take a worker in; return its number, from 1 up, never used twice. It owns nothing before `rebalance`."""
        self._newest_worker += 1
        self._addresses[self._newest_worker] = address
        self._seen_ms[self._newest_worker] = now_ms
        return self._newest_worker

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
        """Share the leases out among the workers; return the new epoch of each lease that got a new owner."""
        old, shards = self._owners, self._shard_count
        workers = list(self._addresses)
        self._owners = share_out(old[:shards], workers) + share_out(old[shards:], workers)
        raised = {}
        for lease, owner in enumerate(self._owners):
            if owner not in (NOBODY, old[lease]):
                self._epochs[lease] += 1
                raised[lease] = self._epochs[lease]
        self._version += 1
        return raised

    def stop(self, shards: Mapping[int, str]) -> None:
        """Note that shards have been stopped, and why. They keep their owners, who settle their channels."""
        self._stopped.update(shards)
        self._version += 1

    def table(self) -> OwnerTable:
        """Return the owner table after the last `rebalance` or `stop`."""
        owners = list(zip(self._owners, self._epochs, strict=True))
        return OwnerTable(self._version, dict(self._addresses), owners, dict(self._stopped))


def share_out(owners: Sequence[int], workers: Sequence[int]) -> list[int]:
    """Return new owners: every worker has as many as any other, give or take one, and as few as possible change hands.

    owners: worker number of each lease now, or NOBODY; every other number is among `workers`.
    """
    if not workers:
        return [NOBODY] * len(owners)
    held = Counter(owners)
    each, over = divmod(len(owners), len(workers))
    # Who holds most keeps one more: that moves fewest.
    by_holding = sorted(workers, key=lambda worker: (-held[worker], worker))
    room = {worker: each + (place < over) for place, worker in enumerate(by_holding)}
    shared = list(owners)
    for lease, owner in enumerate(owners):
        if owner != NOBODY and room[owner]:
            room[owner] -= 1
        else:
            shared[lease] = NOBODY
    takers = iter([worker for worker in workers for _ in range(room[worker])])
    return [owner or next(takers) for owner in shared]
