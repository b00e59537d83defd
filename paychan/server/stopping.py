"""Whether a worker of granian's has ended, asked of the kernel.

granian waits for each worker in two threads, and the kernel tells one of them how it ended. If that is the watcher's, the other
takes the worker for alive until the watcher's thread has run on, a millisecond at most; on a busy machine it then says that the
worker refused to stop, and sends SIGKILL to a process id that is nobody's, or somebody else's.
"""

from multiprocessing.connection import wait

from granian.server.mp import WorkerProcess


def is_alive(worker: WorkerProcess) -> bool:
    """Return whether a worker runs: its end of a pipe is closed by the kernel when it ends, however that is learned of."""
    return not wait([worker.inner.sentinel], 0)


def install() -> None:
    """Have granian ask this."""
    WorkerProcess.is_alive = is_alive  # type: ignore[method-assign, assignment]  # it is granian's, and asked in two places
