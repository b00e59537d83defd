"""Two machines of a cluster on this one: a whole system, and beside it a second server that has the same store and signer.

What each has of its own: state directory, name, certificate, and a loopback address on which it listens for the other's workers.
The second reaches store and signer through links to the first one's sockets; everything between the servers goes over TLS.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import ALPHA, BETA, make
from tests.ports import free_port, own_ports_block
from tests.system import (
    OWN_PORT,
    ROOT,
    VARIABLE,
    Client,
    System,
    make_config,
    running,
    variant_module,
    wait_until,
)


@dataclass(frozen=True)
class Network:
    """Where the two machines are. alpha, beta: addresses by which they reach each other; clients: where payers reach beta; enter:
    what has a command run on beta."""

    alpha: str = ALPHA
    beta: str = BETA
    clients: str = "127.0.0.1"
    enter: tuple[str, ...] = ()


LOOPBACK = Network()
PEER_PORT = re.compile(r"workers of other machines are listened for at \S+ port (\d+)")
_ESTABLISHED = "01"


def section(
    certificates: Path, machine: str, host: str, public_host: str, peer_port: int = 0, listen_host: str = ""
) -> dict[str, str]:
    """Return what makes a server.toml that of a machine, as `make_config` takes it. peer_port 0: a free one."""
    place = certificates / host
    text = (
        f'[cluster]\nmachine = "{machine}"\npeer_host = "{host}"\npeer_port = {peer_port or free_port()}\n'
        f'listen_host = "{listen_host or host}"\n'
        f'ca = "{place}/ca.crt"\ncertificate = "{place}/peer.crt"\nkey = "{place}/peer.key"\n'
    )
    return {"[processes]": f"{text}\n[processes]", "public_host = ": f'public_host = "{public_host}"'}


@dataclass
class Second:
    """The second machine's server. `kill` ends all of it, as when the power goes."""

    directory: Path
    first: System
    certificates: Path
    base_port: int
    workers: int = 1
    network: Network = LOOPBACK
    variant: str = ""
    """Of tests/variants.py; empty: the shipped server."""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    output: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state_dir = self.directory / "state"
        (self.state_dir / "run").mkdir(mode=0o700, parents=True)
        for name in ("store.sock", "signer.sock"):
            (self.state_dir / "run" / name).symlink_to(self.first.state_dir / "run" / name)
        published = self.first.state_dir / "broadcast"  # debug mode's chain, of which there is one
        published.mkdir(exist_ok=True)
        (self.state_dir / "broadcast").symlink_to(published)
        network = self.network
        changes = {
            "base_port = ": f"base_port = {self.base_port}",
            "host = ": f'host = "{network.clients}"',
            **section(self.certificates, "beta", network.beta, network.clients),
        }
        self.config = make_config(self.directory / "config", {"server.toml": changes})

    def start(self) -> None:
        """Start, and return when /readyz counts the workers of both."""
        env = {"PORT": str(self.port), "PAYCHAN_STATE_DIR": str(self.state_dir), "PAYCHAN_WORKERS": str(self.workers)}
        module = variant_module(self.variant, "paychan.server")
        self.process = subprocess.Popen(
            [*self.network.enter, sys.executable, "-m", module, str(self.config / "server.toml")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env={**os.environ, **env, VARIABLE: self.variant},
        )  # fmt: skip
        threading.Thread(target=self._collect, args=(self.process,), daemon=True).start()
        wait_until(lambda: self.ready_workers() == self.workers + self.first.workers, 60, "starting the second machine")

    def _collect(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self.output.append(line)

    def client(self) -> Client:
        return Client(self.port, self.network.clients)

    def ready_workers(self) -> int:
        return workers_known_to(self.client())

    def own_ports(self) -> list[int]:
        """Return the workers' own ports, the newest last."""
        wait_until(lambda: len(self._ports(OWN_PORT, 2)) >= self.workers, 20, "the own ports")
        return self._ports(OWN_PORT, 2)[-self.workers :]

    def peer_ports(self) -> list[int]:
        return self._ports(PEER_PORT, 1)

    def _ports(self, form: re.Pattern[str], group: int) -> list[int]:
        return [int(match[group]) for line in self.output if (match := form.search(line))]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


class Machines(System):
    """Both, as one system: the shared port is the first machine's, the own ports are those of all workers."""

    second: Second
    certificates: Path

    @classmethod
    def of(cls, first: System, second: Second, certificates: Path) -> "Machines":
        both = cls(**{name: getattr(first, name) for name in cls.__dataclass_fields__})
        both.second, both.certificates = second, certificates
        return both

    def ready_workers(self) -> int:
        return workers_known_to(self.client())

    def own_ports(self) -> list[int]:
        return [*super().own_ports(), *self.second.own_ports()]

    def known_own_ports(self) -> list[int]:
        return self.own_ports()


def workers_known_to(client: Client) -> int:
    """Return how many workers of all machines /readyz counts, 0 while it is not ready."""
    try:
        answer = client.request("GET", "/readyz")
        return answer.json["cluster"]["workers"] if answer.status == 200 else 0
    except OSError:
        return 0
    finally:
        client.close()


def connections_to(host: str) -> int:
    """Return how many TCP connections of this machine to an IPv4 address are established."""
    wanted = "".join(f"{int(part):02X}" for part in reversed(host.split(".")))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].startswith(f"{wanted}:") and row[3] == _ESTABLISHED for row in rows)


@contextmanager
def two_machines(directory: Path, workers: int = 1, variant: str = "", network: Network = LOOPBACK) -> Iterator[Machines]:
    """Run both machines, each with so many workers. variant: the second one's."""
    certificates = make(directory / "certificates", network.alpha, network.beta)
    changes = {"server.toml": section(certificates, "alpha", network.alpha, "127.0.0.1")}
    with own_ports_block() as base_port, running(directory / "alpha", workers=workers, changes=changes) as first:
        second = Second(directory / "beta", first, certificates, base_port, workers, network, variant)
        both = Machines.of(first, second, certificates)
        try:
            second.start()
            yield both
        finally:
            second.stop()
            first.process = both.process  # which may have been started again
