"""The sellers' door: `/v1/sell`, on a Unix socket, or on a port of its own, with TLS where that is not this machine's alone.

Who asks shows a token (`settings/tokens.py`); programs of the same user find one beside the Unix socket. A Unix socket has one
path, and one worker listens there: the one that holds the lock beside it, so that another takes over when it ends. A port is shared
by all workers. Any worker answers for any channel.
"""

import asyncio
import fcntl
import hmac
import logging
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import orjson

from ..._fast.direct import LENGTH_REQUIRED, DirectConnection, DirectDoor, DirectRequest
from ..._fast.http import HttpStatus
from ..._fast.sale import read_charges
from ...core.errors import PaychanError, Rejection, Unavailable
from ...printing import place_of
from ...rpc.connection import Address, listen, uid_at_the_other_end
from ...settings.models import SellConfig
from ...settings.tokens import SELLERS_SCOPES, Tokens, cookie_file, is_cookie, keep_cookie
from ..channels.books import PAGE_MAX, Books, read_cursor
from ..protocol.parameters import Query
from ..protocol.replies import INTERNAL_ERROR, RETRY_AFTER_SECONDS, Reply, problem
from ..protocol.sales import BODY_BYTES_MAX, encode_sale, is_list, parse_channel, parse_sales
from . import x402
from .direct import CODES_OF_HTTP, DRAIN_SECONDS, SILENT_SWEEPS_MAX, SWEEP_SECONDS
from .routes import Answers
from .routes import answer as answer_v1

PATH = "/v1/sell"
CHANNELS_PATH = f"{PATH}/channels"
V1_PATH = "/v1/channels/"
"""What v1 has of one channel is here, too: its opening, payments and close, for a seller's program that is told to do it."""

CONNECTIONS_MAX = 1024
"""Of one worker; more are closed at once."""

RETRY_SECONDS = 0.2
"""Between two tries to listen: while another worker holds the socket, or the port is taken."""

_DESCRIPTION = Reply(200, Path(__file__).with_name("sell.json").read_bytes())
"""The door in OpenAPI 3.1; tests/hostile/test_openapi.py holds it to the code."""

_FACILITATOR = {("GET", x402.SUPPORTED), ("HEAD", x402.SUPPORTED), ("POST", x402.VERIFY), ("POST", x402.SETTLE)}

_REFUSALS = {int(status): problem(Rejection(CODES_OF_HTTP.get(status, "malformed_request"))) for status in HttpStatus}
_REFUSALS[LENGTH_REQUIRED] = problem(Rejection("length_required"))

log = logging.getLogger("paychan.sell")


_SOLD_HEAD = b"HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-type: application/json\r\ncontent-length: "
_SUCCESS = b'{"status":200,'
"""What the answer to a sale begins with that was taken."""


class Till(Answers, x402.Server, Protocol):
    """What is behind the door; `paychan.server.worker.Worker` is it."""

    def submit(self, sales: list[bytes], done: Callable[[list[bytes]], None]) -> None: ...

    def refused(self, error: PaychanError) -> None: ...


