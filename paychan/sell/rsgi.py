"""The till before an RSGI application, as granian runs them.

    from paychan.sell.rsgi import Paid

    app = Paid(app, "state/debug/run/sell.sock", {"/joke": 5})

A handler of a metered price says what was used by `protocol.visit.use(units)`; the protocol that it is given has `visit`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from .facts import BODY_BYTES_MAX, KEPT_BYTES_MAX, Answer, Headers, Price, Request, Sale, body_hash
from .prices import Prices, Wanted, settle_price
from .till import Till
from .wire import find_door
from .wsgi import Visit, with_headers

Application = Callable[[Any, Any], Awaitable[None]]

__all__ = ["Paid", "Price"]


class Paid:
    """An RSGI application behind a till. at: where the sellers' door is (a path or URL), or a Till. prices: by method and path."""

    def __init__(self, app: Any, at: str | Till, prices: dict[str, Wanted], token: str = "", **more: Any) -> None:
        self._app: Application = getattr(app, "__rsgi__", app)
        self._start, self._stop = getattr(app, "__rsgi_init__", None), getattr(app, "__rsgi_del__", None)
        self._till = at if isinstance(at, Till) else Till(find_door(at, token), **more)
        self._prices = Prices(prices)

    def __rsgi_init__(self, loop: Any) -> None:
        if self._start is not None:
            self._start(loop)

    def __rsgi_del__(self, loop: Any) -> None:
        self._till.close()
        if self._stop is not None:
            self._stop(loop)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        wanted = self._prices.find(scope.method, scope.path)
        if scope.proto != "http" and wanted is not None:
            protocol.close(403)  # a WebSocket: nobody could charge for what goes through it
            return
        price = await settle_price(wanted, scope)
        if price is None:
            await self._app(scope, protocol)
            return
        request, body = await _request_of(scope, protocol)
        decision = await self._till.decide(request, price)
        if isinstance(decision, Answer):
            _send(protocol, decision)
            return
        await self._serve(decision, scope, protocol, body)

    async def _serve(self, sale: Sale, scope: Any, protocol: Any, body: bytes | None) -> None:
        served = _Served(self._till, sale, protocol, body)
        try:
            await self._app(scope, served)
        except BaseException:
            if not served.is_begun:
                await self._till.failed(sale)
            elif served.is_sold:
                self._till.forget(sale)
            served.drop_stream()
            raise
        served.end_stream()
        await served.send()


async def _request_of(scope: Any, protocol: Any) -> tuple[Request, bytes | None]:
    """Return what the till must know, and the body if it was read for that."""
    headers = scope.headers
    credentials = tuple(value for name, value in headers.items() if name in ("authorization", "payment-authorization"))
    body: bytes | None = None
    digest: bytes | None = b""
    length = headers.get("content-length") or ""
    if credentials and (length not in ("", "0") or headers.get("transfer-encoding")):
        digest = None
        if length.isdigit() and int(length) <= BODY_BYTES_MAX:
            body = await protocol()
            digest = body_hash(body)
    target = f"{scope.path}?{scope.query_string}" if scope.query_string else scope.path
    return Request(scope.method, target, credentials, digest, headers.get("idempotency-key") or ""), body


def _send(protocol: Any, answer: Answer) -> None:
    if answer.body:
        protocol.response_bytes(answer.status, list(answer.headers), answer.body)
    else:
        protocol.response_empty(answer.status, list(answer.headers))


