"""Scene: two workers. Row 6: what a payment costs at the port of the worker that owns its channel, and at the other's.

Beside them, as operators launch it: granian's shared port, which gives a connection to either, so that half of the payments are
forwarded.
"""

import functools

from bench.load.measure import Lane
from bench.load.payers import Payer
from bench.load.processes import Instance
from bench.load.scene import Scene, Step

OWNED, FORWARDED, SHARED = "two workers, owned", "two workers, forwarded", "two workers, granian"


class Forwarding(Scene):
    """A lane for each way to a channel's owner."""

    def start(self) -> None:
        self._lanes: dict[str, Lane] = {}
        instance = Instance(self.directory / "two", workers=2)
        self.exits.callback(instance.stop)
        instance.start()
        for kind in (OWNED, FORWARDED, SHARED):
            self._add(kind, instance)

    def _add(self, kind: str, instance: Instance) -> None:
        payers = [Payer(kind, number, instance.server_pubkey) for number in range(self.size.main)]
        doors = instance.open(payers)
        others = {door: other for door in set(doors) for other in set(doors) - {door}}
        if len(others) != 2:
            raise RuntimeError(f"two workers have the ports {sorted(set(doors))}")
        if kind == FORWARDED:
            doors = [others[door] for door in doors]
        elif kind == SHARED:
            doors = [instance.door] * len(doors)
        self._lanes[kind] = Lane(kind, doors, instance.pids(), lambda number, count: payers[number].pay(count))

    def steps(self) -> list[Step]:
        return [(kind, functools.partial(self._measure, kind)) for kind in self._lanes]

    def _measure(self, kind: str) -> None:
        self.record.add(kind, self._lanes[kind].measure(self.size.seconds, self.verify))
