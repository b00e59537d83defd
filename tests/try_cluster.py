"""`./runCluster.sh [--seconds N] [--faults]`: a whole cluster on this machine, to try it out.

Three machines, each with server, store and signer, and three PostgreSQL nodes: one is the primary, and one other must confirm. Some
payers pay all the time, at all doors. What to kill is printed, with its process id; what is killed comes back by itself, as a
service manager and Patroni would have it. At the end (Ctrl-C, or after N seconds) every channel is closed, and it is judged from
what the payers saw whether anything was lost or counted twice. Exit status: 0, nothing was; 1, something was, or did not come back.

Everything listens on loopback addresses, so that another terminal reaches it; tests/cut_link.py has machines whose network is cut.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from paychan import printing
from paychan.printing import say, show
from tests import postgres
from tests.campaign.load import Load
from tests.fleet import Fleet, Machine, fleet
from tests.system import wait_until

LEASE_MS = 3000
"""Of a store: shards of a silent one are served by another after so long."""

AWAY_SECONDS = 4.0
"""So long a machine or a standby that was killed stays away."""

LOOK_SECONDS, TELL_SECONDS, FAULT_SECONDS = 0.2, 5.0, 8.0
PAYERS, PAUSE_SECONDS, ATTEMPT_SECONDS_MAX = 4, 0.02, 2.0


class Keeper(threading.Thread):
    """Brings back what is gone, and says so."""

    def __init__(self, machines: Fleet, cluster: postgres.Cluster) -> None:
        super().__init__(daemon=True)
        self._fleet, self._cluster, self._is_over = machines, cluster, threading.Event()
        self._gone: dict[str, float] = {}
        self.trouble = ""

    def run(self) -> None:
        try:
            while not self._is_over.wait(LOOK_SECONDS):
                self._look()
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"
            say(f"what was killed could not be brought back: {self.trouble}")
            os.kill(os.getpid(), signal.SIGINT)

    def end(self) -> None:
        self._is_over.set()
        self.join()

    def _look(self) -> None:
        if not self._cluster.primary.is_alive:
            self._replace_primary()
        for node in self._cluster.standbys:
            if not node.is_alive:
                self._bring_back(f"PostgreSQL {node.name}, a standby", lambda node=node: self._start_again(node))
        for machine in self._fleet.machines:
            if machine.process is not None and machine.process.poll() is not None:
                self._bring_back(f"machine {machine.name}", machine.start_again)

    def _replace_primary(self) -> None:
        old, begun = self._cluster.primary, time.monotonic()
        say(f"PostgreSQL {old.name}, the primary, is gone: a standby is promoted")
        self._cluster.fail_over(
            meanwhile=lambda: say(f"{self._cluster.primary.name} is primary after {time.monotonic() - begun:.1f} s")
        )
        say(f"{old.name} is a standby now, pid {old.pid}")

    def _start_again(self, node: postgres.Node) -> None:
        node.kill()
        node.start()
        self._cluster.wait_for_standbys(len(self._cluster.standbys))

    def _bring_back(self, what: str, start: Callable[[], None]) -> None:
        """Start what is gone when it was away for long enough."""
        if what not in self._gone:
            self._gone[what] = time.monotonic()
            say(f"{what} is gone")
        elif time.monotonic() - self._gone[what] > AWAY_SECONDS:
            del self._gone[what]
            start()
            say(f"{what} is back")


def what_runs(machines: Fleet, cluster: postgres.Cluster) -> str:
    """Return where to pay, and what to kill."""
    lines = ["", "where to pay, in debug mode, without money; each machine serves every channel:"]
    lines += [f"  {sys.executable} examples/pay.py http://127.0.0.1:{machine.port}" for machine in machines.machines]
    lines += ["", "what to kill, with `kill -9` and all that it started: a whole machine, its store, its server; a database"]
    for machine in machines.machines:
        parts = ", ".join(f"{name} {machine.child_pid(name)}" for name in ("store", "server", "signer"))
        lines.append(f"  machine {machine.name}: {machine.process.pid if machine.process else 0} ({parts})")
    for node in (cluster.primary, *cluster.standbys):
        lines.append(f"  PostgreSQL {node.name}: {node.pid}{', the primary' if node is cluster.primary else ''}")
    return "\n".join([*lines, "", "Ctrl-C ends it, and judges what the payers have seen.", ""])


def strike(machines: Fleet, cluster: postgres.Cluster, rng: random.Random) -> str:
    """Kill something; return what."""
    machine: Machine = rng.choice(machines.machines)
    what = rng.choice(("primary", "standby", "machine", "store", "worker"))
    if what == "machine":
        machine.lose_power()
    elif what in ("store", "worker"):
        machine.kill(what)
    else:
        node = cluster.primary if what == "primary" else rng.choice(cluster.standbys)
        node.signal(signal.SIGKILL)
        wait_until(lambda: not node.is_alive, 10, "the end of what was killed")
        return f"{what} {node.name}"
    return f"{what} of {machine.name}" if what != "machine" else f"machine {machine.name}"


def watch(machines: Fleet, cluster: postgres.Cluster, load: Load, seconds: float, has_faults: bool) -> None:
    """Tell how it goes until the time is over, or somebody interrupts."""
    rng, until = random.Random(), time.monotonic() + seconds
    tell = strike_at = time.monotonic() + TELL_SECONDS
    while (now := time.monotonic()) < until:
        time.sleep(min(LOOK_SECONDS, until - now))
        if load.errors:
            raise load.errors[0]
        if now >= tell:
            tell = now + TELL_SECONDS
            say(f"{sum(load.answered)} payments answered; the slowest since the last line took {load.take_slowest():.2f} s")
        if has_faults and now >= strike_at and cluster.is_whole and machines.is_whole():
            strike_at = now + FAULT_SECONDS
            say(f"kill -9: {strike(machines, cluster, rng)}")


def judge(machines: Fleet, load: Load) -> bool:
    """Close all channels, and say what became of every payment; return whether all is well."""
    say("closing every channel, and judging")
    verdict = load.close_and_judge()
    done = machines.check()
    lost = sum("LOST" in problem or "MISSING" in problem for problem in verdict.problems)
    twice = sum("TWICE" in problem for problem in verdict.problems)
    show(f"{sum(load.answered)} payments answered: {lost} lost, {twice} counted twice")
    for problem in verdict.problems:
        show(problem)
    if done.returncode:
        show(f"paychan-store check: {done.stdout}{done.stderr}")
    return not verdict.problems and done.returncode == 0


def run(arguments: argparse.Namespace, directory: Path) -> int:
    cluster = postgres.Cluster(standbys=2)
    postgres.share(cluster)
    try:
        with fleet(directory, count=3, lease_ms=LEASE_MS) as machines, Load(
            machines, "try", PAYERS, timeout=ATTEMPT_SECONDS_MAX, pause=PAUSE_SECONDS
        ) as load:
            keeper = Keeper(machines, cluster)
            keeper.start()
            try:
                show(what_runs(machines, cluster))
                watch(machines, cluster, load, arguments.seconds, arguments.faults)
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                say("waiting until everything is back")
                wait_until(lambda: cluster.is_whole and machines.is_whole(), 120, "everything")
            finally:
                keeper.end()
            return 0 if judge(machines, load) and not keeper.trouble else 1
    finally:
        cluster.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="runCluster.sh", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="N", help="end after so long; else at Ctrl-C")
    parser.add_argument("--faults", action="store_true", help="kill something every few seconds")
    arguments = parser.parse_args()
    if postgres.why_not():
        say(f"runCluster.sh: {postgres.why_not()}")
        return 1
    say("starting three PostgreSQL nodes and three machines")
    with tempfile.TemporaryDirectory(prefix="paychan-cluster-") as directory:
        try:
            return run(arguments, Path(directory))
        except AssertionError as error:  # what was waited for did not come: tests/system.py says what, and what was printed
            say(f"runCluster.sh: {error}")
            return 1


if __name__ == "__main__":
    sys.exit(printing.run("runCluster.sh", main))
