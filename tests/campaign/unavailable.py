"""How long payments wait when the primary's machine is lost: `python -m tests.campaign.unavailable --kills 30`.

The documented cluster (tests/patroni.py: three machines, Patroni, etcd, the files of deploy/patroni), a system on it, and a payer
who never stops. Each kill ends all of the primary's machine at once, and measures four parts: detection, until another machine has
taken the leader's lock; promotion, until its PostgreSQL takes writes; standby, until the other one confirms what it writes; ours,
until a payment is answered. Then the machine is started again, and the next kill waits until all three run. In the end
`paychan-store check` must find what was answered.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg

from tests.patroni import Machines, Node, Paying
from tests.system import ROOT, wait_until

PARTS = ("detection", "promotion", "standby", "ours", "in all")
IS_PROMOTED = "SELECT NOT pg_is_in_recovery()"
IS_CONFIRMED = """SELECT current_setting('synchronous_standby_names') <> ''
    AND EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum'))"""
PROMOTED = b"promoted self to leader"
SECONDS_MAX = 150.0


def measure(machines: Machines, paying: Paying) -> tuple[float, ...]:
    """Lose the primary's machine; return the seconds of each part, and of all."""
    lost = machines.primary
    others = [node for node in machines.nodes if node is not lost]
    read = {node: _log(node).stat().st_size for node in others}
    begun = time.monotonic()
    lost.kill()
    new = _first(others, lambda node: PROMOTED in _log(node).read_bytes()[read[node] :], "a new leader")
    detected = time.monotonic()
    wait_until(lambda: _asked(machines, new, IS_PROMOTED), SECONDS_MAX, "its promotion")
    promoted = time.monotonic()
    wait_until(lambda: _asked(machines, new, IS_CONFIRMED), SECONDS_MAX, "a standby that confirms")
    confirmed, answered = time.monotonic(), paying.answered
    wait_until(lambda: paying.failed or paying.answered > answered, SECONDS_MAX, "a payment")
    assert not paying.failed, paying.failed
    served = time.monotonic()
    lost.start()
    machines.wait_for(3)
    paying.goes_on()
    return detected - begun, promoted - detected, confirmed - promoted, served - confirmed, served - begun


def _first(nodes: list[Node], holds: Callable[[Node], bool], what: str) -> Node:
    wait_until(lambda: any(map(holds, nodes)), SECONDS_MAX, what)
    return next(filter(holds, nodes))


def _log(node: Node) -> Path:
    return node.place / "patroni.log"


def _asked(machines: Machines, node: Node, question: str) -> bool:
    async def ask() -> bool:
        connection = await asyncpg.connect(host=str(node.sockets), port=machines.ports[5432], user="postgres", timeout=5)
        try:
            return bool(await connection.fetchval(question))
        finally:
            connection.terminate()

    return asyncio.run(ask())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    arguments = parser.parse_args()
    machines, found = Machines(), []
    try:
        machines.start()
        with tempfile.TemporaryDirectory(prefix="paychan-unavailable-") as place, machines.system(Path(place)) as system:
            paying = Paying(system)
            paying.goes_on()
            for number in range(arguments.kills):
                found.append(measure(machines, paying))
                told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in zip(PARTS, found[-1], strict=True))
                print(f"kill {number + 1}: {told} s", flush=True)
            answered = paying.end()
            system.stop()
            command = [sys.executable, "-m", "store", "check", str(system.config_dir)]
            checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        machines.stop()
    for name, seconds in zip(PARTS, zip(*found, strict=True), strict=True):
        ordered = sorted(seconds)
        print(f"{name:10} p50 {ordered[len(ordered) // 2]:6.2f}  p99 {ordered[len(ordered) * 99 // 100]:6.2f} s")
    is_sound = f"{answered} satoshi" in checked.stdout
    print(f"{answered} satoshi were answered; check: {'found' if is_sound else checked.stdout[-500:]}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    return int(not is_sound)


if __name__ == "__main__":
    sys.exit(main())
