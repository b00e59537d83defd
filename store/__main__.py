"""`paychan-store FILE`: runs the store with the configuration in FILE (store.toml) until SIGTERM or SIGINT.

`paychan-store check|audit|backup|restore ...`: see maintenance.py.
"""

import asyncio
import logging
import signal
import sys

import uvloop

from paychan.core.errors import ConfigError
from paychan.settings.load import EXIT_BAD_CONFIG, load_store_config
from paychan.settings.models import StoreConfig

from . import maintenance
from .directory import hold_directory, sync_directory
from .engine import Engine
from .identity import Identity, establish_identity, read_server_pubkey
from .restored import describe_restored
from .sequencer import EXIT_WRITE_FAILED
from .server import StoreServer

log = logging.getLogger("paychan.store")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run the command; return its exit status: 0 after a signal, 2 for a wrong call or configuration, 70 for a disk that fails."""
    if maintenance.is_call(sys.argv[1:]):
        return maintenance.run(sys.argv[1:])
    if len(sys.argv) != 2 or sys.argv[1] in maintenance.COMMANDS:
        print(maintenance.USAGE, file=sys.stderr)
        return EXIT_BAD_CONFIG
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for number in STOP_SIGNALS:  # until the event loop takes them over: nothing is in flight yet
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        run(load_store_config(sys.argv[1]))
    except ConfigError as error:
        print(f"paychan-store: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIG
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, OSError):  # rocksdict has no narrower type
            raise
        log.critical("the disk failed, the store ends: %s", " ".join(str(error).split()))
        return EXIT_WRITE_FAILED
    log.info("stopped")
    return 0


def run(config: StoreConfig) -> None:
    """Lock, open, check and serve the store until a signal. Raises ConfigError."""
    with hold_directory(config) as database:
        server_pubkey = read_server_pubkey(config)
        try:
            engine = Engine(database)
        except Exception as error:  # rocksdict has no narrower type
            message = " ".join(str(error).split())
            raise ConfigError(f"{config.common.source}: state_dir: the store does not open: {message}") from error
        try:
            identity = establish_identity(engine, config, server_pubkey)
            sync_directory(database.parent)
            record = engine.restored()
            if record is not None:
                log.warning("this store was %s", describe_restored(record))
            uvloop.run(_serve(config, identity, engine))
        finally:
            engine.close()


async def _serve(config: StoreConfig, identity: Identity, engine: Engine) -> None:
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await StoreServer(config, identity, engine).run(stop)


if __name__ == "__main__":
    sys.exit(main())
