"""`paychan gateway FILE`: granian with the gateway and the settings that it needs."""

import argparse
import os
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from .. import logs
from ..core.errors import ConfigError
from ..exits import EXIT_BAD_CONFIG
from ..printing import announce, show
from ..server import stopping
from ..server.port import wait_for_port
from ..settings.hosts import in_url
from .load import load_gateway_config
from .models import GatewayConfig
from .receipts import open_receipts
from .selling import open_door

HEADER_SECONDS_MAX = 20
HEADERS_SIZE_MAX = 32 * 1024
"""Bytes of request line and header; a credential has up to 8 kB."""

BACKLOG = 1024
RESPAWN_SECONDS = 0.5


def run(arguments: argparse.Namespace) -> int:
    """Run the gateway until it is told to stop; return its exit status. Raises ConfigError."""
    if arguments.check:
        return _check(arguments.file)
    config = load_gateway_config(arguments.file)
    if config.door is not None:
        open_door(config.door)  # for its complaints: a worker's would be repeated
    open_receipts(config)
    wait_for_port(config.host, config.port, config.source, "gateway")
    logs.set_up("gateway")
    os.environ["PAYCHAN_GATEWAY"] = os.path.abspath(arguments.file)
    server = make_server(config)
    scheme = "https" if config.tls_key else "http"
    server.on_startup(lambda: announce(f"ready {scheme}://{in_url(config.host)}:{config.port}"))
    server.serve()
    return 0


def _check(file: str) -> int:
    """Print every problem of the file; return 2 if there is one."""
    try:
        load_gateway_config(file)
    except ConfigError as error:
        show("\n".join(error.problems))
        return EXIT_BAD_CONFIG
    show("no problem found")
    return 0


def make_server(config: GatewayConfig) -> Any:
    """Return granian's server for a configuration."""
    stopping.install()
    return Granian(
        "paychan.gateway:app",
        address=config.host,
        port=config.port,
        interface=Interfaces.RSGI,
        workers=config.workers,
        loop=Loops.uvloop,
        backlog=BACKLOG,
        backpressure=2 * config.concurrency,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS_MAX * 1000, max_buffer_size=HEADERS_SIZE_MAX),
        websockets=True,
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_SECONDS,
        workers_kill_timeout=2 * config.stop_seconds + 2,
        ssl_cert=config.tls_certificate,
        ssl_key=config.tls_key,
        log_access=False,
        log_dictconfig=logs.granian_config("gateway"),
    )
