"""The store's directory: `STATE_DIR/store`, with the lock that keeps a second store out and the database under `db`."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paychan.core.errors import ConfigError
from paychan.durable import replace_file as replace_file  # the store's other modules take both from here
from paychan.durable import sync_directory
from paychan.settings.models import StoreConfig


@contextmanager
def hold_directory(config: StoreConfig) -> Iterator[Path]:
    """Make the directory if it is missing, lock it for as long as the context lasts, and give the database's path.

    The kernel drops the lock when the process ends, however that happens.
    Raises: ConfigError if another store holds it, or it cannot be made.
    """
    source, directory = f"{config.common.source}: state_dir", config.common.state_dir / "store"
    try:
        make_durable(directory)
    except OSError as error:
        raise ConfigError(f"{source}: {directory} cannot be used: {error.strerror}") from error
    with hold_lock(directory, source):
        yield directory / "db"


@contextmanager
def hold_lock(directory: Path, source: str) -> Iterator[None]:
    """Hold the lock of a store's directory, which must be there. source: what a complaint begins with. Raises ConfigError."""
    try:
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{source}: {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise ConfigError(f"{source}: another paychan-store uses this directory: {directory}") from error
    try:
        yield
    finally:
        os.close(handle)


def make_durable(directory: Path) -> None:
    """Make `directory` and its missing parents, mode 0700, each with its name synced into the directory above it."""
    directory = directory.absolute()
    if not directory.parent.exists():
        make_durable(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory.parent)


def need_embedded(config: StoreConfig, database: Path) -> None:
    """Raises ConfigError if the directory belongs to a store on PostgreSQL. database: as `hold_directory` gives it."""
    if (database.parent / "postgres").exists():
        raise ConfigError(f"{config.common.source}: postgres: is missing: {database.parent} belongs to a store on PostgreSQL")
