"""Cores for the open loop: what waits for a core while another process has it looks like a slow answer.

Client, worker and store are three processes that each want a core at any moment; with fewer cores than that, the scheduler's slices
of some milliseconds are the longest latencies. So the workers get a core of their own, as an operator would give them, and there
and on the others our threads go before everybody else's, where the system lets them: any program that wakes up once a second to
look after the machine would hold a worker up for milliseconds. The load client goes first, for it must see each answer when it
comes. The store's threads that write memtables out stay behind: one takes 10 ms at a time, and no answer waits for it.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

WORKERS = "workers"
"""The name of the processes that get a core of their own."""

ORDINARY, SERVING, LISTENING = 0, 1, 2
"""Ranks: everybody's; that of our threads, which strangers on the machine must not keep waiting; and the load client's."""

ONE_CORE = "there is one core: the worker shares it with the store and the load client"
NO_RANK = "the system lets no thread of ours go before others (that takes CAP_SYS_NICE, or `ulimit -r 2`)"


class Apart(contextlib.AbstractContextManager[None]):
    """Keeps the workers on one core, and us and everything else in `pids` on the others, while it is entered.

    lacks: what of it this machine or this user cannot have, in words for the report; known once it was entered.
    """

    def __init__(self, pids: Mapping[str, list[int]]) -> None:
        self._pids = pids
        self._cores = os.sched_getaffinity(0)
        self.lacks: list[str] = []

    def __enter__(self) -> None:
        if len(self._cores) < 2:
            self.lacks.append(ONE_CORE)
            return
        try:
            self._place_all()
            self._rank_all()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if ONE_CORE in self.lacks:
            return
        for members in ([os.getpid()], *self._pids.values()):
            _place(_threads(members), self._cores)
            if NO_RANK not in self.lacks:
                _rank(_threads(members), ORDINARY)

    def _place_all(self) -> None:
        first = {min(self._cores)}
        for name, members in self._pids.items():
            _place(_threads(members), first if name == WORKERS else self._cores - first)
        _place(_threads([os.getpid()]), self._cores - first)

    def _rank_all(self) -> None:
        if not _rank([os.getpid()], LISTENING):
            self.lacks.append(NO_RANK)
            return
        for name, members in self._pids.items():
            _rank(_threads(members) if name == WORKERS else members, SERVING)


def _threads(pids: list[int]) -> list[int]:
    found: list[int] = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):  # it has ended
            found += map(int, os.listdir(f"/proc/{pid}/task"))
    return found


def _place(threads: list[int], cores: set[int]) -> None:
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)


def _rank(threads: list[int], rank: int) -> bool:
    """Let threads go before all of lower rank; return whether the system allows it. A process's pid is its main thread's number."""
    policy = os.SCHED_OTHER if rank == ORDINARY else os.SCHED_FIFO
    for thread in threads:
        try:
            os.sched_setscheduler(thread, policy, os.sched_param(rank))
        except ProcessLookupError:
            continue
        except PermissionError:
            return False
    return True


def waiting_seconds(pids: list[int]) -> float:
    """Return how long the processes' threads have been ready to run, and waited for a core, since they began."""
    waited = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                waited += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[1])
    return waited / 1e9
