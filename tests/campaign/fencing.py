"""The fencing count: how many writes of stale owners are accepted. It must be none.

    python -m tests.campaign.fencing --count 1000 [--seed S]

Two parts, on one running system with two workers, each until it has `count`:

1. Writes. A worker of ours joins the live store, is given shards, and keeps its old owner table when they move: because others
   join, because its connection is closed, or because it was silent for longer than its lease, as a stopped process is. It writes
   payments that only the epoch speaks against: the channel's state, the expected value and the signature are right. Epochs: its
   old one, older ones, and that of another shard.
2. Requests that a real worker finds when it wakes. A worker is stopped, payments are sent to the port of its own, its shards move
   and the same channels are paid further through the other worker; then it is told to go on (every ORPHAN_EVERY-th time its main
   process is killed first, so that it is an orphan). It must not answer one of the old payments 200.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from paychan.core.channel import ChannelState, Phase
from paychan.core.payment import Payment
from paychan.core.sender import sign_payment
from paychan.core.sharding import shard_of
from paychan.rpc.connection import Address, ConnectionGone, FrameConnection, connect
from paychan.rpc.store_messages import (
    PAYLOAD_MAX,
    Entry,
    EntryStatus,
    Hello,
    OwnerTable,
    StoreMessage,
    Welcome,
    encode_commit,
)
from tests.campaign.faults import LEASE_MS, send
from tests.campaign.load import Account, CloseRefused, PatientClient
from tests.system import System, running, wait_until
from tests.tiling import check_all

SHARDS = 256  # config/debug/store.toml
CHANNELS = 48
ORPHAN_EVERY = 5
LATE_SECONDS_MAX = 3.0
CLOSED = "connection closed"


class Rogue:
    """A worker of the live store that serves nobody: it stands for one that was stopped and wakes with an old table."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._changed = asyncio.Event()
        self.table: OwnerTable | None = None
        self.number = 0

    def _on_frame(self, _: FrameConnection, kind: int, __: int, payload: bytes) -> None:
        if kind == StoreMessage.OWNERS:
            self.table = OwnerTable.decode(payload)
            self._changed.set()

    async def join(self, name: str) -> None:
        """Say HELLO, and wait for the first owner table."""
        address = Address.parse("unix:run/store.sock", self._system.state_dir)
        self.connection = await connect(address, lambda: FrameConnection(PAYLOAD_MAX, self._on_frame, lambda _: None))
        hello = Hello("test", self._system.server_pubkey, name)
        self.number = Welcome.decode(await self.connection.call(StoreMessage.HELLO, hello.encode())).worker_id
        await self.wait_for(lambda table: self.number in table.workers)

    async def wait_for(self, is_so: Callable[[OwnerTable], object]) -> None:
        """Show signs of life until the owner table is so."""
        async with asyncio.timeout(150):
            while self.table is None or not is_so(self.table):
                self._changed.clear()
                await self.connection.call(StoreMessage.HEARTBEAT)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.1)

    def epochs(self) -> dict[int, int]:
        """Return the epochs of the shards that it owns, by shard."""
        return {shard: e for shard, (w, e) in enumerate(self.table.owners[:SHARDS]) if w == self.number}

    async def write(self, account: Account, epoch: int, before: int, payment: Payment, shard: int | None = None) -> EntryStatus:
        """Write a payment as an owner would who last saw the channel with `before` left. Raises ConnectionGone."""
        outpoint = account.terms.outpoint
        state = ChannelState(Phase.OPEN, payment).serialize()
        entry = Entry(shard_of(outpoint, SHARDS) if shard is None else shard, epoch, outpoint, Phase.OPEN, before, state)
        return EntryStatus((await self.connection.call(StoreMessage.COMMIT, encode_commit([entry.encode()])))[0])


