"""The campaign against several active stores: faults at random moments under load through all machines' doors, judged by tiling.

    python -m tests.campaign.stores --cycles 1000 [--victim primary,standby,store,signer,worker,machine]
        [--fault kill,stop,slow,cut] [--machines 2] [--seed S] [--record FILE]

Two machines or three, each a whole system with store and signer of its own (tests/fleet.py), one database with two standbys. All
links between machines and nodes are wires; a cut one passes nothing, and what was sent meanwhile arrives later. Each cycle does one
fault to one victim and waits until everybody's payments go through again, without help. After each round all channels are closed,
the tiling check judges what payers saw, and `paychan-store check` what is stored. A store that comes back after others have taken
over writes nothing: how often one ended because of that, is counted. What a killed primary costs is split in what finds and
promotes another (the test does that at once) and what is ours.
"""

import argparse
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests import postgres
from tests.campaign import database
from tests.campaign.kill import REFUSALS, overlaps
from tests.campaign.load import Load
from tests.fleet import Fleet, Machine, fleet, slow
from tests.system import wait_until
from tests.wires import Wire, cut

VICTIMS = ("primary", "standby", "store", "signer", "worker", "machine")
FAULTS = ("kill", "stop", "slow", "cut")
LEASE_MS = database.LEASE_MS
ROUND_CYCLES = 10
THREADS, SHARED = 4, 2
ATTEMPT_SECONDS_MAX = 1.0
PAUSE_SECONDS = 0.01
STALE = ("is not at fence", "has confirmed nothing for")
"""What a store's last line says when others may have taken its leases: its write was refused, or its own clock told it first."""


@dataclass
class Report:
    """One campaign. Counts by "fault victim"; recoveries: seconds from the fault's end until everybody was served; primary: seconds
    of each part of what a killed primary costs."""

    seed: int
    cycles: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    primary: dict[str, list[float]] = field(default_factory=dict)
    operations: int = 0
    acknowledged: int = 0
    unknown_attempts: int = 0
    gaps: int = 0
    stale_owners: int = 0
    taken_over: int = 0
    problems: list[str] = field(default_factory=list)

    def take(self, load: Load) -> None:
        operations = [operation for history in load.histories for operation in history.operations]
        self.operations += len(operations)
        self.acknowledged += sum(operation.outcome.name == "ACKNOWLEDGED" for operation in operations)
        self.unknown_attempts += sum(operation.lost for operation in operations)
        codes = {operation.code for operation in operations if operation.code} - REFUSALS
        self.problems += [f"refused: {code}" for code in codes]

    def merge(self, other: "Report") -> None:
        for name in set(vars(self)) - {"seed", "recoveries", "primary"}:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.recoveries, other.recoveries), (self.primary, other.primary)):
            for name, seconds in theirs.items():
                mine.setdefault(name, []).extend(seconds)

    def __str__(self) -> str:
        lines = [f"{'':24}{'times':>7}{'p50':>8}{'p99':>8}{'max':>8}   until everybody is served again, s"]
        lines += [_figures(name, self.recoveries[name]) for name in sorted(self.recoveries)]
        lines += [_figures(f"  primary: {name}", seconds) for name, seconds in self.primary.items()]
        lines.append(
            f"{self.cycles.total()} cycles, {self.operations} operations, {self.acknowledged} acknowledged, "
            f"{self.unknown_attempts} attempts with unknown outcome, {self.gaps} gaps that a lost answer explains; "
            f"{self.taken_over} take-overs, {self.stale_owners} stale owners ended"
        )
        lost = sum("LOST" in problem or "MISSING" in problem for problem in self.problems)
        double = sum("TWICE" in problem for problem in self.problems)
        lines.append(f"lost {lost}, double {double}, problems {len(self.problems)}")
        return "\n".join(lines)


