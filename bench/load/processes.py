"""Starts the servers that are measured, each with a state directory of its own, and reads what CPU and memory they use.

Unlike `tests.system.System`, an `Instance` starts its processes itself: the store can run alone, or without sync.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from bench.load.failure import Failed, await_, last_line
from bench.load.payers import OPEN_AMOUNT, Payer
from bench.load.store_feed import listens
from paychan.rpc.connection import Address
from paychan.server.process import end_with_parent
from paychan.settings.load import load_store_config
from tests.ports import free_port
from tests.system import ROOT, Client, make_config, processes

STOP_SECONDS_MAX = 60.0
"""A store with a million channels writes out what is in memory only."""

REST_SECONDS = 1.5
REST_SHARE_MAX = 0.1
REST_WAIT_SECONDS_MAX = 300.0
"""Processes that use less of a core for so long are at rest. The chain watcher begins a second after the start."""

Door = tuple[str, int]
"""Host and port of what listens."""


def _changes(sell_port: int, more: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return what differs from config/debug: nothing of it is on a payment's way, but for the workers' own ports."""
    return {
        "store.toml": {"lease_ms": "lease_ms = 10000"},  # `StoreFeed` prepares between two frames
        "server.toml": {
            'backend = "debug"': 'backend = "debug"\nlookups_per_second = 10000',  # hundreds of channels open at once
            "base_port": f"base_port = {free_port()}",
            "public_host": 'public_host = "127.0.0.1"',
            **({'socket = "run/sell': f'socket = "run/sell.sock"\nport = {sell_port}'} if sell_port else {}),
            **more,
        },
    }


