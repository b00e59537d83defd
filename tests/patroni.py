"""Three machines with PostgreSQL under Patroni and etcd, as docs/CLUSTER.md has them and with the files of deploy/patroni.

Each is a loopback address of this machine (and comes from the first, which its certificate has to name), and its processes are in
namespaces of pids, so that it can lose power. What differs from the files: ports, directories, and that the administrator needs no
system user of that name (`trust` on the Unix socket instead of `peer`), for PostgreSQL runs here as whoever runs the tests.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paychan.chain.debug import DEBUG_FUNDING_VALUE
from paychan.cli.certificates import DATABASE, Machine, make_certificates
from tests import postgres
from tests.campaign.load import PatientClient
from tests.certificates import need_openssl
from tests.ports import free_port, own_ports_block
from tests.system import ROOT, System, make_config, wait_until

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
FILES = ROOT / "deploy" / "patroni"
PORTS = (2379, 2380, 5432, 8008)
PROGRAMS = ("patroni", "patronictl", "etcd")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin"
START_SECONDS_MAX = 150
CTL_SECONDS_MAX = 30  # it tries for long while etcd has no majority
_MACHINE = ("unshare", "-U", "--map-user=1000", "--map-group=1000", "-p", "-f", "-m", "--mount-proc", "--kill-child=KILL")
_UNTIL_INPUT_ENDS = 'exec 9<&0; "$@" </dev/null & cat <&9 >/dev/null; kill -9 $!'


def why_not() -> str:
    """Return why there is no Patroni for tests, empty if there is."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if postgres.why_not() or missing:
        return postgres.why_not() or f"not installed: {', '.join(missing)}"
    done = subprocess.run([*_MACHINE, "true"], capture_output=True, text=True, timeout=30, check=False)
    return "" if done.returncode == 0 else f"no namespaces: {done.stderr.strip()}"


needed = pytest.mark.skipif(bool(why_not()), reason=why_not() or "Patroni is there")
"""Marks tests that need it."""