class _Guarded(DirectConnection):
    """A connection that root or our own user has made, or one over TCP."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if uid_at_the_other_end(transport) not in (None, 0, os.geteuid()):
            log.warning("a process of another user was turned away")
            transport.abort()


class SellDoor:
    """One worker's. till(): who answers, None while the worker starts."""

    def __init__(self, config: SellConfig, till: Callable[[], Till | None]) -> None:
        self._config, self._till = config, till
        self._door = DirectDoor(
            answer=self._answer,
            render=self._render,
            refusal=_REFUSALS.__getitem__,
            unquote=lambda path: unquote(path, errors="replace"),
            paid_head=lambda _: _SOLD_HEAD,
            body_paths=(PATH.encode(), x402.VERIFY.encode(), x402.SETTLE.encode()),
            body_max=BODY_BYTES_MAX,
            connections_max=CONNECTIONS_MAX,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.AbstractServer] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._tokens = Tokens(config.tokens_file)
        self._lock = -1
        self._cookie: str | None = None
        self._cookie_header: bytes | None = None

    # --- life ---

    def start(self) -> None:
        """Begin to listen, where that is configured; what is in the way is waited for."""
        config = self._config
        if config.socket is not None:
            self._run(self._listen(self._open_socket))
        if config.port:
            self._run(self._listen(self._open_port))
        if config.is_on:
            self._sweep()

    async def stop(self) -> None:
        """Take no more connections and requests, and answer what waits, for DRAIN_SECONDS at most."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server in self._servers:
            server.close()
        if self._lock >= 0:
            os.close(self._lock)
        for connection in list(self._door.connections):
            connection.finish()
        until = time.monotonic() + DRAIN_SECONDS
        while self._door.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for connection in list(self._door.connections):
            connection.close()
        for task in list(self._tasks):
            task.cancel()

    async def _listen(self, open_: Callable[[], Awaitable[asyncio.AbstractServer | None]]) -> None:
        told = ""
        while True:
            try:
                server = await open_()
            except (OSError, ssl.SSLError) as error:
                server = None
                if told != (told := str(error)):
                    log.warning("the sellers' door cannot be opened: %s", told)
            if server is not None:
                self._servers.append(server)
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _open_socket(self) -> asyncio.AbstractServer | None:
        """Listen at the Unix socket, if no other worker does."""
        path = str(self._config.socket)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if self._lock < 0:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        self._cookie = keep_cookie(cookie_file(Path(path)))
        self._cookie_header = f"Bearer {self._cookie}".encode()
        server = await listen(Address(path=path), self._connect)  # type: ignore[arg-type]  # compiled: a protocol but for the base class
        log.info("worker %d sells at %s", os.getpid(), path)
        return server

    async def _open_port(self) -> asyncio.AbstractServer:
        config = self._config
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((config.host, config.port))
            listener.setblocking(False)
            return await asyncio.get_running_loop().create_server(
                self._connect,  # type: ignore[arg-type]  # compiled, as above
                sock=listener,
                backlog=CONNECTIONS_MAX,
                ssl=_tls(config),
            )
        except BaseException:
            listener.close()
            raise

    def _connect(self) -> DirectConnection:
        return _Guarded(self._door)

    def _sweep(self) -> None:
        self._door.sweep(SILENT_SWEEPS_MAX)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    # --- requests ---

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer(self, request: DirectRequest, method: str, path: str, query: str, body: bytes) -> None:
        if method == "POST" and path == PATH and self._sell_at_once(request, body):
            return
        self._run(self._answer_later(request, method, path, query, body))

    def _sell_at_once(self, request: DirectRequest, body: bytes) -> bool:
        """Have plain charges judged, without a task for their request. False: nothing was done, and the request goes the way of
        all others, which has an answer for whatever is wrong."""
        charges, till = read_charges(body), self._till()
        if charges is None or till is None:
            return False
        try:
            if self._scope(request.authorization) != "charge":
                return False
            till.submit(charges, lambda told: _tell(request, told, is_list(body)))
        except PaychanError:
            return False
        except Exception as error:
            request.respond(_failed(error))
        return True

    async def _answer_later(self, request: DirectRequest, method: str, path: str, query: str, body: bytes) -> None:
        try:
            reply = await self._reply(request.authorization, method, path, query, body)
        except PaychanError as error:
            reply = problem(error)
            if path == PATH:
                self._count(error)
        except Exception as error:
            reply = _failed(error)
        request.respond(reply)

    def _count(self, error: PaychanError) -> None:
        if (till := self._till()) is not None:
            till.refused(error)

    async def _reply(self, authorization: bytes, method: str, path: str, query: str, body: bytes) -> Reply:
        scope = self._scope(authorization)
        till = self._till()
        if till is None:
            raise Unavailable("store_unavailable")
        is_sale = method == "POST" and path == PATH
        if scope != "charge" and (is_sale or path.startswith(V1_PATH)):
            raise Rejection("token_scope")
        if is_sale:
            return await _sell(till, body)
        if path.startswith(V1_PATH):
            return await answer_v1(till, method, path, query)
        if method in ("GET", "HEAD") and path == f"{PATH}/terms":
            return till.terms()
        if method in ("GET", "HEAD") and path == CHANNELS_PATH:
            return await _list(till.books, query)
        if method in ("GET", "HEAD") and path.startswith(f"{CHANNELS_PATH}/"):
            return await till.books.look(parse_channel(path[len(CHANNELS_PATH) + 1 :]))
        if (method, path) in _FACILITATOR:
            return await x402.answer(till, path, scope, body)
        if method in ("GET", "HEAD") and path == f"{PATH}/openapi.json":
            return _DESCRIPTION
        raise Rejection("no_such_route")

    def _scope(self, authorization: bytes) -> str:
        """Return what the shown token is for. Raises Rejection."""
        if self._cookie_header is not None and hmac.compare_digest(authorization, self._cookie_header):
            return "charge"
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Rejection("token_missing")
        if self._cookie is not None and is_cookie(self._cookie, token.strip()):
            return "charge"
        found = self._tokens.find(token.strip())
        if found is None:
            raise Rejection("token_unknown")
        if found.scope not in SELLERS_SCOPES:
            raise Rejection("token_scope")
        return found.scope

    def _render(self, reply: Reply, request: DirectRequest) -> bytes:
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", "cache-control: no-store"]
        lines.append(f"content-type: application/{'problem+json' if reply.is_problem else 'json'}")
        if reply.status == 503:
            lines.append(f"retry-after: {RETRY_AFTER_SECONDS}")
        if reply.status == 401:
            lines.append("www-authenticate: Bearer")
        if request.is_last:
            lines.append("connection: close")
        body = b"" if request.wants_no_body else reply.body
        return "\r\n".join([*lines, f"content-length: {len(reply.body)}", "", ""]).encode() + body


def _tls(config: SellConfig) -> ssl.SSLContext | None:
    if config.tls_certificate is None or config.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.tls_certificate, config.tls_key)
    return context


def _failed(error: Exception) -> Reply:
    """Log a bug of ours, and return the answer. Its text could hold a request's bytes, so it is not told."""
    log.error("internal error: %s at %s", type(error).__name__, place_of(error.__traceback__))
    return INTERNAL_ERROR