def _figures(name: str, seconds: list[float]) -> str:
    found = sorted(seconds)
    figures = (found[len(found) // 2], found[len(found) * 99 // 100], found[-1])
    return f"{name:24}{len(found):7}" + "".join(f"{figure:8.2f}" for figure in figures)


class Campaign:
    """Cycles on one running fleet."""

    def __init__(self, machines: Fleet, plan: list[tuple[str, str]], seed: int, say: Callable[[str], None]) -> None:
        self._fleet, self._plan, self._say, self._replication = machines, plan, say, database.wire()
        self._rng, self.report, self._is_over = random.Random(seed), Report(seed), False
        self._rng.shuffle(plan)

    def run(self) -> Report:
        """Run the plan; stop at the first round with a problem. After SIGINT the round under way is the last."""
        signal.signal(signal.SIGINT, lambda *_: self._end())
        for at in range(0, len(self._plan), ROUND_CYCLES):
            self._round(at)
            if self.report.problems or self._is_over:
                break
        return self.report

    def _end(self) -> None:
        self._is_over = True

    def _round(self, at: int) -> None:
        name, where = f"{self.report.seed}-{at}", "the opening"
        load = Load(self._fleet, name, THREADS, SHARED, ATTEMPT_SECONDS_MAX, PAUSE_SECONDS)
        try:
            with load:
                for number, (fault, victim) in enumerate(self._plan[at : at + ROUND_CYCLES], at + 1):
                    if self._is_over:
                        break
                    where = f"cycle {number}, {fault} {victim}"
                    self._cycle(load, fault, victim)
                    self._say(f"{where}: {self.report.recoveries[f'{fault} {victim}'][-1]:.2f} s, {load.operations} operations")
                    self.report.problems += [f"{where}: {problem}" for problem in overlaps(load.histories)]
            where = f"the end of the round at {at + 1}"
            self._fleet.wait_until_whole()
            verdict = load.close_and_judge()
            self.report.problems += [f"{where}: {problem}" for problem in verdict.problems]
            self.report.gaps += verdict.gaps
            done = self._fleet.check()
            if done.returncode:
                self.report.problems.append(f"{where}: check: {done.stdout[-500:]} {done.stderr[-500:]}")
        except Exception as error:
            found = [f"{type(error).__name__}: {error}", *overlaps(load.histories)]
            self.report.problems += [f"{where}: {problem}" for problem in found]
        self.report.take(load)

    def _cycle(self, load: Load, fault: str, victim: str) -> None:
        if self._rng.random() < 0.5:  # the others hit a fleet that may still be busy with the last one
            self._fleet.wait_until_whole()
        time.sleep(self._rng.uniform(0, 0.4))
        before = self._counts()
        if victim in database.VICTIMS:
            self._strike_database(load, fault, victim)
        else:
            self._strike(load, fault, victim)
        healed = time.monotonic()
        load.wait_for_progress(3)
        name = f"{fault} {victim}"
        self.report.recoveries.setdefault(name, []).append(time.monotonic() - healed)
        self.report.cycles[name] += 1
        after = self._counts()
        self.report.stale_owners += max(0, after[0] - before[0])
        self.report.taken_over += max(0, after[1] - before[1])

    def _counts(self) -> tuple[int, int]:
        return sum(map(self._fleet.count_lines, STALE)), self._fleet.count_lines("was silent: its")

    def _strike(self, load: Load, fault: str, victim: str) -> None:
        """Do a fault to a machine, or to a process of it. What stands still does so for a moment, or for longer than a lease."""
        machine = self._rng.choice(self._fleet.machines)
        if fault == "cut":
            with cut(*_wires_of(machine, victim)):
                time.sleep(self._moment())
            return
        pids = self._pids_of(machine, victim)
        if fault == "kill" and victim == "machine":
            machine.lose_power()
            time.sleep(self._rng.choice((0.0, 1.5 * LEASE_MS / 1000)))
            machine.start_again()
        elif fault == "kill":
            _send(pids, signal.SIGKILL)
        elif fault == "stop":
            _send(pids, signal.SIGSTOP)
            time.sleep(self._moment())
            _send(pids, signal.SIGCONT)
        else:
            slow(pids, self._rng.uniform(1, 3))

    def _moment(self) -> float:
        """Return seconds: a moment, or longer than a lease."""
        return self._rng.choice((self._rng.uniform(0, 1), 1.5 * LEASE_MS / 1000))

    def _pids_of(self, machine: Machine, victim: str) -> list[int]:
        if victim == "machine":
            return machine.family()
        if victim in ("store", "signer"):
            return [machine.child_pid(victim)]
        wait_until(machine.worker_pids, 20, "a worker")
        return [machine.worker_pids()[0]]

    def _strike_database(self, load: Load, fault: str, victim: str) -> None:
        cluster = postgres.shared()
        if fault == "kill" and victim == "primary":
            self._kill_primary(load)
        elif fault == "cut":
            self._cut_node(victim)
        elif fault == "slow":
            cluster.wait_for_standbys(2)
            node = cluster.primary if victim == "primary" else self._rng.choice(cluster.standbys)
            slow(node.pids(), self._rng.uniform(1, 3))
        else:
            {"kill": database.kill, "stop": database.stop}[fault](victim, self._rng)

    def _cut_node(self, victim: str) -> None:
        """Cut the primary off from everybody, have another promoted, and mend it while it still runs. Or cut standbys off."""
        cluster = postgres.shared()
        cluster.wait_for_standbys(2)
        primary = cluster.primary
        if victim == "standby":
            gone = self._rng.sample(cluster.standbys, self._rng.choice((1, 2)))
            with cut(*(self._replication[node, primary] for node in gone)):
                time.sleep(self._moment())
        else:
            links = [machine.links for machine in self._fleet.machines if machine.links is not None]
            wires = [link.store[primary] for link in links] + [link.signer[primary] for link in links]
            wires += [self._replication[node, primary] for node in cluster.standbys]
            with ExitStack() as stack:
                stack.enter_context(cut(*wires))
                time.sleep(self._moment())
                cluster.fail_over(meanwhile=stack.close)
        cluster.wait_for_standbys(2)

    def _kill_primary(self, load: Load) -> None:
        """Note when another is promoted, and when everybody is served."""
        cluster = postgres.shared()
        cluster.wait_for_standbys(2)
        times = [time.monotonic()]
        cluster.primary.kill()

        def promoted() -> None:
            times.append(time.monotonic())
            load.wait_for_progress(1)
            times.append(time.monotonic())

        cluster.fail_over(meanwhile=promoted)
        for name, seconds in (("promotion", times[1] - times[0]), ("ours", times[2] - times[1]), ("in all", times[2] - times[0])):
            self.report.primary.setdefault(name, []).append(seconds)


def _wires_of(machine: Machine, victim: str) -> list[Wire]:
    """Return what a part of a machine reaches others by; of a worker, what others reach it by."""
    links = machine.links
    assert links is not None
    parts = {"store": [*links.store.values()], "signer": [*links.signer.values()], "worker": [links.workers]}
    return [wire for part in ([victim] if victim in parts else parts) for wire in parts[part]]


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def run(place: Path, pairs: list[tuple[str, str]], cycles: int, machines: int, seed: int, say: Callable[[str], None]) -> Report:
    """Run so many cycles, shared out among (fault, victim) pairs in a random order."""
    postgres.share(postgres.Cluster(standbys=2, lease_ms=LEASE_MS))
    with fleet(place, machines, lease_ms=LEASE_MS, is_wired=True) as made:
        return Campaign(made, [pairs[i % len(pairs)] for i in range(cycles)], seed, say).run()


def add_to(record: Path, report: Report) -> Report:
    """Append a report to a file of reports, and return their sum."""
    with record.open("a") as file:
        file.write(json.dumps(vars(report)) + "\n")
    whole = Report(0)
    for line in record.read_text().splitlines():
        fields = json.loads(line)
        whole.merge(Report(**{**fields, "cycles": Counter(fields["cycles"])}))
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=30, help="in all")
    parser.add_argument("--victim", default=",".join(VICTIMS), help=f"of {', '.join(VICTIMS)}")
    parser.add_argument("--fault", default=",".join(FAULTS), help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--machines", type=int, default=2, choices=(2, 3))
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--record", type=Path, help="append the report to this file, and print the sum of all that are in it")
    arguments = parser.parse_args()
    faults, victims = arguments.fault.split(","), arguments.victim.split(",")
    if set(faults) - set(FAULTS) or set(victims) - set(VICTIMS):
        parser.error(f"faults: {', '.join(FAULTS)}; victims: {', '.join(VICTIMS)}")
    pairs = [(fault, victim) for fault in faults for victim in victims]
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="paychan-stores-") as place:
        report = run(Path(place), pairs, arguments.cycles, arguments.machines, arguments.seed, lambda text: print(text, flush=True))
    print(f"{report}\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for problem in report.problems[:40]:
        print(f"  {problem}")
    if arguments.record:
        print(f"all in {arguments.record}:\n{add_to(arguments.record, report)}")
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
