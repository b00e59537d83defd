"""The RSGI application that granian loads: what a request is, which route it takes, and what comes of it."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .. import logs
from ..core.errors import ConfigError
from ..exits import EXIT_BAD_CONFIG
from ..printing import place_of, say
from ..server.process import end_with_parent
from .cors import Cors
from .load import load_gateway_config
from .models import GatewayConfig, Route
from .own import Own
from .proxy import Proxy, send
from .refusals import Refused
from .requests import read_request
from .routes import RouteTable
from .selling import Selling
from .upstream import Upstreams

log = logging.getLogger("paychan.gateway")


class App:
    """One in each granian worker. The configuration is read when the module is loaded, so that a bad one fails at once."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._routes = RouteTable(config.routes)
        self._cors = Cors(config.cors_origins)
        self._selling: Selling | None = None
        self._proxy: Proxy | None = None
        self._own: Own | None = None
        self._upstreams: Upstreams | None = None
        self._under_way = 0
        self._under_way_at = {id(route): 0 for route in config.routes}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_stopping = False
        self._draining: asyncio.Task[None] | None = None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        end_with_parent()
        logs.set_up("gateway")

        async def start() -> None:
            self._upstreams = Upstreams({route.upstream.name: route.upstream for route in self._config.routes}.values())
            self._selling = Selling(self._config)

        try:
            loop.run_until_complete(start())
        except ConfigError as error:
            say(f"paychan gateway: {error}")
            sys.exit(EXIT_BAD_CONFIG)
        assert self._upstreams is not None and self._selling is not None
        self._proxy = Proxy(self._upstreams, self._selling)
        self._own = Own(self._config, self._selling, self._routes)
        loop.add_signal_handler(signal.SIGTERM, self._on_stop, loop)

    def _on_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what is under way, then let granian stop as it does on SIGINT: it would wait for streams that have no end."""
        self._is_stopping = True
        if self._draining is None:
            self._draining = loop.create_task(self._drain())

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._config.stop_seconds)
        for task in tuple(self._tasks):
            task.cancel()  # what streams have used is settled on the way out
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._config.stop_seconds)
        os.kill(os.getpid(), signal.SIGINT)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._selling is not None:
            self._selling.stop()
        if self._upstreams is not None:
            loop.run_until_complete(self._upstreams.close())

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        proto = self._cors.wrap(scope, proto)
        try:
            await self._answer(scope, proto)
        except Refused as refused:
            refuse(scope, proto, refused)
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
            refuse(scope, proto, Refused("stopping"))
        except Exception as error:
            log.error("internal error: %s at %s", type(error).__name__, place_of(error.__traceback__))
            refuse(scope, proto, Refused("internal_error"))
        finally:
            self._tasks.discard(task)

    async def _answer(self, scope: Any, proto: Any) -> None:
        assert self._proxy is not None and self._own is not None
        request = read_request(scope, self._config.trusted_proxies)
        answer = self._cors.preflight(request) or await self._own.answer(request, self._is_stopping)
        if answer is not None:
            send(proto, request, answer)
            return
        if self._is_stopping:
            raise Refused("stopping")
        route = self._routes.find(request.host, request.path, request.method)
        with self._counted(route):
            await self._proxy.pass_on(request, route, proto)

    @contextmanager
    def _counted(self, route: Route) -> Iterator[None]:
        """Hold one of the places of a route, and of the gateway. Raises Refused if there is none."""
        place = id(route)  # quicker than the hash of all that a route has
        if self._under_way >= self._config.concurrency or self._under_way_at[place] >= route.limits.concurrency:
            raise Refused("overloaded")
        self._under_way += 1
        self._under_way_at[place] += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._under_way_at[place] -= 1


def refuse(scope: Any, proto: Any, refused: Refused) -> None:
    """Answer a request that was not passed on; a WebSocket's handshake with the status alone, which is all that granian lets us
    say."""
    headers = refused.headers()
    if refused.kind.close and scope.http_version == "1.1":
        headers.append(("connection", "close"))
    with suppress(RuntimeError):  # RSGIProtocolClosed: an answer was begun, or nobody is there
        if scope.proto == "ws":
            proto.close(refused.status)
        elif scope.method == "HEAD":
            proto.response_empty(refused.status, headers)
        else:
            proto.response_bytes(refused.status, headers, refused.body())


def load_config_or_exit() -> GatewayConfig:
    """Return the configuration that PAYCHAN_GATEWAY names; end the process with status 2 and its complaints if it must not run."""
    path = os.environ.get("PAYCHAN_GATEWAY", "")
    try:
        if not path:
            raise ConfigError("PAYCHAN_GATEWAY: names no gateway.toml")
        return load_gateway_config(path)
    except ConfigError as error:
        say(f"paychan gateway: {error}")
        sys.exit(EXIT_BAD_CONFIG)


def make_app() -> App:
    """Return the application for the configuration in PAYCHAN_GATEWAY."""
    return App(load_config_or_exit())
