"""The settlement simulation: `python -m tests.simulation.settle --channels 1000 --seed N`.

Production workers, store rules and signer policy on a simulated chain, clock, disk and network; an auditor holds everything against
what payers were told. One seed replays a run. It exits with 1 if anything was wrong, and prints the seed of the world in which.
"""

import argparse
import asyncio
import hashlib
import logging
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from coincurve import PrivateKey

import store.sequencer
from paychan.core.channel import Phase
from paychan.core.errors import PaychanError, Unavailable
from paychan.rpc.peer_address import PeerAddress
from paychan.server import worker as worker_module
from paychan.server.doors.peers import PeerRequest
from paychan.server.protocol.replies import Reply, problem
from paychan.server.settlement import settler, telling, watcher
from paychan.server.shards.ownership import NotOwner
from paychan.server.worker import Worker
from paychan.settings.load import load_server_config
from paychan.settings.models import ServerConfig
from signer.policy import Policy

from .attacks import Meddler
from .auditor import Auditor
from .blockchain import BLOCK_SECONDS, GENESIS, BlockChain, Market
from .exposure import Exposure
from .loop import CURRENT, Process, SimulatedLoop, Wire
from .mempool import CORE_28, CORE_31
from .node import ESTIMATES, KINDS, Node, NodeChain
from .payer import Hoarder, Payer, make_channel
from .plan import draw_funding_size
from .storage import Disk, MemoryStoreClient, Store
from .vault import MemorySignerClient, Vault

CHANNELS_PER_WORLD = 50
SHARDS = 8
CONFIRMATIONS = 6
OPEN_PRICE = 1_100
SETTLEMENT_HOURS = 6
FEE_RATE_MAX = 500  # satoshi per byte: what the live configurations of server and signer allow
FEE_SHARE_PERCENT_MAX = 50  # less than the live signer's share
FIRST_SHARE_PERCENT = 25  # less than the ladder's first, which is all that a signer signs whose clock never gets there
FEE_SUM_PER_DAY_MAX = 5_000_000  # satoshi: the live signer's
DESTINATION = b"\x76\xa9\x14" + b"\xdd" * 20 + b"\x88\xac"
HOARDERS, HOARD, HOARD_VALUE = 2, 3_990_000, 8_000_000  # satoshi: received, and of the funding output
HOARDED_TOTAL_MAX = HOARDERS * HOARD + 500_000  # where the limit for all channels is so low
HOARDED_WORLDS = 0.2
HOARDED_UNSETTLED_MAX = HOARDED_TOTAL_MAX + 4_000_000
SERVER_KEY = PrivateKey(b"\x11" * 32)
HOUR = 3600

SERVER_TOML = f"""
network = "test"
state_dir = "state"
[debug]
enable = false
[http]
port = 8000
[processes]
store = "unix:run/store.sock"
signer = "unix:run/signer.sock"
[chain]
backend = "fixture"
fixture_file = "none.json"
poll_seconds = 15
[open]
base_price = {OPEN_PRICE}
price_add_settlement_fee = false
funding_tx_min_conf = 1
duration_hours_min = 0
duration_hours_max = 1000
[settlement]
period_hours = {SETTLEMENT_HOURS}
fee_per_byte = 1
fee_per_byte_max = 1000
confirmations = {CONFIRMATIONS}
[exposure]
channel_value_max = 4_000_000
total_value_max = 4_000_000_000
"""


@dataclass
class Summary:
    """What happened, in one world or in all."""

    channels: int = 0
    opened: int = 0
    settled: int = 0
    refunded: int = 0
    uneconomic: int = 0
    bumps: int = 0
    reorgs: int = 0
    evictions: int = 0
    copies: int = 0
    pins: int = 0
    worker_crashes: int = 0
    store_crashes: int = 0
    node_outages: int = 0
    hours: int = 0

    def add(self, other: "Summary") -> None:
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))

    def __str__(self) -> str:
        return ", ".join(f"{item.name.replace('_', ' ')} {getattr(self, item.name)}" for item in fields(self))


