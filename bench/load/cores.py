"""Cores for the open loop: what waits for a core while another process has it looks like a slow answer.

Client, worker and store are three processes that each want a core at any moment; with fewer cores than that, the scheduler's slices
of some milliseconds are the longest latencies. So the workers get a core of their own, as an operator would give them, and there
and on the others our threads go before everybody else's, where the system lets them: any program that wakes up once a second to
look after the machine would hold a worker up for milliseconds. The load client goes first, for it must see each answer when it
comes. The store's threads that write memtables out stay behind: one takes 10 ms at a time, and no answer waits for it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

WORKERS = "workers"
"""The name of the processes that get a core of their own."""

ORDINARY, SERVING, LISTENING = 0, 1, 2
"""Ranks: everybody's; that of our threads, which strangers on the machine must not keep waiting; and the load client's."""


@contextlib.contextmanager
def apart(pids: Mapping[str, list[int]]) -> Iterator[None]:
    """Keep the workers on one core, and us and everything else in `pids` on the others, as long as this lasts."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        yield
        return
    first, rest = {min(cores)}, cores - {min(cores)}
    try:
        for name, members in pids.items():
            serving = _threads(members) if name == WORKERS else members
            _place(_threads(members), first if name == WORKERS else rest)
            _rank(serving, SERVING)
        _place(_threads([os.getpid()]), rest)
        _rank([os.getpid()], LISTENING)
        yield
    finally:
        for members in ([os.getpid()], *pids.values()):
            _place(_threads(members), cores)
            _rank(_threads(members), ORDINARY)


def _threads(pids: list[int]) -> list[int]:
    return [int(task) for pid in pids for task in os.listdir(f"/proc/{pid}/task")]


def _place(threads: list[int], cores: set[int]) -> None:
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)


def _rank(threads: list[int], rank: int) -> None:
    """Let threads go before all of lower rank, where the system allows it. A process's pid is its main thread's number."""
    policy = os.SCHED_OTHER if rank == ORDINARY else os.SCHED_FIFO
    for thread in threads:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.sched_setscheduler(thread, policy, os.sched_param(rank))


def waiting_seconds(pids: list[int]) -> float:
    """Return how long the processes' threads have been ready to run, and waited for a core, since they began."""
    waited = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                waited += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[1])
    return waited / 1e9
