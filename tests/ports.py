"""TCP ports for what tests start: each is given to one of all who ask on this machine, be it in another process or by another
user.

A port that was free a moment ago is not enough. Between the asking and the listening, seconds on a busy machine, the kernel may
have given it to somebody's outgoing connection; or another test was given it, too, and as granian's workers share a port, payers of
the one were answered by the other ("bad signature"). So all ports are below those that the kernel gives away, and who was given one
holds its name, an abstract Unix socket, which is gone with the process.
"""

import random
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

SINGLE = range(22_000, 32_000)
BLOCK_PORTS = 16
BLOCKS = range(10_000, 22_000, BLOCK_PORTS)
"""The first port of each block."""

HELD_MAX = 200
"""Names that a process holds at once: by then who was given the oldest one listens, or is gone."""

_held: deque[socket.socket] = deque()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free, and that nobody else is given."""
    port, name = _take(SINGLE)
    _held.append(name)
    if len(_held) > HELD_MAX:
        _held.popleft().close()
    return port


@contextmanager
def own_ports_block() -> Iterator[int]:
    """Keep a block of ports for the workers of one system, and yield the first that they may use.

    A worker takes the first free port from its base up. Without a block of its own, one that is started again could find its old
    port taken by another test's worker, and a payer that knows the old port would be answered by a stranger.
    """
    base, name = _take(BLOCKS)
    with name:
        yield base


def _take(ports: range) -> tuple[int, socket.socket]:
    """Return one of these ports, and what holds its name."""
    start = random.randrange(len(ports))
    for port in (*ports[start:], *ports[:start]):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0paychan-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
            return port, name
        except OSError:
            name.close()
    raise AssertionError("every port for tests is taken")
