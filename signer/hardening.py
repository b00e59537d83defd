"""What the process gives up before it serves anybody: dumps, new privileges, swap for its key, the network, other programs.

Pure ctypes: a fresh machine needs no library for it. `harden_early` comes before the key is read, `harden_late` after the
listening socket is made and before the event loop is. Of what the kernel does not do, they return what and why.
"""

import ctypes
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

from .seccomp import apply_filter

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14
_CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def forbid_dumps() -> None:
    """Switch off core dumps, ptrace by the same user, and privileges gained by exec. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        _demand(_libc.prctl(option, value, 0, 0, 0))


def lock_all_memory() -> None:
    """Keep every page out of swap, as it comes into use, from now on. Raises OSError.

    Only where nothing bounds it: under a limit, an allocation would fail one day, in the middle of something.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY and not _may_lock_without_limit():
        raise PermissionError(1, f"RLIMIT_MEMLOCK is {soft} bytes")
    _demand(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT))


def _may_lock_without_limit() -> bool:
    """Return whether the process has CAP_IPC_LOCK."""
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return capabilities is not None and bool(int(capabilities[1], 16) >> _CAP_IPC_LOCK & 1)


def lock_key_memory(secret: bytes) -> None:
    """Keep the mapping that holds `secret` out of swap, or if that is too much, its page. Raises OSError.

    The mapping also has what reading the key left behind: the text of its file, the number that it is.
    """
    start = id(secret) + bytes.__basicsize__ - 1
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= start < high and _mlock(low, high - low) == 0:
            return
    _demand(_mlock(start, len(secret)))


def _mlock(start: int, size: int) -> int:
    result: int = _libc.mlock(ctypes.c_void_p(start), ctypes.c_size_t(size))
    return result


def leave_network() -> None:
    """Move into a network namespace that has nothing in it; sockets that exist stay where they are. Raises OSError.

    Needs CAP_SYS_ADMIN. Without it, the filter alone keeps the process off the network.
    """
    _demand(_libc.unshare(_CLONE_NEWNET))


def harden_early() -> tuple[list[str], list[str]]:
    """Do what must come before a key is read. Return what was done, and what was not and why. Raises OSError."""
    forbid_dumps()
    done, failed = ["no dumps", "no new privileges"], list[str]()
    _attempt("all memory locked", lock_all_memory, done, failed)
    return done, failed


def harden_late(secret: bytes, done: list[str], failed: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Do the rest, after the listening socket was made. Return what was done, what failed, and what failed but is needed.

    A memory that is locked in part is enough; a network namespace needs root, and is more than enough.
    """
    needed: list[str] = []
    if "all memory locked" not in done:
        _attempt("the key's memory locked", lambda: lock_key_memory(secret), done, needed)
    _attempt("no network", leave_network, done, failed)
    _attempt("system calls filtered", apply_filter, done, needed)
    return done, failed, needed


def _attempt(name: str, action: Callable[[], None], done: list[str], failed: list[str]) -> None:
    try:
        action()
        done.append(name)
    except OSError as error:
        failed.append(f"{name}: {error.strerror}")


def _demand(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
