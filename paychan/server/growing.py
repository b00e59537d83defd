"""Letting a group grow: it costs the same handful of microseconds, here and in the store, however many share it."""

import asyncio
import time
from collections.abc import Callable

GROUP_MIN = 64
"""Members from which on a group is not held back."""

HOLD_SECONDS = 0.001
"""So long a group is held back at most."""


async def let_grow(size: Callable[[], int]) -> None:
    """Return when a group is large enough, or old enough, or a turn of the event loop has brought it nothing."""
    until = time.monotonic() + HOLD_SECONDS
    before, now = 0, size()
    while before < now < GROUP_MIN and time.monotonic() < until:
        await asyncio.sleep(0)
        before, now = now, size()
