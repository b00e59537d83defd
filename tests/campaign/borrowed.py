"""Sockets of other processes, borrowed to break them: a connection is cut in the middle, and neither end was asked.

pidfd_getfd(2) gives a second descriptor of the same socket; shutdown(2) on it is felt by both ends. It needs the right to trace the
process (the same user, mostly its ancestor).
"""

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)


def borrow(pid: int) -> Iterator[socket.socket]:
    """Yield each socket of a process. Raises OSError: it is gone, or it may not be traced."""
    handle = os.pidfd_open(pid)
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                    continue
            found = _libc.syscall(_PIDFD_GETFD, handle, int(number), 0)
            if found >= 0:
                with socket.socket(fileno=found) as sock:
                    yield sock
            elif ctypes.get_errno() != errno.EBADF:  # closed meanwhile
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(handle)


def ends_of(sock: socket.socket) -> tuple[str, str]:
    """Return the names of a connection's both ends, empty if it is none (a listening socket, which nobody may shut down)."""
    with suppress(OSError):
        return tuple(str(name) for name in (sock.getsockname(), sock.getpeername()))  # type: ignore[return-value]
    return "", ""


def cut(pid: int, chosen: Callable[[socket.socket], bool], how: int) -> int:
    """Shut connections of a process down (`how`: SHUT_RD, SHUT_WR, SHUT_RDWR); return how many."""
    count = 0
    for sock in borrow(pid):
        if chosen(sock):
            with suppress(OSError):
                sock.shutdown(how)
                count += 1
    return count


def may_borrow(pid: int) -> bool:
    """Return whether this machine lets us."""
    try:
        return any(True for _ in borrow(pid))
    except OSError:
        return False
