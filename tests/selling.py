"""A seller for tests: a system with a sellers' door, tokens made as an operator makes them, and a client of the door."""

import http.client
import itertools
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from paychan.core.outpoint import format_outpoint
from paychan.rpc.connection import reachable
from tests.system import ROOT, Answer, System, running, wait_until

SOCKET = 'socket = "run/sell.sock"'


def sell_changes(*lines: str) -> dict[str, dict[str, str]]:
    """Return the change of server.toml that opens a sellers' door as these lines have it."""
    return {"server.toml": {SOCKET: "\n".join(lines)}}


@contextmanager
def with_door(directory: Path, workers: int = 1) -> Iterator[System]:
    """Run a system in debug mode; its sellers' door, a Unix socket with a cookie beside it, is open."""
    with running(directory, workers=workers) as system:
        files = [system.state_dir / "run" / name for name in ("sell.sock", "sell.cookie")]
        wait_until(lambda: all(file.exists() for file in files), 20, "opening the sellers' door")
        yield system


def token_command(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `paychan token ACTION CONFIG_DIR ...`."""
    action, *rest = arguments
    command = [sys.executable, "-m", "paychan", "token", action, str(system.config_dir), *rest]
    env = {"PAYCHAN_STATE_DIR": str(system.state_dir), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)


def make_token(system: System, name: str, scope: str = "charge") -> str:
    done = token_command(system, "add", name, "--scope", scope)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class _Local(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        with reachable(self._path) as path:
            self.sock.connect(path)


class Seller:
    """Asks at the door: at the Unix socket, or with `port` over TCP, with `tls` over TLS."""

    def __init__(self, system: System, token: str, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        if tls is not None:
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=tls)
        elif port:
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        else:
            self._connection = _Local(str(system.state_dir.absolute() / "run" / "sell.sock"))

    def request(self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """A look is taken again where the door closed the connection, because nobody had asked for long."""
        try:
            return self._request(method, target, body, headers)
        except ConnectionError:
            if method != "GET":
                raise
            return self._request(method, target, body, headers)

    def _request(self, method: str, target: str, body: bytes | None, headers: dict[str, str] | None) -> Answer:
        try:
            self._connection.request(method, target, body, {**self._headers, **(headers or {})})
            answer = self._connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ConnectionError(str(error)) from error

    def ask(self, *sales: dict) -> Answer:
        """Ask for one sale, or for many in one request."""
        return self.request("POST", "/v1/sell", json.dumps(sales[0] if len(sales) == 1 else sales).encode())

    def persist(self, sale: dict, seconds: float = 60.0) -> tuple[Answer, int]:
        """Repeat a sale while its outcome is unknown; return the answer and the number of attempts."""
        deadline = time.monotonic() + seconds
        for attempts in itertools.count(1):
            with suppress(OSError):
                answer = self.ask(sale)
                if answer.status != 503:
                    return answer, attempts
            assert time.monotonic() < deadline, f"no answer to a sale within {seconds} s"
            time.sleep(0.02)
        raise AssertionError

    def look(self, channel: str) -> dict:
        return self.request("GET", f"/v1/sell/channels/{channel}").json


def channel_of(payer) -> str:
    return format_outpoint(payer.sender.terms.outpoint)


def text_of(payment) -> str:
    return payment.encode().rstrip("=")