@dataclass
class Count:
    """What was tried, and how the store or the worker answered it; `accepted` must stay 0."""

    tried: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def arrived(self) -> int:
        """How many were answered; the others found their connection closed."""
        return self.answers.total() - self.answers[CLOSED]

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.tried.items()))
        answers = ", ".join(f"{count} {kind}" for kind, count in sorted(self.answers.items()))
        return f"accepted {self.accepted} of {self.tried.total()}: {kinds}\n  answered: {answers}; {len(self.problems)} problems"


class StaleWrites:
    """Part 1."""

    def __init__(self, system: System, seed: int, count: Count) -> None:
        self._system, self._rng, self._count = system, random.Random(seed), count
        self._client = PatientClient(system.port, timeout=2.0)
        self._accounts = [Account.of(system, f"fencing-{seed}-{i}") for i in range(CHANNELS)]
        self._numbers = itertools.count()

    async def run(self, count: int, say: Callable[[str], None]) -> None:
        """Write until the store has answered `count` stale writes. Then the channels are closed and judged."""
        for account in self._accounts:
            await asyncio.to_thread(account.open, self._client)
        ways = itertools.cycle((self._others_join, self._connection_closed, self._silent))
        while (arrived := self._count.arrived) < count:
            way = next(ways)
            await way(f"{way.__name__[1:].replace('_', ' ')}")
            say(f"{arrived}/{count} stale writes, {self._count.accepted} accepted")
        for account in self._accounts:
            await asyncio.to_thread(account.pay, self._client, 1)
            try:
                await asyncio.to_thread(account.close, self._client)
            except CloseRefused as error:
                self._count.problems.append(str(error))
        closed = [account.history for account in self._accounts if account.history.final_left >= 0]
        self._count.problems += check_all(closed).problems

    async def _join(self) -> Rogue:
        rogue = Rogue(self._system)
        await rogue.join(f"rogue-{next(self._numbers)}")
        return rogue

    async def _others_join(self, way: str) -> None:
        """Its connection lives on, and some of its shards have gone to others who joined."""
        late = await self._join()
        before = late.epochs()
        others = [await self._join() for _ in range(2)]
        await late.wait_for(lambda table: others[-1].number in table.workers)
        gone = {shard: epoch for shard, epoch in before.items() if shard not in late.epochs()}
        await self._write_all(way, late, gone, late)
        for rogue in (*others, late):
            rogue.connection.close()

    async def _connection_closed(self, way: str) -> None:
        """Its connection ended, and it is back on another with its old epochs."""
        old = await self._join()
        old.connection.close()
        await self._return_with(way, old)

    async def _silent(self, way: str) -> None:
        """It said nothing for longer than a lease, and is back on another connection; or tries the old one."""
        await self._return_with(way, await self._join())

    async def _return_with(self, way: str, old: Rogue) -> None:
        """Wait until a worker has lost its shards, and write with its epochs."""
        epochs, back = old.epochs(), await self._join()
        await back.wait_for(lambda table: old.number not in table.workers)
        await self._write_all(f"{way}, old connection", old, epochs, back)
        await self._write_all(way, back, epochs, back)
        back.connection.close()

    async def _write_all(self, way: str, writer: Rogue, epochs: dict[int, int], observer: Rogue) -> None:
        """Write on every channel in those shards: under the old epoch, an older one, and that of a shard that is the writer's."""
        mine = list(observer.epochs().items())
        for account in self._accounts:
            shard = shard_of(account.terms.outpoint, SHARDS)
            if shard not in epochs:
                continue
            if observer.table.owners[shard][1] == epochs[shard]:
                continue  # it is the owner still
            await self._try(way, writer, account, epochs[shard], None)
            await self._try(f"{way}, older epoch", writer, account, self._rng.randrange(epochs[shard] + 1), None)
            if mine and shard not in dict(mine):
                other, epoch = self._rng.choice(mine)
                await self._try(f"{way}, epoch of another shard", writer, account, epoch, other)

    async def _try(self, way: str, writer: Rogue, account: Account, epoch: int, shard: int | None) -> None:
        seen = account.lowest.change_value
        self._count.tried[way] += 1
        try:
            status = await writer.write(account, epoch, seen, sign_payment(account.terms, seen - 10, account.sender.key), shard)
        except ConnectionGone:
            self._count.answers[CLOSED] += 1
            return
        self._count.answers[status.name.lower()] += 1
        self._count.accepted += status == EntryStatus.OK


