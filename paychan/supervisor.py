"""`paychan run CONFIG_DIR`: starts signer, store and server, restarts what dies, and stops them in the right order.

Children are told apart by pid. Each is in a session of its own, so that Ctrl-C reaches only the supervisor, and each ends when
the supervisor dies, however it dies.
"""

import contextlib
import ctypes
import fcntl
import functools
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .core.errors import ConfigError
from .rpc.connection import Address, reachable_path
from .settings.load import EXIT_BAD_CONFIG, load_server_config, load_signer_config, load_store_config
from .settings.models import ServerConfig, SignerConfig, StoreConfig

POLL_SECONDS = 0.05
RESTART_SECONDS_MIN = 0.1
RESTART_SECONDS_MAX = 2.0
"""A process that dies again within HEALTHY_SECONDS waits longer before each restart, up to this."""

HEALTHY_SECONDS = 5.0
STOP_SECONDS_MAX = 10.0
"""After a polite request, a process has this long before it is killed."""

SAY_SECONDS = 10.0
"""Between two lines about what is being waited for."""

LOCK_WAIT_SECONDS = 5.0
"""A killed supervisor's children need a moment to end before its successor can take their place."""

READY_SIZE_MAX = 1 << 20
"""Bytes of /readyz that are looked at; each stopped shard of 4096 adds some 100."""

_PR_SET_PDEATHSIG = 1


def _end_with_supervisor(supervisor: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)  # it died before the kernel was told


class Child:
    """One process that should always run."""

    def __init__(self, name: str, module: str, config_file: Path, lock: int) -> None:
        self.name, self._lock = name, lock
        self._argv = [sys.executable, "-m", module, str(config_file)]
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._restart_at = 0.0
        self._wait = RESTART_SECONDS_MIN

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._argv,
            start_new_session=True,
            preexec_fn=functools.partial(_end_with_supervisor, os.getpid()),
            pass_fds=(self._lock,),
        )
        self._started_at = time.monotonic()

    @property
    def exit_status(self) -> int | None:
        """The status with which the process ended, None while it runs."""
        return self._process.poll() if self._process else None

    def keep(self) -> None:
        """Start the process if it does not run: the first time at once, then after its waiting time."""
        if self._process is None:
            if time.monotonic() >= self._restart_at:
                self._start()
            return
        status = self._process.poll()
        if status is None:
            return
        if time.monotonic() - self._started_at > HEALTHY_SECONDS:
            self._wait = RESTART_SECONDS_MIN
        print(f"paychan: {self.name} ended with status {status}; restarting", file=sys.stderr)
        self._process, self._restart_at = None, time.monotonic() + self._wait
        self._wait = min(2 * self._wait, RESTART_SECONDS_MAX)

    def stop(self) -> None:
        """Ask the process to end, wait for it, kill it if it does not."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Supervisor:
    """The three processes of one configuration directory."""

    def __init__(self, directory: Path) -> None:
        self.server: ServerConfig = load_server_config(directory / "server.toml")
        self.store: StoreConfig = load_store_config(directory / "store.toml")
        self.signer: SignerConfig = load_signer_config(directory / "signer.toml")
        self.check_agreement(self.server, self.store, self.signer)
        lock = _lock_state_dir(self.server)
        self._children = [
            Child("signer", "signer", directory / "signer.toml", lock),
            Child("store", "store", directory / "store.toml", lock),
            Child("server", "paychan.server", directory / "server.toml", lock),
        ]
        self._is_stopping = False
        self._state: dict[str, object] = {}

    @staticmethod
    def check_agreement(server: ServerConfig, store: StoreConfig, signer: SignerConfig) -> None:
        """Raises ConfigError if the three files do not describe one system."""
        problems = []
        for other, address, key in ((store, server.store, "store"), (signer, server.signer, "signer")):
            if other.common.network is not server.common.network:
                problems.append(f"{other.common.source}: network: differs from {server.common.source}")
            if other.common.debug is not server.common.debug:
                problems.append(f"{other.common.source}: debug.enable: differs from {server.common.source}")
            if other.address != address:
                problems.append(f"{server.common.source}: processes.{key}: differs from {other.common.source}")
        if signer.settlement_period < server.settlement_period:
            why = f"is shorter than settlement.period_hours in {server.common.source}: it would refuse what is urgent there"
            problems.append(f"{signer.common.source}: policy.settlement_period_hours: {why}")
        if problems:
            raise ConfigError(*problems)

    def run(self) -> int:
        """Run until SIGINT or SIGTERM; return the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        try:
            if not self._start():
                return 0 if self._is_stopping else EXIT_BAD_CONFIG
            while not self._is_stopping:
                for child in self._children:
                    child.keep()
                time.sleep(POLL_SECONDS)
            return 0
        finally:
            for child in reversed(self._children):
                child.stop()

    def _on_signal(self, *_: object) -> None:
        self._is_stopping = True

    def _start(self) -> bool:
        """Start the processes one after the other, each once the one before answers; say when requests are answered."""
        tests: list[Callable[[], bool]] = [
            lambda: _answers(self.signer.address),
            lambda: _answers(self.store.address),
            self._is_ready,
        ]
        for count, is_up in enumerate(tests, start=1):
            if not self._wait_until(self._children[:count], is_up):
                return False
        host = self.server.http_host
        url = f"http://{f'[{host}]' if ':' in host else host}:{self.server.http_port}"
        print(f"ready {url} server_pubkey={self._state['server_pubkey']}", flush=True)
        return True

    def _wait_until(self, children: list[Child], is_up: Callable[[], bool]) -> bool:
        """Keep the children running until `is_up()`; return False if one refuses its configuration, or we are to stop.

        There is no other end: a Bitcoin node may need days until it can be trusted. What is waited for is said now and then.
        """
        say_at = time.monotonic() + SAY_SECONDS
        while not self._is_stopping:
            for child in children:
                if child.exit_status == EXIT_BAD_CONFIG:
                    print(f"paychan: {child.name} did not start", file=sys.stderr)
                    return False
                child.keep()
            if is_up():
                return True
            if time.monotonic() > say_at:
                why = self._state.get("detail", "")
                print(f"paychan: waiting for {children[-1].name}{': ' if why else ''}{why}", file=sys.stderr)
                say_at += SAY_SECONDS
            time.sleep(POLL_SECONDS)
        return False

    def _is_ready(self) -> bool:
        self._state = self._ready_state()
        return self._state.get("workers") == self.server.workers

    def _ready_state(self) -> dict[str, object]:
        """Return what /readyz says, empty if it says nothing."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.server.http_host, self.server.http_host)
        connection = http.client.HTTPConnection(host, self.server.http_port, timeout=2)
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, RecursionError):
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            state: object = json.loads(answer.read(READY_SIZE_MAX))
            if isinstance(state, dict):
                return state
        return {}


def _lock_state_dir(config: ServerConfig) -> int:
    """Lock the state directory until this process and all its children have ended; return the lock's descriptor.

    A second instance would take the first one's signer and store for its own. Raises ConfigError if there is one.
    """
    directory = config.common.state_dir / "run"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / "instance.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{config.common.source}: state_dir: {directory}: {error.strerror}") from error
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise ConfigError(f"{config.common.source}: state_dir: another instance is using it") from None
        time.sleep(POLL_SECONDS)


def _answers(address: Address) -> bool:
    """Return whether a process accepts connections at an address."""
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            if not address.path:
                probe.connect((address.host, address.port))
                return True
            path, handle = reachable_path(address.path)
            try:
                probe.connect(path)
            finally:
                if handle >= 0:
                    os.close(handle)
            return True
        except OSError:
            return False
