"""`paychan-server FILE`: granian with this application and the settings that it needs."""

import errno
import os
import socket
import sys
import time

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from ..core.errors import ConfigError
from ..settings.hosts import in_url
from ..settings.load import EXIT_BAD_CONFIG, load_server_config
from ..settings.models import ServerConfig
from .doors.direct import CONNECTIONS_MAX

HEADER_SECONDS_MAX = 20.0
"""For the headers of a request, and for the pause before it: an idle connection is closed after this time."""

HEADERS_SIZE_MAX = 16 * 1024
"""Bytes of request line and headers; ours have below 1 kB."""

RESPAWN_SECONDS = 0.5
WORKER_STOP_SECONDS_MAX = 5
"""A worker that was told to stop is killed after this time. One that was just forked does not hear it: it still has its maker's
handlers, and granian would wait for it for ever. Below the supervisor's patience."""

NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""This machine has no such address, or no IPv6."""

PORT_WAIT_SECONDS = 5.0
"""How long a port may stay taken by a predecessor that is being killed."""


def _wait_for_port(config: ServerConfig) -> None:
    """Refuse a port that answers already: granian would share it without a word. Raises ConfigError."""
    deadline = time.monotonic() + PORT_WAIT_SECONDS
    while True:
        family = socket.AF_INET6 if ":" in config.http_host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:  # a kernel may know no IPv6
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((config.http_host, config.http_port))
                return
        except OSError as error:
            if time.monotonic() > deadline:
                key = "host" if error.errno in NOT_OURS else "port"
                where = f"{in_url(config.http_host)}:{config.http_port}"
                raise ConfigError(f"{config.common.source}: http.{key}: {where}: {error.strerror}") from error
        time.sleep(0.1)


def main() -> None:
    """Run the server until it is told to stop."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("Usage: paychan-server /path/to/server.toml", file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)
    try:
        config = load_server_config(sys.argv[1])
        _wait_for_port(config)
    except ConfigError as error:
        print(f"paychan-server: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)
    os.environ["PAYCHAN_CONFIG"] = os.path.abspath(sys.argv[1])
    Granian(
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
    ).serve()


if __name__ == "__main__":
    main()
