"""What other stores have, where several are active: the leases that are theirs, their workers, what they count. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from paychan.rpc.store_messages import OwnerTable, Unsettled

from .leases import NOBODY


@dataclass(frozen=True)
class Elsewhere:
    """owners: (worker, epoch) of each lease that another store holds. workers, stopped: as in `OwnerTable`. unsettled: the sum of
    the other stores' parts; it may be negative, as any part."""

    owners: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    workers: Mapping[int, str] = field(default_factory=dict)
    stopped: Mapping[int, str] = field(default_factory=dict)
    unsettled: Unsettled = Unsettled()

    def joined(self, own: OwnerTable, version: int) -> OwnerTable:
        """Return the table of all stores. own: of this store's leases; one that has gone elsewhere since is elsewhere."""
        owners, stopped = list(own.owners), dict(own.stopped)
        for lease, owner in self.owners.items():
            owners[lease] = owner
            stopped.pop(lease, None)
        return replace(
            own,
            version=version,
            workers={**self.workers, **own.workers},
            owners=owners,
            stopped={**stopped, **self.stopped},
        )

    def total(self, own: Unsettled) -> Unsettled:
        """Return what all stores count together. The others' parts are as of the last look, ours as of now."""
        return Unsettled(max(0, own.open + self.unsettled.open), max(0, own.begun + self.unsettled.begun))


NOWHERE = Elsewhere()


def theirs(leases: Mapping[int, int], table: OwnerTable | None) -> dict[int, tuple[int, int]]:
    """Return (worker, epoch) of each lease of another store. leases: their epochs, as the rows of `shard` say. table: what the
    store told last of its workers; where that is of another epoch, nobody serves the lease yet."""
    served = dict(enumerate(table.owners)) if table else {}
    found = {}
    for lease, epoch in leases.items():
        worker, told = served.get(lease, (NOBODY, 0))
        found[lease] = (worker if told == epoch else NOBODY, epoch)
    return found
