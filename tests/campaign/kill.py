"""The kill campaign: kill -9 one process at a random moment under load, again and again, and judge what payers saw.

    python -m tests.campaign.kill --cycles 20 --victim all

Payers repeat the same bytes until they are answered. Demanded: payments are accepted again within OUTAGE_SECONDS_MAX on the
same port without help, and in the end the tiling check finds no acknowledged payment lost and none counted twice.
"""

import argparse
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.load import Load
from tests.system import System, running, wait_until
from tests.tiling import Verdict

VICTIMS = ("worker", "server", "store", "signer")
OUTAGE_SECONDS_MAX = 10.0


@dataclass
class Report:
    """One campaign. `outages`: by victim, the longest time that a payment took from its first attempt to its answer."""

    seed: int
    cycles: int = 0
    operations: int = 0
    outages: dict[str, float] = field(default_factory=dict)
    verdict: Verdict | None = None

    def __str__(self) -> str:
        outages = ", ".join(f"{victim} {seconds:.2f} s" for victim, seconds in self.outages.items())
        gaps, problems = (self.verdict.gaps, len(self.verdict.problems)) if self.verdict else (0, 0)
        return (
            f"{self.cycles} kills, {self.operations} operations, {gaps} answers lost on the way, {problems} problems; "
            f"longest outage: {outages} (seed {self.seed})"
        )


def kill_when_there(system: System, victim: str, rng: random.Random) -> None:
    """Kill a process; a worker: any of those there are, waiting for one if all are dead."""
    if victim != "worker":
        system.kill(victim)
        return
    wait_until(system.worker_pids, 20, "finding a worker")
    pids = system.worker_pids()
    if pids:
        os.kill(rng.choice(pids), 9)


def campaign(
    directory: Path, victims: tuple[str, ...], cycles: int, seed: int, say: Callable[[str], None] = lambda _: None
) -> Report:
    """Run `cycles` kills for each victim in a random order on one system. Raises AssertionError for a long outage."""
    rng, report = random.Random(seed), Report(seed)
    plan = [victim for victim in victims for _ in range(cycles)]
    rng.shuffle(plan)
    with running(directory, workers=2) as system, Load(system, seed) as load:
        for victim in plan:
            # Half of the kills hit a system that has fully recovered, the others one that may still be busy with the last.
            if rng.random() < 0.5:
                wait_until(lambda: system.ready_workers() == 2, 20, "the return of both workers")
            time.sleep(rng.uniform(0, 0.3))
            load.take_slowest()
            kill_when_there(system, victim, rng)
            load.wait_for_progress(3)
            outage = load.take_slowest()
            report.outages[victim] = max(report.outages.get(victim, 0.0), outage)
            report.cycles += 1
            say(f"{report.cycles}/{len(plan)} {victim}: {outage:.2f} s; {load.operations} operations")
            assert outage < OUTAGE_SECONDS_MAX, f"after the death of {victim} a payment took {outage:.1f} s (seed {seed})"
        report.verdict = load.close_and_judge()
        report.operations = load.operations
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=20, help="kills for each victim")
    parser.add_argument("--victim", choices=[*VICTIMS, "all", "mixed"], default="all", help="mixed: all in one system")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    failed = False
    groups = {"all": [(victim,) for victim in VICTIMS], "mixed": [VICTIMS]}.get(arguments.victim, [(arguments.victim,)])
    end = "\r" if sys.stdout.isatty() else "\n"
    for victims in groups:
        with tempfile.TemporaryDirectory(prefix="paychan-kill-") as directory:
            report = campaign(
                Path(directory), victims, arguments.cycles, arguments.seed, lambda text: print(text, end=end, flush=True)
            )
        print(f"{'+'.join(victims)}: {report}", flush=True)
        for problem in report.verdict.problems:
            print(f"  {problem}")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
