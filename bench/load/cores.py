"""Cores for the open loop: what waits for a core while another process has it looks like a slow answer.

Client, worker and store are three processes that each want a core at any moment; with fewer cores than that, the scheduler's slices
of some milliseconds are the longest latencies. So the workers get a core of their own, as an operator would give them, and the load
client, which must see each answer when it comes, goes before whatever shares its core, where the system lets it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

WORKERS = "workers"
"""The name of the processes that get a core of their own."""


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
            _keep_on(members, first if name == WORKERS else rest)
        os.sched_setaffinity(0, rest)
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, cores)
        for members in pids.values():
            _keep_on(members, cores)


def _keep_on(pids: list[int], cores: set[int]) -> None:
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task), cores)


def waiting_seconds(pids: list[int]) -> float:
    """Return how long the processes' threads have been ready to run, and waited for a core, since they began."""
    waited = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                waited += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[1])
    return waited / 1e9
