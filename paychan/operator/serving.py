"""The RSGI application: whose token it is, which route it takes, and what comes of it.

granian loads `paychan.operator.serving:app`; it is made when it is first asked for, so that importing reads no configuration.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import logs
from .._fast.rsgi import has_body
from ..core.errors import ConfigError, PaychanError, Rejection
from ..exits import EXIT_BAD_CONFIG
from ..printing import place_of, say
from ..server.process import end_with_parent
from ..settings.tokens import Tokens
from .answers import FAILED, Answer, Request, Stream, refusal
from .context import Context, read_context
from .reading import BooksOfStore
from .routes import SCOPES, Scope, find_route
from .telling import Telling

VARIABLE = "PAYCHAN_OPERATOR_CONFIG"
"""The directory of the configurations, from granian's main process to its worker."""

BODY_BYTES_MAX = 64 << 10
BODY_SECONDS_MAX = 20.0
REQUESTS_MAX = 256
"""Under way at once, streams too; more are refused."""

STOP_SECONDS = 2.0
"""Requests under way have so long to be answered when the process is to end; streams are cut."""

log = logging.getLogger("paychan.operator")


class App:
    """One in granian's worker. The configuration is read when the module is loaded, so that a bad one fails at once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tokens = Tokens(context.config.operator.tokens_file)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping: asyncio.Task[None] | None = None

    # --- life ---

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        end_with_parent()
        logs.set_up("operator", self._context.config.common.log)
        loop.add_signal_handler(signal.SIGTERM, self._on_stop, loop)
        loop.run_until_complete(self._read_books())
        self._context.telling = self._telling = Telling(self._context)
        loop.call_soon(self._telling.start)

    async def _read_books(self) -> None:
        self._context.books = BooksOfStore(self._context.config, self._context.store)
        self._context.books.start()

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._context.books is not None:
            loop.run_until_complete(self._context.books.stop())

    def _on_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what is under way, then let granian stop as it does on SIGINT: it would wait for streams that have no end."""
        if self._stopping is None:
            self._stopping = loop.create_task(self._stop())

    async def _stop(self) -> None:
        await self._telling.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    # --- requests ---

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await _send(scope, proto, await self._answer(scope, proto))
        except asyncio.CancelledError:
            if self._stopping is None:
                raise
        finally:
            self._tasks.discard(task)

    async def _answer(self, scope: Any, proto: Any) -> Answer | Stream:
        try:
            if len(self._tasks) > REQUESTS_MAX:
                raise PaychanError("overloaded")
            route, parts = find_route(scope.method, scope.path)
            who = self._check_token(scope.headers, route.scope) if route.scope else ""
            body = await _body(scope, proto, route.method in ("POST", "PUT", "PATCH"))
            headers = dict(scope.headers.items())
            request = Request(scope.method, scope.path, scope.query_string, parts, headers, body, who)
            answer = await route.handler(self._context, request)
            if isinstance(answer, Stream) and route.scope:
                answer = replace(answer, pieces=self._while_allowed(answer.pieces, scope.headers, route.scope))
            return answer
        except PaychanError as error:
            return refusal(error)
        except Exception as error:  # a bug of ours; its text could hold a request's bytes
            log.error("internal error: %s at %s", type(error).__name__, place_of(error.__traceback__))
            return FAILED

    async def _while_allowed(self, pieces: AsyncIterator[bytes], headers: Any, least: Scope) -> AsyncIterator[bytes]:
        """Yield the pieces of a stream until its token is taken back."""
        async with aclosing(pieces) as allowed:  # type: ignore[type-var]  # each is a generator
            async for piece in allowed:
                try:
                    self._check_token(headers, least)
                except PaychanError:
                    return
                yield piece

    def _check_token(self, headers: Any, least: Scope) -> str:
        """Return the name of the token that is shown, which must have this scope. Raises Rejection."""
        shown = headers.get_all("authorization")
        scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token.strip():
            raise Rejection("token_missing")
        found = self._tokens.find(token.strip())
        if found is None:
            raise Rejection("token_unknown")
        if SCOPES.get(found.scope, Scope.NONE) < least:
            raise Rejection("token_scope", f"This takes a token of scope {least.name.lower()}")
        return found.name


async def _body(scope: Any, proto: Any, is_taken: bool) -> bytes:
    """Return a request's body. Raises Rejection."""
    if not is_taken:
        if has_body(scope.headers):
            raise Rejection("body_not_allowed", "This resource takes no body")
        return b""
    size = scope.headers.get("content-length", "")
    if "transfer-encoding" in scope.headers or not size.isdecimal():
        raise Rejection("length_required")
    if int(size) > BODY_BYTES_MAX:
        raise Rejection("body_too_large")
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            body: bytes = await proto()
            return body
    except TimeoutError as error:
        raise Rejection("request_timeout") from error
    except RuntimeError as error:  # RSGIProtocolClosed: the client has gone
        raise Rejection("malformed_request") from error


async def _send(scope: Any, proto: Any, answer: Answer | Stream) -> None:
    with suppress(RuntimeError):  # RSGIProtocolClosed: nobody is there any more
        if scope.method == "HEAD":
            size = (("content-length", str(len(answer.body))),) if isinstance(answer, Answer) else ()
            proto.response_empty(answer.status if isinstance(answer, Answer) else 200, [*answer.headers, *size])
        elif isinstance(answer, Stream):
            await _stream(proto, answer)
        else:
            proto.response_bytes(answer.status, list(answer.headers), answer.body)


async def _stream(proto: Any, answer: Stream) -> None:
    """Send the pieces as they come, until there are no more or nobody reads them."""
    transport = proto.response_stream(200, list(answer.headers))
    async with aclosing(answer.pieces) as pieces:  # type: ignore[type-var]  # each is a generator
        async for piece in pieces:
            await transport.send_bytes(piece)


def make_app() -> App:
    """Return the application for the directory that the environment names; end the process with status 2 and one line if its
    configuration must not run."""
    path = os.environ.get(VARIABLE, "")
    try:
        if not path:
            raise ConfigError(f"{VARIABLE}: names no directory of configurations")
        return App(read_context(Path(path)))
    except ConfigError as error:
        say(f"paychan operator: {error}")
        sys.exit(EXIT_BAD_CONFIG)


def __getattr__(name: str) -> Any:
    if name == "app":
        globals()["app"] = application = make_app()
        return application
    raise AttributeError(name)