class _Served:
    """What the application is given for a protocol: it notes the answer, which goes out when the till has agreed to it."""

    def __init__(self, till: Till, sale: Sale, protocol: Any, body: bytes | None) -> None:
        self._till, self._sale, self._protocol, self._body = till, sale, protocol, body
        self._answer: tuple[str, int, list[tuple[str, str]], tuple[Any, ...]] | None = None
        self._stream: _Stream | None = None
        self.visit = Visit(sale)
        self.is_begun = self.is_sold = False

    async def __call__(self) -> bytes:
        if self._body is not None:
            return self._body
        whole: bytes = await self._protocol()
        return whole

    def __aiter__(self) -> Any:
        return self._protocol.__aiter__() if self._body is None else _once(self._body)

    def client_disconnect(self) -> Any:
        """Pass on what granian says."""
        return self._protocol.client_disconnect()

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Note an answer without a body."""
        self._answer = ("response_empty", status, headers, ())

    def response_str(self, status: int, headers: list[tuple[str, str]], body: str) -> None:
        """Note an answer."""
        self._answer = ("response_bytes", status, headers, (body.encode(),))

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Note an answer."""
        self._answer = ("response_bytes", status, headers, (body,))

    def response_file(self, status: int, headers: list[tuple[str, str]], file: str) -> None:
        """Note an answer that is a file."""
        self._answer = ("response_file", status, headers, (file,))

    def response_file_range(self, status: int, headers: list[tuple[str, str]], file: str, start: int, end: int) -> None:
        """Note an answer that is a part of a file."""
        self._answer = ("response_file_range", status, headers, (file, start, end))

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> "_Stream":
        """Begin an answer piece by piece; its head goes out with the first."""
        self._stream = _Stream(self, status, headers)
        return self._stream

    async def begin(self, status: int, headers: list[tuple[str, str]]) -> list[tuple[str, str]] | None:
        """Return the headers to send; None: something else was sent."""
        self.is_begun = True
        more = await self._till.finish(self._sale, status)
        if isinstance(more, Answer):
            _send(self._protocol, more)
            return None
        self.is_sold = bool(more)
        return with_headers(headers, more)

    async def send(self) -> None:
        """Send the answer that was noted."""
        if self._stream is not None and self.is_begun:
            return
        if self._answer is None:
            await self._till.failed(self._sale)
            return
        kind, status, headers, rest = self._answer
        told = await self.begin(status, headers)
        if told is None:
            return
        if 200 <= status < 300:
            body = rest[0] if kind == "response_bytes" else b"" if kind == "response_empty" else None
            self.keep(status, tuple(told), body)
        getattr(self._protocol, kind)(status, told, *rest)

    def keep(self, status: int, headers: Headers, body: bytes | None) -> None:
        """Keep the answer, if it is known and short."""
        if body is None or len(body) > KEPT_BYTES_MAX:
            self._till.forget(self._sale)
        else:
            kept = tuple(row for row in headers if row[0].lower() != "content-length")
            self._till.keep(self._sale, Answer(status, kept, body))

    def end_stream(self) -> None:
        """The application is done with its stream."""
        if self._stream is not None:
            self._stream.end()

    def drop_stream(self) -> None:
        """The application has failed in the middle of its stream."""
        self._stream = None

    @property
    def protocol(self) -> Any:
        """granian's."""
        return self._protocol


async def _once(body: bytes) -> Any:
    yield body


class _Stream:
    """What the application is given for a stream."""

    def __init__(self, served: _Served, status: int, headers: list[tuple[str, str]]) -> None:
        self._served, self._status, self._headers = served, status, headers
        self._transport: Any = None
        self._copy: list[bytes] | None = []
        self._size, self._is_over = 0, False

    async def send_bytes(self, data: bytes) -> None:
        """Send a piece."""
        if self._transport is None and not await self._begin():
            return
        self._size += len(data)
        if self._copy is not None:
            self._copy = None if self._size > KEPT_BYTES_MAX else [*self._copy, data]
        await self._transport.send_bytes(data)

    async def send_str(self, data: str) -> None:
        """Send a piece."""
        await self.send_bytes(data.encode())

    async def _begin(self) -> bool:
        if self._is_over:
            return False
        headers = await self._served.begin(self._status, self._headers)
        if headers is None:
            self._is_over = True
            return False
        self._headers = headers
        self._transport = self._served.protocol.response_stream(self._status, headers)
        return True

    def end(self) -> None:
        """Keep what was sent: it went out whole."""
        if not self._is_over and self._transport is not None and 200 <= self._status < 300:
            self._is_over = True
            self._served.keep(self._status, tuple(self._headers), None if self._copy is None else b"".join(self._copy))
        self._transport = None  # granian ends a stream when nobody has it any more
