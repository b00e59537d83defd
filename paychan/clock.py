"""Time, as far as money may depend on it: never earlier than anything that was seen before."""

import time
from collections.abc import Callable


def wall_clock(start: int | None = None) -> Callable[[], int]:
    """Return a function that gives unix seconds. With `start` (debug mode), it begins there now and advances with real time."""
    if start is None:
        return lambda: int(time.time())
    origin = time.monotonic()
    return lambda: start + int(time.monotonic() - origin)


class Clock:
    """The latest of: the wall clock, the highest time seen so far, and the chain's median time past.

    A wall clock that is set back must not reopen channels that are near their expiry; lock times are held against the chain's
    median time past, whatever our wall clock says.
    """

    def __init__(self, wall: Callable[[], int], highest: int = 0) -> None:
        self._wall, self._highest = wall, highest

    def now(self) -> int:
        """Return unix seconds; never less than before."""
        self._highest = max(self._highest, self._wall())
        return self._highest

    def observe(self, seconds: int) -> None:
        """Take note of a time that has certainly been reached, as the chain's median time past."""
        self._highest = max(self._highest, seconds)
