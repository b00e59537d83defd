"""How the production processes are started in the simulation, and what stands in for what they reach outside: sockets, clocks,
disk, key file, chain node. What is not replaced here runs as it is.
"""

import asyncio
import dataclasses
import hashlib
import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import bitcoin.core.serialize
from coincurve import PrivateKey

import signer.ledger
import store.ending
import store.engines.at_once
import store.engines.postgres.engine
import store.identity
import store.sequencer
import store.server
from paychan._fast.group import StateCache
from paychan.clock import Clock
from paychan.rpc import connection as connection_module
from paychan.rpc import growing
from paychan.server import worker as worker_module
from paychan.server.app import App
from paychan.server.doors import direct as direct_module
from paychan.server.doors import peers
from paychan.server.doors.direct import DirectPort
from paychan.server.settlement import settler, watcher
from paychan.server.worker import Worker
from paychan.settings.load import load_server_config, load_store_config
from paychan.settings.models import ServerConfig, StoreConfig
from signer.ledger import Ledger
from signer.policy import Policy
from signer.server import SignerServer
from store.events import Stamp
from store.identity import establish_identity
from store.server import StoreServer

from .disk import Database, open_ledger
from .kernel import GRAVE, Killed, Process
from .network import Listener
from .node import NodeChain

if TYPE_CHECKING:
    from .world import World

SERVER_KEY = PrivateKey(b"\x11" * 32)
SERVER_PUBKEY = SERVER_KEY.public_key.format()
DESTINATION = b"\x76\xa9\x14" + b"\xdd" * 20 + b"\x88\xac"
OPEN_PRICE = 1_100
CONFIRMATIONS = 3
FEE_RATE_MAX = 500  # satoshi per byte: what the live configurations of server and signer allow
FEE_SHARE_PERCENT_MAX = 50  # less than the live signer's share
FEE_SUM_PER_DAY_MAX = 300_000  # satoshi
VERSIONS_MAX = 100
UNNOTED_VALUE_MAX = 20_000  # satoshi received between two payments that the signer is told of
PERIOD = 3600  # seconds of the chain's time
STATE_DIR = "/sim"
BASE_PORT = 8100
SWEEP_SECONDS = 4.0
POLL_SECONDS = 3
CACHE_BUCKETS = 64  # of the store: production's are 96 MiB of address space for each of its starts

_SERVER_TOML = f"""
network = "test"
state_dir = "{STATE_DIR}"
[debug]
enable = false
[http]
port = 8000
[direct]
base_port = {BASE_PORT}
public_host = "sim"
[processes]
store = "unix:run/store.sock"
signer = "unix:run/signer.sock"
[chain]
backend = "fixture"
fixture_file = "none.json"
poll_seconds = {POLL_SECONDS}
[open]
base_price = {OPEN_PRICE}
price_add_settlement_fee = false
funding_tx_min_conf = 1
duration_hours_min = 0
duration_hours_max = 1000
[settlement]
period_hours = 1
fee_per_byte = 1
fee_per_byte_max = 1000
confirmations = {CONFIRMATIONS}
[exposure]
unnoted_value_max = {UNNOTED_VALUE_MAX}
"""

_STORE_TOML = f"""
network = "test"
state_dir = "{STATE_DIR}"
[store]
address = "unix:run/store.sock"
shard_count = 4
server_pubkey = "{SERVER_PUBKEY.hex()}"
"""


def _read(load: Callable[..., Any], text: str) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file.toml"
        path.write_text(text)
        return load(path, {})


@cache
def server_config(channel_exposure_max: int, total_exposure_max: int) -> ServerConfig:
    config = _read(load_server_config, _SERVER_TOML)
    return dataclasses.replace(config, channel_exposure_max=channel_exposure_max, total_exposure_max=total_exposure_max)


@cache
def store_config(lease_ms: int) -> StoreConfig:
    return dataclasses.replace(_read(load_store_config, _STORE_TOML), lease_ms=lease_ms)


POLICY = Policy(
    SERVER_KEY, SERVER_PUBKEY, DESTINATION, FEE_RATE_MAX, FEE_SHARE_PERCENT_MAX, VERSIONS_MAX, PERIOD, FEE_SUM_PER_DAY_MAX
)


# --- what production code finds where it looks for the outside ---


class Stage:
    """Which world is simulated now. One at a time."""

    world: "World"


def _process() -> Process:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Process)
    return loop


def _exit_now(_: int = 0) -> None:
    process = _process()
    process.die()
    raise Killed()


def _time() -> float:
    return _process().time()


class _Wire:
    """The way between a worker and its chain node: as `Wire`, without crashes of its own."""

    def __init__(self, process: Process, world: "World") -> None:
        self.process, self._route, self._network = process, world.network.route(process.name, "node"), world.network

    async def cross(self) -> None:
        while True:
            await asyncio.sleep(5 * self._network.latency(self._route))
            if not self._route.is_held:
                return
            await asyncio.sleep(0.7)


def _make_chain(*_: Any) -> NodeChain:
    process, world = _process(), Stage.world
    return NodeChain(world.node, _Wire(process, world), world.node_chance)  # type: ignore[arg-type]


def _write_highest(_: Path, seconds: int) -> None:
    process = _process()
    disk = Stage.world.disk_of(process.name)
    if int(disk.replaced.get("clock", (b"", b"0"))[1] or b"0") < seconds:
        disk.replace(process, "clock", b"%d" % seconds, is_synced=False)


def _fast_ripemd160() -> Callable[[bytes], bytes]:
    """Return OpenSSL's if it is there: python-bitcoinlib's own is plain Python, and half of what making a channel costs."""
    if "ripemd160" not in hashlib.algorithms_available:
        return bitcoin.core.serialize.ripemd160
    return lambda data: hashlib.new("ripemd160", data).digest()