class MemoryPeers:
    """`paychan.server.doors.peers.Peers` without sockets. `registry` finds the other workers by their addresses."""

    registry: dict[str, "MemoryPeers"] = {}
    numbers = count()

    def __init__(self, wire: Wire, answer: Callable[[PeerRequest], Awaitable[Reply]]) -> None:
        self._wire, self._answer = wire, answer
        self.address = PeerAddress(f"/worker-{next(self.numbers)}")
        self.registry[self.address.path] = self

    async def start(self) -> None:
        """Nothing to listen at."""

    def keep_only(self, peers: object) -> None:
        """Nothing to close."""

    def is_lost(self, peer: str) -> bool:
        """Never: there is one machine."""
        return False

    def link(self, peer: str) -> None:
        """Nothing: the simulation's payments come the patient way."""

    async def forward(self, peer: str, request: PeerRequest) -> Reply | None:
        other = self.registry.get(peer)
        await self._wire.cross()
        if other is None or other._wire.process is None or not other._wire.process.is_alive:
            return None
        task = other._wire.process.spawn(other._answer(PeerRequest.decode(request.encode())))
        await asyncio.wait([task], timeout=12)
        await self._wire.cross()
        if not task.done() or task.cancelled():
            raise Unavailable("owner_moved")
        if isinstance(task.exception(), NotOwner):
            return None
        return task.result()


