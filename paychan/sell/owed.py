"""What a process remembers of purchases that were paid for, and that nobody was served for, as far as it knows."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

REMEMBERED_MAX = 100_000
"""Channels, and purchases of which something must be known."""


class Last(OrderedDict[Any, Any]):
    """A dictionary of the last REMEMBERED_MAX things."""

    def note(self, key: Any, value: Any) -> None:
        """Remember this as the newest."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > REMEMBERED_MAX:
            self.popitem(last=False)


class Owed:
    """Purchases, by their keys, that are there, or may be, and still to be served. ticks: monotonic seconds."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        self._ticks = ticks
        self._owed = Last()  # purchase key: (until when, number)

    def note(self, key: str, seconds: float, number: int = 0) -> None:
        """Remember one, for so long. number: the purchase's; 0: it is not known whether there is one."""
        self._owed.note(key, (self._ticks() + seconds, number))

    def take(self, key: str, number: int) -> bool:
        """Forget one; return whether it was owed. number: what the purchase has now: if it is another, some other process has
        taken it over, and may have served it."""
        until, known = self._owed.pop(key, (-1.0, 0))
        return bool(until >= self._ticks() and known in (0, number))
