"""The processes' clock: the wall clock, or in debug mode one that starts at a chosen time so that sessions can be replayed."""

import time
from collections.abc import Callable


def make_clock(start: int | None = None) -> Callable[[], int]:
    """Return a function that gives unix seconds. With `start`, it begins there now and advances with real time."""
    if start is None:
        return lambda: int(time.time())
    origin = time.monotonic()
    return lambda: start + int(time.monotonic() - origin)