class World:
    """Everything of one run: chain, node, store, signer, some workers and many payers."""

    def __init__(self, seed: str, channels: int, config: ServerConfig) -> None:
        self.seed, self._count, self._config = seed, channels, config
        chance = self._stream("world")
        self.loop = SimulatedLoop()
        base = chance.choice((1.5, 4.0, 10.0))
        market = Market(self._stream("market"), base, chance.choice((20.0, 80.0, 250.0)), chance.choice((1800, 5400, 21_600)))
        rules = chance.choice(((CORE_28, CORE_28), (CORE_31, CORE_31), (CORE_28, CORE_31), (CORE_31, CORE_28)))
        fullness = chance.choice((1.0, 1.0, 0.5, 0.0))
        self.chain = BlockChain(self._stream("chain"), market, chance.choice((0.0, 0.02, 0.06)), *rules, fullness)
        self.meddler = Meddler(self.chain, self._stream("meddler"), chance.choice((0.0, 0.0, 0.3, 1.0)))
        self.chain.meddle = self.meddler
        pubkey = SERVER_KEY.public_key.format()
        period = SETTLEMENT_HOURS * HOUR
        policy = Policy(SERVER_KEY, pubkey, DESTINATION, FEE_RATE_MAX, FEE_SHARE_PERCENT_MAX, 100, period, FEE_SUM_PER_DAY_MAX)
        self.vault = Vault(policy, self.wall)
        has_copies, exposure_max = self.meddler.luck > 0, config.channel_exposure_max
        self.auditor = Auditor(
            self.chain, DESTINATION, config.settlement_period, CONFIRMATIONS, FEE_RATE_MAX, has_copies, exposure_max
        )
        if config.total_exposure_max == HOARDED_TOTAL_MAX:
            self.auditor.exposure = Exposure(HOARDED_TOTAL_MAX, HOARDED_UNSETTLED_MAX, self.loop.time)
        self.disk = Disk(self._see_writes)
        self.auditor.data = self.disk.data
        self.node = Node(self.chain, chance.choice(KINDS))
        self.summary = Summary(channels=channels)
        self._crash = chance.choice((0.0, 0.0002, 0.001))
        self._highest = 0
        self._wall = self._make_wall(chance)
        if min(error for _, error in self._wall) < -HOUR:
            self.auditor.share_worth_percent = FIRST_SHARE_PERCENT
        self._workers: list[tuple[Process, Worker]] = []
        self._worker_count = chance.choice((1, 1, 2))
        self._trace = hashlib.sha256()

    def _stream(self, name: str) -> random.Random:
        """Return randomness of its own for a part, so that one part's use does not shift another's."""
        return random.Random(f"{self.seed}/{name}")

    def _make_wall(self, chance: random.Random) -> list[tuple[float, float]]:
        """Return the wall clock's errors as (from true seconds, offset): right, wrong, set back, or beyond belief for a time."""
        kind = chance.choice(("right", "behind", "ahead", "set back", "set back", "decades", "leap", "leap"))
        if kind == "right":
            return [(0, 0.0)]
        if kind == "behind":
            return [(0, -chance.uniform(0, 14 * HOUR))]
        if kind == "ahead":
            return [(0, chance.uniform(0, HOUR))]
        if kind == "decades":  # before 1970 is no time; the chain's median time past is all that there is
            return [(0, -chance.uniform(0, GENESIS))]
        if kind == "leap":
            leaps = chance.choice((0.0, chance.uniform(0, 40) * HOUR))
            error = chance.choice((8, 24, 24 * 3650, 24 * 365 * 53, -24 * 365 * 30)) * HOUR
            return [(0, 0.0), (leaps, error), (leaps + chance.choice((90, 5 * HOUR)), 0.0)]
        return [(0, 0.0), (chance.uniform(2, 24) * HOUR, -chance.uniform(1, 14) * HOUR)]

    def now(self) -> float:
        """True unix seconds."""
        return GENESIS + self.loop.time()

    def wall(self) -> int:
        offset = next(error for start, error in reversed(self._wall) if start <= self.loop.time())
        return int(self.now() + offset)

    def _see_writes(self, writes: Mapping[bytes, bytes | None]) -> None:
        self._trace.update(f"{self.loop.time()} {sorted(writes.items())}".encode())
        self.auditor.see_writes(writes)

    @property
    def trace(self) -> str:
        """A digest of everything that was written, and when."""
        return self._trace.hexdigest()[:16]

    # --- what workers are made with, instead of what talks to the outside ---

    def _wire(self, name: str, delay: float, crash: float) -> Wire:
        return Wire(self._stream(f"{name}/{self.loop.time()}"), delay, crash)

    def replacements(self) -> dict[str, Any]:
        """Return what stands in for names of `paychan.server.worker`."""
        crash = self._crash

        def chance(name: str) -> random.Random:
            return self._stream(f"{name}/{self.loop.time()}")

        def write_highest(_: Path, seconds: int) -> None:
            process = CURRENT.get()
            if process is not None and process.is_alive:
                self._highest = max(self._highest, seconds)

        return {
            "make_chain": lambda *_: NodeChain(self.node, self._wire("node", 0.05, crash), chance("node chance")),
            "SignerClient": lambda *_: MemorySignerClient(self.vault, self._wire("signer", 0.005, 20 * crash), chance("sign")),
            "StoreClient": lambda _, *rest: MemoryStoreClient(
                self.store, self._wire("store", 0.002, crash / 5), chance("store chance"), *rest
            ),
            "Peers": lambda _, answer, *__: MemoryPeers(self._wire("peers", 0.002, crash), answer),
            "wall_clock": lambda _: self.wall,
            "read_highest": lambda _: self._highest,
            "write_highest": write_highest,
            "time": SimpleNamespace(monotonic=self.loop.time),
        }

    # --- what happens ---

    async def _host(self, number: int) -> None:
        """Keep one worker running: whenever it is dead, another one follows, mostly soon."""
        chance = self._stream(f"host {number}")
        while True:
            process, died = Process(), asyncio.Event()
            process.at_death.append(died.set)
            await process.spawn(self._start_worker(process))
            lives = chance.expovariate(1 / (10 * HOUR)) if self._crash else 1000 * HOUR
            killer = asyncio.get_running_loop().call_later(lives, process.kill)
            await died.wait()
            killer.cancel()
            self.summary.worker_crashes += 1
            self._workers = [pair for pair in self._workers if pair[0] is not process]
            await asyncio.sleep(chance.uniform(600, 2400) if chance.random() < 0.05 else chance.uniform(1, 90))

    async def _start_worker(self, process: Process) -> None:
        worker = Worker(self._config)
        worker.start()
        self._workers.append((process, worker))

    async def ask(self, request: Callable[[Worker], Awaitable[Reply]]) -> Reply | None:
        """Be a payer's way to the server: any worker that runs."""
        if not self._workers:
            return None
        process, worker = self._stream(f"front {self.loop.time()}").choice(self._workers)

        async def serve() -> Reply:
            try:
                return await request(worker)
            except PaychanError as error:
                return problem(error)

        task = process.spawn(serve())
        await asyncio.wait([task], timeout=60)
        return task.result() if task.done() and not task.cancelled() else None

    async def _mine(self) -> None:
        chance = self._stream("miner")
        while True:
            await asyncio.sleep(chance.expovariate(1 / BLOCK_SECONDS))
            self.chain.mine(int(self.now()))

    async def _trade(self) -> None:
        while True:
            self.chain.move_market(self.loop.time(), 120)
            await asyncio.sleep(120)

    async def _break_node(self) -> None:
        chance = self._stream("node outages")
        while True:
            await asyncio.sleep(chance.expovariate(1 / (7 * HOUR)))
            self.summary.node_outages += 1
            self.node.is_up, self.node.is_silent = False, chance.random() < 0.5
            await asyncio.sleep(min(1.5 * HOUR, chance.expovariate(1 / (0.4 * HOUR))))
            self.node.is_up = True
            chance.choice((self.chain.forget_mempool, self.chain.forget_own, lambda: None, lambda: None))()

    async def _spoil_estimates(self) -> None:
        """Now and then the node has no estimate, as after a restart, or one that is worth nothing."""
        chance = self._stream("estimates")
        while True:
            await asyncio.sleep(chance.expovariate(1 / (12 * HOUR)))
            self.node.estimates = kind = chance.choice(ESTIMATES)
            await asyncio.sleep(chance.uniform(0.5, 4 if kind in ("none", "sparse") else 1.5) * HOUR)
            self.node.estimates = ""

    async def _crowd_mempools(self) -> None:
        """Now and then mempools are full of what waits for cheaper blocks: they ask for more, and forget what pays less."""
        chance = self._stream("crowds")
        while True:
            await asyncio.sleep(chance.expovariate(1 / (10 * HOUR)))
            for share in (0.4, 0.7, chance.uniform(0.7, 1.0), 0.0):
                self.chain.crowd = share
                await asyncio.sleep(chance.uniform(0.2, 1.5) * HOUR)

    async def _break_signer(self) -> None:
        chance = self._stream("signer outages")
        while True:
            await asyncio.sleep(chance.expovariate(1 / (8 * HOUR)))
            self.vault.is_up = False
            await asyncio.sleep(chance.uniform(10, 1200))
            self.vault.is_up = True

    async def _break_store(self) -> None:
        chance = self._stream("store outages")
        while self._crash:
            await asyncio.sleep(chance.expovariate(1 / (6 * HOUR)))
            self.summary.store_crashes += 1
            self.store.crash()
            await asyncio.sleep(chance.uniform(1, 600))
            self.store.start()

    def _hoarders(self) -> Iterator[Awaitable[None]]:
        for number in range(HOARDERS if self.auditor.exposure is not None else 0):
            chance = self._stream(f"hoarder {number}")
            exp_time = int(self.now() + 60 * HOUR)
            sender, funding = make_channel(chance, self._count + number, SERVER_KEY.public_key.format(), exp_time, HOARD_VALUE)
            parts = (chance, sender, funding, self, self.chain, self.auditor, self.now, OPEN_PRICE)
            yield Hoarder(*parts, hoard=HOARD).live(chance.uniform(0, HOUR), exp_time - SETTLEMENT_HOURS * HOUR - HOUR)

    def _payers(self) -> Iterator[Awaitable[None]]:
        yield from self._hoarders()
        for number in range(self._count):
            chance = self._stream(f"payer {number}")
            starts_in = chance.uniform(0, 24 * HOUR)
            exp_time = int(self.now() + starts_in + (SETTLEMENT_HOURS + chance.uniform(3, 16)) * HOUR)
            size = draw_funding_size(chance)
            sender, funding = make_channel(chance, number, SERVER_KEY.public_key.format(), exp_time, size=size)
            payer = Payer(chance, sender, funding, self, self.chain, self.auditor, self.now, OPEN_PRICE)
            yield payer.live(starts_in, exp_time - SETTLEMENT_HOURS * HOUR - HOUR)

    async def _run(self) -> None:
        self.store = Store(self.disk, SHARDS, self._stream("store"))
        breaking = [self._break_node(), self._break_signer(), self._break_store(), self._spoil_estimates()]
        works = [self._mine(), self._trade(), self._crowd_mempools(), *breaking]
        tasks = [asyncio.ensure_future(work) for work in works]
        tasks += [asyncio.ensure_future(self._host(number)) for number in range(self._worker_count)]
        payers = [asyncio.ensure_future(live) for live in self._payers()]
        deadline = self.loop.time() + 90 * HOUR
        while self.loop.time() < deadline and not all(payer.done() for payer in payers):
            _raise_any(tasks)
            await asyncio.sleep(HOUR / 2)
        await asyncio.gather(*(payer for payer in payers if payer.done()))
        while self.loop.time() < deadline and any(
            account.phase not in (0, Phase.SETTLED) for account in self.auditor.accounts.values()
        ):
            _raise_any(tasks)
            await asyncio.sleep(HOUR / 2)

    def run(self) -> Summary:
        """Simulate, judge, and return what happened; `auditor.violations` says what was wrong."""
        loop = self.loop
        loop.set_exception_handler(self._on_loop_error)
        MemoryPeers.registry.clear()
        with _patched(self.replacements()), _logged(self.auditor):
            try:
                loop.run_until_complete(self._run())
            finally:
                self.auditor.judge()
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        return self._summarise()

    def _on_loop_error(self, _: object, context: dict[str, Any]) -> None:
        self.auditor.violations.append(f"on the loop: {context.get('message')} {context.get('exception')!r}")

    def _summarise(self) -> Summary:
        summary, chain = self.summary, self.chain
        for account in self.auditor.accounts.values():
            if account.phase:
                summary.opened += 1
                summary.settled += account.settled_by == b"settlement"
                summary.refunded += account.settled_by == b"refund"
                summary.uneconomic += not self.auditor.must_settle(account)
                summary.bumps += account.bumps
        summary.reorgs, summary.evictions, summary.copies = chain.reorgs, chain.evictions, self.meddler.overtaken
        summary.pins = sum(account.pinned > 0 for account in self.auditor.accounts.values())
        summary.hours = round(self.loop.time() / HOUR)
        return summary