def _cluster_stand_ins() -> tuple[tuple[Any, dict[str, Any]], ...]:
    """Return those of worlds with several machines, where what these need is installed."""
    if find_spec("asyncpg") is None:
        return ()
    from .cluster.stage import stand_ins  # which needs what stands here

    return stand_ins()


def _stand_ins() -> tuple[tuple[Any, dict[str, Any]], ...]:
    """Return the modules (or classes) that look for the outside, and what they find instead, by its name there."""
    clock = SimpleNamespace(monotonic=_time)
    names = SimpleNamespace(getpid=lambda: 1, unlink=os.unlink, path=os.path)
    worker = {
        "make_chain": _make_chain,
        "wall_clock": lambda _: Stage.world.wall,
        "Clock": lambda wall, kept, beyond_max, _: Clock(wall, kept, beyond_max, Stage.world.now),  # time goes faster there
        "read_highest": lambda _: int(Stage.world.disk_of(_process().name).replaced.get("clock", (b"", b"0"))[1] or b"0"),
        "write_highest": _write_highest,
        "time": SimpleNamespace(monotonic=_time, time=lambda: float(Stage.world.wall())),
    }
    return (
        *_cluster_stand_ins(),
        (worker_module, worker),
        (growing, {"time": clock}),
        (peers, {"os": names, "secrets": SimpleNamespace(token_hex=lambda _: Stage.world.network.token())}),
        (peers.Peers, {"_remove_dead_sockets": lambda _: None}),
        (settler, {"SWEEP_SECONDS": SWEEP_SECONDS}),
        (watcher, {"LOOK_SECONDS": SWEEP_SECONDS}),
        (connection_module, {"bind": lambda address: Listener(address.path)}),
        (direct_module, {"first_free_port": lambda _, base, __: Listener(f"tcp:{base}")}),
        (store.server, {"time": SimpleNamespace(monotonic_ns=lambda: int(_time() * 1e9))}),
        (store.ending, {"os": SimpleNamespace(_exit=_exit_now)}),
        (store.sequencer, {"StateCache": partial(StateCache, CACHE_BUCKETS)}),
        (store.engines.at_once.AtOnce, {"stamp": Stamp(clock=lambda: float(Stage.world.wall()))}),
        (store.engines.postgres.engine, {"Stamp": partial(Stamp, clock=lambda: float(Stage.world.wall()))}),
        (store.identity, {"os": SimpleNamespace(urandom=bytes)}),
        (bitcoin.core.serialize, {"ripemd160": _fast_ripemd160()}),
        (signer.ledger, {"sync_directory": lambda _: None, "sqlite3": _Sqlite()}),
    )


@contextmanager
def staged() -> Iterator[None]:
    """Put the stand-ins in place. They speak for the world on the `Stage`."""
    logger, listener = logging.getLogger("paychan"), _Listener()
    level, propagate = logger.level, logger.propagate
    settling = logging.getLogger("paychan.settling")
    with ExitStack() as stack:
        for target, replacements in _stand_ins():
            stack.enter_context(patch.multiple(target, **replacements))
        logger.addHandler(listener)
        logger.setLevel(logging.ERROR)
        settling.setLevel(logging.WARNING)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(listener)
            logger.setLevel(level)
            settling.setLevel(logging.NOTSET)
            logger.propagate = propagate


class _Sqlite:
    """The module as `signer.ledger` uses it."""

    Error = sqlite3.Error

    @staticmethod
    def connect(*_: Any, **__: Any) -> Any:
        return open_ledger(Stage.world.disk, _process())


class _Listener(logging.Handler):
    """Reads the log as an operator would: an ERROR is a bug, but for what a failing disk does to the store and the signer; and a
    loss is one."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno < logging.ERROR:
            if "was spent by another" in text:
                Stage.world.judge.auditor.lost_logged.add(text.split()[0])
            return
        if "the ledger failed" in text or "Killed" in text or Stage.world.may_end(text) or _process().name == GRAVE:
            return
        Stage.world.judge.breach(f"logged: {text[-600:]}")


# --- the processes ---


async def start_store(world: "World", process: Process) -> None:
    config = store_config(world.plan.lease_ms)
    database = Database(world.disk, process, world.judge.see_commit)
    world.judge.see_recovery(database.data)
    identity = establish_identity(database, config, SERVER_PUBKEY)  # type: ignore[arg-type]
    await StoreServer(config, identity, database).run(asyncio.Event())  # type: ignore[arg-type]


async def start_signer(world: "World", process: Process) -> None:
    ledger = Ledger(Path(STATE_DIR), "test", SERVER_PUBKEY, "sim")
    server = SignerServer(POLICY, ledger, world.wall, _exit_now)  # type: ignore[arg-type]
    address = server_config(world.plan.channel_exposure_max, world.plan.total_exposure_max).signer
    await server.listen(address, Listener(address.path))  # type: ignore[arg-type]


async def start_worker(world: "World", process: Process, port: int) -> None:
    """As `App` does, in a process that granian would have made."""
    await run_worker(process, _worker_config(port, world.plan.channel_exposure_max, world.plan.total_exposure_max))


async def run_worker(process: Process, config: ServerConfig) -> None:
    app = App(config)
    app._direct = DirectPort(config, app._answer_any, app._limits)
    await app._direct.start()
    app._worker = Worker(config, app._on_joined, app._direct.public_url)
    app._worker.start()
    process.door = app._make_door(process, lambda watcher: process.create_task(app.__rsgi__(watcher.scope, watcher.proto)))


@cache
def _worker_config(port: int, *limits: int) -> ServerConfig:
    return dataclasses.replace(server_config(*limits), direct_base_port=port)
