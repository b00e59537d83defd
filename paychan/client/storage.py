"""Files of a payer: the channel's state, written durably under a lock, and the secret key, 0600, in a file of its own."""

import fcntl
import os
from pathlib import Path

from coincurve import PrivateKey

from ..core.keyfile import KEY_FILE_SIZE_MAX, parse_key_text
from .errors import ChannelBusy, StateError

_STATE_SIZE_MAX = 1 << 16


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


class ChannelFile:
    """A channel's state file. While one is open no other process can open it: `FILE.lock` is locked (flock), and stays."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.realpath(path))
        self._written = b""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._beside(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"{self.path}: cannot be locked: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ChannelBusy(f"{self.path}: another process is using this channel") from error

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def exists(self) -> bool:
        return self.path.exists()

    def read(self) -> bytes:
        """Return the state. Raises StateError."""
        self._written = read_state(self.path)
        return self._written

    def save(self, content: bytes) -> None:
        """Replace the state: when this returns, it survives a power cut. Raises StateError; then the old or new state is there.

        Content equal to what was written last costs nothing.
        """
        if content == self._written:
            return
        self._written = b""
        temporary = self._beside(".tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            _write_synced(os.open(temporary, flags, 0o600), content)
            os.replace(temporary, self.path)
            _sync_directory(self.path.parent)
        except OSError as error:
            raise StateError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._written = content

    def close(self) -> None:
        """Give the lock up."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def read_state(path: Path) -> bytes:
    """Return a state file's bytes without locking it: for looking only. Raises StateError."""
    try:
        with open(path, "rb") as file:
            content = file.read(_STATE_SIZE_MAX + 1)
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _STATE_SIZE_MAX:
        raise StateError(f"{path}: is too long for a state file")
    return content


def create_key(path: Path) -> PrivateKey:
    """Write a new secret key (64 hexadecimal digits, newline; mode 0600), durably. Raises StateError, also if it exists."""
    key = PrivateKey()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_synced(descriptor, key.secret.hex().encode() + b"\n")
            _sync_directory(path.parent)
        except OSError:  # a full disk: half a key would be in the way when there is room
            path.unlink()
            raise
    except OSError as error:
        raise StateError(f"{path}: the key cannot be written: {error.strerror}") from error
    return key


def read_key(path: Path) -> PrivateKey:
    """Return the key in `path`. Raises StateError if others may read it, or it is no key."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = parse_key_text(file.read(KEY_FILE_SIZE_MAX + 1))
    except OSError as error:
        raise StateError(f"{path}: the key cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise StateError(f"{path}: others may read this key; it must have mode 0600")
    if secret is None:
        raise StateError(f"{path}: is no key: 64 hexadecimal digits and a newline are expected")
    try:
        return PrivateKey(secret)
    except ValueError as error:
        raise StateError(f"{path}: is no key of this curve") from error