def _raise_any(tasks: "list[asyncio.Future[Any]]") -> None:
    for task in tasks:
        if task.done():
            task.result()


@contextmanager
def _patched(replacements: Mapping[str, Any]) -> Iterator[None]:
    """Put the stand-ins where production code looks for the outside, and slow what ticks down a little; what is told of expiries,
    which nothing here listens to, by much."""

    def die(error: BaseException) -> None:
        raise error

    with (
        patch.multiple(worker_module, **replacements),
        patch.object(store.sequencer, "_die", die),
        patch.object(settler, "SWEEP_SECONDS", 15.0),
        patch.object(watcher, "LOOK_SECONDS", 15.0),
        patch.object(telling, "LOOK_SECONDS", 600.0),
    ):
        yield


TOLD = ("settlement_uneconomic", "was spent by another", "was spent, but maybe not by its newest settlement")
"""What the log says of a channel that lapsed; the last where the node does not name the spender."""


class _Listener(logging.Handler):
    """Reads the log as an operator would: what lapses must be said, and an ERROR is a bug."""

    def __init__(self, auditor: Auditor) -> None:
        super().__init__(logging.WARNING)
        self._auditor = auditor

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self._auditor.violations.append(f"logged: {text[-800:]}")
        if "was spent by another" in text:
            self._auditor.lost_logged.update(word for word in text.split() if "/" in word)
        if any(words in text for words in TOLD):
            self._auditor.uneconomic_logged.update(word.strip(":,") for word in text.split() if "/" in word)


