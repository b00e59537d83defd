"""Files that are on disk when the function returns."""

import os
from pathlib import Path

from paychan.durable import sync_directory


def write_durably(descriptor: int, data: bytes) -> None:
    """Write all of `data` and sync it. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory, and its parents, that only we can read, and sync their names. Raises OSError."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)
