"""What a process remembers of purchases that are paid for, or may be, and that it has served nobody for."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..core.sales import attempt_of

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


OWED_SECONDS = 3600.0
"""So long it is remembered that nobody was served for a price that was, or may have been, charged."""


class Owed:
    """Our attempts to have something sold for which nobody was served: it is not known whether they took effect, or what they made
    could not be given back. A purchase whose number has such an attempt is owed: it was made by us, and by nobody taken over since.
    Who serves it takes it over before, in another attempt, so it is not owed again. ticks: monotonic seconds."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        self._ticks = ticks
        self._until = Last()  # by purchase key and attempt

    def note(self, key: str, attempt: int) -> None:
        """Remember that nobody was served for what this attempt at a purchase has made, or will have when it arrives."""
        self._until.note((key, attempt), self._ticks() + OWED_SECONDS)

    def owes(self, key: str, number: int) -> bool:
        """Return whether a purchase with this number is one that we have made, and not served."""
        until: float = self._until.get((key, attempt_of(number)), -1.0)
        return until >= self._ticks()
