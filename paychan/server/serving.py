"""`paychan-server FILE`: granian with this application and the settings that it needs."""

import argparse
import os
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from .. import __version__, logs, printing
from ..chain.make import make_chain
from ..core.errors import ConfigError
from ..exits import status_of
from ..notify import Manager
from ..settings.load import load_server_config
from ..settings.models import ServerConfig
from . import stopping
from .doors.direct import CONNECTIONS_MAX
from .life import Lives, begin
from .port import wait_for_port

HEADER_SECONDS_MAX = 20.0
"""For the headers of a request, and for the pause before it: an idle connection is closed after this time."""

HEADERS_SIZE_MAX = 16 * 1024
"""Bytes of request line and headers; ours have below 1 kB."""

RESPAWN_SECONDS = 0.5
WORKER_STOP_SECONDS_MAX = 8
"""A worker that was told to stop is killed after this time. One that was just forked does not hear it: it still has its maker's
handlers, and granian would wait for it for ever. Below the supervisor's patience."""

EPILOG = """environment: PORT, PAYCHAN_WORKERS, PAYCHAN_STATE_DIR override http.port, http.workers, state_dir
exit statuses: 0 stopped by a signal; 1 its workers end again and again; 2 wrong usage, or a configuration that must not run;
  70 the machine failed, as a full disk does"""


def main() -> int:
    """Run the server until it is told to stop; return its exit status."""
    return printing.run("paychan-server", command)


def command() -> int:
    """Do the same in a process that `printing.run` looks after."""
    file = _parser().parse_args().file
    try:
        config = load_server_config(file)
        make_chain(config.chain, config.common, config.fee_per_byte)  # for its complaints: a worker's would be repeated for ever
        wait_for_port(config.http_host, config.http_port, config.common.source, "http")
    except ConfigError as error:
        printing.say(f"paychan-server: {error}")
        return status_of(error)
    logs.set_up("server", config.common.log)
    os.environ["PAYCHAN_CONFIG"] = os.path.abspath(file)
    _serve(config, Manager())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paychan-server",
        description="Run the server with the configuration in FILE until SIGTERM or SIGINT. SIGHUP replaces its workers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="server.toml")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _serve(config: ServerConfig, manager: Manager) -> None:
    stopping.install()
    server = Granian(
        "paychan.server:app",
        address=config.http_host,
        port=config.http_port,
        interface=Interfaces.RSGI,
        workers=config.workers,
        loop=Loops.uvloop,
        backlog=CONNECTIONS_MAX,
        backpressure=CONNECTIONS_MAX,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(HEADER_SECONDS_MAX * 1000), max_buffer_size=HEADERS_SIZE_MAX
        ),
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_SECONDS,
        workers_kill_timeout=WORKER_STOP_SECONDS_MAX,
        websockets=False,
        log_access=False,
        log_dictconfig=logs.granian_config("server", config.common.log),
    )
    if manager.is_there:
        _tell(server, manager, config.workers)
    server.serve()


def _tell(server: Any, manager: Manager, workers: int) -> None:
    """Have the service manager told of what becomes of granian's main process and its workers."""
    lives = Lives(manager, workers)
    begin(lives)
    server.on_startup(lives.start)
    server.on_reload(lives.reload)
    shutdown = server.shutdown

    def stop(*given: Any, **named: Any) -> None:
        manager.stopping()
        shutdown(*given, **named)

    server.shutdown = stop
