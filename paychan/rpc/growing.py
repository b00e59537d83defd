"""Letting a group grow: it costs the same handful of microseconds, here and in the store, however many share it."""

import asyncio
import time
from collections.abc import Callable

GROUP_MIN = 64
"""Members from which on a group is not held back."""

HOLD_SECONDS = 0.001
"""So long a group is held back at most."""


BUSY_MIN = 8
"""Members of the last group from which on more than one turn without a member is waited for."""

EMPTY_TURNS_MAX = 4
"""So many: other workers' requests come in bursts, with turns for other things between them."""


async def let_grow(size: Callable[[], int], last: int) -> None:
    """Return when a group is large enough, or old enough, or turns of the event loop have brought it nothing. last: the size of
    the group before it."""
    until = time.monotonic() + HOLD_SECONDS
    patience = EMPTY_TURNS_MAX if last >= BUSY_MIN else 1
    before, now, empty = 0, size(), 0
    while empty < patience and now < GROUP_MIN and time.monotonic() < until:
        await asyncio.sleep(0)
        before, now = now, size()
        empty = 0 if now > before else empty + 1