class StaleRequests:
    """Part 2."""

    def __init__(self, system: System, seed: int, count: Count) -> None:
        self._system, self._seed, self._rng, self._count = system, seed, random.Random(seed), count
        self._client = PatientClient(system.port, timeout=LEASE_MS / 1000)

    def run(self, count: int, say: Callable[[str], None]) -> None:
        """Stop workers until `count` of their old requests have been tried."""
        for number in itertools.count(1):
            if self._count.tried.total() >= count:
                return
            accounts = [Account.of(self._system, f"woken-{self._seed}-{number}-{i}") for i in range(CHANNELS)]
            self._round(accounts, is_orphan=number % ORPHAN_EVERY == 0)
            self._count.problems += check_all([account.history for account in accounts]).problems
            say(f"{self._count.tried.total()}/{count} stale requests, {self._count.accepted} accepted")

    def _round(self, accounts: list[Account], is_orphan: bool) -> None:
        wait_until(lambda: self._system.ready_workers() == 2, 30, "both workers")
        for account in accounts:
            account.open(self._client)
            account.pay(self._client)  # loaded where it belongs
        pid, port = self._rng.choice(list(zip(self._system.worker_pids(), self._system.own_ports(), strict=True)))
        send(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: is_stopped(pid), 20, "the stop")
            waiting = [(account, ask(port, account.sender.channel_target(account.sign(1)))) for account in accounts]
            begun = time.monotonic()
            for account in accounts:
                account.pay(self._client)
            time.sleep(max(0.0, LEASE_MS / 1000 * 1.5 - (time.monotonic() - begun)))
            if is_orphan:
                self._system.kill("server")
        finally:
            send(pid, signal.SIGCONT)
        for _, sock in waiting:
            answer = answer_of(sock)
            self._count.tried["orphan woken" if is_orphan else "worker woken"] += 1
            self._count.answers[answer] += 1
            self._count.accepted += answer.startswith("2")
        for account in accounts:
            account.close(self._client)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def ask(port: int, target: str) -> socket.socket:
    """Send a payment, and do not wait for its answer."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=150)
    sock.sendall(f"PUT {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    return sock


def answer_of(sock: socket.socket) -> str:
    """Return an answer's status and code, or how there was none."""
    received = b""
    sock.settimeout(LATE_SECONDS_MAX)
    with sock:
        try:
            while chunk := sock.recv(65536):
                received += chunk
        except TimeoutError:
            return "none"
        except OSError:
            pass
    if not received:
        return CLOSED
    code = received.partition(b'"code":"')[2].partition(b'"')[0].decode()
    return f"{received.split()[1].decode()} {code}".strip()


def count_stale(system: System, count: int, seed: int, say: Callable[[str], None] = lambda _: None) -> tuple[Count, Count]:
    """Run both parts on a running system of two workers whose lease is LEASE_MS."""
    writes, requests = Count(), Count()
    asyncio.run(StaleWrites(system, seed, writes).run(count, say))
    StaleRequests(system, seed, requests).run(count, say)
    return writes, requests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="of each part")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    end = "\r\x1b[K" if sys.stdout.isatty() else "\n"
    changes = {"store.toml": {"lease_ms = ": f"lease_ms = {LEASE_MS}"}}
    with (
        tempfile.TemporaryDirectory(prefix="paychan-fencing-") as directory,
        running(Path(directory), workers=2, changes=changes) as system,
    ):
        parts = count_stale(system, arguments.count, arguments.seed, lambda text: print(text, end=end, flush=True))
    for name, part in zip(("writes", "requests"), parts, strict=True):
        print(f"stale {name}: {part}")
        for problem in part.problems[:20]:
            print(f"  {problem}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    return int(any(part.accepted or part.problems for part in parts))


if __name__ == "__main__":
    sys.exit(main())
