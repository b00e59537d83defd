"""What the campaign does to a running system: each fault is inflicted, held for a while under load, and healed."""

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from paychan.exits import EXIT_BAD_CONFIG
from paychan.rpc.connection import Address, bind
from tests.campaign import database, small_disk
from tests.campaign.borrowed import cut, ends_of
from tests.power.shim import Switch
from tests.system import ROOT, System, make_config, wait_until

LEASE_MS = 800
"""Short, for a process must be stopped for longer to lose its shards; and long enough for a shared machine."""

HOLD_SECONDS_MAX = 1.5
"""A disk is full, or waits to fail, for so long."""

JOIN_SECONDS = 20
CUTS = (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR)


@dataclass
class Field:
    """Where faults happen. drive(n): returns when every payer had n more payments through; scratch: for files of our own."""

    system: System
    switch: Switch
    rng: random.Random
    scratch: Path
    drive: Callable[[int], None]

    def pids(self, victim: str) -> list[int]:
        """Return the processes that a victim means: a worker is any one of them, the server its main process and all workers."""
        if victim == "worker":
            return [a_worker(self.system, self.rng)]
        main = self.system.child_pid(victim)
        return [main, *self.system.worker_pids()] if victim == "server" else [main]


def a_worker(system: System, rng: random.Random) -> int:
    """Return the pid of any worker there is, waiting for one if all are dead."""
    found: list[int] = []
    wait_until(lambda: found.extend(system.worker_pids()) or found, 20, "finding a worker")
    return rng.choice(found)


def kill(field: Field, victim: str) -> str:
    """kill -9 of one process; of the database all that one machine would have."""
    if victim in database.VICTIMS:
        return database.kill(victim, field.rng)
    kill_when_there(field.system, victim, field.rng)
    return ""


def kill_when_there(system: System, victim: str, rng: random.Random) -> None:
    """Kill a process; a worker: any of those there are, waiting for one if all are dead."""
    with suppress(ProcessLookupError):
        os.kill(a_worker(system, rng) if victim == "worker" else system.child_pid(victim), signal.SIGKILL)


def restart(field: Field, victim: str) -> str:
    """SIGTERM, as for an upgrade: the process ends in its own way, and is started again."""
    send(field.pids(victim)[0], signal.SIGTERM)
    return ""


def reload(field: Field, _: str) -> str:
    """SIGHUP to the server: its workers are replaced one after the other, which takes until after this returns."""
    send(field.system.child_pid("server"), signal.SIGHUP)
    time.sleep(field.rng.uniform(0, 1.5))
    return ""


def stop(field: Field, victim: str) -> str:
    """SIGSTOP for longer than a lease, then SIGCONT. The server: main process and workers, which go on in any order."""
    if victim in database.VICTIMS:
        return database.stop(victim, field.rng)
    pids = field.pids(victim)
    for pid in pids:
        send(pid, signal.SIGSTOP)
    try:
        time.sleep(LEASE_MS / 1000 * field.rng.uniform(1.2, 2.0))
    finally:
        for pid in field.rng.sample(pids, len(pids)):
            send(pid, signal.SIGCONT)
    return ""


def orphan(field: Field, _: str) -> str:
    """kill -9 of the server's main process while one of its workers is stopped, which is then told to go on."""
    pid = a_worker(field.system, field.rng)
    send(pid, signal.SIGSTOP)
    try:
        time.sleep(field.rng.uniform(0, 0.2))
        field.system.kill("server")
        time.sleep(LEASE_MS / 1000 * field.rng.uniform(0, 1.5))
    finally:
        send(pid, signal.SIGCONT)
    return ""


def second(field: Field, victim: str) -> str:
    """A second instance beside the first: store and signer must refuse, a server joins and serves until it is ended."""
    wait_for_whole(field)
    if victim == "server":
        return second_server(field)
    elsewhere = field.rng.random() < 0.5
    config = second_config(field, victim) if elsewhere else field.system.config_dir
    state = field.scratch / "second" if elsewhere else field.system.state_dir
    env = {**os.environ, "PAYCHAN_STATE_DIR": str(state)}
    argv = [sys.executable, "-m", victim, str(config / f"{victim}.toml")]
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_BAD_CONFIG, f"a second {victim} ended with {done.returncode}: {done.stderr}"
    return done.stderr.splitlines()[-1]


def second_config(field: Field, victim: str) -> Path:
    """Write a configuration with a directory of its own and the first one's socket; return its directory."""
    run = field.system.state_dir.absolute() / "run"
    lines = {"address = ": f'address = "unix:{run}/{victim}.sock"'}
    if victim == "store":
        lines["server_pubkey_file = "] = f'server_pubkey_file = "{field.system.state_dir.absolute()}/signer.pub"'
    return make_config(field.scratch / "second-config", {f"{victim}.toml": lines})


