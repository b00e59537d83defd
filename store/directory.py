"""The store's directory: `STATE_DIR/store`, with the lock that keeps a second store out and the database under `db`."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paychan.config import StoreConfig
from paychan.errors import ConfigError


@contextmanager
def hold_directory(config: StoreConfig) -> Iterator[Path]:
    """Make the directory if it is missing, lock it for as long as the context lasts, and give the database's path.

    The kernel drops the lock when the process ends, however that happens.
    Raises: ConfigError if another store holds it, or it cannot be made.
    """
    source, directory = config.common.source, config.common.state_dir / "store"
    try:
        _make_durable(directory)
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{source}: state_dir: {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise ConfigError(f"{source}: state_dir: another paychan-store uses this directory: {directory}") from error
    try:
        yield directory / "db"
    finally:
        os.close(handle)


def _make_durable(directory: Path) -> None:
    """Make `directory` and its missing parents, mode 0700, each with its name synced into the directory above it."""
    directory = directory.absolute()
    if not directory.parent.exists():
        _make_durable(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
