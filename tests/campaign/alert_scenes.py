"""Where the faults of tests/campaign/alerts.py happen: whole systems under load, each read by a Prometheus of its own.

A fault is a context manager: entering makes it, for real; leaving mends it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests import operating
from tests.campaign.load import PatientClient
from tests.certificates import ALPHA, make
from tests.chain.regtest_system import DAY, Regtest, regtest
from tests.machines import section
from tests.metrics import Scraper, listening, shows_all
from tests.ports import free_port
from tests.power.shim import Switch
from tests.system import ROOT, Answer, Payer, System, processes, running, wait_until

MINUTE_SECONDS = 3.0
"""What a rule's minute becomes: longer than a reload takes, of which no alert may tell."""

OPEN_MAX, UNSETTLED_MAX, NOTED_EACH = 6_000_000, 12_000_000, 100_000
LEASE_MS = 10_000
"""Workers keep their shards while the store's disk is slow."""

CHANNELS = 4
PAUSE_SECONDS = 0.005
ATTEMPT_SECONDS_MAX = 2.0
FAULTY = ROOT / "tests" / "process" / "faulty"


class ImpatientClient(PatientClient):
    """Gives a request up soon, but takes a new connection where the old one was closed for it was idle."""

    def __init__(self, port: int) -> None:
        super().__init__(port, ATTEMPT_SECONDS_MAX)

    def request(self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        try:
            return super().request(method, target, headers, body)
        except ConnectionError:
            return super().request(method, target, headers, body)


class Load:
    """Payers who go on paying, a thread for each of `pays`; what is refused or not answered is followed by the next payment."""

    def __init__(self, pays: list[Callable[[], Answer]]) -> None:
        self.answered = self._asking = 0
        self._lock, self._goes_on, self._ends = threading.Lock(), threading.Event(), threading.Event()
        self._goes_on.set()
        self._threads = [threading.Thread(target=self._run, args=(pay,), daemon=True) for pay in pays]
        for thread in self._threads:
            thread.start()

    def _run(self, pay: Callable[[], Answer]) -> None:
        while not self._ends.is_set():
            self._goes_on.wait()
            self._note(asking=1)
            with suppress(OSError):
                if pay().status == 200:
                    self._note(answered=1)
            self._note(asking=-1)
            time.sleep(PAUSE_SECONDS)

    def _note(self, asking: int = 0, answered: int = 0) -> None:
        with self._lock:
            self._asking += asking
            self.answered += answered

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Nobody pays meanwhile."""
        self._goes_on.clear()
        try:
            time.sleep(PAUSE_SECONDS)
            wait_until(lambda: not self._asking, 20, "the last answer")
            yield
        finally:
            self._goes_on.set()

    def stop(self) -> None:
        self._ends.set()
        self._goes_on.set()
        for thread in self._threads:
            thread.join()


@dataclass
class Scene:
    """A system under load. directory: for files of a fault's own."""

    directory: Path
    system: System
    scraper: Scraper
    load: Load
    chain: Regtest | None = None
    switch: Switch | None = None
    certificates: Path | None = None
    operator_port: int = 0

    def payer(self, name: str, received: int = 0) -> Payer:
        """Return a payer in debug mode, with a channel that is open if anything is to be received on it."""
        payer = self.system.payer(name)
        payer.client = ImpatientClient(self.system.port)
        assert not received or payer.open(received).status == 201
        return payer

    @property
    def metrics_pid(self) -> int:
        found = (pid for pid, parent, line in processes() if parent == self.system.process.pid and "-m paychan.metrics " in line)
        return next(found)

    @contextmanager
    def unattended(self) -> Iterator[None]:
        """The supervisor is stopped meanwhile, so what ends stays away."""
        os.kill(self.system.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.system.process.pid, signal.SIGCONT)

    def reload(self) -> None:
        """Have the workers replaced, and wait until they are."""
        before = set(self.system.worker_pids())
        os.kill(self.system.process.pid, signal.SIGHUP)
        wait_until(lambda: not before & set(self.system.worker_pids()), 30, "new workers")
        wait_until(lambda: self.system.ready_workers() == self.system.workers, 30, "ready workers")

    def change(self, old: str, new: str) -> None:
        """Change server.toml and reload."""
        path = self.system.config_dir / "server.toml"
        text = path.read_text()
        assert text.count(old) == 1, old
        path.write_text(text.replace(old, new))
        self.reload()

    def command(self, module: str, *arguments: object) -> str:
        """Run an operator's command; return what it says."""
        env = {**os.environ, "PAYCHAN_STATE_DIR": str(self.system.state_dir), "PORT": str(self.system.port)}
        call = [sys.executable, "-m", module, *map(str, arguments)]
        done = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
        return done.stdout + done.stderr


@contextmanager
def repeated(action: Callable[[], object]) -> Iterator[None]:
    """Do something again and again meanwhile."""
    ends = threading.Event()

    def run() -> None:
        while not ends.is_set():
            with suppress(OSError, AssertionError, StopIteration):
                action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


class Fault(NamedTuple):
    """What goes wrong in a scene. fires: the alerts that must tell of it; also: others that may, for they are true then. is_first:
    the scene begins with it, so it is always made, before all others."""

    scene: str
    name: str
    make: Callable[[Scene], AbstractContextManager[None]]
    fires: tuple[str, ...]
    also: tuple[str, ...] = ()
    is_first: bool = False


# --- scenes ---


@contextmanager
def processes_scene(directory: Path) -> Iterator[Scene]:
    """Debug mode, two workers, limits on what is open and unsettled; the store's memory and disk can be made to fail."""
    scraper, switch = Scraper(free_port()), Switch(directory / "switch", directory / "state")
    changes = listening(scraper.port)
    limits = f"total_value_max = {OPEN_MAX}\nunsettled_value_max = {UNSETTLED_MAX}\nunnoted_value_max = {NOTED_EACH}"
    operator_port = free_port()
    operator = operating.section(operator_port, "[webhooks]", 'allow = ["127.0.0.0/8"]', "answer_seconds = 1")
    metrics = changes["server.toml"]["[processes]"].removesuffix("[processes]")
    changes["server.toml"]["[processes]"] = metrics + operator["[processes]"]
    changes["server.toml"] |= {"[chain]": f"[exposure]\n{limits}\n\n[chain]", "public_host = ": 'public_host = "127.0.0.1"'}
    changes["store.toml"] = {"lease_ms = ": f"lease_ms = {LEASE_MS}"}
    faulty = {"PYTHONPATH": f"{FAULTY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "PAYCHAN_FAULT": str(directory / "fault")}
    with running(directory, workers=2, env={**switch.environment, **faulty}, changes=changes) as system:
        yield from _loaded(Scene(directory, system, scraper, Load([]), switch=switch, operator_port=operator_port))


@contextmanager
def machine_scene(directory: Path) -> Iterator[Scene]:
    """Debug mode, as a machine of a cluster."""
    certificates, scraper = make(directory / "certificates", ALPHA), Scraper(free_port())
    server = section(certificates, "alpha", ALPHA, "127.0.0.1")
    metrics = listening(scraper.port)["server.toml"]["[processes]"].removesuffix("[processes]")
    server["[processes]"] = metrics + server["[processes]"]
    with running(directory, changes={"server.toml": server}) as system:
        yield from _loaded(Scene(directory, system, scraper, Load([]), certificates=certificates))


def _loaded(scene: Scene) -> Iterator[Scene]:
    wait_until(lambda: shows_all(scene.scraper, scene.system.workers), 20, "serving the metrics")
    payers = [scene.payer(f"load {number}", 100_000) for number in range(CHANNELS)]
    scene.load = Load([payer.pay for payer in payers])
    try:
        yield scene
    finally:
        scene.load.stop()


BEHIND_SECONDS = 2 * 3600 + 1800
"""How old the best block is at first: an alert tells of it, and the server still trusts the node."""


@contextmanager
def chain_scene(directory: Path) -> Iterator[Scene]:
    """Beside a real node on regtest, whose best block is old at first."""
    scraper = Scraper(free_port())
    changes = {
        "metrics": {"listen": f'"127.0.0.1:{scraper.port}"'},
        "chain": {"tip_age_minutes_max": "180"},
        "settlement": {"fee_per_byte_min": "1"},
    }
    with regtest(directory, changes, behind=BEHIND_SECONDS) as chain:
        estimates(chain)
        wait_until(lambda: shows_all(scraper, 1), 20, "serving the metrics")
        far = [chain.channel(f"load {number}", 60 * DAY).opened() for number in range(2)]
        for channel in far:
            channel.client = ImpatientClient(chain.system.port)
        load = Load([lambda channel=channel: channel.pay(1) for channel in far])
        try:
            yield Scene(directory, chain.system, scraper, load, chain=chain)
        finally:
            load.stop()


def estimates(chain: Regtest) -> None:
    """Have the node answer everything as it is, and estimate fees, which one that has seen so little does not: never it alone."""
    chain.gate.refused, chain.gate.answers = set(), {"estimatesmartfee": {"feerate": 0.0001, "blocks": 2}}


SCENES: dict[str, Callable[[Path], AbstractContextManager[Scene]]] = {
    "processes": processes_scene,
    "chain": chain_scene,
    "machine": machine_scene,
}
