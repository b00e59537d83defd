"""The campaign against the real processes: faults at random moments under load, again and again, judged by what payers saw.

    python -m tests.campaign.kill --cycles 1000 [--victim all|worker|server|store|signer] [--fault all|kill,stop,...] [--seed S]

One system with two workers stays up; payers go through all doors, repeat the same bytes until they are answered, and listen on for
late answers. Each cycle inflicts one fault (tests/campaign/faults.py) and waits until everybody's payments go through again,
without help. With PAYCHAN_STORE=postgres the store is on PostgreSQL, and primary and standby are victims, too. After every
ROUND_CYCLES all channels are closed and the tiling check demands: nothing acknowledged is lost, nothing is counted twice, and every
settlement gives back what it should. A violation stops the campaign and leaves the histories in a file.
"""

import argparse
import dataclasses
import json
import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests import postgres
from tests.campaign import database
from tests.campaign.borrowed import may_borrow
from tests.campaign.faults import FAULTS, LEASE_MS, Field
from tests.campaign.load import Load, Published
from tests.campaign.small_disk import is_small, mounted_on
from tests.power.shim import Switch
from tests.system import STORE_VARIABLE, running, wait_until
from tests.tiling import History

ON_POSTGRES = os.environ.get(STORE_VARIABLE) == "postgres"
VICTIMS = ("worker", "server", "store", "signer", *(database.VICTIMS if ON_POSTGRES else ()))
ROUND_CYCLES = 10
THREADS, SHARED, LIVES = 4, 2, 1
ATTEMPT_SECONDS_MAX = 0.6
"""An attempt is given up after this time, and its late answer listened for: about a lease, so stopped processes are noticed."""

PAUSE_SECONDS = 0.004
REFUSALS = {"out_of_order", "channel_exists", "channel_closing", "no_such_payment"}
"""All that these payers may be refused by."""


