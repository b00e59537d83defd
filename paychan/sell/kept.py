"""The answers that were sold, kept for who sends the same payment again (docs/PAYMENT_SCHEME.md section 2.5).

Kept in memory, by the process that served them. An answer stays for KEPT_SECONDS, and as long as nothing newer was bought on its
channel, whichever is longer; when there are too many, the oldest go first.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum

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


@dataclass(slots=True)
class Entry:
    """One purchase. `future`: done with an Answer or an Outcome once it was served, or was not."""

    outpoint: bytes
    future: "Future[Answer | Outcome]" = field(default_factory=Future)
    size: int = OVERHEAD


class Kept:
    """All that one process keeps. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._newest: dict[bytes, str] = {}
        self._superseded: deque[tuple[float, str]] = deque()
        self._sum = 0

    def claim(self, key: str, outpoint: bytes) -> tuple[Entry, bool]:
        """Return the entry of a purchase, and whether it is new: then whoever asked must see to it."""
        entry = Entry(outpoint)
        found = self._entries.setdefault(key, entry)
        return found, found is entry

    def find(self, key: str) -> Entry | None:
        """Return the entry of a purchase, if there is one."""
        return self._entries.get(key)

    def settle(self, key: str, outcome: Answer | Outcome) -> None:
        """Say what became of a purchase, and let those go on that wait for it."""
        entry = self._entries.get(key)
        if entry is None or entry.future.done():
            return
        if not isinstance(outcome, Answer):
            self._drop(key)
        else:
            entry.size = OVERHEAD + len(outcome.body)
            self._sum += entry.size
            self._supersede(key, entry.outpoint)
        entry.future.set_result(outcome)
        self._sweep()

    def _supersede(self, key: str, outpoint: bytes) -> None:
        before = self._newest.get(outpoint)
        self._newest[outpoint] = key
        if before is not None and before != key:
            self._superseded.append((self._clock(), before))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        if entry.future.done():
            self._sum -= entry.size
        if self._newest.get(entry.outpoint) == key:
            del self._newest[entry.outpoint]

    def _sweep(self) -> None:
        now = self._clock()
        while self._superseded and now - self._superseded[0][0] > KEPT_SECONDS:
            self._drop(self._superseded.popleft()[1])
        while self._sum > KEPT_SUM_MAX or len(self._entries) > KEPT_COUNT_MAX:
            oldest = next((key for key, entry in self._entries.items() if entry.future.done()), None)
            if oldest is None:
                return
            self._drop(oldest)
