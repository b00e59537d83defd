"""What a worker process does to itself: it ends with its parent, and logs to stderr."""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys

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


def set_up_logging() -> None:
    """Log our own loggers to stderr, one line each. No request is ever logged: a payment in it is worth money."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("paychan")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
