"""What a process remembers of purchases that were paid for, and that nobody was served for, as far as it knows."""

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Any

REMEMBERED_MAX = 100_000
"""Channels, and purchases of which something must be known."""


class Last(OrderedDict[Any, Any]):
    """A dictionary of the last `most` things."""

    def __init__(self, most: int = REMEMBERED_MAX) -> None:
        super().__init__()
        self._most = most

    def note(self, key: Any, value: Any) -> None:
        """Remember this as the newest."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)


class Owing(Enum):
    """Whether a purchase is to be served yet. MAYBE: we have asked for it and were not answered, so another process may have made
    it, and have served it."""

    NO = 0
    MAYBE = 1
    YES = 2


NONE, ANY = -1, 0
"""In place of a purchase's number."""


class Owed:
    """Purchases, by their keys, that are there, or may be, and still to be served. ticks: monotonic seconds."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        self._ticks = ticks
        self._owed = Last()  # purchase key: (until when, number under which it is ours, number under which it may be)

    def note(self, key: str, seconds: float, number: int) -> None:
        """Remember one that we have made, under this number, for so long."""
        self._owed.note(key, (self._ticks() + seconds, number, NONE))

    def doubt(self, key: str, seconds: float, number: int = ANY, ours: int = NONE) -> None:
        """Remember one that we may have made, if it is there. ours: the number under which we surely have; what was known of that
        stays known."""
        until, known, _ = self._owed.get(key, (-1.0, NONE, NONE))
        if ours == NONE and until >= self._ticks():
            ours = known
        self._owed.note(key, (self._ticks() + seconds, ours, number))

    def __contains__(self, key: str) -> bool:
        """Whether anything is remembered of a purchase, be it over."""
        return key in self._owed

    def take(self, key: str, number: int) -> Owing:
        """Forget one; return whether it was owed. number: what the purchase has now: if it is another, some other process has
        taken it over, and may have served it."""
        until, ours, doubtful = self._owed.pop(key, (-1.0, NONE, NONE))
        if until < self._ticks():
            return Owing.NO
        if number == ours:
            return Owing.YES
        return Owing.MAYBE if doubtful in (ANY, number) else Owing.NO
