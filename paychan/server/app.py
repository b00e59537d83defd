"""The RSGI application that granian loads: HTTP in, HTTP out. Everything else is behind `routes.answer`."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from granian._granian import RSGIProtocolClosed  # granian gives it no public name

from .. import logs
from .._fast.batch import BATCH_BYTES_MAX
from .._fast.http import is_host
from .._fast.intake import Intake
from .._fast.rsgi import RsgiDoor, has_body
from .._fast.tally import REQUESTS, Tally
from ..core.errors import ConfigError, Rejection
from ..exits import EXIT_BAD_CONFIG
from ..metrics.families import OPENS
from ..metrics.file import Role, claim_or_none, in_run
from ..printing import say
from ..settings.load import load_server_config
from ..settings.models import ServerConfig
from .doors.direct import DirectPort
from .doors.granian_door import GranianDoor
from .doors.headers import SUCCESS_HEADERS, absolute, headers_of
from .doors.routes import answer, opens, takes_body
from .doors.sell import SellDoor
from .life import BEAT_SECONDS, Lives, who_waits
from .limits import Limits
from .process import end_with_parent
from .protocol.replies import Reply, problem
from .worker import Worker

BODY_SECONDS_MAX = 20.0
"""For the body of a request: granian bounds the time of headers only, and each slow body holds one of its connections."""


LOOKS = ("/healthz", "/readyz")
"""Who asks these asks often, and a 503 there is no client's."""


def load_config_or_exit() -> ServerConfig:
    """Return the configuration that PAYCHAN_CONFIG names; end the process with status 2 and one line if it must not run."""
    path = os.environ.get("PAYCHAN_CONFIG", "")
    try:
        if not path:
            raise ConfigError("PAYCHAN_CONFIG: names no server.toml")
        return load_server_config(path)
    except ConfigError as error:
        say(f"paychan-server: {error}")
        sys.exit(EXIT_BAD_CONFIG)


def _refusal_of_body(headers: Any) -> str:
    """Return the code of what is wrong with a body's length, or an empty text."""
    size = headers.get("content-length", "")
    if "transfer-encoding" in headers or not size.isdecimal():
        return "length_required"
    return "body_too_large" if int(size) > BATCH_BYTES_MAX else ""


async def _tell(lives: Lives, worker: Worker) -> None:
    """Say from the event loop, for as long as it runs, that it does, and whether the worker takes payments."""
    while True:
        lives.say(worker.ready().status == 200)
        await asyncio.sleep(BEAT_SECONDS)


class App:
    """One in each granian worker. The configuration is read when the module is loaded, so that a bad one fails at once."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._worker: Worker | None = None
        self._door: RsgiDoor | None = None
        self._granian: GranianDoor | None = None
        self._direct: DirectPort | None = None
        self._sell: SellDoor | None = None
        self._tally = Tally()
        self._limits = Limits(config.limits)
        self._telling: asyncio.Task[None] | None = None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        end_with_parent()
        logs.set_up("worker", self._config.common.log)
        self._tally = claim_or_none(in_run(self._config.common.state_dir), Role.WORKER)
        self._limits = Limits(self._config.limits, self._tally)

        async def start() -> None:
            self._direct = DirectPort(self._config, self._answer_any, self._limits)
            await self._direct.start()
            self._worker = Worker(
                self._config,
                self._on_joined,
                self._direct.public_url,
                self._granian_way,
                self._tally,
                self._connections,
                self._limits,
            )
            self._worker.start()
            self._sell = SellDoor(self._config.sell, lambda: self._worker)
            self._sell.start()
            if (lives := who_waits()) is not None:
                self._telling = loop.create_task(_tell(lives, self._worker))

        try:
            loop.run_until_complete(start())
        except ConfigError as error:  # `paychan-server` has looked before; granian alone has not
            say(f"paychan-server: {error}")
            sys.exit(EXIT_BAD_CONFIG)
        self._granian = GranianDoor(loop, self, lambda usual: self._make_door(loop, usual))

    def _granian_way(self) -> str:
        return self._granian.way if self._granian is not None else ""

    def _connections(self) -> int:
        return self._direct.connections if self._direct is not None else 0

    def _make_door(self, loop: asyncio.AbstractEventLoop, usual: Callable[[Any], object]) -> RsgiDoor:
        self._door = RsgiDoor(loop.call_soon_threadsafe, usual, self._respond, SUCCESS_HEADERS, self._limits.of_scope)
        return self._door

    def _on_joined(self, intake: Intake) -> None:
        if self._door is not None:
            self._door.intake = intake
        if self._direct is not None:
            self._direct.serve(intake)

    async def _answer_any(self, method: str, path: str, query: str, body: bytes, address: int) -> Reply:
        """Answer a request that came through any door and is counted for an address."""
        is_open = opens(method, path)
        if is_open and not self._limits.takes_open(address):
            reply = Limits.too_many_opens
            self._tally.add(OPENS.cell("too_many_opens"))
        else:
            reply = await answer(self._worker, method, path, query, body, address)
        if method != "PUT" and path not in LOOKS:
            self._tally.answered(REQUESTS, reply.outcome)
        if method != "PUT" and not is_open:
            self._limits.blame(address, reply.status)
        return reply

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._telling is not None:
            self._telling.cancel()
        if self._direct is not None:
            loop.run_until_complete(self._direct.stop())
        if self._sell is not None:
            loop.run_until_complete(self._sell.stop())
        if self._worker is not None:
            loop.run_until_complete(self._worker.stop())

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        self._respond(scope, proto, await self._reply(scope, proto))

    def _respond(self, scope: Any, proto: Any, reply: Reply) -> None:
        headers = headers_of(reply)
        if reply.location:
            headers = [*headers, ("location", absolute(reply.location, self._root(scope)))]
        proto.response_bytes(reply.status, headers, reply.body)

    async def _reply(self, scope: Any, proto: Any) -> Reply:
        method, path, body = scope.method, scope.path, b""
        if takes_body(method, path):
            refusal = _refusal_of_body(scope.headers)
            if refusal:
                return self._refused(refusal)
            try:
                async with asyncio.timeout(BODY_SECONDS_MAX):
                    body = await proto()
            except TimeoutError:
                return self._refused("request_timeout")
            except RSGIProtocolClosed:  # the client has gone; nobody reads the answer
                return problem(Rejection("malformed_request"))
        elif has_body(scope.headers):
            return self._refused("body_not_allowed")
        return await self._answer_any(method, path, scope.query_string, body, self._limits.of_scope(scope))

    def _refused(self, code: str) -> Reply:
        reply = problem(Rejection(code))
        self._tally.answered(REQUESTS, reply.outcome)
        return reply

    def _root(self, scope: Any) -> str:
        """Return scheme, host and port as the client can reach them: as configured, else as it asked for; empty if that is no host.

        An authority in the request's target counts instead of the Host header (RFC 9112 3.2.2).
        """
        if self._config.public_url:
            return self._config.public_url
        host = scope.authority or scope.headers.get("host", "")
        return f"{scope.scheme}://{host}" if is_host(host.encode()) else ""


def make_app() -> App:
    """Return the application for the configuration in PAYCHAN_CONFIG."""
    return App(load_config_or_exit())
