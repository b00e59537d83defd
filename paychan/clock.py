"""Time, as far as money may depend on it: never earlier than what is certain, and never much later than the chain allows."""

import time
from collections.abc import Callable

AHEAD_SECONDS_MIN = 60
"""From here on a time that is ahead of the wall clock is worth telling an operator; less is what time servers mend every day."""


def wall_clock(start: int | None = None) -> Callable[[], int]:
    """Return a function that gives unix seconds. With `start` (debug mode), it begins there now and advances with real time."""
    if start is None:
        return lambda: int(time.time())
    origin = time.monotonic()
    return lambda: start + int(time.monotonic() - origin)


class Clock:
    """The wall clock, held against the chain in both directions. Unix seconds everywhere.

    One that is set back must not reopen channels that are near their expiry: lock times are held against the chain's median time
    past, whatever our wall clock says, and the highest time of earlier runs is kept. One that is far ahead must not settle anything
    either: it is believed up to `beyond_max` seconds after the best block, plus what has passed since that block was seen here.

    So there are two readings. `now` is the later one, for what a late time refuses: payments and opens. `sure` is for what a late
    time does: settling, the ladder of fees, what is kept for the next start.
    """

    def __init__(
        self,
        wall: Callable[[], int],
        kept: int = 0,
        beyond_max: int = 0,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """kept: the highest sure time of earlier runs; it is not believed further than the wall clock is. elapsed: seconds of a
        clock that nobody sets."""
        self._wall, self._kept, self._beyond_max, self._elapsed = wall, kept, beyond_max, elapsed
        self._sure = 0
        self._block_began: float | None = None

    def observe(self, block_time: int, median_time_past: int) -> None:
        """Take note of the best block: its median time past has certainly been reached, and it was found about its own time.

        Called for each new best block. A node that falls behind later, or tells an older one, takes nothing back."""
        began = block_time - self._elapsed()
        self._block_began = began if self._block_began is None else max(self._block_began, began)
        self._sure = max(self._sure, median_time_past)

    def hear(self, seconds: int) -> None:
        """Take note of a time that another machine was sure of: it is believed as far as one kept from an earlier run."""
        self._kept = max(self._kept, seconds)

    def now(self) -> int:
        """Return the latest of: wall clock, kept time, and what is sure."""
        return max(self._wall(), self._kept, self.sure())

    def sure(self) -> int:
        """Return the time that has been reached whatever the wall clock says; never less than before. 0 before a block was seen.

        While the wall clock is in doubt, it is the best block's time and what has passed since."""
        if self._block_began is not None:
            by_block = int(self._block_began + self._elapsed())
            told = max(self._wall(), self._kept)
            self._sure = max(self._sure, told if told - by_block <= self._beyond_max else by_block)
        return self._sure

    def doubt(self) -> str:
        """Return why the time is not to be believed, empty if it is: it is far beyond the best block."""
        if self._block_began is None:
            return ""
        wall, by_block = self._wall(), int(self._block_began + self._elapsed())
        if wall - by_block > self._beyond_max:
            return f"the wall clock is {wall - by_block} seconds beyond the best block: one of the two is wrong"
        if self._kept - by_block > self._beyond_max:
            return f"the time kept from an earlier run is {self._kept - by_block} seconds beyond the best block"
        return ""

    def kept_ahead(self) -> int:
        """Return by how many seconds the kept time is ahead of the wall clock, 0 if by less than AHEAD_SECONDS_MIN."""
        ahead = self._kept - self._wall()
        return ahead if ahead >= AHEAD_SECONDS_MIN else 0
