"""Frames over asyncio: a server's end and a client's end of one connection. What the frames mean is not known here."""

import asyncio
import errno
import itertools
import os
import re
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .._fast.frame import ERROR, REPLY, FrameError, FrameReader, encode_frame

UNIX_PATH_MAX = 100
"""Bytes; the kernel takes 107. Longer paths are reached through a handle of their directory."""

CALLS_MAX = 65_536
"""Requests that one connection waits for. Who calls bounds them far below; what was given up stays here until it is answered."""

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)


class ConnectionGone(ConnectionError):
    """The other process is away. Whether a request in flight took effect is unknown."""


class RemoteRefusal(Exception):
    """The other process answered with an ERROR frame; `payload` says why."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload[:200].decode(errors="replace"))
        self.payload = payload


class TooLarge(RemoteRefusal):
    """A request that the other process would close the connection for, and with it all that is in flight: it was not sent."""

    def __init__(self) -> None:
        super().__init__(b"it is larger than the other process takes")


@dataclass(frozen=True)
class Address:
    """Where a process listens: a Unix socket's path, or a host and port on loopback. user: whose process listens there, None: one
    of our own user. is_shared: others of the socket's group may connect."""

    path: str = ""
    host: str = ""
    port: int = 0
    user: int | None = field(default=None, compare=False)
    is_shared: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str, state_dir: Path) -> "Address":
        """Return the address in `unix:PATH` (relative to the state directory) or `tcp:127.0.0.1:PORT`. Raises ValueError."""
        scheme, _, rest = text.partition(":")
        if scheme == "unix" and rest:
            return cls(path=str(state_dir.absolute() / rest))
        host, _, port = rest.rpartition(":")
        if scheme == "tcp" and host in ("127.0.0.1", "[::1]") and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536:
            return cls(host=host.strip("[]"), port=int(port))
        raise ValueError("must be unix:PATH or tcp:127.0.0.1:PORT")

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"tcp:{self.host}:{self.port}"


@contextmanager
def reachable(path: str) -> Iterator[str]:
    """Give a spelling of a Unix socket's path that fits a socket address, for as long as it is connected to. Raises OSError."""
    spelling, handle = reachable_path(path)
    try:
        yield spelling
    finally:
        if handle >= 0:
            os.close(handle)


def reachable_path(path: str) -> tuple[str, int]:
    """Return a spelling of `path` that fits a socket address, and the directory handle that it needs (-1: none)."""
    if len(os.fsencode(path)) <= UNIX_PATH_MAX:
        return path, -1
    handle = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    return f"/proc/self/fd/{handle}/{os.path.basename(path)}", handle


