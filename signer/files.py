"""Files that are on disk when the function returns."""

import os
from pathlib import Path


def write_durably(descriptor: int, data: bytes) -> None:
    """Write all of `data` and sync it. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Sync a directory, so that files created or renamed in it stay. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory, and its parents, that only we can read, and sync their names. Raises OSError."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)
