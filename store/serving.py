"""`paychan-store FILE`: runs the store with the configuration in FILE (store.toml) until SIGTERM or SIGINT.

`paychan-store check|audit|backup|restore ...`: see maintenance.py.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from paychan import __version__, logs, printing
from paychan._fast.tally import Tally
from paychan.core.errors import ConfigError
from paychan.durable import sync_directory
from paychan.exits import EXIT_FAILED, status_of
from paychan.hangup import HangUp
from paychan.metrics.file import Role, claim_or_none, in_run, of_store
from paychan.notify import Manager
from paychan.parts import require_cluster
from paychan.settings.load import load_store_config
from paychan.settings.models import StoreConfig

from . import maintenance, moving
from .directory import hold_directory, need_embedded
from .engines.interface import Engine
from .engines.rocksdb import RocksDB
from .identity import Identity, establish_identity, read_server_pubkey
from .moved import read_mark
from .restored import describe_restored
from .server import StoreServer

EPILOG = f"""commands, each with a --help of its own:
{maintenance.SUMMARY}
  migrate  move a store from this machine's disk to PostgreSQL, or back
  postgres make a store's schema in PostgreSQL (docs/CLUSTER.md)

environment: PAYCHAN_STATE_DIR overrides state_dir
exit statuses: 0 stopped by SIGTERM or SIGINT; 2 wrong usage, or a configuration that must not run;
  70 the disk failed: look at it, then start again"""

log = logging.getLogger("paychan.store")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run the command; return its exit status: 0 after a signal, 2 for a wrong call or configuration, 70 for a disk that fails."""
    return printing.run("paychan-store", command)


def command() -> int:
    """Do the same in a process that `printing.run` looks after."""
    if sys.argv[1:] and sys.argv[1] in maintenance.COMMANDS:
        return maintenance.run(sys.argv[1], sys.argv[2:])
    if sys.argv[1:2] == ["migrate"]:
        return moving.run(sys.argv[2:])
    if sys.argv[1:2] == ["postgres"]:
        return _postgres_command(sys.argv[2:])
    file = _parser().parse_args().file
    manager = Manager()
    logs.set_up("store")
    hang_up = HangUp()
    for number in STOP_SIGNALS:  # until the event loop takes them over: nothing is in flight yet
        signal.signal(number, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, lambda *_: hang_up.heard(lambda: sys.exit(0)))
    try:
        config = load_store_config(file)
        logs.set_up("store", config.common.log)
        run(config, hang_up, manager)
    except ConfigError as error:
        printing.say(f"paychan-store: {error}")
        return status_of(error)
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, OSError):  # rocksdict has no narrower type
            raise
        log.critical("the disk failed, the store ends: %s", error)
        return EXIT_FAILED
    log.info("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paychan-store",
        usage=maintenance.USAGE,
        description="Run the store with the configuration in FILE until SIGTERM or SIGINT, or do what a command says.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="store.toml")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def run(config: StoreConfig, hang_up: HangUp, manager: Manager) -> None:
    """Lock, open, check and serve the store until a signal. Raises ConfigError."""
    with hold_directory(config) as database:
        server_pubkey = read_server_pubkey(config)
        if config.postgres is not None:
            uvloop.run(_serve_postgres(config, database, server_pubkey, hang_up, manager))
            return
        need_embedded(config, database)
        if (moved := read_mark(database.parent)) is not None:
            raise ConfigError(f"{config.common.source}: state_dir: {moved.why_not(Path(config.common.source).absolute().parent)}")
        try:
            engine = RocksDB(database)
        except Exception as error:  # rocksdict has no narrower type
            message = " ".join(str(error).split())
            raise ConfigError(f"{config.common.source}: state_dir: the store does not open: {message}") from error
        try:
            identity = establish_identity(engine, config, server_pubkey)
            sync_directory(database.parent)
            record = engine.restored()
            if record is not None:
                log.warning("this store was %s", describe_restored(record))
            uvloop.run(_serve(config, identity, engine, hang_up, manager))
        finally:
            engine.close()


def _postgres_command(arguments: list[str]) -> int:
    require_cluster("paychan-store postgres")
    from .engines.postgres.command import run

    return run(arguments)


async def _serve_postgres(
    config: StoreConfig, database: Path, server_pubkey: bytes, hang_up: HangUp, manager: Manager
) -> None:
    """Begin, and serve with the other stores. Until then a signal ends the process at once."""
    require_cluster("paychan-store")
    assert config.postgres is not None
    from .engines.postgres.opening import opened
    from .engines.postgres.sharing import Sharing
    from .engines.postgres.waiting import Waiting

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, os._exit, 0)
    loop.add_signal_handler(signal.SIGHUP, hang_up.heard, lambda: os._exit(0))
    waiting = Waiting(config, manager.waiting)
    await waiting.open()
    async with opened(config, database, server_pubkey, waiting.say) as found:
        await waiting.close()
        tally = _count(config)
        server = StoreServer(config, found.identity, found.engine, found.number, tally, manager)
        async with Sharing(found, server, config.postgres.lease_ms) as sharing:
            await server.run(_stop_event(hang_up), sharing.leave)


async def _serve(config: StoreConfig, identity: Identity, engine: Engine, hang_up: HangUp, manager: Manager) -> None:
    tally = _count(config)
    await StoreServer(config, identity, engine, tally=tally, manager=manager).run(_stop_event(hang_up))


def _count(config: StoreConfig) -> Tally:
    """Return the counts of this process. Its user may read them, and where that is not the server's, whom it lets in, too."""
    return claim_or_none(of_store(config.address, is_ours=True) or in_run(config.common.state_dir), Role.STORE)


def _stop_event(hang_up: HangUp) -> asyncio.Event:
    """Return what a signal that ends the process sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.heard, stop.set)
    return stop
