"""One HTTP request over a socket of its own, byte for byte: for requests that no well-behaved client library sends."""

import json
import socket
from contextlib import suppress
from dataclasses import dataclass, field

CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET,POST,PUT,DELETE",
    "access-control-allow-headers": "Origin,Accept,Content-Type",
    "access-control-expose-headers": "Location",
}
SECONDS_MAX = 15


@dataclass
class RawAnswer:
    """`status` is 0 if the server closed the connection without an answer. `headers` by lower-case name."""

    status: int = 0
    version: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> dict:
        """The body as JSON, {} if there is none or it is something else."""
        return json.loads(self.body) if "json" in self.headers.get("content-type", "") and self.body else {}

    @property
    def code(self) -> str:
        """The stable code of a problem document, empty if this is none."""
        is_problem = self.headers.get("content-type") == "application/problem+json"
        return self.json.get("code", "") if is_problem else ""

    @property
    def has_cors(self) -> bool:
        return CORS.items() <= self.headers.items()


def exchange(port: int, data: bytes, is_head: bool = False) -> RawAnswer:
    """Send `data` on a new connection and return the first answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused while still sending; there may be an answer
            connection.sendall(data)
        try:
            return _read_answer(connection, is_head)
        except ConnectionResetError:
            return RawAnswer()


def _read_answer(connection: socket.socket, is_head: bool) -> RawAnswer:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            return RawAnswer()
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = status_line.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        assert name.lower() not in headers, f"{name} is sent twice"
        headers[name.lower()] = value.strip()
    assert "transfer-encoding" not in headers
    size = 0 if is_head else int(headers.get("content-length", "0"))
    while len(body) < size:
        piece = connection.recv(65536)
        assert piece, "the body is cut short"
        body += piece
    return RawAnswer(int(status), version, headers, body)


def ask(
    port: int,
    method: str,
    target: str | bytes,
    headers: dict[str, str] | None = None,
    version: str = "HTTP/1.1",
    body: bytes = b"",
) -> RawAnswer:
    """Send one request as the recorded session did: `Content-Length: 0` on POST and PUT, no other hidden header but Host."""
    fields = {"Host": f"localhost:{port}", "Accept": "*/*"}
    if body or method in ("POST", "PUT"):
        fields["Content-Length"] = str(len(body))
    fields |= headers or {}
    raw_target = target if isinstance(target, bytes) else target.encode("latin-1")
    head = b"%s %s %s\r\n" % (method.encode(), raw_target, version.encode())
    head += b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in fields.items())
    return exchange(port, head + b"\r\n" + body, is_head=method == "HEAD")
