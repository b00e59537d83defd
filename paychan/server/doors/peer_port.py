"""The port for workers of other machines, and the connections to theirs: TLS 1.3 with certificates on both sides, then a greeting.

The greeting is the same 16 bytes at both ends, `paychan-peer` and a version (u32). Then compiled code reads and writes frames.
Machines are upgraded one after the other, so two versions meet: they do not talk, as if the other were away.
"""

import asyncio
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ...rpc.connection import abort
from ...rpc.peer_tls import make_contexts, reason_of
from ...settings.models import ClusterConfig
from .ports import first_free_port

VERSION = 3
"""Of what is said between workers: the frames of `peers.py` and `forward.pyx`. Raised whenever one of them changes."""

HANDSHAKE_SECONDS_MAX = 2.0
"""For the way there and the handshake, and again for the greeting. Other machines are a millisecond away."""

ARRIVING_MAX = 256
"""Connections of one worker that have not greeted yet, or came within the last second: before the handshake anybody may be at the
other end, and one without a certificate costs 0.3 ms."""

ARRIVING_PER_HOST_MAX = 64
"""The same from one address, so that one machine that floods keeps no other out. A reload brings two for each of its workers."""

PLACE_SECONDS_MIN = 1.0

CONNECTIONS_MAX = 2048
"""Greeted ones of one worker: two for each worker of four of the largest machines."""

SILENT_MS_MAX = 3000
"""A peer whose machine or network is gone confirms nothing: after so long the kernel ends the connection, and payers are told."""

ACCEPT_PAUSE_SECONDS = 0.1
TROUBLES_MAX = 256
"""Refusals that are remembered as logged; then they are forgotten, and logged once more."""

_GREETING = struct.Struct("<12sI")
_NAME = b"paychan-peer"

log = logging.getLogger("paychan.peers")


class VersionDiffers(ConnectionError):
    """The worker at the other end says other frames than this one."""

    def __init__(self, version: int) -> None:
        super().__init__(f"it is of version {version} of what workers say to each other, and this one of {VERSION}")


class _PeerProtocol(Protocol):
    """What takes a greeted connection over: an asyncio protocol, compiled ones have no base class."""

    def connection_made(self, transport: Any) -> None: ...


_Made = TypeVar("_Made", bound=_PeerProtocol)


class Greeter(asyncio.Protocol):
    """Holds a new connection until both ends have greeted; then `make()` gives the protocol that goes on with it.

    Who connects greets first, and says nothing more before the answer. `made` gives the protocol, or OSError.
    """

    def __init__(self, make: Callable[[], Any], speaks_first: bool) -> None:
        self._make, self._speaks_first, self._received = make, speaks_first, b""
        self._transport: Any = None
        self.made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._speaks_first:
            self._greet()

    def _greet(self) -> None:
        self._transport.write(_GREETING.pack(_NAME, VERSION))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < _GREETING.size:
            return
        name, version = _GREETING.unpack_from(self._received)
        if name != _NAME or len(self._received) > _GREETING.size:
            self._fail(ConnectionError("it does not greet as a worker does"))
            return
        if not self._speaks_first:
            self._greet()
        if version != VERSION:
            self._fail(VersionDiffers(version))
        elif not self.made.done():
            protocol = self._make()
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            self.made.set_result(protocol)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error if isinstance(error, OSError) else ConnectionError("it closed the connection"))

    def _fail(self, error: OSError) -> None:
        if not self.made.done():
            self.made.set_exception(error)
            self.made.exception()  # who waits for it may have gone: then nobody asks
        self._transport.close()  # what was written, our own greeting, still goes out


class PeerPort:
    """One worker's. make(): what takes a connection of another machine's worker; count(): how many such there are."""

    def __init__(self, config: ClusterConfig, make: Callable[[], Any], count: Callable[[], int]) -> None:
        """Raises CertificateError."""
        self._config, self._make, self._count = config, make, count
        self._contexts = make_contexts(config.files)
        self._arriving: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[tuple[str, str]] = set()
        self.port = 0
        """The port listened on; 0: none yet."""

    def start(self) -> None:
        """Listen on the first free port from the configured one up. Raises OSError."""
        listener = first_free_port(self._config.listen_host, self._config.peer_port, ARRIVING_MAX)
        if listener is None:
            raise OSError(f"no port is free from {self._config.peer_port} on")
        self.port = listener.getsockname()[1]
        self._run(self._accept(listener))
        log.info("workers of other machines are listened for at %s port %d", self._config.listen_host, self.port)

    def stop(self) -> None:
        """Take no more connections, and drop those that have not greeted."""
        for task in list(self._tasks):
            task.cancel()

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- those who come ---

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    sock, (host, *_) = await loop.sock_accept(listener)
                except OSError:  # no descriptor is left: that passes
                    await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                if self._is_too_much(host):
                    sock.close()
                    self._note(host, "too many connections")
                else:
                    self._arriving[host] += 1
                    self._run(self._admit(sock, host))

    def _is_too_much(self, host: str) -> bool:
        is_flood = self._arriving[host] >= ARRIVING_PER_HOST_MAX or self._arriving.total() >= ARRIVING_MAX
        return is_flood or self._count() >= CONNECTIONS_MAX

    async def _admit(self, sock: socket.socket, host: str) -> None:
        loop, greeter = asyncio.get_running_loop(), Greeter(self._make, speaks_first=False)
        came_at = loop.time()
        transport: Any = None
        try:
            _notice_silence(sock)
            transport, _ = await loop.connect_accepted_socket(
                lambda: greeter, sock, ssl=self._contexts.server, ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX
            )
            await asyncio.wait_for(greeter.made, HANDSHAKE_SECONDS_MAX)
        except OSError as error:  # TLS's errors and a time that is over are such, too
            _drop(transport, error)
            self._note(host, str(error) if isinstance(error, ConnectionError) and str(error) else reason_of(error))
        finally:
            loop.call_at(came_at + PLACE_SECONDS_MIN, self._leave_place, host)

    def _leave_place(self, host: str) -> None:
        self._arriving[host] -= 1
        if not self._arriving[host]:
            del self._arriving[host]

    # --- those whom we ask ---

    async def connect(self, host: str, port: int, make: Callable[[], _Made]) -> _Made:
        """Return the protocol that `make` gives, on a greeted connection to a worker of another machine. Raises OSError."""
        loop, greeter = asyncio.get_running_loop(), Greeter(make, speaks_first=True)
        transport: Any = None
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                transport, _ = await loop.create_connection(
                    lambda: greeter, host, port, ssl=self._contexts.client, ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX
                )
                _notice_silence(transport.get_extra_info("socket"))
                made: _Made = await greeter.made
                return made
        except OSError as error:
            _drop(transport, error)
            raise
        except ValueError as error:  # a name that cannot be looked up
            raise ConnectionError("its host is no name") from error

    # --- the log ---

    def _note(self, host: str, why: str) -> None:
        if (host, why) in self._told:
            return
        if len(self._told) >= TROUBLES_MAX:
            self._told.clear()
        self._told.add((host, why))
        log.warning("a connection from %s was refused: %s", host, why)


def _notice_silence(sock: Any) -> None:
    """Have the kernel end a connection whose other end confirms nothing."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_MS_MAX)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)


def _drop(transport: Any, error: OSError) -> None:
    """End a connection. One of another version is closed in peace: the other end reads our version first."""
    if transport is not None and not isinstance(error, VersionDiffers):
        abort(transport)