@contextmanager
def _logged(auditor: Auditor) -> Iterator[None]:
    logger, listener = logging.getLogger("paychan"), _Listener(auditor)
    before = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate = before


def make_config() -> ServerConfig:
    """Return the server's configuration, read as the server reads it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "server.toml"
        path.write_text(SERVER_TOML)
        return load_server_config(path, {})


def hoarded_config() -> ServerConfig:
    """Return one whose limit for all channels some hoarders fill."""
    return replace(make_config(), total_exposure_max=HOARDED_TOTAL_MAX, unsettled_value_max=HOARDED_UNSETTLED_MAX)


def run_world(seed: str, channels: int) -> World:
    """Run one world to its end; the same seed gives the same trace."""
    is_hoarded = random.Random(f"{seed}/hoarded").random() < HOARDED_WORLDS
    world = World(seed, channels, hoarded_config() if is_hoarded else make_config())
    world.run()
    return world


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--world", type=int, help="replay only this world")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    total, failed, began = Summary(), [], time.monotonic()
    worlds = range(-(-options.channels // CHANNELS_PER_WORLD)) if options.world is None else [options.world]
    for number in worlds:
        channels = min(CHANNELS_PER_WORLD, options.channels - number * CHANNELS_PER_WORLD)
        world = run_world(f"{options.seed}/{number}", channels)
        total.add(world.summary)
        bad = world.auditor.violations
        print(f"world {number}, trace {world.trace}, {time.monotonic() - began:.0f} s: {world.summary}", flush=True)
        for violation in bad[:20]:
            print(f"  VIOLATION (seed {options.seed}, world {number}): {violation}", flush=True)
        failed += [number] * bool(bad)
    print(f"total: {total}")
    if failed:
        print(f"FAILED in worlds {failed}; replay one with --seed {options.seed} --world N --channels {options.channels}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
