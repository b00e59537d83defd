"""The programs of those who sell in the campaign: shops behind the middleware, an upstream, and the gateway before it.

With several machines each has a shop at its own door, with a token of its own; all shops listen at one port, as behind a balancer,
so that whoever presents a payment again may meet another shop than before. One machine's shop has two processes, for the same
reason. The gateway is the last machine's.
"""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.shop import PRICES
from tests.ports import free_port
from tests.selling import Seller, make_token
from tests.system import ROOT, System, processes, wait_until

TOKEN = "campaign"


@dataclass
class Program:
    """A process with a session of its own, started again whenever it has ended by a signal."""

    command: list[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **self.env}, start_new_session=True
            )

    def tend(self) -> int | None:
        """Start it again if need be; return the status with which it ended by itself."""
        assert self.process is not None
        status = self.process.poll()
        if status is None or status >= 0:
            return status
        self.kill()  # what a dead parent has left behind would keep its port
        self.start()
        return None

    def kill(self) -> None:
        """SIGKILL to all that there is of it."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def kill_worker(self, rng: random.Random) -> bool:
        """SIGKILL to one of granian's workers; return whether there was one."""
        assert self.process is not None
        workers = [pid for pid, parent, text in processes() if parent == self.process.pid and "resource_tracker" not in text]
        if workers:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
        return bool(workers)


class Sellers:
    """Of these machines, each with a sellers' door. records: what handlers served, by the way it was bought; urls: where it is
    bought, by the same; doors: to ask at, one for each machine; of_machine: the names of the programs that a machine runs."""

    def __init__(self, place: Path, machines: list[System]) -> None:
        self.records = {way: place / f"{way}.record" for way in ("shop", "gateway")}
        ports = {name: free_port() for name in ("shop", "upstream", "gateway")}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        self.doors: list[Seller] = []
        self.programs = {"upstream": Program(_granian("upstream", ports["upstream"]), place / "upstream.log", self._env("gateway"))}
        self.of_machine: list[list[str]] = []
        secret, workers = secrets.token_hex(32), 2 if len(machines) == 1 else 1
        for number, machine in enumerate(machines):
            door = machine.state_dir.absolute() / "run" / "sell.sock"
            wait_until(door.exists, 20, "opening the sellers' door")
            token = make_token(machine, TOKEN)
            self.doors.append(Seller(machine, token))
            env = {**self._env("shop"), "PAYCHAN_DOOR": str(door), "PAYCHAN_TOKEN": token, "PAYCHAN_SECRET": secret}
            self.programs[f"shop{number}"] = Program(_granian("app", ports["shop"], workers), place / f"shop{number}.log", env)
            self.of_machine.append([f"shop{number}"])
        file = _write_gateway(place, ports["gateway"], door, token, self.urls["upstream"])
        self.programs["gateway"] = Program([sys.executable, "-m", "paychan", "gateway", str(file)], place / "gateway.log")
        self.of_machine[-1].append("gateway")

    def _env(self, way: str) -> dict[str, str]:
        return {"PAYCHAN_SHOP": str(self.records[way])}

    def start(self) -> None:
        for program in self.programs.values():
            program.start()
        wait_until(lambda: all(record.exists() for record in self.records.values()), 20, "starting the sellers")

    def tend(self) -> None:
        """Start again what is killed. A seller that ended by itself has met a system that was not there: it is tried again."""
        for program in self.programs.values():
            if program.tend() is not None:
                time.sleep(0.1)
                program.start()

    def served(self) -> tuple[int, ...]:
        """Return how many bytes each record has."""
        return tuple(record.stat().st_size for record in self.records.values())

    def any_of(self, way: str, rng: random.Random) -> Program:
        """Return one of the programs that sell in a way."""
        return self.programs[rng.choice([name for name in self.programs if name.startswith(way)])]

    def kill(self) -> None:
        for program in self.programs.values():
            program.kill()


def _granian(name: str, port: int, workers: int = 1) -> list[str]:
    """Return the command that serves an application of shop.py."""
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), "--respawn-failed-workers", "--no-ws"]
    return [str(Path(sys.executable).parent / "granian"), "--interface", "asgi", *where, f"tests.campaign.shop:{name}"]


def _write_gateway(place: Path, port: int, door: Path, token: str, upstream: str) -> Path:
    """Write the gateway's file; return where."""
    secret = place / "gateway.token"
    secret.touch(mode=0o600)
    secret.write_text(token)
    text = f'[gateway]\nport = {port}\nrealm = "sales"\n[seller]\nsocket = "{door}"\ntoken_file = "{secret}"\n'
    text += f'[upstreams.goods]\nurl = "{upstream}"\n'
    text += "".join(f'[[routes]]\npath = "/goods/{price}"\nprice = {price}\n' for price in PRICES)
    file = place / "gateway.toml"
    file.write_text(text)
    return file
