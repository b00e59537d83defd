"""The RSGI application that granian loads: HTTP in, HTTP out. Everything else is behind `routes.answer`."""

import asyncio
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from .._fast.intake import Intake
from .._fast.rsgi import RsgiDoor, has_body
from ..config import EXIT_BAD_CONFIG, ServerConfig, load_server_config
from ..errors import ConfigError, PaychanError, Rejection, Unavailable
from . import granian_door
from .headers import SUCCESS_HEADERS, headers_of
from .process import end_with_parent, set_up_logging
from .replies import Reply, problem
from .routes import answer
from .worker import Worker

_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?\Z|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?\Z")

log = logging.getLogger("paychan.server")


def load_config_or_exit() -> ServerConfig:
    """Return the configuration that PAYCHAN_CONFIG names; end the process with status 2 and one line if it must not run."""
    path = os.environ.get("PAYCHAN_CONFIG", "")
    try:
        if not path:
            raise ConfigError("PAYCHAN_CONFIG: names no server.toml")
        return load_server_config(path)
    except ConfigError as error:
        print(f"paychan-server: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)


class App:
    """One in each granian worker. The configuration is read when the module is loaded, so that a bad one fails at once."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._worker: Worker | None = None
        self._door: RsgiDoor | None = None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        end_with_parent()
        set_up_logging()

        async def start() -> None:
            self._worker = Worker(self._config, self._on_joined)
            self._worker.start()

        loop.run_until_complete(start())
        granian_door.install(loop, self, lambda usual: self._make_door(loop, usual))

    def _make_door(self, loop: asyncio.AbstractEventLoop, usual: Callable[[Any], None]) -> RsgiDoor:
        self._door = RsgiDoor(loop.call_soon_threadsafe, usual, self._respond, SUCCESS_HEADERS)
        return self._door

    def _on_joined(self, intake: Intake) -> None:
        if self._door is not None:
            self._door.intake = intake

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._worker is not None:
            loop.run_until_complete(self._worker.stop())

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        self._respond(scope, proto, await self._reply(scope))

    def _respond(self, scope: Any, proto: Any, reply: Reply) -> None:
        headers = headers_of(reply)
        if reply.location:
            headers = [*headers, ("location", self._root_url(scope) + reply.location)]
        proto.response_bytes(reply.status, headers, reply.body)

    async def _reply(self, scope: Any) -> Reply:
        try:
            if has_body(scope.headers):
                return problem(Rejection("body_not_allowed"))
            if self._worker is None:
                raise Unavailable("store_unavailable")
            return await answer(self._worker, scope.method, scope.path, scope.query_string)
        except PaychanError as error:
            return problem(error)
        except Exception as error:
            # A bug of ours. Its text could hold a request's bytes, so only its kind and place are logged.
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else "nowhere"
            log.error("internal error: %s at %s", type(error).__name__, place)
            return problem(Unavailable("store_unavailable", "Internal error; send the same request again"))

    def _root_url(self, scope: Any) -> str:
        """Return scheme, host and port as the client can reach them: as configured, else as it asked for."""
        if self._config.public_url:
            return self._config.public_url
        host = scope.headers.get("host", "")
        if not _HOST.match(host):
            host = f"{self._config.http_host}:{self._config.http_port}"
        return f"{scope.scheme}://{host}"


def make_app() -> App:
    """Return the application for the configuration in PAYCHAN_CONFIG."""
    return App(load_config_or_exit())