class FrameConnection(asyncio.Protocol):
    """One connection, either end. `on_frame(connection, kind, request_id, payload)` is called for each frame received.

    payload_max: bytes, the same at both ends. What comes with more ends the connection; nothing with more is sent.
    """

    def __init__(
        self,
        payload_max: int,
        on_frame: Callable[["FrameConnection", int, int, bytes], None],
        on_close: Callable[["FrameConnection"], None],
        on_open: Callable[["FrameConnection"], None] | None = None,
    ) -> None:
        self._reader, self._payload_max = FrameReader(payload_max), payload_max
        self._on_frame, self._on_close, self._on_open = on_frame, on_close, on_open
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._ids = itertools.count(1)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's: what asyncio gives every Protocol
        if self._on_open:
            self._on_open(self)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
        except FrameError:
            self.close()
            return
        for kind, request_id, payload in frames:
            call = self._calls.pop(request_id, None) if kind >= REPLY else None
            if call is None:
                if kind < REPLY:
                    self._on_frame(self, kind, request_id, payload)
            elif call.done():
                continue  # given up by its caller
            elif kind == ERROR:
                call.set_exception(RemoteRefusal(payload))
            else:
                call.set_result(payload)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.done():
                call.set_exception(ConnectionGone())
        self._on_close(self)

    # ours

    def _open_transport(self) -> asyncio.Transport | None:
        return None if self._transport is None or self._transport.is_closing() else self._transport

    @property
    def is_open(self) -> bool:
        return self._open_transport() is not None

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the other end has not taken yet: a measure for refusing to queue more."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def call(self, kind: int, payload: bytes = b"") -> "asyncio.Future[bytes]":
        """Send a request; the future gives the answer's payload, ConnectionGone or RemoteRefusal (TooLarge: it was not sent)."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if len(payload) > self._payload_max:
            future.set_exception(TooLarge())
            return future
        if len(self._calls) >= CALLS_MAX:
            self._calls = {number: call for number, call in self._calls.items() if not call.done()}
        transport = self._open_transport()
        if transport is None or len(self._calls) >= CALLS_MAX:
            future.set_exception(ConnectionGone())
            return future
        request_id = next(self._ids) & 0xFFFFFFFF or next(self._ids) & 0xFFFFFFFF
        self._calls[request_id] = future
        transport.write(encode_frame(kind, request_id, payload))
        return future

    def send(self, kind: int, request_id: int, payload: bytes = b"") -> None:
        """Send an answer or a message that nobody answers; nothing happens if the connection is gone. Of an answer that is too
        large only that is told."""
        transport = self._open_transport()
        if len(payload) > self._payload_max:
            kind, payload = ERROR, b"the answer is too large"
        if transport is not None:
            transport.write(encode_frame(kind, request_id, payload))

    def reply(self, kind: int, request_id: int, payload: bytes = b"") -> None:
        """Answer a request of type `kind`."""
        self.send(kind + REPLY, request_id, payload)

    def refuse(self, request_id: int, payload: bytes) -> None:
        """Answer a request with an ERROR frame."""
        self.send(ERROR, request_id, payload)

    def close(self) -> None:
        """Close at once, dropping what was not sent."""
        if self._transport is not None:
            abort(self._transport)

    def peer_uid(self) -> int | None:
        """Return the user id of the process at the other end of a Unix socket, or None on TCP."""
        return uid_at_the_other_end(self._transport) if self._transport else None


def abort(transport: Any) -> None:
    """End a connection at once, or none: asyncio's over TLS fails at that, up to Python 3.11.3, once the connection is lost."""
    with suppress(AttributeError):
        transport.abort()


def uid_at_the_other_end(transport: asyncio.BaseTransport) -> int | None:
    """Return the user id of who listens at a Unix socket, or has connected to it; None on TCP."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(raw[4:8], "little")


async def connect(address: Address, make: Callable[[], _Protocol]) -> _Protocol:
    """Connect to a process. Raises OSError; PermissionError if another user than root or the expected one listens at a Unix socket:
    what it says would be believed."""
    loop = asyncio.get_running_loop()
    if address.path:
        with reachable(address.path) as path:
            transport, connection = await loop.create_unix_connection(make, path)
        uid = uid_at_the_other_end(transport)
        if uid not in (None, 0, os.geteuid() if address.user is None else address.user):
            transport.abort()
            raise PermissionError(errno.EACCES, f"the socket belongs to user {uid}", address.path)
    else:
        _, connection = await loop.create_connection(make, address.host, address.port)
    return connection


_KEEPS_THE_SOCKET: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""From Python 3.13 on a server removes its socket's path in the end. `bind` has done that for the next one, under the lock; and the
path that the kernel knows may be one through a descriptor that is closed by then."""


def bind(address: Address) -> socket.socket:
    """Return a socket bound to an address; a Unix socket is only for its owner (mode 0600), or its group too (0660) if it is
    shared, and a dead process' is replaced.

    The caller must hold the lock that says that no other process uses this path. Raises OSError.
    """
    if not address.path:
        sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        return sock
    directory = os.path.dirname(address.path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if os.path.exists(address.path) and stat.S_ISSOCK(os.stat(address.path).st_mode):
        os.unlink(address.path)
    path, handle = reachable_path(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o117 if address.is_shared else 0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(old_mask)
        if handle >= 0:
            os.close(handle)
    return sock


async def listen(
    address: Address, make: Callable[[], asyncio.BaseProtocol], sock: socket.socket | None = None
) -> asyncio.AbstractServer:
    """Listen at an address, with the socket that `bind` returned for it earlier, if one is given. Raises OSError."""
    loop = asyncio.get_running_loop()
    sock = bind(address) if sock is None else sock
    if address.path:
        return await loop.create_unix_server(make, sock=sock, **_KEEPS_THE_SOCKET)
    return await loop.create_server(make, sock=sock)
