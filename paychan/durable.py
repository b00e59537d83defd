"""Small files that are replaced whole, and are on disk when that has returned; and the lock that keeps who writes them apart."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_SECONDS = 0.01
"""Between two looks whether a lock is free."""


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, text: str) -> None:
    """Have a file of mode 0600 hold a text, whole or not at all; on return it is on disk. Raises OSError.

    Two at once for one path are kept apart by the caller.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def locked(handle: int, seconds: float) -> Iterator[None]:
    """Hold the lock (flock) of an open file or directory, and close it in the end. Raises OSError if another has it for so long."""
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(LOOK_SECONDS)
        yield
    finally:
        os.close(handle)
