"""The failing-calls campaign: the N-th write, sync or change of names of a real store process fails, for N = 1, 2, 3 ...

    python -m tests.campaign.syscalls [--count 500] [--jobs 2] [--kind write,5,once]

Each run is a new store under the shim (tests/power/shim.c) and the same script of updates over its socket: opens, payments,
settlement steps, at the end SIGTERM. Demanded: no traceback; a store that ends says why; and when it is opened again, everything
that was answered OK is there and nothing that was never sent. Exit 1 else.
"""

import argparse
import asyncio
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from paychan.core.errors import ConfigError
from paychan.rpc.connection import Address, ConnectionGone, FrameConnection, RemoteRefusal, connect
from paychan.rpc.store_messages import PAYLOAD_MAX, Hello, OwnerTable, StoreMessage, Welcome, encode_commit
from store import keys
from tests.power.history import PUBKEY, Channel, Shape, configure
from tests.power.images import scratch
from tests.power.judge import open_store
from tests.power.shim import environment, read_log

ROOT = Path(__file__).parents[2]
GROUPS = 40
WAIT_S = 60
FAULTS = (
    f"write,{errno.EIO},once",
    f"write,{errno.ENOSPC},once",
    f"write,{errno.ENOSPC},sticky",
    "write,0,short",
    f"sync,{errno.EIO},once",
    f"sync,{errno.EIO},sticky",
    f"meta,{errno.ENOSPC},once",
    f"meta,{errno.ENOSPC},sticky",
    "any,0,kill",
)


@dataclass(frozen=True)
class Result:
    """One run. fired: the fault happened; status: the store's; answered: updates answered OK; problem: empty if all is well."""

    fired: bool
    status: int
    answered: int
    problem: str = ""


class Script:
    """A worker that sends the script's updates one group after the other, and notes what was sent and what was answered OK."""

    def __init__(self) -> None:
        self.sent: dict[bytes, list[bytes]] = {}
        self.answered: dict[bytes, int] = {}
        self._owners: asyncio.Queue[OwnerTable] = asyncio.Queue()

    def _on_frame(self, _: FrameConnection, kind: int, __: int, payload: bytes) -> None:
        if kind == StoreMessage.OWNERS:
            self._owners.put_nowait(OwnerTable.decode(payload))

    async def run(self, address: Address) -> None:
        """Raises ConnectionGone when the store is gone."""
        rng, shape = random.Random(1), Shape(steps=0.3, size=300)
        channels = [Channel(number) for number in range(12)]
        connection = await connect(address, lambda: FrameConnection(PAYLOAD_MAX, self._on_frame, self._on_close))
        self._lost = asyncio.get_running_loop().create_future()
        Welcome.decode(await self._call(connection, StoreMessage.HELLO, Hello("test", PUBKEY, "w").encode()))
        table = asyncio.ensure_future(self._owners.get())
        await asyncio.wait({table, self._lost}, return_when=asyncio.FIRST_COMPLETED, timeout=WAIT_S)
        if not table.done():
            table.cancel()
            raise ConnectionGone()
        epochs = [epoch for _, epoch in table.result().owners]
        for _ in range(GROUPS):
            chosen = [channel for channel in rng.sample(channels, rng.randint(1, 4)) if channel.phase != 5]
            entries = [channel.next(rng, shape, epochs[channel.shard]) for channel in chosen]
            for entry in entries:
                self.sent.setdefault(entry.outpoint, []).append(entry.state)
            payload = encode_commit([entry.encode() for entry in entries])
            statuses = await self._call(connection, StoreMessage.COMMIT, payload)
            assert not any(statuses), "the script sent what the store refuses"
            for entry in entries:
                self.answered[entry.outpoint] = len(self.sent[entry.outpoint])
        connection.close()

    def _on_close(self, _: FrameConnection) -> None:
        if not self._lost.done():
            self._lost.set_result(None)

    @staticmethod
    async def _call(connection: FrameConnection, kind: int, payload: bytes) -> bytes:
        return await asyncio.wait_for(connection.call(kind, payload), WAIT_S)

    def judge(self, found: dict[bytes, bytes]) -> str:
        """Return what is wrong with a store's content, or an empty text."""
        for outpoint, states in self.sent.items():
            state, answered = found.get(keys.STATE + outpoint), self.answered.get(outpoint, 0)
            place = states.index(state) + 1 if state in states else 0
            if state is not None and not place:
                return "holds a state that was never sent"
            if place < answered:
                return f"holds {place} of {answered} updates that were answered"
        states = {keys.STATE + outpoint for outpoint in self.sent}
        if any(key[:1] == keys.STATE and key not in states for key in found):
            return "holds a channel that was never opened"
        return ""