@dataclass
class Report:
    """One campaign. Counts by "fault victim"; recoveries: seconds from the fault's end until everybody was served."""

    seed: int
    cycles: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    operations: int = 0
    acknowledged: int = 0
    unknown_attempts: int = 0
    late_answers: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    gaps: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum("LOST" in problem or "MISSING" in problem for problem in self.problems)

    @property
    def double(self) -> int:
        return sum("TWICE" in problem for problem in self.problems)

    def take(self, load: Load) -> None:
        """Add what a load's payers saw; they have stopped."""
        operations = [operation for history in load.histories for operation in history.operations]
        self.operations += len(operations)
        self.acknowledged += sum(operation.outcome.name == "ACKNOWLEDGED" for operation in operations)
        self.refusals += Counter(operation.code for operation in operations if operation.code)
        self.problems += [f"refused: {code}, {self.refusals[code]} times" for code in set(self.refusals) - REFUSALS]
        self.unknown_attempts += sum(operation.lost for operation in operations)
        self.late_answers += load.late_answers
        self.ways += load.ways

    def merge(self, other: "Report") -> None:
        for name in set(vars(self)) - {"seed", "recoveries"}:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, seconds in other.recoveries.items():
            self.recoveries.setdefault(name, []).extend(seconds)

    def __str__(self) -> str:
        lines = [f"{'':16}{'cycles':>7}{'p50':>8}{'p99':>8}{'max':>8}   until everybody is served again, s"]
        for name in sorted(self.cycles):
            found = sorted(self.recoveries[name])
            figures = (found[len(found) // 2], found[len(found) * 99 // 100], found[-1])
            lines.append(f"{name:16}{self.cycles[name]:7}" + "".join(f"{seconds:8.2f}" for seconds in figures))
        lines.append(f"doors: {', '.join(f'{name} {count}' for name, count in sorted(self.ways.items()))}")
        lines.append(f"refused: {', '.join(f'{code} {count}' for code, count in sorted(self.refusals.items()))}")
        lines.append(
            f"{self.cycles.total()} cycles, {self.operations} operations, {self.acknowledged} acknowledged, "
            f"{self.unknown_attempts} attempts with unknown outcome, {self.gaps} gaps that a lost answer explains; "
            f"late answers: {', '.join(f'{count} {kind}' for kind, count in sorted(self.late_answers.items())) or 'none'}"
        )
        lines.append(f"lost {self.lost}, double {self.double}, problems {len(self.problems)}")
        return "\n".join(lines)


def pairs_of(faults: Iterable[str], victims: Iterable[str]) -> list[tuple[str, str]]:
    """Return the (fault, victim) pairs that there are."""
    return [(fault, victim) for fault in faults for victim in FAULTS[fault][1] if victim in victims]


def overlaps(histories: list[History]) -> list[str]:
    """Return what has been credited twice by now: the tiling check's rule that holds while payments are in flight."""
    found = []
    for history in histories:
        claims = sorted((o.left, o.left + o.received) for o in list(history.operations) if o.received > 0)
        for (low, high), (next_low, next_high) in zip(claims, claims[1:], strict=False):
            if next_low < high:
                found.append(f"{history.name}: COUNTED TWICE: ({low}, {high}] and ({next_low}, {next_high}]")
    return found


class Campaign:
    """Cycles on one running system. Names of channels begin with the seed and the round's number."""

    def __init__(self, directory: Path, plan: list[tuple[str, str]], seed: int, say: Callable[[str], None]) -> None:
        self._directory, self._plan, self._say = directory, plan, say
        self._rng, self.report = random.Random(seed), Report(seed)
        self._rng.shuffle(plan)
        self._switch = Switch(directory / "switch", directory / "state")

    def run(self) -> Report:
        """Run the plan; stop at the first round with a problem."""
        if ON_POSTGRES:
            postgres.share(postgres.Cluster(standbys=2, lease_ms=database.LEASE_MS))
        lease = {"store.toml": {"lease_ms = ": f"lease_ms = {LEASE_MS}"}}
        with running(self._directory, workers=2, env=self._switch.environment, changes=lease) as self._system:
            self._published = Published(self._system)
            self._leave_out("socket", may_borrow(self._system.child_pid("store")), "no process may borrow another's sockets")
            self._leave_out("full", is_small(self._directory), "there is no small file system to be filled")
            for at in range(0, len(self._plan), ROUND_CYCLES):
                self._round(at)
                if self.report.problems:
                    break
        return self.report

    def _leave_out(self, fault: str, is_possible: bool, why: str) -> None:
        """Take out of the plan what this machine does not allow."""
        if not is_possible and any(pair[0] == fault for pair in self._plan):
            self._say(f"no cycles with {fault}: {why}")
            self._plan = [pair for pair in self._plan if pair[0] != fault]

    def _round(self, at: int) -> None:
        name, plan = f"{self.report.seed}-{at}", self._plan[at : at + ROUND_CYCLES]
        load = Load(self._system, name, THREADS, SHARED, ATTEMPT_SECONDS_MAX, PAUSE_SECONDS, LIVES, self._published)
        where, happened = "the opening", []
        try:
            with load:
                for number, (fault, victim) in enumerate(plan, at + 1):
                    where = f"cycle {number}, {fault} {victim}"
                    happened.append(f"{where} {self._cycle(load, fault, victim)}")
                    self._tell(number, happened[-1], load)
                    if found := overlaps(load.histories):
                        self.report.problems += [f"{where}: {problem}" for problem in found]
                        break
            where = f"the end of cycles {at + 1} to {at + len(plan)}"
            verdict = load.close_and_judge()
            self.report.problems += [f"{where}: {problem}" for problem in verdict.problems]
            self.report.gaps += verdict.gaps
        except Exception as error:
            found = [f"{type(error).__name__}: {error}", *overlaps(load.histories)]
            self.report.problems += [f"{where}: {problem}" for problem in found]
        self.report.take(load)
        if self.report.problems:
            self.report.problems.append(f"seed {self.report.seed}; what happened is in {self._keep(load, happened)}")

    def _cycle(self, load: Load, fault: str, victim: str) -> str:
        # Half of the faults hit a system that has fully recovered, the others one that may still be busy with the last.
        if self._rng.random() < 0.5:
            wait_until(lambda: self._system.ready_workers() == 2, 30, "the return of both workers")
        time.sleep(self._rng.uniform(0, 0.4))
        inflict = FAULTS[fault][0]
        detail = inflict(Field(self._system, self._switch, self._rng, self._directory, load.wait_for_progress), victim)
        healed = time.monotonic()
        load.wait_for_progress(3)
        name, seconds = f"{fault} {victim}", time.monotonic() - healed
        self.report.recoveries.setdefault(name, []).append(seconds)
        self.report.cycles[name] += 1
        return f"({detail}): {seconds:.2f} s" if detail else f": {seconds:.2f} s"

    def _tell(self, number: int, what: str, load: Load) -> None:
        bar = "#" * (20 * number // len(self._plan))
        self._say(f"[{bar:20}] {self.report.operations + load.operations} operations, of {len(self._plan)}: {what}")

    def _keep(self, load: Load, happened: list[str]) -> Path:
        """Write down what led to a violation."""
        place = Path(tempfile.gettempdir()) / f"paychan-campaign-{self.report.seed}.json"
        histories = [dataclasses.asdict(history) for history in load.histories]
        content = {"cycles": happened, "histories": histories, "log": self._system.output[-2000:]}
        place.write_text(json.dumps(content, default=lambda value: value.name, indent=1))
        return place


def campaign(
    directory: Path, pairs: list[tuple[str, str]], cycles: int, seed: int, say: Callable[[str], None] = lambda _: None
) -> Report:
    """Run so many cycles, shared out among (fault, victim) pairs in a random order."""
    return Campaign(directory, [pairs[i % len(pairs)] for i in range(cycles)], seed, say).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=100, help="in all")
    parser.add_argument("--victim", default="all", help=f"of {', '.join(VICTIMS)}")
    parser.add_argument("--fault", default="all", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--record", type=Path, help="append the report to this file, and print the sum of all that are in it")
    arguments = parser.parse_args()
    faults = list(FAULTS) if arguments.fault == "all" else arguments.fault.split(",")
    victims = list(VICTIMS) if arguments.victim == "all" else arguments.victim.split(",")
    if set(faults) - set(FAULTS) or set(victims) - set(VICTIMS) or not pairs_of(faults, victims):
        parser.error(f"faults: {', '.join(FAULTS)}; victims: {', '.join(VICTIMS)}")
    end = "\r\x1b[K" if sys.stdout.isatty() else "\n"
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="paychan-kill-") as place, ExitStack() as stack:
        if "full" in faults:
            try:
                stack.enter_context(mounted_on(Path(place)))
            except OSError as error:
                print(error)
        pairs = pairs_of(faults, victims)
        report = campaign(Path(place), pairs, arguments.cycles, arguments.seed, lambda text: print(text, end=end, flush=True))
    print(f"{report}\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for problem in report.problems[:40]:
        print(f"  {problem}")
    if arguments.record:
        print(f"all in {arguments.record}:\n{add_to(arguments.record, report)}")
    return int(bool(report.problems))


def add_to(record: Path, report: Report) -> Report:
    """Append a report to a file of reports, and return their sum."""
    with record.open("a") as file:
        file.write(json.dumps(vars(report)) + "\n")
    whole = Report(0)
    for line in record.read_text().splitlines():
        fields = json.loads(line)
        for name in ("cycles", "ways", "late_answers", "refusals"):
            fields[name] = Counter(fields[name])
        whole.merge(Report(**fields))
    return whole


if __name__ == "__main__":
    sys.exit(main())