def second_server(field: Field) -> str:
    """granian as docs/OPERATING.md has it, on the same port: the kernel gives it a share of the connections."""
    system = field.system
    env = {**os.environ, "PAYCHAN_STATE_DIR": str(system.state_dir), "PAYCHAN_CONFIG": str(system.config_dir / "server.toml")}
    command = "--interface rsgi --loop uvloop --http 1 --no-ws --workers 1 --workers-kill-timeout 5 paychan.server:app"
    granian = str(Path(sys.executable).parent / "granian")
    argv = [granian, "--host", "127.0.0.1", "--port", str(system.port), *command.split()]
    process = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = field.rng.choice((signal.SIGTERM, signal.SIGKILL))
    try:
        wait_until(lambda: system.ready_workers() > system.workers, JOIN_SECONDS, "the second server's worker")
        field.drive(5)
        process.send_signal(end)
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return signal.Signals(end).name


def disk(field: Field, victim: str) -> str:
    """The disk is full: for good (until there is room again), for one call, or in the middle of a write."""
    what = field.rng.choice(
        (f"write+meta,1,{errno.ENOSPC},sticky", f"write,1,{errno.ENOSPC},once", f"meta,1,{errno.ENOSPC},once", "write,1,0,short")
    )
    return fail_calls(field, victim, what)


def full(field: Field, _: str) -> str:
    """The file system of all processes is full, really."""
    with small_disk.full(field.scratch):
        time.sleep(field.rng.uniform(0.3, HOLD_SECONDS_MAX))
    return ""


def sync(field: Field, victim: str) -> str:
    """fsync and fdatasync fail, once or for a while."""
    return fail_calls(field, victim, f"sync,1,{errno.EIO},{field.rng.choice(('once', 'sticky'))}")


def fail_calls(field: Field, victim: str, what: str) -> str:
    """Have calls of a process fail, from the next on; a lasting fault also meets its successor."""
    pid = field.system.child_pid(victim)
    before = field.switch.failures(pid)
    if what.endswith("sticky"):
        field.switch.fail_next(what)
    field.switch.fail(pid, what)
    try:
        until = time.monotonic() + field.rng.uniform(0.3, HOLD_SECONDS_MAX)
        while time.monotonic() < until and (what.endswith("sticky") or field.switch.failures(pid) == before):
            time.sleep(0.01)
    finally:
        field.switch.fail_next("")
        for each in {pid, field.system.child_pid(victim)}:
            field.switch.fail(each, "")
    hit = field.switch.failures(pid) != before
    return f"{what}, {'hit' if hit else 'no such call'}"


def broken_socket(field: Field, victim: str) -> str:
    """Connections are cut, in one direction or both, while the socket is there, away, or a dead process' one."""
    run, how = field.system.state_dir / "run", field.rng.choice(CUTS)
    if victim == "server":
        pid = a_worker(field.system, field.rng)
        count = cut_if_alive(pid, lambda sock: sock.family == socket.AF_INET and any(ends_of(sock)), how)
        return f"{count} clients of a worker, {how}"
    if victim == "worker":
        pid = a_worker(field.system, field.rng)
        return f"{cut_if_alive(pid, lambda sock: any('.sock' in end for end in ends_of(sock)), how)} of a worker's links, {how}"
    place, state = run / f"{victim}.sock", field.rng.choice(("there", "away", "dead"))
    with socket_that_is(state, place, field):
        count = sum(
            cut_if_alive(pid, lambda sock: ends_of(sock)[1].endswith(place.name), how) for pid in field.system.worker_pids()
        )
        if state != "there":
            time.sleep(field.rng.uniform(0, 0.5))
    return f"{count} links to the {victim}, {how}, its socket {state}"


@contextmanager
def socket_that_is(state: str, place: Path, field: Field) -> Iterator[None]:
    """Have a process' socket away for a while, or replaced. It must not be started again meanwhile: it would make a new one."""
    if state == "there":
        yield
        return
    hidden = place.with_suffix(".hidden")
    wait_for_whole(field)
    place.rename(hidden)
    try:
        if state == "dead":
            bind(Address(path=str(place))).close()
        yield
    finally:
        hidden.rename(place)


def wait_for_whole(field: Field) -> None:
    """Return when all processes serve."""
    wait_until(lambda: field.system.ready_workers() >= field.system.workers, 20, "a whole system")


def cut_if_alive(pid: int, chosen: Callable[[socket.socket], bool], how: int) -> int:
    """Cut what is chosen of a process; nothing if it has just ended."""
    with suppress(ProcessLookupError, FileNotFoundError):
        return cut(pid, chosen, how)
    return 0


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


FAULTS: dict[str, tuple[Callable[[Field, str], str], tuple[str, ...]]] = {
    "kill": (kill, ("worker", "server", "store", "signer", *database.VICTIMS)),
    "restart": (restart, ("worker", "server", "store", "signer")),
    "reload": (reload, ("server",)),
    "stop": (stop, ("worker", "server", "store", "signer", *database.VICTIMS)),
    "orphan": (orphan, ("server",)),
    "second": (second, ("server", "store", "signer")),
    "disk": (disk, ("store", "signer", "server")),
    "full": (full, ("store",)),
    "sync": (sync, ("store", "signer")),
    "socket": (broken_socket, ("worker", "server", "store", "signer")),
}
"""By name: what is done, and to whom it can be done."""
