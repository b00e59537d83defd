"""The simulated network: connections between processes that carry bytes, late, in pieces, or not at all.

Bytes of one connection arrive in order, and what was sent before an end arrives before it, as on sockets. A pair of hosts can be
held apart (what is sent waits), and connections can be cut (what is under way is lost).
"""

import asyncio
import os
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from .kernel import Kernel, Process

_PEER = struct.pack("<iii", 1, os.geteuid(), 0)


SILENT_SECONDS_MAX = 3.5
"""So long bytes may be unconfirmed on a connection that asks its kernel to end it then (`End.is_watched`)."""


class Route:
    """What lies between two hosts. `delay`: seconds, in the mean. `holds`: how often it was held."""

    __slots__ = ("delay", "is_held", "waiting", "holds")

    def __init__(self, delay: float) -> None:
        self.delay, self.is_held, self.holds = delay, False, 0
        self.waiting: list[tuple[End, bytes | None]] = []


class Listener:
    """A bound address; also what `create_unix_server` returns. on_close(): nobody listens there any more."""

    def __init__(self, path: str, on_close: Callable[[], None] = lambda: None) -> None:
        self.path, self._on_close = path, on_close
        self.came: deque[Arriving] = deque()
        self.waiter: asyncio.Future[None] | None = None

    def close(self) -> None:
        self._on_close()

    async def wait_closed(self) -> None:
        """It is closed at once."""

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def getsockname(self) -> tuple[str, int]:
        return ("sim", int(self.path.rpartition(":")[2]))


class Arriving(asyncio.Protocol):
    """A connection that was accepted, and that nobody has taken yet."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.end: End = None  # type: ignore[assignment]

    def connection_made(self, transport: Any) -> None:
        self.end = transport
        transport.pause_reading()
        self._listener.came.append(self)
        if self._listener.waiter is not None and not self._listener.waiter.done():
            self._listener.waiter.set_result(None)

    def give_to(self, protocol: Any) -> tuple["End", Any]:
        self.end.set_protocol(protocol)
        protocol.connection_made(self.end)
        self.end.resume_reading()
        return self.end, protocol

    def close(self) -> None:
        self.end.abort()


class _Socket:
    """What the kernel says of the other end of a Unix socket."""

    family = socket.AF_UNIX

    def __init__(self, end: "End") -> None:
        self.end = end

    def getsockopt(self, *_: int) -> bytes:
        return _PEER


class End:
    """One end of a connection: an asyncio transport."""

    __slots__ = (
        "network", "process", "protocol", "peer", "route", "is_shut", "is_cut", "is_watched", "arrives", "number",
        "_inbox", "_is_scheduled", "_is_paused", "_at_eof",
    )  # fmt: skip

    def __init__(self, network: "Network", process: Process, route: Route, number: int) -> None:
        self.network, self.process, self.route, self.number = network, process, route, number
        self.protocol: Any = None
        self.peer: End = None  # type: ignore[assignment]
        self.is_watched = self.is_shut = self.is_cut = self._is_scheduled = self._is_paused = self._at_eof = False
        self._inbox = bytearray()
        self.arrives = 0.0
        process.ends[self] = None

    # --- asyncio.Transport ---

    def write(self, data: bytes) -> None:
        process = self.process
        if self.is_shut or not process.is_alive:
            return
        process.writes += 1
        if process.writes != process.dies_at_write:
            self._write(bytes(data))
            return
        if process.dies_how != "before":
            self._write(bytes(data) if process.dies_how == "after" else bytes(data[: len(data) // 2]))
        process.die()

    def _write(self, data: bytes) -> None:
        if self.process.tap is not None:
            self.process.tap(self, data, True)
        self.network.send(self.peer, data)

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return self.is_shut or not self.process.is_alive

    def abort(self) -> None:
        if self.is_shut or not self.process.is_alive:
            return
        self.is_shut = True
        self.process.ends.pop(self, None)
        self.process.call_soon(self.protocol.connection_lost, None)
        self.network.send(self.peer, None)

    close = abort

    def get_write_buffer_size(self) -> int:
        return sum(len(data) for end, data in self.route.waiting if end is self.peer and data) if self.route.is_held else 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _Socket(self) if name == "socket" else default

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._schedule()

    def is_reading(self) -> bool:
        return not self._is_paused

    # --- the network's side ---

    def arrive(self, data: bytes | None) -> None:
        """Bytes have come, or (None) the other end's close."""
        if self.is_shut or not self.process.is_alive:
            return
        if data is None:
            self._at_eof = True
        elif not self.is_cut:
            self._inbox += data
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled and not self._is_paused and self.protocol is not None:
            self._is_scheduled = True
            self.process.call_soon(self._receive)

    def _receive(self) -> None:
        self._is_scheduled = False
        if self.is_shut or self._is_paused:
            return
        if self._inbox:
            data, self._inbox = bytes(self._inbox), bytearray()
            if self.process.tap is not None:
                self.process.tap(self, data, False)
            self.network.kernel.note(b"%d %d" % (self.number, len(data)))
            self.protocol.data_received(data)
        if self._at_eof and not self.is_shut and not self._is_paused and not self._inbox and not self.protocol.eof_received():
            self._shut()

    def _shut(self) -> None:
        self.is_shut = True
        self.process.ends.pop(self, None)
        self.network.send(self.peer, None)
        self.protocol.connection_lost(None)

    def open(self, protocol: Any) -> None:
        """Run by the process that the end belongs to."""
        self.protocol = protocol
        protocol.connection_made(self)
        if self._inbox or self._at_eof:
            self._schedule()

    def vanish(self) -> None:
        """The process has ended; the kernel closes what it had open."""
        self.is_shut = True
        self.network.send(self.peer, None)

    def cut(self) -> None:
        """The connection breaks: what is under way is lost, and both ends notice."""
        for end in (self, self.peer):
            if not end.is_shut and end.process.is_alive:
                end._inbox.clear()
                end.is_cut = True
                end.network.kernel.at(end.network.kernel.now + end.network.latency(end.route), end.arrive, None)


