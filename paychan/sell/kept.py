"""The answers that were sold, kept for who sends the same payment again (docs/PAYMENT_SCHEME.md section 2.5).

Kept in memory, by the process that served them. An answer stays for KEPT_SECONDS, and as long as nothing newer was bought on its
channel, whichever is longer; when there are too many, the oldest go first.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from threading import Lock
from typing import Any

from .facts import Answer

KEPT_SECONDS = 600.0
KEPT_SUM_MAX = 64 << 20
"""Bytes of all answers together."""

KEPT_COUNT_MAX = 200_000
OVERHEAD = 1024
"""Bytes that an answer takes besides its body, roughly."""


class Outcome(Enum):
    """What became of a purchase, if not an answer that was kept."""

    GIVEN_BACK = 1
    NOT_KEPT = 2


@dataclass(slots=True, eq=False)
class Entry:
    """One purchase that is under way. future: for who waits for its outcome, if anybody does."""

    outpoint: bytes
    future: "Future[Answer | Outcome] | None" = None


Flat = tuple[Any, ...]
"""An answer that is kept: outpoint, status, body, then names and values of its headers in turn. Such a tuple holds nothing that
could hold it, so the garbage collector, which would visit a hundred thousand answers again and again, forgets it at first sight."""


def _answer(flat: Flat) -> Answer:
    texts = iter(flat[3:])
    return Answer(flat[1], tuple(zip(texts, texts, strict=True)), flat[2])


def _size(flat: Flat) -> int:
    return OVERHEAD + len(flat[2])


class Kept:
    """All that one process keeps; threads may share it. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, Entry | Flat] = OrderedDict()
        self._newest: dict[bytes, str] = {}
        self._superseded: deque[tuple[float, str]] = deque()
        self._sum = 0
        self._lock = Lock()

    def claim(self, key: str, outpoint: bytes) -> bool:
        """Return whether a purchase is new: then whoever asked must see to it, and say by `settle` what became of it."""
        with self._lock:
            if key in self._entries:
                return False
            self._entries[key] = Entry(outpoint)
            return True

    def holds(self, key: str) -> bool:
        """Return whether there is such a purchase."""
        return key in self._entries

    def find(self, key: str) -> "Answer | Outcome | Future[Answer | Outcome] | None":
        """Return what became of a purchase, or will: None, if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if not isinstance(entry, Entry):
                return _answer(entry)
            if entry.future is None:
                entry.future = Future()
            return entry.future

    def settle(self, key: str, outcome: Answer | Outcome) -> None:
        """Say what became of a purchase, and let those go on that wait for it."""
        if isinstance(outcome, Answer):
            self.keep(key, outcome.status, outcome.body, tuple(chain.from_iterable(outcome.headers)))
            return
        with self._lock:
            entry = self._entries.get(key)
            if not isinstance(entry, Entry):
                return
            del self._entries[key]
            self._sweep()
        if entry.future is not None:
            entry.future.set_result(outcome)

    def keep(self, key: str, status: int, body: bytes, texts: tuple[str, ...]) -> None:
        """Keep a purchase's answer, and let those have it that wait for it. texts: names and values of its headers in turn."""
        with self._lock:
            entry = self._entries.get(key)
            if type(entry) is not Entry:
                return
            kept = self._entries[key] = (entry.outpoint, status, body, *texts)
            self._sum += OVERHEAD + len(body)
            self._supersede(key, entry.outpoint)
            self._sweep()
        if entry.future is not None:
            entry.future.set_result(_answer(kept))

    def _supersede(self, key: str, outpoint: bytes) -> None:
        before = self._newest.get(outpoint)
        self._newest[outpoint] = key
        if before is not None and before != key:
            self._superseded.append((self._clock(), before))

    def _drop(self, key: str) -> None:
        """Forget an answer."""
        kept = self._entries.get(key)
        if kept is None or isinstance(kept, Entry):
            return
        del self._entries[key]
        self._sum -= _size(kept)
        if self._newest.get(kept[0]) == key:
            del self._newest[kept[0]]

    def _sweep(self) -> None:
        now = self._clock()
        while self._superseded and now - self._superseded[0][0] > KEPT_SECONDS:
            self._drop(self._superseded.popleft()[1])
        while self._sum > KEPT_SUM_MAX or len(self._entries) > KEPT_COUNT_MAX:
            oldest = next((key for key, entry in self._entries.items() if not isinstance(entry, Entry)), None)
            if oldest is None:
                return
            self._drop(oldest)
