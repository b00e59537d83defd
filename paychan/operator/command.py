"""`paychan operator CONFIG_DIR`, `python -m paychan.operator CONFIG_DIR`: granian with the operator's API and page."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from .. import logs, printing
from ..core.errors import ConfigError
from ..exits import status_of
from ..precedence import give_way
from ..server import stopping
from ..server.port import wait_for_port
from ..settings.models import OperatorConfig, ServerConfig
from .context import read_context
from .serving import REQUESTS_MAX, STOP_SECONDS, VARIABLE

HEADER_SECONDS_MAX = 20
HEADERS_SIZE_MAX = 16 * 1024
RESPAWN_SECONDS = 0.5

log = logging.getLogger("paychan.operator")


def main() -> int:
    """Serve with the directory that the command line names; return the exit status."""
    return printing.run("paychan-operator", _main)


def _main() -> int:
    try:
        serve(Path(sys.argv[1]))
    except ConfigError as error:
        printing.say(f"paychan-operator: {error}")
        return status_of(error)
    return 0


def serve(directory: Path) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError."""
    config = read_context(directory).config
    operator = config.operator
    if not operator.is_on:
        raise ConfigError(f"{config.common.source}: operator.listen: is missing: there is nowhere to serve it")
    if operator.port:
        wait_for_port(operator.host, operator.port, config.common.source, "operator")
    logs.set_up("operator", config.common.log)
    give_way()
    os.environ[VARIABLE] = os.path.abspath(directory)
    _make_room(operator)
    server = _make_server(config)
    server.on_startup(lambda: log.info("the operator's API at %s", where(operator)))
    server.serve()


def where(operator: OperatorConfig) -> str:
    """Return where the API is, as a client is told."""
    if operator.socket is not None:
        return f"unix:{operator.socket}"
    host = f"[{operator.host}]" if ":" in operator.host else operator.host
    return f"{'https' if operator.key is not None else 'http'}://{host}:{operator.port}"


def _make_room(operator: OperatorConfig) -> None:
    """Make the socket's directory, and take away what a killed process left in its place."""
    if operator.socket is not None:
        operator.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        operator.socket.unlink(missing_ok=True)


def _make_server(config: ServerConfig) -> Any:
    operator = config.operator
    stopping.install()
    place = {"uds": operator.socket, "uds_permissions": 0o600} if operator.socket is not None else {}
    return Granian(
        "paychan.operator.serving:app",
        address=operator.host or "127.0.0.1",
        port=operator.port or 1,
        **place,  # type: ignore[arg-type]
        interface=Interfaces.RSGI,
        workers=1,
        loop=Loops.uvloop,
        backlog=REQUESTS_MAX,
        backpressure=2 * REQUESTS_MAX,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS_MAX * 1000, max_buffer_size=HEADERS_SIZE_MAX),
        websockets=False,
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_SECONDS,
        workers_kill_timeout=int(2 * STOP_SECONDS) + 2,
        ssl_cert=operator.certificate,
        ssl_key=operator.key,
        log_access=False,
        log_dictconfig=logs.granian_config("operator", config.common.log),
    )
