"""`paychan run CONFIG_DIR`: starts signer, store and server, restarts what dies, and stops them in the right order.

Children are told apart by pid. Each is in a session of its own, so that Ctrl-C reaches only the supervisor, and each ends when
the supervisor dies, however it dies. Several directories have a supervisor each: `instances.py`.
"""

import ctypes
import fcntl
import functools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .core.errors import ConfigError
from .exits import EXIT_BAD_CONFIG
from .hangup import Wishes
from .notify import Manager
from .printing import announce, say
from .ready import answers, ready_state
from .settings.agreement import disagreements, needs_restart
from .settings.load import load_server_config, load_signer_config, load_store_config
from .settings.models import ServerConfig, SignerConfig, StoreConfig, Users

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

_PR_SET_PDEATHSIG = 1

log = logging.getLogger("paychan.supervisor")


def _end_with_supervisor(supervisor: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)  # it died before the kernel was told


class Child:
    """One process that should always run."""

    def __init__(self, name: str, module: str, *words: str, locks: tuple[int, ...] = (), env: dict[str, str] | None = None) -> None:
        """module: of ours, started with these words. locks: descriptors that it keeps open; env: beside what this process has."""
        self.name, self._locks, self._env = name, locks, env or {}
        self._argv = [sys.executable, "-m", module, *words]
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self.starts = 0
        """How often it was started."""
        self._restart_at = 0.0
        self._wait = RESTART_SECONDS_MIN

    def _start(self) -> None:
        self._started_at = time.monotonic()
        self.starts += 1
        try:
            self._process = subprocess.Popen(
                self._argv,
                start_new_session=True,
                preexec_fn=functools.partial(_end_with_supervisor, os.getpid()),
                pass_fds=self._locks,
                env={**os.environ, **self._env},
            )
        except (OSError, subprocess.SubprocessError) as error:  # no memory, too many processes: that passes
            log.warning("%s cannot be started: %s", self.name, error)
            self._start_later()

    def _start_later(self) -> None:
        self._process, self._restart_at = None, time.monotonic() + self._wait
        self._wait = min(2 * self._wait, RESTART_SECONDS_MAX)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """The status with which the process ended, None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def is_settling(self) -> bool:
        """Whether the process is being started again, or was a moment ago."""
        return not self.is_running or time.monotonic() - self._started_at < HEALTHY_SECONDS

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
        log.warning("%s ended with status %d; restarting", self.name, status)
        self._start_later()

    def hang_up(self) -> None:
        """Send the process a SIGHUP. One that only starts would die of it."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGHUP)

    def ask_to_end(self) -> None:
        """Ask the process to end."""
        if self._process is not None and self.is_running:
            self._process.terminate()

    def stop(self, seconds: float = STOP_SECONDS_MAX) -> None:
        """Ask the process to end, wait for it, kill it if it does not within so many seconds."""
        self.ask_to_end()
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Supervisor:
    """The three processes of one configuration directory, and beside them those that serve metrics and the operator, for which none
    waits."""

    def __init__(self, directory: Path) -> None:
        """Read the configuration and take its state directory. From now on a SIGHUP does not end us. Raises ConfigError."""
        self._wishes, self._manager = Wishes(), Manager()
        self._beat_at = 0.0
        self._server_file = directory / "server.toml"
        self.server: ServerConfig = load_server_config(self._server_file)
        self.store: StoreConfig = load_store_config(directory / "store.toml")
        self.signer: SignerConfig = load_signer_config(directory / "signer.toml")
        if problems := disagreements(self.server, self.store, self.signer):
            raise ConfigError(*problems)
        if self.server.common.users != Users():
            raise ConfigError(f"{self._server_file}: users: is for processes that are started apart; here all three have one user")
        lock = _lock_state_dir(self.server)
        self._children = [
            Child("signer", "signer", str(directory / "signer.toml"), locks=(lock,)),
            Child("store", "store", str(directory / "store.toml"), locks=(lock,)),
            Child("server", "paychan.server", str(self._server_file), locks=(lock,)),
        ]
        metrics = Child("metrics", "paychan.metrics", str(self._server_file), locks=(lock,))
        self._beside = [metrics] if self.server.metrics.is_on else []
        if self.server.operator.is_on:
            self._beside.append(Child("operator", "paychan.operator", str(directory), locks=(lock,)))
        self._state: dict[str, object] = {}

    def run(self) -> int:
        """Run until SIGINT or SIGTERM; return the exit status."""
        self._wishes.hear_stops()
        try:
            if not self._start():
                return 0 if self._wishes.is_stopping else EXIT_BAD_CONFIG
            while not self._wishes.is_stopping:
                self._tend([*self._children, *self._beside])
                self._beat()
                time.sleep(POLL_SECONDS)
            return 0
        finally:
            self._manager.stopping()
            if self._wishes.is_stopping:
                log.info("stopping")
            for child in reversed([*self._children, *self._beside]):
                child.stop()

    def _tend(self, children: list[Child]) -> None:
        """Start what does not run, and have the server reload if that was asked for."""
        for child in children:
            child.keep()
        if self._wishes.is_reload_wanted:
            self._reload()

    def _reload(self) -> None:
        """Hand a SIGHUP on to the server, which replaces its workers: they read the configuration again. A faulty one stays unread.

        While the server starts, until a worker answers, if only that it is not ready, the signal waits.
        """
        if not ready_state(self.server):
            return
        self._wishes.is_reload_wanted = False
        if why := self._trouble_with_reload():
            log.error("SIGHUP: not handed on to the server: %s", why)
        else:
            log.info("SIGHUP: handed on to the server, which replaces its workers")
            self._manager.reloading()
            self._children[-1].hang_up()
            for child in self._beside:
                if child.name == "operator":
                    child.hang_up()  # it reads the configuration again, too
            self._manager.ready("the server replaces its workers, one after the other")

    def _beat(self) -> None:
        """Feed the watchdog if all is well, or what is not is being seen to here."""
        if (seconds := self._manager.beat_seconds) and time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + seconds
            if any(child.is_settling for child in self._children) or not is_stuck(ready_state(self.server)):
                self._manager.alive()

    def _trouble_with_reload(self) -> str:
        try:
            found = load_server_config(self._server_file)
        except ConfigError as error:
            return str(error)
        problems = disagreements(found, self.store, self.signer)
        keys = needs_restart(self.server, found)
        return problems[0] if problems else f"{', '.join(keys)}: changed, which takes a restart" if keys else ""

    def _start(self) -> bool:
        """Start the processes one after the other, each once the one before answers; say when requests are answered."""
        tests: list[Callable[[], bool]] = [
            lambda: answers(self.signer.address),
            lambda: answers(self.store.address),
            self._is_ready,
        ]
        for count, is_up in enumerate(tests, start=1):
            beside = self._beside if count == len(tests) else []  # a node may sync for days, and somebody wants to look
            if not self._wait_until(self._children[:count], is_up, beside):
                return False
        host = self.server.http_host
        url = f"http://{f'[{host}]' if ':' in host else host}:{self.server.http_port}"
        instance = self.server.common.log.instance
        announce(f"ready {url} server_pubkey={self._state['server_pubkey']}{f' instance={instance}' if instance else ''}")
        self._manager.ready(f"serves {url}")
        return True

    def _wait_until(self, children: list[Child], is_up: Callable[[], bool], beside: list[Child]) -> bool:
        """Keep the children, and those beside them, running until `is_up()`; return False if a child refuses its configuration,
        or we are to stop.

        There is no other end: a Bitcoin node may need days until it can be trusted. What is waited for is said now and then.
        """
        say_at = time.monotonic() + SAY_SECONDS
        while not self._wishes.is_stopping:
            for child in children:
                if child.exit_status == EXIT_BAD_CONFIG:
                    say(f"paychan: {child.name} did not start")
                    return False
            self._tend([*children, *beside])
            if is_up():
                return True
            if time.monotonic() > say_at:
                why = self._state.get("detail", "")
                self._manager.waiting(f"waiting for {children[-1].name}: {why}")
                log.info("waiting for %s%s%s", children[-1].name, ": " if why else "", why)
                say_at += SAY_SECONDS
            time.sleep(POLL_SECONDS)
        return False

    def _is_ready(self) -> bool:
        self._state = ready_state(self.server)
        return self._state.get("workers") == self.server.workers


def is_stuck(ready: dict[str, object]) -> bool:
    """Return whether what /readyz says, or that it says nothing, means that one of our own processes runs and does not work."""
    return not ready or ready.get("code") in ("signer_unavailable", "store_unavailable", "owner_moved")


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
