"""A disk that can be filled without harm: a small tmpfs that only this process and its children see. Needs root."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SIZE_MIB = 200
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 0x4000, 1 << 18, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _call(done: int, what: str) -> None:
    if done != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


@contextmanager
def mounted_on(directory: Path) -> Iterator[None]:
    """Mount a small file system on a directory, in a mount namespace of our own. Raises OSError where that is not allowed."""
    _call(_libc.unshare(_CLONE_NEWNS), "unshare")
    _call(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount private")
    _call(_libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, f"size={SIZE_MIB}m".encode()), "mount tmpfs")
    try:
        yield
    finally:
        _call(_libc.umount2(os.fsencode(directory), _MNT_DETACH), "umount")


def is_small(directory: Path) -> bool:
    """Return whether the file system of a directory is one of those."""
    info = os.statvfs(directory)
    return info.f_blocks * info.f_frsize <= SIZE_MIB << 20


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """Take all that is free on a small file system."""
    assert is_small(directory), "this file system is no scratch one"
    ballast = directory / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):  # ends with ENOSPC
            while file.write(bytes(1 << 16)):
                pass
        yield
    finally:
        ballast.unlink()