async def _sell(till: Till, body: bytes) -> Reply:
    """Answer a sale, or a list of them with a list. Raises Rejection if the body is neither; what is wrong with one of a list is
    told in its place."""
    sales, now = parse_sales(body), till.now()
    answers: list[bytes | None] = []
    good: list[bytes] = []
    for sale in sales:
        try:
            good.append(encode_sale(sale, now))
            answers.append(None)
        except Rejection as error:
            answers.append(problem(error).body)
            till.refused(error)
    told = iter(await till.sell(good) if good else [])
    bodies = [next(told) if answer is None else answer for answer in answers]
    return Reply(200, _list_of(bodies)) if is_list(body) else _reply_of(bodies[0])


def _tell(request: DirectRequest, told: list[bytes], is_list: bool) -> None:
    if is_list:
        request.succeed(_list_of(told))
    elif told[0].startswith(_SUCCESS):
        request.succeed(told[0])
    else:
        request.respond(_reply_of(told[0]))


def _list_of(bodies: list[bytes]) -> bytes:
    return b"[" + b",".join([text.rstrip() for text in bodies]) + b"]\n"


def _reply_of(body: bytes) -> Reply:
    return Reply(orjson.loads(body)["status"], body)


async def _list(books: Books, query_text: str) -> Reply:
    query = Query(query_text)
    limit = query.optional("limit", _limit)
    return await books.list(query.optional("after", read_cursor) or (0, bytes(36)), limit or PAGE_MAX)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= PAGE_MAX):
        raise Rejection("invalid_sale", f"limit must be from 1 to {PAGE_MAX}", "limit")
    return int(text)
