"""How granian's main process knows that its workers live and serve: each says so, from its event loop, through a pair of sockets.

The main process has nothing else to do than to wait, so that it lives proves nothing. It feeds its service manager's watchdog when
it has heard all workers of late, and is ready when all of them are.
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable

from ..notify import Manager

BEAT_SECONDS = 1.0
"""Between two words of a worker."""

LATE_SECONDS = 5.0
"""A worker that was not heard for so long may be stuck, or has ended."""

_WORD = struct.Struct("<I?")


class Lives:
    """Made in the main process before it forks; its workers inherit the other end of the pair. `manager`: who is told."""

    def __init__(self, manager: Manager, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._manager, self._workers, self._clock = manager, workers, clock
        self._heard: dict[int, tuple[float, bool]] = {}
        self._retired: frozenset[int] = frozenset()
        self._is_waited_for = True
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def start(self) -> None:
        """Begin to listen, in a thread: it only ever acts when a worker speaks."""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while word := self._ours.recv(_WORD.size):
            self.hear(*_WORD.unpack(word))

    def say(self, is_ready: bool) -> None:
        """Say in a worker that its event loop runs, and whether it would take payments. Who does not read loses it."""
        try:
            self._theirs.send(_WORD.pack(os.getpid(), is_ready), socket.MSG_DONTWAIT)
        except OSError:
            return

    def hear(self, pid: int, is_ready: bool) -> None:
        """Take a worker's word."""
        now = self._clock()
        self._heard[pid] = now, is_ready
        self._heard = {worker: word for worker, word in self._heard.items() if now - word[0] < LATE_SECONDS}
        if len(self._heard) >= self._workers:
            self._manager.alive()
        if self._is_waited_for and self._count_ready(self._heard.keys() - self._retired) >= self._workers:
            self._is_waited_for = False
            self._manager.ready(f"{self._workers} workers take payments")

    def _count_ready(self, pids: Iterable[int]) -> int:
        return sum(self._heard[pid][1] for pid in pids)

    def reload(self) -> None:
        """Say that all workers that there are will be replaced; their successors will be ready."""
        self._retired, self._is_waited_for = frozenset(self._heard), True
        self._manager.reloading()


_here: list[Lives] = []


def begin(lives: Lives) -> None:
    """Have the workers of this process, which are forked from it, speak to `lives`."""
    _here[:] = [lives]


def who_waits() -> Lives | None:
    """Return who waits to hear of this worker, if anybody does."""
    return _here[0] if _here else None
