"""Wires between processes and what they connect to, which can be cut: then nothing passes, and nobody is told."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType

from tests import postgres

ANYWHERE = ("127.0.0.1", 0)


class Wire:
    """Passes on what comes to `port` to another port of this machine, both ways. Use it as a context.

    target: a port of 127.0.0.1, or (host, port). near: where it listens; port 0: a free one.
    """

    def __init__(self, target: int | tuple[str, int], near: tuple[str, int] = ANYWHERE) -> None:
        self._target = ("127.0.0.1", target) if isinstance(target, int) else target
        self._is_cut, self._is_over = False, False
        self._lock = threading.Lock()
        self._listener = socket.create_server(near)
        self.port: int = self._listener.getsockname()[1]
        self._ends: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    def __enter__(self) -> "Wire":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over = True
        self._thread.join(10)
        for end in (self._listener, *self._ends):
            end.close()

    def cut(self) -> None:
        """From now on nothing passes; connections are not closed, and new ones not answered."""
        with self._lock:
            self._is_cut = True

    def mend(self) -> None:
        """What was sent meanwhile arrives now."""
        self._is_cut = False

    def _pass_on(self) -> None:
        while not self._is_over:
            waiting = [] if self._is_cut else [self._listener, *self._ends]
            readable = select.select(waiting, [], [], 0.02)[0]
            with self._lock:
                for ready in readable if not self._is_cut else ():
                    if ready is self._listener:
                        self._join(ready.accept()[0])
                    elif ready in self._ends:
                        self._carry(ready)

    def _join(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target)
        except OSError:  # nobody is there
            near.close()
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ends |= {near: far, far: near}

    def _carry(self, end: socket.socket) -> None:
        other, data = self._ends[end], b""
        with suppress(OSError):
            data = end.recv(1 << 16)
            other.sendall(data)
        if not data:
            for gone in (end, other):
                del self._ends[gone]
                gone.close()


class Links:
    """All wires of a machine in a cluster: by which its store and its signer reach each database node, and others its workers."""

    def __init__(self, stack: ExitStack, cluster: postgres.Cluster, workers: Wire) -> None:
        self.workers = stack.enter_context(workers)
        self.store, self.signer = ({node: stack.enter_context(Wire(node.port)) for node in cluster.nodes} for _ in range(2))


def hosts(wires: dict[postgres.Node, Wire]) -> list[tuple[str, int]]:
    """Return the nodes' addresses at this end."""
    return [("127.0.0.1", wire.port) for wire in wires.values()]


@contextmanager
def cut(*wires: Wire) -> Iterator[None]:
    """Cut them all, and mend them in the end."""
    for wire in wires:
        wire.cut()
    try:
        yield
    finally:
        for wire in wires:
            wire.mend()
