"""`python -m bench.metrics`: what metrics cost: payments a second and CPU for each, with and without them, in turns.

Three systems on one machine, alike but for that: *on* has `[metrics]`, and is read each second while it is measured, as Prometheus
would; *off* has no `[metrics]`, as operators have it who want none: its processes count all the same, and nobody serves it;
*private* counts into memory of its own, for it cannot have the file of counts. Payments come through the worker's own port, one
worker, one request in flight on each connection, fsync on. CPU is that of all processes of a system, of its metrics' too.

In each turn all three are measured, in an order that changes, and the ratios are formed within the turn: what else the machine does
falls on all. A ratio's interval is that of its median, by the order of the turns' ratios: it holds whatever their distribution.
"""

import argparse
import http.client
import itertools
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from bench.load.measure import Lane, Slice, VerifyMeter
from bench.load.payers import Payer
from bench.load.processes import Instance
from paychan.printing import say, show
from tests.metrics import listening
from tests.ports import free_port

ON, OFF, PRIVATE = "on", "off", "private"
SLICE_SECONDS = 1.0
SCRAPE_SECONDS = 1.0
TURNS_MIN = 3
CONFIDENCE = 0.95

Turns = list[dict[str, Slice]]


class Scrapes:
    """Reads a system's metrics each second, as Prometheus would."""

    def __init__(self, port: int) -> None:
        self.port, self.count = port, 0

    def one(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
            answer = connection.getresponse()
            if answer.status == 200 and answer.read().endswith(b"# EOF\n"):
                self.count += 1
        finally:
            connection.close()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Read meanwhile: first after half a second's share."""
        ends = threading.Event()

        def run() -> None:
            pause = SCRAPE_SECONDS / 2
            while not ends.wait(pause):
                with suppress(OSError):
                    self.one()
                pause = SCRAPE_SECONDS

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()


class Ratio(NamedTuple):
    """A median over the turns, and the interval that holds it with `CONFIDENCE` (the widest there is, if there are few turns)."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.4f} ({self.low:.4f} to {self.high:.4f})"


def ratio(values: list[float]) -> Ratio:
    """Return the median and its interval: from the k-th smallest to the k-th largest, k as large as the sign test allows."""
    ordered, count = sorted(values), len(values)
    below, reached = 0, 0.0
    while (reached := reached + math.comb(count, below) / 2**count) <= (1 - CONFIDENCE) / 2:
        below += 1
    at = max(0, below - 1)
    return Ratio(statistics.median(ordered), ordered[at], ordered[-1 - at])


def systems(directory: Path, stack: ExitStack) -> tuple[dict[str, Instance], Scrapes]:
    """Start the three, and what reads the first."""
    scrapes = Scrapes(free_port())
    made = {
        ON: Instance(directory / ON, server_changes=listening(scrapes.port)["server.toml"]),
        OFF: Instance(directory / OFF),
        PRIVATE: Instance(directory / PRIVATE),
    }
    (directory / PRIVATE / "state" / "run" / "counts").mkdir(mode=0o700, parents=True)  # a directory where the file would be
    (directory / PRIVATE / "state").chmod(0o700)
    for instance in made.values():
        stack.callback(instance.stop)
        instance.start()
    made[ON].start_metrics()
    return made, scrapes


def is_counted(instance: Instance) -> bool:
    """Return whether a system's counts lie in the file that can be read."""
    return (instance.directory / "state" / "run" / "counts").is_file()


def lane(name: str, instance: Instance, connections: int) -> Lane:
    """Return what pays on a system."""
    payers = [Payer(f"metrics {name}", number, instance.server_pubkey) for number in range(connections)]
    return Lane(name, instance.open(payers), instance.all_pids(), lambda number, many: payers[number].pay(many))


def measure(made: dict[str, Instance], scrapes: Scrapes, connections: int, seconds: float, slice_seconds: float) -> Turns:
    """Measure in turns for so long, all orders alike often."""
    meter, lanes = VerifyMeter(), {name: lane(name, instance, connections) for name, instance in made.items()}
    for one in lanes.values():
        one.measure(slice_seconds, meter)  # what is only done once
    turns: Turns = []
    until = time.monotonic() + seconds
    orders = itertools.cycle(itertools.permutations(made))
    while len(turns) < TURNS_MIN or time.monotonic() < until:
        turn = {}
        for name in next(orders):
            turn[name] = lanes[name].measure(slice_seconds, meter, where=scrapes.going_on() if name == ON else None)
        turns.append(turn)
        if len(turns) % 10 == 0:
            say(f"{len(turns)} turns")
    return turns


def report(turns: Turns, scraped: int) -> list[str]:
    """Return the lines of the report."""
    lines = [f"{'':10}{'paym./s':>9}{'us each':>9}{'V each':>8}"]
    for name in (ON, OFF, PRIVATE):
        own = [turn[name] for turn in turns]
        rate, cpu, in_v = (
            statistics.median(value)
            for value in ([s.rate for s in own], [s.cpu_each for s in own], [s.cpu_each / s.verify for s in own])
        )
        lines.append(f"{name:10}{rate:9.0f}{cpu * 1e6:9.2f}{in_v:8.3f}")
    for name, base in ((ON, OFF), (ON, PRIVATE), (OFF, PRIVATE)):
        rates = ratio([turn[name].rate / turn[base].rate for turn in turns])
        costs = ratio([turn[name].cpu_each / turn[base].cpu_each for turn in turns])
        lines += [f"{name} / {base}, payments/s: {rates}", f"{name} / {base}, CPU a payment: {costs}"]
    on_the_way = ratio([_on_the_way(turn[ON]) / _on_the_way(turn[OFF]) for turn in turns])
    lines.append(f"{ON} / {OFF}, CPU of workers and store alone: {on_the_way}")
    serving = [turn[ON].cpu["metrics"] / turn[ON].seconds for turn in turns]
    lines.append(f"serving the metrics: {statistics.median(serving):.4f} of a core; read {scraped} times")
    return lines


def _on_the_way(one: Slice) -> float:
    """Return the CPU seconds of a payment in the processes that it goes through."""
    return (one.cpu["workers"] + one.cpu["store"]) / one.payments


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.metrics", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=170.0, help="in all, without the start")
    parser.add_argument("--slice", type=float, default=SLICE_SECONDS, help="seconds of one system's turn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="metrics-") as directory, ExitStack() as stack:
        made, scrapes = systems(Path(directory), stack)
        turns = measure(made, scrapes, arguments.connections, arguments.seconds, arguments.slice)
        counted = [name for name, instance in made.items() if is_counted(instance)]
    assert counted == [ON, OFF], counted
    head = f"fsync on, {arguments.connections} connections; medians of {len(turns)} turns of {arguments.slice} s each"
    show("\n".join((f"{head}; in brackets {CONFIDENCE:.0%} intervals", *report(turns, scrapes.count))))


if __name__ == "__main__":
    main()
