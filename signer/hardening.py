"""What the process gives up before it reads a key: core dumps, being traced, new privileges."""

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT = 1

_libc = ctypes.CDLL(None, use_errno=True)


def forbid_dumps() -> None:
    """Switch off core dumps, ptrace by the same user, and privileges gained by exec. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if _libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl failed")


def lock_memory() -> str:
    """Keep the pages mapped now, the key's among them, out of swap. Return "" or why the kernel refused.

    Only what is mapped now: with future pages locked too, a low RLIMIT_MEMLOCK would make later allocations fail.
    """
    return "" if _libc.mlockall(_MCL_CURRENT) == 0 else os.strerror(ctypes.get_errno())
