"""What both door clients share: where the door is, its token, and HTTP as bytes."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..client.wire import Server, parse_url
from ..core.errors import ConfigError
from ..settings.tokens import cookie_file
from .steps import Told

try:
    import orjson
except ImportError:  # it is quicker, and not everybody's
    orjson = None  # type: ignore[assignment]

SALES = "/v1/sell"
SALES_MAX = 256
"""In one request, as the door has it."""

ANSWER_SECONDS = 5.0
"""So long an answer is waited for. Then its outcome is unknown."""

SLOW_SECONDS = 30.0
"""An opening waits for the chain."""

ANSWER_BYTES_MAX = 4 << 20


def dumps(value: Any) -> bytes:
    """Return JSON."""
    return json.dumps(value, separators=(",", ":")).encode() if orjson is None else orjson.dumps(value)


def loads(body: bytes) -> Any:
    """Return what JSON says. Raises ValueError."""
    return json.loads(body) if orjson is None else orjson.loads(body)


@dataclass
class Door:
    """Where sales are asked for. socket: a path; else `server`: host, port, TLS. ca_file: who vouches for it, if not the usual
    ones. has_cookie: the token is the one that the server leaves beside its socket; it is known from the first `approach` on."""

    token: str
    socket: str = ""
    server: Server | None = None
    ca_file: str = ""
    has_cookie: bool = False

    def approach(self) -> None:
        """Get ready to connect: read the cookie, which another server may have made meanwhile. Raises OSError."""
        if self.has_cookie:
            self.token = cookie_file(Path(self.socket)).read_text("ascii", "replace").strip()

    def explain(self) -> str:
        """Say what may be wrong if nobody answers."""
        if self.server is not None:
            return f"nobody answers at {self.server.origin}: is the server running, and is this the port of its [sell] section?"
        at = os.path.abspath(self.socket)
        if not os.path.exists(at):
            return f"{at} is not there: is the server running, with a [sell] section, and is this its state directory?"
        if not os.access(at, os.R_OK | os.W_OK):
            return f"{at} is another user's: run as the server's user, or take a port and a token"
        return f"nobody answers at {at}: is the server running?"

    @property
    def secret(self) -> bytes:
        """What challenges are signed with, unless another is given: all that use one token can check each other's."""
        return _secret_of(self.token)

    def render(self, method: str, target: str, body: bytes = b"") -> bytes:
        """Return a request."""
        host = self.server.authority if self.server is not None else "localhost"
        length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {self.token}\r\n{length}\r\n"
        return head.encode("latin-1") + body


@functools.lru_cache(8)
def _secret_of(token: str) -> bytes:
    return hashlib.sha256(b"paychan challenges\n" + token.encode()).digest()


def find_door(at: str, token: str, ca_file: str = "") -> Door:
    """Return the door at a Unix socket's path, or at an http(s) URL. Without a token, the one that the server leaves beside its
    socket: it need not run yet.

    Raises ConfigError.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError("the sellers' door: the token makes no sense")
    if at.startswith(("http://", "https://")):
        try:
            server = parse_url(at)
        except ValueError as error:
            raise ConfigError(f"the sellers' door: {error}") from error
        if not token:
            raise ConfigError("the sellers' door: a token is needed: paychan token add NAME --scope charge CONFIG_DIR")
        return Door(token, server=server, ca_file=ca_file)
    return Door(token, socket=at.removeprefix("unix:"), has_cookie=not token)


def read_answers(status: int, body: bytes, count: int) -> list[Told] | None:
    """Return what a request for `count` sales, sent as a list, was answered; None: nothing that makes sense."""
    try:
        content = loads(body)
    except ValueError:
        return None
    if status != 200:
        return [Told(status, content)] * count if isinstance(content, dict) else None
    if not isinstance(content, list) or len(content) != count:
        return None
    return [Told(row["status"], row) for row in content]


def read_answer(status: int, body: bytes) -> Told | None:
    """Return another request's answer; None if it makes no sense."""
    try:
        content = loads(body) if body else {}
    except ValueError:
        return None
    return Told(status, content) if isinstance(content, dict) else None


def list_of(sales: Sequence[bytes]) -> bytes:
    """Return the body of a request for sales that are JSON already."""
    return b"[" + b",".join(sales) + b"]"
