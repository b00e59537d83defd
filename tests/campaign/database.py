"""What the campaign does to the database below a store on PostgreSQL: to the primary, after which another must be promoted, and to
standbys. The cluster is `postgres.shared()`, with two standbys: one death at a time loses nothing.
"""

import random
import signal
import time

from tests import postgres
from tests.wires import Wire

VICTIMS = ("primary", "standby")
LEASE_MS = 3000
"""Of the store: what stands still for longer is given up by it."""

HOLD_SECONDS_MAX = 2.0


def kill(victim: str, rng: random.Random) -> str:
    """kill -9 of all its processes. A primary: the standby that has most is promoted. A standby: started again after a while."""
    cluster = _whole()
    if victim == "primary":
        cluster.primary.kill()
        began = time.monotonic()
        cluster.fail_over()
        return f"all three again after {time.monotonic() - began:.2f} s"
    node = rng.choice(cluster.standbys)
    node.kill()
    time.sleep(rng.uniform(0, HOLD_SECONDS_MAX))
    node.start()
    cluster.wait_for_standbys(len(cluster.standbys))
    return ""


def wire() -> dict[tuple[postgres.Node, postgres.Node], Wire]:
    """Have each node of the cluster follow each other one by a wire, for good; return them by (who follows, whom)."""
    nodes = postgres.shared().nodes
    wires = {(node, other): Wire(other.port) for node in nodes for other in nodes if node is not other}
    for (node, other), between in wires.items():
        between.__enter__()
        node.ports[other] = between.port
    for node in postgres.shared().standbys:
        node.follow(postgres.shared().primary)
    return wires


def stop(victim: str, rng: random.Random) -> str:
    """SIGSTOP of all its processes. A primary: another is promoted, and the old one goes on beside it for a while, as after a cut.
    Standbys: both, now and then for longer than a lease."""
    cluster = _whole()
    if victim == "primary":
        old = cluster.primary
        old.signal(signal.SIGSTOP)
        time.sleep(rng.uniform(0, HOLD_SECONDS_MAX))
        cluster.fail_over(meanwhile=lambda: old.signal(signal.SIGCONT))
        return ""
    for node in cluster.standbys:
        node.signal(signal.SIGSTOP)
    try:
        time.sleep(rng.choice((rng.uniform(0, HOLD_SECONDS_MAX), 1.5 * LEASE_MS / 1000)))
    finally:
        for node in cluster.standbys:
            node.signal(signal.SIGCONT)
    cluster.wait_for_standbys(len(cluster.standbys))
    return ""


def _whole() -> postgres.Cluster:
    """Return the cluster when both standbys follow: with one dead already, a second death could lose what was answered."""
    cluster = postgres.shared()
    cluster.wait_for_standbys(2)
    return cluster
