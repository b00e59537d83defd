"""`python -m bench.engines`: payments a second and CPU for each, with the store on RocksDB and on PostgreSQL, in turns.

PostgreSQL twice: with one standby that must confirm, and with two that both must. All servers, standbys and the client share this
machine and its disk, so times say little and CPU says much; fsync is on everywhere. Payments come through the worker's own port,
one worker, one request in flight on each connection. Only ratios of one run mean something.
"""

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.load.failure import Failed
from bench.load.measure import Lane, Slice, VerifyMeter
from bench.load.payers import Payer
from bench.load.processes import Instance
from paychan.printing import say, show
from tests import postgres

ROCKSDB = "RocksDB"
CONNECTIONS = (5, 64, 128, 512)


class Engine(NamedTuple):
    """What a store keeps its data in. cluster: None for RocksDB."""

    name: str
    instance: Instance
    cluster: postgres.Cluster | None

    def pids(self) -> dict[str, list[int]]:
        """Return the processes that count, by name."""
        found = self.instance.pids()
        if self.cluster is not None:
            found["primary"] = self.cluster.primary.pids()
            found["standbys"] = [pid for node in self.cluster.standbys for pid in node.pids()]
        return found


def engines(directory: Path, stack: ExitStack) -> list[Engine]:
    """Start one system on each engine."""
    made = [Engine(ROCKSDB, Instance(directory / "rocksdb"), None)]
    for count in (1, 2):
        cluster = postgres.Cluster(standbys=count)
        stack.callback(cluster.stop)
        cluster.need_confirmations(count)
        instance = Instance(directory / f"postgres-{count}")
        postgres.use(instance.config, cluster)
        made.append(Engine(f"PostgreSQL, {count} confirm{'s' if count == 1 else ''}", instance, cluster))
    for engine in made:
        stack.callback(engine.instance.stop)
        engine.instance.start()
    return made


def lanes(engine: Engine, connections: tuple[int, ...]) -> dict[int, Lane]:
    """Return for each number of connections what pays on that system."""
    found = {}
    for count in connections:
        payers = [Payer(f"engines {count}", number, engine.instance.server_pubkey) for number in range(count)]
        doors = engine.instance.open(payers)
        found[count] = Lane(engine.name, doors, engine.pids(), lambda number, many, payers=payers: payers[number].pay(many))
    return found


Rounds = dict[str, dict[int, list[Slice]]]


def measure(made: list[Engine], connections: tuple[int, ...], rounds: int, seconds: float) -> Rounds:
    """Measure in turns: in each round another engine begins."""
    meter, ways = VerifyMeter(), {engine.name: lanes(engine, connections) for engine in made}
    found: Rounds = {engine.name: {count: [] for count in connections} for engine in made}
    for number in range(rounds):
        order = made[number % len(made) :] + made[: number % len(made)]
        for count in connections:
            for engine in order:
                found[engine.name][count].append(ways[engine.name][count].measure(seconds, meter))
        say(f"round {number + 1} of {rounds}")
    return found


def report(found: Rounds) -> list[str]:
    """Return the lines of a table: medians of the rounds, ratios formed within a round."""
    lines = [
        f"{'':24}{'conn.':>6}{'paym./s':>9}{'p50 ms':>8}{'ours, V':>9}{'over RocksDB':>14}{'primary, V':>12}{'standbys, V':>13}"
    ]
    for name, rows in found.items():
        for count, slices in rows.items():
            own = [_ours(one) / one.verify for one in slices]
            plain = [_ours(one) / one.verify for one in found[ROCKSDB][count]]
            ratio = statistics.median(ours / theirs for ours, theirs in zip(own, plain, strict=True))
            others = [statistics.median(one.cpu.get(part, 0.0) / one.payments / one.verify for one in slices) for part in _DATABASE]
            rate, middle = (statistics.median(values) for values in ([s.rate for s in slices], [s.latency(0.5) for s in slices]))
            lines.append(
                f"{name:24}{count:6}{rate:9.0f}{middle * 1e3:8.2f}{statistics.median(own):9.2f}{ratio:14.2f}"
                f"{others[0]:12.2f}{others[1]:13.2f}"
            )
    return lines


_DATABASE = ("primary", "standbys")


def _ours(one: Slice) -> float:
    """Return the CPU seconds of a payment in workers and store."""
    return sum(seconds for part, seconds in one.cpu.items() if part not in _DATABASE) / one.payments


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=lambda text: tuple(map(int, text.split(","))), default=CONNECTIONS, metavar="N,N,...")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one slice")
    arguments = parser.parse_args()
    if postgres.why_not():
        raise Failed(postgres.why_not())
    with tempfile.TemporaryDirectory(prefix="engines-") as directory, ExitStack() as stack:
        made = engines(Path(directory), stack)
        lines = report(measure(made, arguments.connections, arguments.rounds, arguments.seconds))
    show("\n".join((f"fsync on; medians of {arguments.rounds} rounds of {arguments.seconds} s; V is a raw verification", *lines)))


if __name__ == "__main__":
    main()
