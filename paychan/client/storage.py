"""Files of a payer: the channel's state, written durably under a lock, and the secret key, 0600, in a file of its own."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from coincurve import PrivateKey

from ..core.keyfile import KEY_FILE_SIZE_MAX, parse_key_text
from ..durable import sync_directory
from .errors import ChannelBusy, ChannelMissing, StateError

_STATE_SIZE_MAX = 1 << 16


def _write_synced(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


class ChannelFile:
    """A channel's state file. While one is open no other process can open it: `FILE.lock` is locked (flock).

    The lock file stays as long as there is a channel, and goes with the lock where none came of it.
    """

    def __init__(self, path: str | os.PathLike[str], is_new: bool = False) -> None:
        """Lock the file, or with `is_new` the place for one. Raises ChannelMissing, ChannelBusy, StateError."""
        self.path = Path(os.path.realpath(path))
        self._written = b""
        if is_new:
            make_directory(self.path.parent)
        elif not self.exists():
            raise ChannelMissing(f"{self.path}: there is no channel")
        while True:
            self._lock = self._take_lock()
            if self._is_at_its_place():
                break
            os.close(self._lock)  # whoever held it has just removed it

    def _take_lock(self) -> int:
        """Return a descriptor that holds the lock. Raises ChannelBusy, StateError."""
        try:
            descriptor = os.open(self._beside(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"{self.path}: cannot be locked: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise ChannelBusy(f"{self.path}: another process is using this channel") from error
            raise StateError(f"{self.path}: cannot be locked: {error.strerror}") from error
        return descriptor

    def _is_at_its_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._beside(".lock")), os.fstat(self._lock))
        except FileNotFoundError:
            return False

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def exists(self) -> bool:
        return is_there(self.path)

    def read(self) -> bytes:
        """Return the state. Raises StateError."""
        self._written = read_state(self.path)
        return self._written

    def save(self, content: bytes, is_vital: bool = True) -> None:
        """Replace the state: when this returns, it survives a power cut. Raises StateError; then the old or new state is there.

        Content equal to what was written last costs nothing. What is not vital costs less: after a power cut the old or the new
        state is there.
        """
        if content == self._written:
            return
        self._written = b""
        temporary = self._beside(".tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            _write_synced(os.open(temporary, flags, 0o600), content)
            os.replace(temporary, self.path)
            if is_vital:
                sync_directory(self.path.parent)
        except OSError as error:
            raise StateError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._written = content

    def close(self) -> None:
        """Give the lock up."""
        if self._lock >= 0:
            with suppress(OSError, StateError):
                if not self.exists():
                    os.unlink(self._beside(".lock"))
            os.close(self._lock)
            self._lock = -1


def is_there(path: Path) -> bool:
    """Return whether there is a file, of whatever kind. Raises StateError if that cannot be seen."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from error
    return True


def make_directory(directory: Path) -> None:
    """Make a directory that only its owner may enter, with those above it. Raises StateError if there is none afterwards."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"{directory}: this directory cannot be made: {error.strerror}") from error


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
    """Write a new secret key; see `write_key`."""
    key = PrivateKey()
    write_key(path, key)
    return key


def write_key(path: Path, key: PrivateKey) -> None:
    """Write a secret key (64 hexadecimal digits, newline; mode 0600), durably. Raises StateError, also if the file exists."""
    make_directory(path.parent)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_synced(descriptor, key.secret.hex().encode() + b"\n")
            sync_directory(path.parent)
        except OSError:  # a full disk: half a key would be in the way when there is room
            path.unlink()
            raise
    except OSError as error:
        raise StateError(f"{path}: the key cannot be written: {error.strerror}") from error


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
