"""The owner's own port: each worker listens on a port of its own, which clients learn from the Location of the channels it opens.

What it costs less than granian's shared port is in docs/PERFORMANCE.md. Bytes are read and written in `paychan/_fast/direct.pyx`.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import unquote

from ..._fast.batch import BATCH_BYTES_MAX
from ..._fast.direct import LENGTH_REQUIRED, DirectDoor, DirectRequest
from ..._fast.http import HttpStatus
from ..._fast.intake import Intake
from ...core.errors import Rejection
from ...settings.models import ServerConfig
from ..limits import Limits
from ..protocol.replies import Reply, problem
from .headers import SUCCESS_HEADERS, Headers, absolute, headers_of
from .ports import first_free_port

CONNECTIONS_MAX = 4096
"""Of one worker at each of its ports, and how many may wait to be accepted. granian accepts connections beyond it and never serves
them, so it is set high; it costs nothing. The own port closes them at once."""

SWEEP_SECONDS = 1.0
SILENT_SWEEPS_MAX = 20
"""So long a connection may be idle, or take to send one request."""

DRAIN_SECONDS = 2.0
"""A payment is answered in milliseconds; whoever waits longer sends it again."""

RENDERED_MAX = 64
"""Responses kept for the rest of a second: most refusals are one of a few dozen."""

BATCH_PATH = "/v1/payments"

CODES_OF_HTTP = {
    HttpStatus.COMPLETE: "body_not_allowed",
    HttpStatus.INCOMPLETE: "request_timeout",
    HttpStatus.BODY_TOO_LARGE: "body_too_large",
    HttpStatus.TARGET_TOO_LONG: "target_too_long",
    HttpStatus.UNKNOWN_EXPECTATION: "unknown_expectation",
    HttpStatus.HEAD_TOO_LARGE: "head_too_large",
    HttpStatus.TOO_MANY_HEADERS: "head_too_large",
    HttpStatus.HAS_TRANSFER_ENCODING: "transfer_encoding",
    HttpStatus.UNSUPPORTED_VERSION: "http_version",
}
_REFUSALS = {int(status): problem(Rejection(CODES_OF_HTTP.get(status, "malformed_request"))) for status in HttpStatus}
_REFUSALS[LENGTH_REQUIRED] = problem(Rejection("length_required"))

_AnswerAll = Callable[[str, str, str, bytes, int], Awaitable[Reply]]

log = logging.getLogger("paychan.direct")


def _head(status: int, headers: Headers, date: float) -> bytes:
    """Return a response's head up to the value of Content-Length. date: unix seconds."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"date: {formatdate(date, usegmt=True)}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers), "content-length: "]).encode()


class DirectPort:
    """One worker's own port. `answer_all(method, path, query, body, address)` answers what is no payment."""

    def __init__(self, config: ServerConfig, answer_all: _AnswerAll, limits: Limits | None = None) -> None:
        self._config, self._answer_all = config, answer_all
        self._door = DirectDoor(
            answer=self._answer,
            render=self._render,
            refusal=_REFUSALS.__getitem__,
            unquote=lambda path: unquote(path, errors="replace"),
            paid_head=lambda date: _head(200, SUCCESS_HEADERS, date),
            body_paths=(BATCH_PATH.encode(),),
            body_max=BATCH_BYTES_MAX,
            connections_max=CONNECTIONS_MAX,
            callers=limits,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._second = 0
        self._rendered: dict[Reply, bytes] = {}
        self._server: asyncio.AbstractServer | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self.port = 0
        """The port listened on; 0: none."""

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._door.connections)

    @property
    def public_url(self) -> str:
        """What clients reach this port by; empty if they cannot, or need not know."""
        return f"http://{self._config.direct_public_host}:{self.port}" if self.port and self._config.direct_public_host else ""

    # --- life ---

    async def start(self) -> None:
        """Listen on the first free port from the configured one up. Without one, everything goes through the shared port."""
        if not self._config.direct_base_port:
            return
        listener = first_free_port(self._config.http_host, self._config.direct_base_port, CONNECTIONS_MAX)
        if listener is None:
            log.warning("no port is free from %d on: this worker has none of its own", self._config.direct_base_port)
            return
        loop = asyncio.get_running_loop()
        self.port = listener.getsockname()[1]
        connect = self._door.connect
        self._server = await loop.create_server(
            connect,  # type: ignore[arg-type]  # compiled: a protocol but for the base class
            sock=listener,
            backlog=CONNECTIONS_MAX,
        )
        self._sweep()
        log.info("worker %d listens on port %d of its own", os.getpid(), self.port)

    def serve(self, intake: Intake) -> None:
        """Take payments, from now on."""
        self._door.intake = intake

    async def stop(self) -> None:
        """Take no more connections and requests, and answer what waits, for DRAIN_SECONDS at most."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._door.connections):
            connection.finish()
        until = time.monotonic() + DRAIN_SECONDS
        while self._door.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for connection in list(self._door.connections):
            connection.close()

    def _sweep(self) -> None:
        self._door.sweep(SILENT_SWEEPS_MAX)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    # --- requests that are no payments ---

    def _answer(self, request: DirectRequest, method: str, path: str, query: str, body: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._answer_later(request, method, path, query, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_later(self, request: DirectRequest, method: str, path: str, query: str, body: bytes) -> None:
        request.respond(await self._answer_all(method, path, query, body, request.counted_for))

    # --- answers ---

    def _render(self, reply: Reply, request: DirectRequest) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._rendered.clear()
        if reply.location or request.is_last or request.wants_no_body:
            return self._render_anew(reply, request)
        response = self._rendered.get(reply)
        if response is None:
            response = self._render_anew(reply, request)
            if len(self._rendered) < RENDERED_MAX:
                self._rendered[reply] = response
        return response

    def _render_anew(self, reply: Reply, request: DirectRequest) -> bytes:
        headers = headers_of(reply)
        if reply.location:
            headers = [*headers, ("location", absolute(reply.location, self._root(request)))]
        if request.is_last:
            headers = [*headers, ("connection", "close")]
        body = b"" if request.wants_no_body else reply.body
        return b"%s%d\r\n\r\n%s" % (_head(reply.status, headers, self._second), len(reply.body), body)

    def _root(self, request: DirectRequest) -> str:
        """Return scheme, host and port as the client can reach them; empty if it named no host."""
        host = request.host.decode()
        return self._config.public_url or (f"http://{host}" if host else "")
