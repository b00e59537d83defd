"""The highest time that this server has seen, kept in a file, so that a clock set back between two starts is noticed."""

import os
from pathlib import Path

from ...core.units import LOCKTIME_MAX


def read_highest(path: Path) -> int:
    """Return the time in the file in unix seconds, 0 if there is none that can be read, or none that lock times know."""
    try:
        seconds = int(path.read_bytes()[: len(str(LOCKTIME_MAX)) + 1])
    except (OSError, ValueError):
        return 0
    return seconds if 0 <= seconds <= LOCKTIME_MAX else 0


def write_highest(path: Path, seconds: int) -> None:
    """Replace the file unless it holds a later time. Not synced: after a power loss a minute may be missing, no more."""
    if read_highest(path) >= seconds:
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(f"{seconds}\n")
    os.replace(temporary, path)
