"""Payments come first: what serves only who watches gives way to them on a busy machine."""

import os
from contextlib import suppress

NICENESS = 5


def give_way() -> None:
    """Have the kernel run this process, and all that come from it, behind others. Behind a filter of system calls, as the units in
    deploy/systemd have, it may not say so; there the unit does (Nice=)."""
    with suppress(PermissionError):
        os.nice(NICENESS)
