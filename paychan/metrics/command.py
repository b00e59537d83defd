"""`python -m paychan.metrics FILE`, `paychan metrics CONFIG_DIR`: the process that serves what is counted."""

import asyncio
import signal
import sys

from .. import logs, printing
from ..core.errors import ConfigError
from ..exits import status_of
from ..hangup import HangUp
from ..precedence import give_way
from ..settings.load import load_server_config
from ..settings.models import ServerConfig
from . import exposition, file
from .serving import MetricsServer

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Serve with the server.toml that the command line names; return the exit status."""
    return printing.run("paychan-metrics", _main)


def _main() -> int:
    try:
        serve(load_server_config(sys.argv[1]))
    except ConfigError as error:
        printing.say(f"paychan-metrics: {error}")
        return status_of(error)
    return 0


def serve(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError."""
    if not config.metrics.is_on:
        raise ConfigError(f"{config.common.source}: metrics.listen: is missing: there is nowhere to serve them")
    logs.set_up("metrics")
    give_way()
    asyncio.run(_serve(config))


async def _serve(config: ServerConfig) -> None:
    stop, loop, hang_up = asyncio.Event(), asyncio.get_running_loop(), HangUp()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.heard, stop.set)
    await MetricsServer(config).run(stop)


def text_now(config: ServerConfig) -> str:
    """Return what would be served now. Raises ConfigError if nothing was counted."""
    machine = config.cluster.machine if config.cluster is not None else ""
    try:
        slots = file.read_all(config.common.state_dir, config.store)
    except OSError as error:
        raise ConfigError(f"{config.common.source}: state_dir: nothing was counted: {error}") from error
    return exposition.expose(slots, {"network": config.common.network.name}, machine).decode().rstrip("\n")
