"""What a shop calls its attempts to have something sold: each another number, so that a purchase says which one has made it. Two
attempts at one purchase, of two processes, have the same by chance, once in eight million."""

import os
import secrets
from itertools import count

from ..core.sales import ATTEMPT_MAX

_numbers = count(secrets.randbelow(ATTEMPT_MAX))


def draw() -> int:
    """Return another number than the last eight million times, from 1 to ATTEMPT_MAX."""
    return next(_numbers) % ATTEMPT_MAX + 1


def _begin_elsewhere() -> None:
    global _numbers
    _numbers = count(secrets.randbelow(ATTEMPT_MAX))


os.register_at_fork(after_in_child=_begin_elsewhere)  # or parent and child would call theirs the same
