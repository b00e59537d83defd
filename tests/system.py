"""The whole system for tests: three real processes under the real supervisor, and payers that speak HTTP to it.

`System` starts `paychan run` on a free port with a state directory of its own, and finds its processes by pid. `Payer` is one
channel's sender. Both take the configuration of config/debug/, changed where a test says so.
"""

import http.client
import itertools
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from coincurve import PrivateKey

from paychan.chain.debug import DEBUG_FUNDING_VALUE, debug_outpoint
from paychan.core.channel import ChannelTerms
from paychan.core.network import TEST, decode_address
from paychan.core.payment import Payment
from paychan.core.sender import Sender
from tests import postgres
from tests.ports import free_port, own_ports_block

ROOT = Path(__file__).parent.parent
CHANGE_ADDRESS = "mmA2XECa7bVERzQKkyy1pNBQ3PC4HnxTC5"
OPEN_AMOUNT = 100_000
WEEK = 7 * 24 * 3600
OWN_PORT = re.compile(r"worker (\d+) listens on port (\d+) of its own")
DOORS = ("shared", "own")


CLIENT_SECONDS = 60.0
"""So long a test's client waits for an answer on a busy machine; left to themselves, some give up after five seconds."""

# How many times longer than it should a thing may take before a test gives it up: test machines are shared, and slow by turns.
PATIENCE_FACTOR = 5


def wait_until(is_true: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `is_true()`; AssertionError naming `what` if it takes `PATIENCE_FACTOR` times the `seconds` that it should."""
    deadline = time.monotonic() + PATIENCE_FACTOR * seconds
    while not is_true():
        assert time.monotonic() < deadline, f"{what} took more than {PATIENCE_FACTOR * seconds} s"
        time.sleep(0.02)


@dataclass
class Answer:
    """One HTTP answer; `json` is its parsed body, {} if it has none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body) if self.body else {}

    @property
    def code(self) -> str:
        """The stable code of a problem document, empty on success."""
        return self.json.get("code", "")


class Client:
    """A keep-alive HTTP client to one server. Connection troubles raise OSError: the outcome is unknown then."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=15)

    def request(self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        """Send one request. `target`: path and query."""
        self._leave_if_ended()
        try:
            self._connection.request(method, target, body=body, headers=headers or {})
            answer = self._connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        except http.client.HTTPException as error:
            self._connection.close()
            raise ConnectionError(str(error)) from error
        except OSError as error:
            self._give_up(error)
            raise

    def _leave_if_ended(self) -> None:
        """Connect anew if the server has ended the connection while it was idle, as clients do: nothing was asked on it."""
        if self._connection.sock is not None:
            idle = select.poll()
            idle.register(self._connection.sock, select.POLLIN)
            if idle.poll(0):
                self._connection.close()

    def _give_up(self, _: OSError) -> None:
        """End a connection whose request was not answered."""
        self._connection.close()

    def persist(self, method: str, target: str, seconds: float = 20.0) -> tuple[Answer, int]:
        """Repeat a request while its outcome is unknown (no answer, or 503); return the answer and the number of attempts."""
        deadline, attempts = time.monotonic() + seconds, 0
        while True:
            attempts += 1
            with suppress(OSError):
                answer = self.request(method, target)
                if answer.status != 503 or time.monotonic() > deadline:
                    return answer, attempts
            assert time.monotonic() < deadline, f"no answer to {method} within {seconds} s"
            time.sleep(0.05)

    def close(self) -> None:
        self._connection.close()


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield (pid, parent pid, command line) of every process that is alive."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, IndexError, ValueError):
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if status[0] != "Z":
                yield int(entry.name), int(status[1]), command


VARIABLE = "PAYCHAN_TEST_VARIANT"

STORE_VARIABLE = "PAYCHAN_STORE"
"""`postgres`: every system's store keeps its data in a database of its own, in one cluster for the whole test process."""


def variant_module(variant: str, shipped: str) -> str:
    """Return which module runs in the place of a shipped one: the store's with "small caches", the server's with the others."""
    if variant == "small caches":
        return "tests.small_store" if shipped == "store" else shipped
    return "tests.variants" if variant and shipped == "paychan.server" else shipped


