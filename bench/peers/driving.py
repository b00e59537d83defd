"""Requests that were signed before, sent over some connections at once; and the CPU that they cost the seller's side."""

import http.client
import threading

from bench.load.processes import CpuClock
from tests.system import processes

Values = list[list[str]]
"""For each connection, the values of one header field, a request each."""


def drive(url: str, header: str, values: Values, path: str) -> None:
    """Send the requests of each connection, one after the other; all connections at once.

    Raises RuntimeError if one is not answered 200.
    """
    port, failed = int(url.rpartition(":")[2]), []

    def work(mine: list[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for value in mine:
            connection.request("GET", path, headers={header: value})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed.append(answer.status)
                return

    threads = [threading.Thread(target=work, args=(mine,)) for mine in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"{url}{path} has answered {failed[0]}")


def cost(url: str, pids: list[int], header: str, values: Values, path: str) -> float:
    """Return the CPU seconds of a request, of all these processes."""
    clock = CpuClock({"all": pids})
    drive(url, header, values, path)
    return clock.seconds()["all"] / sum(map(len, values))


def pids_below(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    found = [pid]
    for child, parent, _ in sorted(processes()):
        if parent in found:
            found.append(child)
    return found
