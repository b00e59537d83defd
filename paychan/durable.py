"""Small files that are replaced whole, and are on disk when that has returned."""

import os
from pathlib import Path


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
