"""A wire between a process and what it connects to, which can be cut: then nothing passes, and nobody is told."""

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType


class Wire:
    """Passes on what comes to `port` of this machine to another port of it, both ways. Use it as a context."""

    def __init__(self, target: int) -> None:
        self._target, self._is_cut, self._is_over = target, False, False
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
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
        far = socket.create_connection(("127.0.0.1", self._target))
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