def resident_bytes(pid: int) -> int:
    """Return how much of a process's memory is in RAM, what it shares included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class System:
    """A running system. Use `running(...)`, which stops it."""

    state_dir: Path
    config_dir: Path
    port: int
    workers: int = 1
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    output: list[str] = field(default_factory=list)
    server_pubkey: bytes = b""
    door: str = "shared"
    """Where `client` and `payer` go: to the shared port, or to a worker's own."""
    variant: str = ""
    """Which of tests/variants.py's settings it runs with; empty: the shipped ones."""
    is_apart: bool = False
    """Whether it is out of the terminal's reach: Ctrl-C there stops who runs it, and not this."""
    _own_port: int = 0
    _announced: list[tuple[int, int]] = field(default_factory=list)
    """Worker's pid and own port, of each line that told of one: looked for as lines come, for a long life prints many."""

    def start(self, seconds: float = 60.0) -> None:
        """Start, and return when the ready line has been printed."""
        self.process = self.spawn()
        threading.Thread(target=self._collect, args=(self.process,), daemon=True).start()
        wait_until(lambda: self._ready_line() or self.process.poll() is not None, seconds, "starting the system")
        line = self._ready_line()
        assert line, "the system did not start:\n" + "".join(self.output[-30:])
        match = re.fullmatch(rf"ready http://127\.0\.0\.1:{self.port} server_pubkey=([0-9a-f]{{66}})\n", line)
        assert match, line
        self.server_pubkey = bytes.fromhex(match[1])

    def spawn(self) -> subprocess.Popen[str]:
        """Start the supervisor; its output is not read."""
        if os.environ.get(STORE_VARIABLE) == "postgres" and self.is_embedded:
            postgres.use(self.config_dir)
        env = {
            **os.environ,
            "PORT": str(self.port),
            "PAYCHAN_STATE_DIR": str(self.state_dir),
            "PAYCHAN_WORKERS": str(self.workers),
            VARIABLE: self.variant,
            **self.env,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "tests.variants" if self.variant else "paychan", "run", str(self.config_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd=ROOT,
            start_new_session=self.is_apart,
        )

    def _collect(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self.output.append(line)
            if match := OWN_PORT.search(line):
                self._announced.append((int(match[1]), int(match[2])))

    def _ready_line(self) -> str:
        return next((line for line in self.output if line.startswith("ready ")), "")

    def stop(self) -> int:
        """Stop as an operator does, with SIGTERM; return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def restart(self) -> None:
        """Stop and start again on the same state."""
        self.stop()
        self.output.clear()
        self.start()

    def child_pid(self, name: str) -> int:
        """Return the pid of the supervisor's child: signer, store or server. Waits until it runs."""
        shipped = {"signer": "signer", "store": "store", "server": "paychan.server"}[name]
        module = f"-m {variant_module(self.variant, shipped)} "
        found: list[int] = []

        def look() -> bool:
            found[:] = [
                pid for pid, parent, command in processes() if parent == self.process.pid and module in command
            ]
            return bool(found)

        wait_until(look, 20, f"finding {name}")
        return found[0]

    def worker_pids(self) -> list[int]:
        """Return the pids of the server's workers, oldest first."""
        main = self.child_pid("server")
        return sorted(pid for pid, parent, command in processes() if parent == main and "resource_tracker" not in command)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to signer, store, server or worker (the oldest, once there is one); return its pid."""
        if name == "worker":
            wait_until(self.worker_pids, 20, "a worker")
        pid = self.worker_pids()[0] if name == "worker" else self.child_pid(name)
        os.kill(pid, number)
        return pid

    def own_port_of(self, pid: int) -> int:
        """Return the port of its own that a worker has said it listens on; 0: it has said nothing."""
        return next((port for worker, port in reversed(self._announced) if worker == pid), 0)

    def own_ports(self) -> list[int]:
        """Return the workers' own ports, the oldest worker's first. Waits until every worker has one."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [self.own_port_of(pid) for pid in self.worker_pids()]
            return len(found) == self.workers and all(found)

        wait_until(look, 20, "finding the workers' own ports")
        return list(found)

    def known_own_ports(self) -> list[int]:
        """Return the own ports that were told of last, as many as there are workers, or were: some may be dead by now."""
        found = dict.fromkeys(port for _, port in reversed(self._announced))
        return list(itertools.islice(found, self.workers)) or [self.port]

    @property
    def asked_port(self) -> int:
        """The port behind `door`: looked up once, for tests that restart nothing."""
        if self.door == "own" and not self._own_port:
            self._own_port = self.own_ports()[0]
        return self._own_port or self.port

    def client(self) -> Client:
        return Client(self.asked_port)

    def ready_workers(self) -> int:
        """Return how many workers /readyz counts, 0 while it is not ready."""
        client = Client(self.port)
        try:
            answer = client.request("GET", "/readyz")
            return answer.json["workers"] if answer.status == 200 else 0
        except OSError:
            return 0
        finally:
            client.close()

    def payer(self, name: str, expires_in: int = WEEK, now: int | None = None) -> "Payer":
        """Return a payer whose key is derived from `name`, on a channel as debug mode funds it."""
        key = PrivateKey(sha256(name.encode()).digest())
        exp_time = (int(time.time()) if now is None else now) + expires_in
        return Payer(self, make_sender(self.server_pubkey, key, exp_time))

    @property
    def is_embedded(self) -> bool:
        """Whether the store keeps its data in its own files."""
        return "[postgres]" not in (self.config_dir / "store.toml").read_text()

    @property
    def store_place(self) -> str:
        """What `paychan-store check` takes: the state directory, or for a store on PostgreSQL that of the configurations."""
        return str(self.state_dir if self.is_embedded else self.config_dir)

    def broadcast(self) -> dict[str, bytes]:
        """Return the transactions that were broadcast, by txid."""
        directory = self.state_dir / "broadcast"
        return {path.stem: bytes.fromhex(path.read_text()) for path in directory.glob("*.hex")}


def make_sender(server_pubkey: bytes, key: PrivateKey, exp_time: int) -> Sender:
    """Return the sender of a debug-mode channel."""
    client_pubkey = key.public_key.format()
    terms = ChannelTerms(
        outpoint=debug_outpoint(client_pubkey, exp_time),
        server_pubkey=server_pubkey,
        client_pubkey=client_pubkey,
        exp_time=exp_time,
        funding_value=DEBUG_FUNDING_VALUE,
        change_script=decode_address(TEST, CHANGE_ADDRESS),
    )
    return Sender(terms, key, CHANGE_ADDRESS)


@dataclass
class Payer:
    """One channel's payer over HTTP. `newest` is its newest signed payment."""

    system: System
    sender: Sender
    newest: Payment | None = None
    client: Client | None = None

    def __post_init__(self) -> None:
        self.client = self.client or self.system.client()

    def open(self, amount: int = OPEN_AMOUNT) -> Answer:
        self.newest = self.sender.pay(amount)
        return self.client.request("POST", self.sender.open_target(self.newest))

    def pay(self, amount: int = 1) -> Answer:
        self.newest = self.sender.pay(amount)
        return self.resend()

    def resend(self) -> Answer:
        """Send the newest payment again."""
        return self.client.request("PUT", self.sender.channel_target(self.newest))

    def close(self) -> Answer:
        return self.client.request("DELETE", self.sender.channel_target(self.newest))


def make_config(directory: Path, changes: dict[str, dict[str, str]] | None = None) -> Path:
    """Copy config/debug into `directory` and return it; changes[file][old line's beginning] = new line (TOML)."""
    shutil.copytree(ROOT / "config" / "debug", directory, dirs_exist_ok=True)
    for file, lines in (changes or {}).items():
        path = directory / file
        text = path.read_text()
        for beginning, line in lines.items():
            text, count = re.subn(rf"(?m)^{re.escape(beginning)}.*$", lambda _, line=line: line, text)
            assert count == 1, f"{file}: {beginning}"
        path.write_text(text)
    return directory


@contextmanager
def running(
    directory: Path,
    workers: int = 1,
    env: dict[str, str] | None = None,
    changes: dict[str, dict[str, str]] | None = None,
    signer_key: str = "",
    door: str = "shared",
    variant: str = "",
) -> Iterator[System]:
    """Run a system with its state below `directory`; `signer_key`: the secret key in hex to use instead of a new one.

    door: "shared", or "own": where its clients and payers go. variant: one of tests/variants.py's settings.
    """
    state_dir = directory / "state"
    if signer_key:
        state_dir.mkdir(mode=0o700)
        key_file = state_dir / "signer.key"
        key_file.touch(mode=0o600)
        key_file.write_text(signer_key + "\n")
    with own_ports_block() as base_port:
        server = {"base_port = ": f"base_port = {base_port}", **(changes or {}).get("server.toml", {})}
        config = make_config(directory / "config", {**(changes or {}), "server.toml": server})
        system = System(state_dir, config, free_port(), workers, env or {}, door=door, variant=variant)
        try:
            system.start()
            yield system
        finally:
            if system.process is not None and system.process.poll() is None:
                system.stop()
