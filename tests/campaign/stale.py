"""The stale owners' count: how many writes of stores that others have taken over are accepted. It must be none.

    python -m tests.campaign.stale --count 1000 [--stores 12]

One database with a standby, several active stores as processes of their own (tests/process/test_store_postgres.py), the first of
them at the node's port, each other one by a wire of its own (tests/wires.py). In each cycle these wires are cut, and each of those
stores is given a payment to write: it sends the group, and hears nothing. The first takes all leases over, and the same channels
are paid further through it. Then the wires are mended, so that the database gets the late groups. It must refuse every one by the
fence, and neither a channel's state nor what a store has confirmed may have changed. The stores have ended by then, by their own
clock, and are started again. A late write counts when the database's log says that it was refused; where a question was under way
when the wire was cut, nothing of a write is late, which is not counted.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paychan.exits import EXIT_FAILED
from paychan.rpc.store_messages import EntryStatus, StoreMessage, encode_commit
from tests import postgres
from tests.process.test_store_postgres import PUBKEY, stores
from tests.store_workers import Money, Worker, channels, owner_of
from tests.system import wait_until
from tests.wires import Wire, cut

LEASE_MS = 6000
SHARDS = 24
CHANNELS = 120
SECONDS_MAX = 120.0
REFUSED = re.compile(r"ERROR: +store (\w+) is not at fence")
Rows = list[tuple[object, ...]]


@dataclass
class Report:
    """refused: writes that arrived after a take-over. accepted: it must stay empty."""

    cycles: int = 0
    refused: int = 0
    accepted: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.cycles} cycles: {self.refused} late writes of stale owners refused, {len(self.accepted)} accepted"


class Campaign:
    """Cycles over stores that were made, and not started; the first one is never cut off."""

    def __init__(self, cluster: postgres.Cluster, made: list[Any], wires: list[Wire]) -> None:
        self._cluster, self._made, self._wires = cluster, made, wires
        self._money = channels(PUBKEY, CHANNELS)
        self.report = Report()
        self._workers: list[Worker] = []
        for store in made:
            store.start()
            if store is made[0]:
                self._connected_alone = self._connected()
            self._workers.append(self._join(store))
        wait_until(self._is_shared, SECONDS_MAX, "an even division")
        for money in self._money:
            assert money.open(owner_of(money, self._workers)) is EntryStatus.OK

    @staticmethod
    def _join(store: Any) -> Worker:
        return Worker(store.address, PUBKEY, f"of {store.name}")

    def _is_shared(self) -> bool:
        """Whether each store's worker has some shards, and all say the same. Who has ended is started again: a busy machine may
        keep a store waiting for longer than its lease."""
        for number, store in enumerate(self._made):
            if store.is_over:
                store.start()
            try:
                self._workers[number].unsettled()  # a sign of life
            except OSError:
                self._workers[number].close()
                self._workers[number] = self._join(store)
        tables = [worker.listen() for worker in self._workers]
        counts = [len(worker.shards()) for worker in self._workers]
        return all(table.owners == tables[0].owners for table in tables) and sum(counts) == SHARDS and min(counts) > 0

    def cycle(self) -> None:
        """Have every store but the first be late with a group."""
        first, theirs = self._workers[0], [self._one_of(worker) for worker in self._workers[1:]]
        for worker, money in zip(self._workers[1:], theirs, strict=True):  # a store that knows the channel sends the write at once
            assert money.pay(worker) is EntryStatus.OK
        told_before, stored_before = self._told(), self._stored()
        with cut(*self._wires):
            for worker, money in zip(self._workers[1:], theirs, strict=True):
                worker.send(StoreMessage.COMMIT, encode_commit([money.payment(worker).encode()]))
            for store in self._made[1:]:
                wait_until(lambda store=store: store.is_over, SECONDS_MAX, f"the end of {store.name}")
                assert store.process.returncode == EXIT_FAILED and store.says("has confirmed nothing for")
            wait_until(lambda: len(first.shards()) == SHARDS, SECONDS_MAX, "the take-over")
            for money in theirs:
                assert money.pay(first) is EntryStatus.OK
            fences = self._fences()
        wait_until(lambda: self._connected() == self._connected_alone, SECONDS_MAX, "what arrives late")
        self.report.cycles += 1
        self.report.refused += self._told() - told_before
        self._look_for_changes(theirs, stored_before, fences)
        wait_until(self._is_shared, SECONDS_MAX, "an even division")

    def _one_of(self, worker: Worker) -> Money:
        return next(money for money in self._money if worker.owns(money.outpoint))

    def _look_for_changes(self, theirs: list[Money], before: dict[bytes, int], fences: Rows) -> None:
        if self._fences() != fences:
            self.report.accepted.append(f"a store's row has changed: {fences} became {self._fences()}")
        for money in theirs:
            left = self._stored()[money.outpoint]
            if (left, money.value) != (before[money.outpoint] - 1, left):
                self.report.accepted.append(f"a channel had {before[money.outpoint]}, was paid one satoshi, and has {left}")

    def _connected(self) -> int:
        """Return how many connections of stores the database has: one ends when all that came by it has been answered."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'paychan_store' AND datname = current_database()"
        return int(self._made[0].sql(query)[0][0])

    def _told(self) -> int:
        """Return how many groups the primary has said that it refused."""
        return len(REFUSED.findall(self._cluster.primary.log.read_text()))

    def _stored(self) -> dict[bytes, int]:
        """Return what each channel leaves, in satoshi."""
        return {bytes(outpoint): value for outpoint, value in self._made[0].sql("SELECT outpoint, value FROM paychan.state")}

    def _fences(self) -> Rows:
        """Return what every store but the first has done, as its row has it."""
        query = "SELECT name, fence, groups FROM paychan.store WHERE name <> 'a' ORDER BY name"
        return [tuple(row) for row in self._made[0].sql(query)]


def run(place: Path, count: int, number: int, say: Callable[[str], None]) -> Report:
    """Run cycles with so many stores until so many groups were late."""
    cluster = postgres.shared()
    names = [chr(ord("a") + at) for at in range(number)]
    with ExitStack() as stack:
        made = stack.enter_context(stores(place, cluster, *names, lease_ms=LEASE_MS, shard_count=SHARDS))
        wires = [stack.enter_context(Wire(cluster.primary.port)) for _ in names[1:]]
        for store, wire in zip(made[1:], wires, strict=True):
            file = store.directory / "store.toml"
            file.write_text(re.sub(r"(?m)^hosts = .*$", f'hosts = ["127.0.0.1:{wire.port}"]', file.read_text()))
        campaign = Campaign(cluster, made, wires)
        while campaign.report.refused < count and not campaign.report.accepted:
            campaign.cycle()
            say(str(campaign.report))
    return campaign.report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="of late writes")
    parser.add_argument("--stores", type=int, default=12, choices=range(2, SHARDS + 1), metavar=f"2..{SHARDS}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paychan-stale-") as place:
        report = run(Path(place), arguments.count, arguments.stores, lambda text: print(text, flush=True))
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for problem in report.accepted:
        print(f"  {problem}")
    return int(bool(report.accepted))


if __name__ == "__main__":
    sys.exit(main())
