"""Hours of ordinary life: channels are opened, paid on through all doors and closed, and no process may grow.

    python -m tests.campaign.soak --minutes 60 [--workers 2]

Load as in the campaign of kills, without the kills. After each round every channel is closed and judged by the tiling check; then,
while nobody pays, each process's memory and open descriptors are counted. The store's caches are small, to be full soon; the first
WARM_SHARE of the rounds fills them and all buffers. After it, a line is laid through each process's figures: it may not climb by
more than GROWTH_SHARE of the memory (and GROWTH_BYTES), nor by one descriptor. Two things may grow: a worker keeps closed channels
that were asked for again (CHANNEL_BYTES each) until their shard moves, and the store's files that wait to be merged are open. The
server's own check of its accounts runs all the time: a stopped shard ends the soak.
"""

import argparse
import os
import re
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from store.engines.rocksdb import UNMERGED_FILES
from tests.campaign.load import Load, Published
from tests.system import System, resident_bytes, running

ROUND_SECONDS = 15.0
THREADS, SHARED, LIVES = 3, 2, 1
ATTEMPT_SECONDS_MAX = 6.0
WARM_SHARE = 0.4
GROWTH_SHARE = 0.05
GROWTH_BYTES = 8 << 20
CHANNEL_BYTES = 400
VARIANT = "small caches"
ROUNDS_MIN = 10
"""Fewer say nothing about growth: only the payments are judged then."""


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open. Who may not look (the signer shows them to root alone) is told how many its
    table has room for, which grows with them."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(re.search(r"^FDSize:\s+(\d+)$", status, re.MULTILINE)[1])


def named_pids(system: System) -> dict[str, int]:
    """Return the pid of each process of a system."""
    workers = {f"worker {number}": pid for number, pid in enumerate(system.worker_pids(), 1)}
    return {name: system.child_pid(name) for name in ("store", "signer", "server")} | workers


def climb(values: list[int]) -> float:
    """Return by how much a line through the values, laid by least squares, rises from the first to the last."""
    return statistics.linear_regression(range(len(values)), values).slope * (len(values) - 1)


@dataclass
class Soak:
    """memory: resident bytes, and open: descriptors, of each process after each round."""

    memory: dict[str, list[int]] = field(default_factory=dict)
    open: dict[str, list[int]] = field(default_factory=dict)
    rounds: int = 0
    operations: int = 0
    channels: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def sample(self, pids: dict[str, int]) -> None:
        for name, pid in pids.items():
            self.memory.setdefault(name, []).append(resident_bytes(pid))
            self.open.setdefault(name, []).append(descriptors(pid))

    def judge_growth(self) -> None:
        """Add a problem for each process that has grown since it was warm."""
        if self.rounds < ROUNDS_MIN:
            return
        warm = int(self.rounds * WARM_SHARE)
        for name, sizes in self.memory.items():
            held, files = self.open[name], UNMERGED_FILES if name == "store" else 0
            kept = CHANNEL_BYTES * self.channels if name.startswith("worker") else 0
            if climb(sizes[warm:]) > max(GROWTH_BYTES, GROWTH_SHARE * sizes[warm]) + kept:
                self.problems.append(f"{name} grows: {sizes[warm] >> 10} KiB when warm, {sizes[-1] >> 10} KiB at the end")
            if climb(held[warm:]) >= 1 + files:
                self.problems.append(f"{name} keeps descriptors: {held[warm]} when warm, {held[-1]} at the end")

    def __str__(self) -> str:
        warm = int(self.rounds * WARM_SHARE)
        lines = [f"{'':12}{'KiB warm':>10}{'at the end':>12}{'climb':>10}{'descriptors':>14}"]
        for name, sizes in self.memory.items():
            rise = f"{climb(sizes[warm:]) / 1024:+10.0f}" if len(sizes) - warm > 1 else f"{'':10}"
            held = f"{self.open[name][warm]} to {self.open[name][-1]}"
            lines.append(f"{name:12}{sizes[warm] >> 10:10}{sizes[-1] >> 10:12}{rise}{held:>14}")
        life = f"{self.rounds} rounds, {self.seconds / 60:.1f} minutes"
        lines.append(f"{self.operations} operations on {self.channels} channels in {life}")
        return "\n".join([*lines, f"{len(self.problems)} problems"])


def run(system: System, seconds: float, seed: int, say: Callable[[str], None], round_seconds: float = ROUND_SECONDS) -> Soak:
    """Use a system for so long; stop at the first round with a problem."""
    soak, published, pids, begun = Soak(), Published(system), named_pids(system), time.monotonic()
    while not soak.problems and soak.seconds < seconds:
        load = Load(system, f"soak-{seed}-{soak.rounds}", THREADS, SHARED, ATTEMPT_SECONDS_MAX, 0.0, LIVES, published)
        with load:
            time.sleep(round_seconds)
        soak.problems += load.close_and_judge().problems
        soak.problems += [line.strip() for line in system.output if " is stopped: " in line]
        if named_pids(system) != pids:
            soak.problems.append("a process has been replaced")
            break
        soak.rounds, soak.seconds = soak.rounds + 1, time.monotonic() - begun
        soak.operations += load.operations
        soak.channels += len(load.histories)
        soak.sample(pids)
        say(f"{soak.seconds / 60:.1f} of {seconds / 60:.0f} minutes, {soak.operations} operations on {soak.channels} channels")
    soak.judge_growth()
    return soak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    end = "\r\x1b[K" if sys.stdout.isatty() else "\n"
    with (
        tempfile.TemporaryDirectory(prefix="paychan-soak-") as place,
        running(Path(place), arguments.workers, variant=VARIANT) as system,
    ):
        seed = secrets.randbelow(1 << 32)
        soak = run(system, 60 * arguments.minutes, seed, lambda text: print(text, end=end, flush=True))
    print(f"{soak}\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for problem in soak.problems[:20]:
        print(f"  {problem}")
    return int(bool(soak.problems))


if __name__ == "__main__":
    sys.exit(main())
