"""Scene: two workers. Row 6: what a payment costs at the port of the worker that owns its channel, and at the other's.

Beside them, as operators launch it: granian's shared port, which gives a connection to either, so that half of the payments are
forwarded. Row 6b: the same over TLS, the two workers being those of two machines.
"""

import functools

from bench.load import machines
from bench.load.failure import Failed
from bench.load.measure import Lane
from bench.load.payers import Payer
from bench.load.processes import Door, Instance
from bench.load.scene import Scene, Step

OWNED, FORWARDED, SHARED = "two workers, owned", "two workers, forwarded", "two workers, granian"
OVER_TLS = "two machines, forwarded"


class Forwarding(Scene):
    """A lane for each way to a channel's owner."""

    def start(self) -> None:
        instance = Instance(self.directory / "two", workers=2)
        self.exits.callback(instance.stop)
        instance.start()
        key, numbers = instance.server_pubkey, range(self.size.main)
        payers = {kind: [Payer(kind, number, key) for number in numbers] for kind in (OWNED, FORWARDED, SHARED)}
        owners = {kind: instance.open(group) for kind, group in payers.items()}
        both = set().union(*owners.values())
        if len(both) != 2:
            raise Failed(f"the channels of two workers are served at {len(both)} ports of their own")
        other = {door: (both - {door}).pop() for door in both}
        doors = {
            OWNED: owners[OWNED],
            FORWARDED: [other[door] for door in owners[FORWARDED]],
            SHARED: [instance.door] * self.size.main,
        }
        self._lanes = {kind: self._lane(kind, doors[kind], instance.pids(), payers[kind]) for kind in payers}
        if machines.is_possible():
            self._lanes[OVER_TLS] = self._lane_over_tls()
        else:
            self.record.lacks[machines.NO_OPENSSL] = None

    def _lane_over_tls(self) -> Lane:
        both = machines.TwoMachines(self.directory)
        self.exits.callback(both.stop)
        both.start()
        payers = [Payer(OVER_TLS, number, both.first.server_pubkey) for number in range(self.size.main)]
        return self._lane(OVER_TLS, both.open(payers), both.pids(), payers)

    def _lane(self, kind: str, doors: list[Door], pids: dict[str, list[int]], payers: list[Payer]) -> Lane:
        return Lane(kind, doors, pids, lambda number, count: payers[number].pay(count))

    def steps(self) -> list[Step]:
        return [(kind, functools.partial(self._measure, kind)) for kind in self._lanes]

    def _measure(self, kind: str) -> None:
        self.record.add(kind, self._lanes[kind].measure(self.size.seconds, self.verify))
