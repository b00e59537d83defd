"""Machines of a cluster on this one, each a whole system: server, store and signer of its own, and a state directory.

They share a database (the cluster of tests/postgres.py), the signer's key, and debug mode's chain. Their stores are active at once,
and their workers reach each other over TLS, each machine at a loopback address of its own.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests import postgres
from tests.certificates import make
from tests.machines import section, workers_known_to
from tests.ports import free_port, own_ports_block
from tests.system import ROOT, System, make_config, processes, wait_until
from tests.wires import Links, Wire, hosts

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
BEHIND_WIRES = ("127.0.1.1", "127.0.1.2", "127.0.1.3")
"""Where workers listen whom others reach by a wire only."""

SIGNER_KEY = "11" * 32
STORE_LEASE_MS = 1500
"""Of a worker at its store."""


class Machine(System):
    """One machine. `name`: of its store."""

    name: str
    links: Links | None = None
    """Where it has wires that can be cut."""

    def family(self) -> list[int]:
        """Return the pids of the supervisor and of all below it."""
        assert self.process is not None
        children: dict[int, list[int]] = {}
        for pid, parent, _ in processes():
            children.setdefault(parent, []).append(pid)
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        for pid in self.family():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def lose_power(self) -> None:
        """End all its processes at once; none of them has time to do anything."""
        assert self.process is not None
        family = self.family()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.process.wait(30)

    def start_again(self) -> None:
        self.output.clear()
        self.start()

    def knows(self) -> int:
        """Return how many workers of all machines it counts; 0 while it is not ready."""
        return workers_known_to(self.client())


class Fleet(Machine):
    """All machines as one system, for those who pay: the first one's shared port, and every other port of every machine."""

    machines: list[Machine]
    database: str

    @classmethod
    def of(cls, machines: list[Machine], database: str) -> "Fleet":
        fleet = cls(**{name: getattr(machines[0], name) for name in cls.__dataclass_fields__})
        fleet.machines, fleet.database = machines, database
        return fleet

    @property
    def worker_count(self) -> int:
        return sum(machine.workers for machine in self.machines)

    def known_own_ports(self) -> list[int]:
        return [port for machine in self.machines for port in (*machine.known_own_ports(), machine.port)]

    def is_whole(self) -> bool:
        """Whether every machine serves, and knows all workers."""
        return all(machine.knows() == self.worker_count for machine in self.machines)

    def wait_until_whole(self, seconds: float = 60.0) -> None:
        wait_until(self.is_whole, seconds, "a whole fleet")

    def sql(self, statement: str) -> list:
        return postgres.shared().primary.sql(statement, database=self.database)

    def count_lines(self, text: str) -> int:
        """Return in how many lines of all machines' logs a text is."""
        return sum(text in line for machine in self.machines for line in list(machine.output))

    def check(self) -> subprocess.CompletedProcess[str]:
        """Run `paychan-store check`."""
        return self._store("check", self.machines[0].config_dir)

    @staticmethod
    def _store(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "store", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    @classmethod
    def init(cls, config: Path) -> None:
        done = cls._store("postgres", "init", config)
        assert done.returncode == 0, done.stderr


@contextmanager
def fleet(directory: Path, count: int = 2, workers: int = 1, lease_ms: int = 3000, is_wired: bool = False) -> Iterator[Fleet]:
    """Run so many machines, each with so many workers, on a new database of `postgres.shared()`. lease_ms: of a store. is_wired:
    machines reach each other and the database by wires that can be cut; then one worker each."""
    cluster = postgres.shared()
    database, certificates = cluster.make_database(), make(directory / "certificates", *HOSTS[:count])
    made: list[Machine] = []
    with ExitStack() as stack:
        for number in range(count):
            made.append(_make(directory, number, workers, certificates, is_wired, stack))
            _keep_on(cluster, database, made[-1], lease_ms)
        Fleet.init(made[0].config_dir)
        try:
            with ThreadPoolExecutor(count) as threads:
                list(threads.map(Machine.start, made))
            whole = Fleet.of(made, database)
            whole.wait_until_whole()
            yield whole
        finally:
            for machine in made:
                if machine.process is not None and machine.process.poll() is None:
                    machine.signal(signal.SIGCONT)
                    machine.process.terminate()
            for machine in made:
                if machine.process is not None:
                    machine.process.wait(60)


def _make(directory: Path, number: int, workers: int, certificates: Path, is_wired: bool, stack: ExitStack) -> Machine:
    name = "abc"[number]
    state = directory / name / "state"
    state.mkdir(mode=0o700, parents=True)
    key = state / "signer.key"
    key.touch(mode=0o600)
    key.write_text(SIGNER_KEY + "\n")
    published = directory / "broadcast"  # debug mode's chain, of which there is one
    published.mkdir(exist_ok=True)
    (state / "broadcast").symlink_to(published)
    port, peer_port = stack.enter_context(own_ports_block()), free_port()
    near, behind = HOSTS[number], BEHIND_WIRES[number] if is_wired else HOSTS[number]
    cluster = section(certificates, f"m{number}", near, "127.0.0.1", peer_port, behind)
    server = {"base_port = ": f"base_port = {port}", **cluster}
    changes = {"server.toml": server, "store.toml": {"lease_ms = ": f"lease_ms = {STORE_LEASE_MS}"}}
    machine = Machine(state, make_config(directory / name / "config", changes), free_port(), workers, is_apart=True)
    machine.name = name
    if is_wired:
        machine.links = Links(stack, postgres.shared(), Wire((behind, peer_port), (near, peer_port)))
    return machine


def _keep_on(cluster: postgres.Cluster, database: str, machine: Machine, lease_ms: int) -> None:
    """Have a machine's store keep its data, and its signer share its ledger, in a database."""
    links = machine.links
    tables = {
        "store.toml": cluster.table(database, machine.name, lease_ms, links and hosts(links.store)),
        "signer.toml": cluster.signers_table(database, links and hosts(links.signer)),
    }
    for name, table in tables.items():
        with (machine.config_dir / name).open("a") as file:
            file.write(f"\n{table}")


def slow(pids: list[int], seconds: float, share: float = 0.7) -> None:
    """Have processes run for a part of the time only: stopped for `share` of each fifth of a second."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            for number, pause in ((signal.SIGSTOP, 0.2 * share), (signal.SIGCONT, 0.2 * (1 - share))):
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(pause)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
