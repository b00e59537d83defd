"""What a worker process does to itself: it ends with its parent."""

import ctypes
import multiprocessing
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies: an orphan would go on serving beside its successor.

    The parent may be dead already: it is compared with the process that made this one, not with whoever adopted it.
    """
    maker = multiprocessing.parent_process()
    parent = maker.pid if maker is not None else os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        os._exit(1)