def run(directory: Path, fail: str) -> Result:
    """Run one store under a fault ("KIND,N,ERRNO,MODE", or "" for none) and judge it."""
    config = configure(directory)
    log = directory / "log"
    process = subprocess.Popen(
        [sys.executable, "-m", "store", str(directory / "store.toml")],
        cwd=ROOT,
        env=environment(config.common.state_dir, log, fail=fail),
        stderr=subprocess.PIPE,
        text=True,
    )
    said, script = [], Script()
    try:
        for line in process.stderr:
            said.append(line)
            if "ready at" in line:
                with suppress(ConnectionGone, RemoteRefusal, ConnectionError):
                    asyncio.run(script.run(config.address))
                break
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        said.append(process.communicate(timeout=WAIT_S)[0] or "")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    text = "".join(part or "" for part in said) + "".join(process.stderr.readlines() if not process.stderr.closed else [])
    fired = any(op.kind == "f" for op in read_log(log)) if log.exists() else False
    answered = sum(script.answered.values())
    if "Traceback" in text:
        return Result(fired, process.returncode, answered, "a traceback: " + text[-600:])
    if process.returncode not in (0, 2, 70, -signal.SIGKILL):
        return Result(fired, process.returncode, answered, f"ended with {process.returncode}: {text[-400:]}")
    try:
        problem = script.judge(open_store(config))
    except ConfigError as error:
        problem = f"does not open again: {error}"
    return Result(fired, process.returncode, answered, problem)


def _work(task: tuple[str, int]) -> tuple[str, int, Result]:
    fault, number = task
    kind, rest = fault.split(",", 1)
    directory = Path(tempfile.mkdtemp(prefix="paychan-syscalls-", dir=scratch()))
    try:
        return fault, number, run(directory, f"{kind},{number},{rest}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def campaign(tasks: list[tuple[str, int]], jobs: int, show: bool = False) -> tuple[Counter, list[str]]:
    """Run (fault, N) pairs. Return counts by (fault, what the store did), and what was wrong."""
    counts: Counter = Counter()
    problems = []
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=50) as pool:
        for number, (fault, at, result) in enumerate(pool.imap_unordered(_work, tasks), 1):
            ended = "not reached" if not result.fired else f"exit {result.status}"
            counts[fault, ended] += 1
            if result.problem:
                problems.append(f"{fault} at {at}: {result.problem}")
            if show and (sys.stdout.isatty() or not number % 20):
                bar = "#" * (30 * number // len(tasks))
                text = f"[{bar:30}] {number}/{len(tasks)} runs, {len(problems)} violations"
                print(text, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    return counts, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="runs, shared out among the faults")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kind", help="one fault: KIND,ERRNO,MODE")
    parser.add_argument("--at", type=int, nargs="*", help="these N only")
    arguments = parser.parse_args()
    faults = [arguments.kind] if arguments.kind else list(FAULTS)
    share = -(-arguments.count // len(faults))
    tasks = [(fault, number) for number in arguments.at or range(1, share + 1) for fault in faults]
    counts, problems = campaign(tasks, arguments.jobs, show=True)
    print(f"{len(tasks)} runs, {len(problems)} violations")
    for (fault, ended), number in sorted(counts.items()):
        print(f"  {fault}: {number} times {ended}")
    for problem in problems[:20]:
        print(f"  {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    os.environ.pop("POWER_FAIL", None)
    sys.exit(main())