class Node:
    """One of the three machines."""

    def __init__(self, number: int, place: Path, ports: dict[int, int]) -> None:
        self.name, self.host, self.place, self._ports = f"n{number + 1}", HOSTS[number], place / f"n{number + 1}", ports
        self.sockets = self.place / "s"
        self.sockets.mkdir(parents=True)
        self._processes: list[subprocess.Popen[bytes]] = []

    def _text(self, name: str) -> str:
        """Return a file of deploy/patroni as this machine has it."""
        text = (FILES / name).read_text()
        changes = {f"@HOST{number + 1}@": host for number, host in enumerate(HOSTS)}
        changes |= {"@NAME@": self.name, "@HOST@": self.host, "@NETWORK@": "127.0.0.0/8"}
        changes |= {f":{port}": f":{ours}" for port, ours in self._ports.items()}
        changes |= {
            "/etc/paychan/database": str(self.place.parent / "certificates" / self.host),
            "/var/lib/postgresql/15/paychan": str(self.place / "data"),
            "/var/lib/etcd/paychan": str(self.place / "etcd"),
            "/usr/lib/postgresql/15/bin": str(postgres.binaries()),
            "/var/run/postgresql": str(self.sockets),
            "local all postgres peer map=admin": "local all postgres trust",
        }
        for old, new in changes.items():
            assert old in text or name == "etcd.env" or old.startswith((":", "/var/lib/etcd")), old
            text = text.replace(old, new)
        return text

    def start(self) -> None:
        lines = [line for line in self._text("etcd.env").splitlines() if line.startswith("ETCD_")]
        self._start("etcd", [], dict(line.split("=", 1) for line in lines))
        file = self.place / "patroni.yml"
        file.write_text(self._text("patroni.yml"))
        self._start("patroni", [str(file)], {})

    def _start(self, program: str, arguments: list[str], environment: dict[str, str]) -> None:
        """Start a program in a namespace that ends with this test process, however that ends."""
        command = ["sh", "-c", _UNTIL_INPUT_ENDS, "sh", *_MACHINE, program, *arguments]
        own = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(self.place)}
        with (self.place / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=own | environment)
        self._processes.append(process)

    @property
    def is_on(self) -> bool:
        return bool(self._processes)

    def kill(self) -> None:
        """End all its processes at once, as a machine that loses power does."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait(30)
        self._processes.clear()

    def lose_disk(self) -> None:
        """Lose what PostgreSQL had. What etcd remembers stays."""
        shutil.rmtree(self.place / "data")

    def ctl(self, *words: str) -> str:
        """Return what patronictl prints here."""
        command = ["patronictl", "-c", str(self.place / "patroni.yml"), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CTL_SECONDS_MAX, check=False, env={"PATH": PATH, "LANG": "C.UTF-8"}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sql(self, statement: str) -> None:
        """Run a statement as the administrator, at the Unix socket."""
        psql = [str((postgres.binaries() or Path()) / "psql"), "-h", str(self.sockets), "-p", str(self._ports[5432])]
        subprocess.run([*psql, "-U", "postgres", "-qc", statement], check=True, capture_output=True, timeout=60)


class Machines:
    """All three. Use `stop` in the end."""

    def __init__(self) -> None:
        need_openssl()
        self.place = Path(tempfile.mkdtemp(prefix="pat-"))  # short: Unix sockets are in it
        self.ports = {port: free_port() for port in PORTS}
        self.nodes = [Node(number, self.place, self.ports) for number in range(3)]
        make_certificates(
            self.place / "certificates", [Machine((host, HOSTS[0])) for host in HOSTS], time.time(), 365, False, DATABASE
        )

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        self.wait_for(3)

    def roles(self) -> dict[str, str]:
        """Return what Patroni says of each machine that runs: Leader, Sync Standby, Replica."""
        asked = next(node for node in self.nodes if node.is_on)
        try:
            rows = json.loads(asked.ctl("list", "--format", "json"))
        except (AssertionError, ValueError, subprocess.TimeoutExpired):
            return {}
        return {row["Member"]: row["Role"] for row in rows if row["State"] in ("running", "streaming")}

    def wait_for(self, count: int) -> None:
        """Wait until so many machines run, one of them is the primary, and one confirms what it writes."""

        def is_so() -> bool:
            roles = list(self.roles().values())
            return len(roles) == count and "Leader" in roles and "Sync Standby" in roles

        try:
            wait_until(is_so, START_SECONDS_MAX, f"{count} machines")
        except AssertionError as error:
            logs = [f"{log}:\n{log.read_text()[-3000:]}" for log in sorted(self.place.glob("n*/*.log"))]
            raise AssertionError("\n".join((str(error), *logs))) from error

    @property
    def primary(self) -> Node:
        name = next(name for name, role in self.roles().items() if role == "Leader")
        return next(node for node in self.nodes if node.name == name)

    def table(self, name: str = "a") -> str:
        """Return the table `postgres` of store.toml, as docs/CLUSTER.md has it."""
        own = self.place / "certificates" / HOSTS[0]
        hosts = ", ".join(f'"{host}:{self.ports[5432]}"' for host in HOSTS)
        return (
            f'[postgres]\nhosts = [{hosts}]\nname = "{name}"\nca_file = "{own}/ca.crt"\n'
            f'certificate_file = "{own}/paychan_store.crt"\nkey_file = "{own}/paychan_store.key"\n'
        )

    @contextmanager
    def system(self, directory: Path) -> Iterator[System]:
        """Run a system whose store is on that database, set up by the document's commands."""
        self.primary.sql("CREATE DATABASE paychan")
        with own_ports_block() as base_port:
            config = make_config(directory / "config", {"server.toml": {"base_port = ": f"base_port = {base_port}"}})
            with (config / "store.toml").open("a") as file:
                file.write(f"\n{self.table()}")
            command = [sys.executable, "-m", "store", "postgres", "init", str(config), "--host", str(self.primary.sockets)]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            made = System(directory / "state", config, free_port())
            made.start()
            try:
                yield made
            finally:
                made.stop()

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.place, ignore_errors=True)


class Paying(threading.Thread):
    """Pays a satoshi by a satoshi until it is told to stop, repeating what was not answered. `answered`: satoshi that the channel
    has received, by the newest answer."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self._payer, self._is_over, self.answered, self.failed = system.payer("patroni"), threading.Event(), 0, ""
        assert self._payer.open().status == 201
        self._client = PatientClient(system.port)
        self.start()

    def run(self) -> None:
        while not self._is_over.is_set():
            target = self._payer.sender.channel_target(self._payer.sender.pay(1))
            answer, _ = self._client.until_answered("PUT", target)
            if answer.status != 200:
                self.failed = f"{answer.status} {answer.code}"
                return
            self.answered = DEBUG_FUNDING_VALUE - answer.json["channel_value_left"]

    def goes_on(self) -> None:
        """Wait until a payment was answered that was signed after this call."""
        begun = self.answered
        wait_until(lambda: self.failed or self.answered > begun + 1, START_SECONDS_MAX, "a payment")
        assert not self.failed

    def end(self) -> int:
        self._is_over.set()
        self.join(START_SECONDS_MAX)
        assert not self.is_alive() and not self.failed
        return self.answered
