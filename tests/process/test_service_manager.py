"""Aim: each process says READY when it serves and not before, proves its life, and tells of reloads and its end.

Method: the three processes as units start them, each with a real notification socket of ours; and `paychan run` with one.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.ports import free_port, own_ports_block
from tests.system import PATIENCE_FACTOR, ROOT, Client, make_config, wait_until

BEAT = "900000"
MODULES = {"signer": "signer", "store": "store", "server": "paychan.server"}


class Unit:
    """One process and its notification socket."""

    def __init__(self, base: Path, name: str, env: dict[str, str], *words: str) -> None:
        self.path, self.name = base / f"{name}.notify", name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.log = (base / f"{name}.log").open("ab")
        self.env = {**os.environ, **env, "NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": BEAT}
        self.command = [sys.executable, "-m", *words]
        self.process: subprocess.Popen | None = None
        self.heard: list[str] = []

    def start(self) -> None:
        threading.Thread(target=self._collect, daemon=True).start()
        self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.env, stdout=self.log, stderr=self.log)

    def listen(self) -> list[str]:
        """Return all that was heard until now."""
        return list(self.heard)

    def _collect(self) -> None:
        with suppress(OSError):  # it is closed in the end
            while word := self.socket.recv(4096):
                self.heard.append(word.decode())

    def says(self, beginning: str) -> bool:
        return any(word.startswith(beginning) for word in self.listen())

    def wait_for(self, beginning: str) -> None:
        wait_until(lambda: self.says(beginning), 20, f"{self.name} saying {beginning}")

    def forget(self) -> None:
        self.heard.clear()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(PATIENCE_FACTOR * 20)

    def close(self) -> None:
        self.stop()
        self.socket.close()
        self.log.close()


@contextmanager
def units(base: Path):
    with own_ports_block() as own_port:
        config = make_config(base / "config", {"server.toml": {"base_port = ": f"base_port = {own_port}"}})
        port = free_port()
        env = {"PORT": str(port), "PAYCHAN_STATE_DIR": str(base / "state"), "PAYCHAN_WORKERS": "2"}
        made = {name: Unit(base, name, env, module, str(config / f"{name}.toml")) for name, module in MODULES.items()}
        made["port"] = port
        try:
            yield made
        finally:
            for name in reversed(MODULES):
                made[name].close()


def test_each_process_is_ready_when_it_serves_and_not_before(tmp_path):
    with units(tmp_path) as made:
        signer, store, server = (made[name] for name in MODULES)
        server.start()
        client = Client(made["port"])

        def answers() -> bool:
            with suppress(OSError):
                return client.request("GET", "/healthz").status == 200
            return False

        wait_until(answers, 20, "the server to answer")
        server.wait_for("WATCHDOG=1")  # it lives, though it cannot serve
        assert not server.says("READY=1")
        signer.start()
        signer.wait_for("READY=1")
        assert not server.says("READY=1")
        store.start()
        store.wait_for("READY=1")
        server.wait_for("READY=1")
        assert client.request("GET", "/readyz").status == 200
        for unit in (signer, store, server):
            unit.forget()
            unit.wait_for("WATCHDOG=1")

        server.forget()
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        server.wait_for("READY=1")

        store.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        store.forget()
        time.sleep(1)
        assert store.listen() == []
        store.process.send_signal(signal.SIGCONT)
        store.wait_for("WATCHDOG=1")

        for unit in (server, store, signer):
            unit.stop()
            unit.wait_for("STOPPING=1")
            assert unit.process.returncode == 0


def test_a_stuck_worker_is_not_hidden_by_the_others(tmp_path):
    with units(tmp_path) as made:
        for name in MODULES:
            made[name].start()
        server = made["server"]
        server.wait_for("READY=1")
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(workers[0], signal.SIGSTOP)
        try:
            time.sleep(6)  # until it counts as late
            server.forget()
            time.sleep(2)
            assert server.listen() == []
        finally:
            os.kill(workers[0], signal.SIGCONT)
        server.wait_for("WATCHDOG=1")


def test_the_supervisor_is_ready_with_its_children_and_stuck_with_them(tmp_path):
    with own_ports_block() as own_port:
        config = make_config(tmp_path / "config", {"server.toml": {"base_port = ": f"base_port = {own_port}"}})
        env = {"PORT": str(free_port()), "PAYCHAN_STATE_DIR": str(tmp_path / "state"), "PAYCHAN_WORKERS": "1"}
        unit = Unit(tmp_path, "run", env, "paychan", "run", str(config))
        try:
            unit.start()
            unit.wait_for("READY=1")
            assert Client(int(env["PORT"])).request("GET", "/readyz").status == 200
            unit.wait_for("WATCHDOG=1")
            unit.process.send_signal(signal.SIGHUP)
            unit.wait_for("RELOADING=1")
            unit.stop()
            unit.wait_for("STOPPING=1")
            assert unit.process.returncode == 0
        finally:
            unit.close()
    shutil.rmtree(tmp_path / "state")