class Network:
    """All connections. `chance` draws the delays; `delay`: seconds, in the mean; `tear`: how often a piece comes in two."""

    def __init__(self, kernel: Kernel, chance: random.Random, delay: float, tear: float) -> None:
        self.kernel, self._chance, self._delay, self._tear = kernel, chance, delay, tear
        self._listeners: dict[str, tuple[Process, Callable[[], Any]]] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._ends: list[End] = []
        self._tokens = 0

    def token(self) -> str:
        """Return a name that was not used before."""
        self._tokens += 1
        return f"{self._tokens:x}"

    def route(self, one: str, other: str) -> Route:
        key = (one, other) if one < other else (other, one)
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(self._delay)
        return route

    def latency(self, route: Route) -> float:
        draw = self._chance.random()
        return route.delay * (0.3 + draw if draw < 0.97 else 30 * draw)

    def listen(self, process: Process, make: Callable[[], Any], path: str) -> Listener:
        self._listeners[path] = here = process, make

        def close() -> None:
            if self._listeners.get(path) is here:
                del self._listeners[path]

        return Listener(path, close)

    async def accept(self, process: Process, listener: Listener) -> tuple[Arriving, tuple[str, int]]:
        """Return the next connection to an address that a process has bound."""
        if self._listeners.get(listener.path, (None,))[0] is not process:
            self.listen(process, lambda: Arriving(listener), listener.path)
        while not listener.came:
            listener.waiter = process.create_future()
            await listener.waiter
        arriving = listener.came.popleft()
        return arriving, (arriving.end.peer.process.name, 0)

    async def connect(self, process: Process, make: Callable[[], Any], path: str) -> tuple[End, Any]:
        """Connect a process to a listening one. Raises OSError."""
        future = process.create_future()
        self.kernel.at(process.time() + self._delay, self._meet, process, make, path, future)
        return await future

    def _meet(self, process: Process, make: Callable[[], Any], path: str, future: "asyncio.Future[Any]") -> None:
        server, accept = self._listeners.get(path, (None, None))
        if not process.is_alive or future.done():
            return
        if server is None or accept is None or not server.is_alive:
            future.set_exception(ConnectionRefusedError("nobody listens"))
            return
        route = self.route(process.name, server.name)
        if route.is_held:
            self.kernel.at(self.kernel.now + 0.5, self._fail, process, future)
            return
        number = len(self._ends)
        near, far = End(self, process, route, number), End(self, server, route, number + 1)
        near.peer, far.peer = far, near
        self._ends += (near, far)

        def connected() -> None:
            if not future.done() and not near.is_shut:
                protocol = make()
                near.open(protocol)
                future.set_result((near, protocol))
            else:
                near.is_shut = True
                self.send(far, None)

        process.call_soon(connected)
        server.call_soon(lambda: far.open(accept()))

    def _fail(self, process: Process, future: "asyncio.Future[Any]") -> None:
        if process.is_alive and not future.done():
            future.set_exception(TimeoutError("no way there"))

    def send(self, end: End, data: bytes | None) -> None:
        """Carry bytes, or an end, to an end of a connection."""
        route = end.route
        if route.is_held:
            route.waiting.append((end, data))
            return
        if data is not None and len(data) > 1 and self._tear and self._chance.random() < self._tear:
            at = self._chance.randrange(1, len(data))
            self._carry(end, data[:at])
            data = data[at:]
        self._carry(end, data)

    def _carry(self, end: End, data: bytes | None) -> None:
        if end.is_cut:
            return
        arrives = end.peer.process.time() + self.latency(end.route)
        if arrives <= end.arrives:
            arrives = end.arrives + 1e-7
        end.arrives = arrives
        self.kernel.at(arrives, end.arrive, data)

    # --- what happens to the network ---

    def hold(self, one: str, other: str) -> None:
        """Let nothing through between two hosts."""
        route = self.route(one, other)
        route.is_held = True
        route.holds += 1
        self.kernel.at(self.kernel.now + SILENT_SECONDS_MAX, self._end_silent, route, route.holds)

    def _end_silent(self, route: Route, holds: int) -> None:
        """Have the kernels end what was silent for too long, where they were asked to."""
        if route.is_held and route.holds == holds:
            for end in self._ends:
                if end.route is route and end.is_watched:
                    end.cut()

    def release(self, one: str, other: str) -> None:
        """Let what waits, and what comes, through again."""
        route = self.route(one, other)
        route.is_held = False
        waiting, route.waiting = route.waiting, []
        for end, data in waiting:
            self._carry(end, data)

    def cut(self, one: str, other: str) -> None:
        """Break all connections between two hosts."""
        route = self.route(one, other)
        route.waiting.clear()
        for end in self._ends[::2]:
            if end.route is route:
                end.cut()

    def delay(self, one: str, other: str, factor: float) -> None:
        self.route(one, other).delay = self._delay * factor