def spawn(module: str, *arguments: object, log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `python -m module` in a session of its own; it ends with us. What it says goes to `log`."""
    return spawn_command([sys.executable, "-m", module, *map(str, arguments)], log, env)


def spawn_command(command: list[str], log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """The same for any program."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )


def stop_politely(children: Iterable[subprocess.Popen[bytes]]) -> None:
    """Stop one process after the other as an operator does, with SIGTERM."""
    for child in children:
        child.send_signal(signal.SIGTERM)
        child.wait(STOP_SECONDS_MAX)


class Instance:
    """One system in debug mode, whose workers also have ports of their own. synced: the store waits for the disk.

    server: the module that is the server's program. sell_port: of the sellers' door over TCP, beside its socket; 0: it has none.
    server_changes: of server.toml, as `make_config` takes them.
    """

    def __init__(
        self,
        directory: Path,
        workers: int = 1,
        synced: bool = True,
        server: str = "paychan.server",
        sell_port: int = 0,
        server_changes: dict[str, str] | None = None,
    ) -> None:
        self.directory, self.workers = directory, workers
        self.port = free_port()
        self.config = make_config(directory / "config", _changes(sell_port, server_changes or {}))
        self._store_module, self._server_module = "store" if synced else "bench.load.unsynced_store", server
        self._env = {"PORT": str(self.port), "PAYCHAN_STATE_DIR": str(directory / "state"), "PAYCHAN_WORKERS": str(workers)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def door(self) -> Door:
        """The port that all workers share, where granian listens."""
        return "127.0.0.1", self.port

    @property
    def store_address(self) -> Address:
        return load_store_config(self.config / "store.toml", self._env).address

    @property
    def server_pubkey(self) -> bytes:
        return bytes.fromhex((self.directory / "state" / "signer.pub").read_text().strip())

    # --- life ---

    def start_store(self) -> None:
        """Start signer and store, and return when the store listens."""
        self._spawn("signer", "signer")
        self._spawn("store", self._store_module)
        await_(lambda: self._live() and listens(self.store_address), 60, "starting the store")

    def start_server(self) -> None:
        """Start the server, and return when /readyz counts all its workers."""
        self._spawn("server", self._server_module)
        await_(self._is_ready, 60, "starting the server")

    def start(self) -> "Instance":
        self.start_store()
        self.start_server()
        return self

    def start_metrics(self) -> None:
        """Start the process that serves the metrics, of a system whose server.toml has them served."""
        self._running["metrics"] = spawn("paychan.metrics", self.config / "server.toml", log=self.directory / "log", env=self._env)

    def stop(self) -> None:
        """Stop metrics, server, store and signer, in this order."""
        stop_politely(reversed(self._running.values()))
        self._running.clear()

    def _spawn(self, name: str, module: str) -> None:
        file = self.config / f"{name}.toml"
        self._running[name] = spawn(module, file, log=self.directory / "log", env=self._env)

    def _live(self) -> bool:
        """Return True while all processes live. Raises Failed with the last line of the log if one has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended with status {process.returncode}: {last_line(self.directory / 'log')}")
        return True

    def _is_ready(self) -> bool:
        return self._live() and self.readyz().get("workers") == self.workers

    def readyz(self) -> dict:
        """Return what /readyz says, {} while it does not answer 200."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, _, content = ask(self.door, "GET", "/readyz")
            return content if status == 200 else {}
        return {}

    def wait_for_rest(self) -> float:
        """Wait until workers and store have done what they do after a start; return the seconds."""
        begun = time.monotonic()
        used = REST_SHARE_MAX + 1.0
        while used > REST_SHARE_MAX * REST_SECONDS and time.monotonic() - begun < REST_WAIT_SECONDS_MAX:
            cpu = CpuClock(self.pids())
            time.sleep(REST_SECONDS)
            used = sum(cpu.seconds().values())
        return time.monotonic() - begun

    # --- what it uses ---

    def worker_pids(self) -> list[int]:
        return worker_pids(self._running["server"].pid)

    def pids(self) -> dict[str, list[int]]:
        """Return the processes by the name under which a report counts them."""
        pids = {"store": [self._running["store"].pid]}
        if "server" in self._running:
            pids["workers"] = self.worker_pids()
        return pids

    def all_pids(self) -> dict[str, list[int]]:
        """Return all its processes by name, also those that have no part in a payment."""
        return {**{name: [process.pid] for name, process in self._running.items()}, "workers": self.worker_pids()}

    # --- payers ---

    def open(self, payers: list[Payer], amount: int = OPEN_AMOUNT) -> list[Door]:
        """Open each payer's channel, with a payment of so many satoshi, through the shared port; return where its `Location` says
        that it is served."""
        client, doors = Client(self.port), []
        for payer in payers:
            answer = client.request("POST", payer.opening(amount))
            if answer.status != 201:
                raise Failed(f"a channel was not opened: {answer.status} {answer.code}")
            location = urlsplit(answer.headers["location"])
            doors.append((location.hostname or "127.0.0.1", location.port or self.port))
        client.close()
        return doors


def worker_pids(main: int) -> list[int]:
    """Return the pids of granian's workers, `main` being its main process."""
    return sorted(pid for pid, parent, command in processes() if parent == main and "resource_tracker" not in command)


def ask(
    door: Door,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], dict]:
    """Send one request on a connection of its own; return status, headers (in lower case) and JSON body ({} if it is none)."""
    connection = http.client.HTTPConnection(*door, timeout=60)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        answer = connection.getresponse()
        raw = answer.read()
    finally:
        connection.close()
    heard = {name.lower(): value for name, value in answer.getheaders()}
    is_json = "json" in heard.get("content-type", "")
    return answer.status, heard, json.loads(raw) if is_json and raw else {}


class CpuClock:
    """CPU time of processes by name, from the scheduler's own nanoseconds: the 10-ms ticks of /proc/PID/stat are too coarse."""

    def __init__(self, pids: dict[str, list[int]]) -> None:
        self._pids = pids
        self._before = self._read()

    def seconds(self) -> dict[str, float]:
        """Return the CPU seconds since this object was made, by name. A thread that ended meanwhile is not counted."""
        after = self._read()
        return {
            name: sum(used - self._before[name].get(task, 0) for task, used in tasks.items()) / 1e9
            for name, tasks in after.items()
        }

    def _read(self) -> dict[str, dict[str, int]]:
        return {name: {k: v for pid in pids for k, v in _task_times(pid).items()} for name, pids in self._pids.items()}


def _task_times(pid: int) -> dict[str, int]:
    """Return the nanoseconds that each thread of a process has run."""
    times = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            times[task] = int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return times
