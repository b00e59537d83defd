"""A gateway for tests: `paychan gateway` on a free port, in front of tests/upstream.py; and raw requests to it."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.ports import free_port
from tests.system import ROOT, Answer, Client, wait_until


@dataclass
class Process:
    """A program that says `ready` on its standard output. `output`: its lines, of both streams."""

    command: list[str]
    port: int
    env: dict[str, str] | None = None
    process: subprocess.Popen[str] | None = None
    output: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env, cwd=ROOT
        )
        threading.Thread(target=self._collect, args=(self.process,), daemon=True).start()
        wait_until(lambda: self.is_up() or self.process.poll() is not None, 20, f"starting {self.command[2:4]}")
        assert self.process.poll() is None, "".join(self.output)

    def _collect(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self.output.append(line)

    def is_up(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def client(self) -> Client:
        return Client(self.port)

    def log(self) -> list[dict]:
        """Return what an upstream was asked since the last look."""
        return self.client().request("GET", "/log").json

    def raw(self, *parts: bytes, seconds: float = 10.0, shut: bool = False) -> bytes:
        """Send bytes, and return all that comes until the connection ends; or until nothing comes for `seconds`."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            for part in parts:
                connection.sendall(part)
            if shut:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    got = b""
    try:
        while piece := connection.recv(65536):
            got += piece
    except OSError:
        pass
    return got


def parse(raw: bytes) -> Answer:
    """Return a raw answer; its body as it came over the wire."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(re.split(r":\s*", line, maxsplit=1) for line in lines[1:])
    return Answer(int(lines[0].split()[1]), headers, body)


@contextmanager
def started(process: Process) -> Iterator[Process]:
    try:
        process.start()
        yield process
    finally:
        if process.process is not None and process.process.poll() is None:
            process.process.kill()
            process.process.wait()


@contextmanager
def running_upstream() -> Iterator[Process]:
    port = free_port()
    with started(Process([sys.executable, "-m", "tests.upstream", str(port)], port)) as process:
        yield process


@contextmanager
def running_gateway(directory: Path, text: str) -> Iterator[Process]:
    """Run a gateway with a file of this text; PORT in it becomes a free port."""
    port = free_port()
    file = directory / "gateway.toml"
    file.write_text(text.replace("PORT", str(port)))
    with started(Process([sys.executable, "-m", "paychan", "gateway", str(file)], port)) as process:
        yield process


def free_config(upstream: Process, *routes: str, gateway: str = "") -> str:
    """Return a configuration without prices. routes: the lines of each, joined by " | "."""
    text = f'[gateway]\nport = PORT\n{gateway}\n[upstreams.api]\nurl = "http://127.0.0.1:{upstream.port}"\n'
    for route in routes:
        text += "[[routes]]\nfree = true\n" + route.replace(" | ", "\n") + "\n"
    return text


def told(answer: Answer) -> dict:
    """Return what tests/upstream.py says it was asked."""
    return json.loads(answer.body)


def frame(text: bytes) -> bytes:
    """Return a client's WebSocket frame."""
    mask = b"abcd"
    return bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))


def handshake(gateway: Process, path: str, *fields: str) -> tuple[socket.socket, int]:
    """Begin a WebSocket; return its connection, and the status that came."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    lines = [f"GET {path} HTTP/1.1", "Host: h", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *fields, "", ""]
    connection.sendall("\r\n".join(lines).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1)
    return connection, int(head.split()[1])
