"""The till before a WSGI application.

    from paychan.sell.wsgi import Paid

    app = Paid(app, "state/debug/run/sell.sock", {"/joke": 5})

A handler of a metered price says what was used by `environ["paychan.visit"].use(units)`.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from .blocking import Till
from .facts import BODY_BYTES_MAX, KEPT_BYTES_MAX, Answer, Headers, Price, Request, Sale, body_hash
from .prices import Prices, Wanted, settle_price_now
from .wire import find_door

VISIT = "paychan.visit"
Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def credentials_in(environ: Environ) -> tuple[str, ...]:
    """Return the values that may be credentials."""
    found = (environ.get("HTTP_AUTHORIZATION", ""), environ.get("HTTP_PAYMENT_AUTHORIZATION", ""))
    return tuple(value for value in found if value)


def target_of(environ: Environ) -> str:
    """Return path and query as they came, where the server tells, else as they were understood."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw:
        return str(raw)
    path, query = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path


def request_of(environ: Environ, body: bytes | None) -> Request:
    """Return what the till must know. body: the request's, None: it is too long."""
    return Request(
        method=environ["REQUEST_METHOD"],
        target=target_of(environ),
        credentials=credentials_in(environ),
        body=None if body is None else body_hash(body),
        idempotency_key=environ.get("HTTP_IDEMPOTENCY_KEY", ""),
    )


def _read_body(environ: Environ) -> bytes | None:
    """Return the request's body, which the application can read again; None if it is too long."""
    length = environ.get("CONTENT_LENGTH") or ""
    if not length and not environ.get("wsgi.input_terminated"):
        return b""
    if length and (not length.isdigit() or int(length) > BODY_BYTES_MAX):
        return None
    body: bytes = environ["wsgi.input"].read(int(length) if length else BODY_BYTES_MAX + 1)
    if len(body) > BODY_BYTES_MAX:
        environ["wsgi.input"] = _Chained(body, environ["wsgi.input"])
        return None
    environ["wsgi.input"] = io.BytesIO(body)
    return body


class _Chained(io.RawIOBase):
    """What was read of a body, and then the rest."""

    def __init__(self, first: bytes, rest: Any) -> None:
        self._first, self._rest = io.BytesIO(first), rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Read up to so many bytes."""
        data: bytes = self._first.read(size)
        return data + self._rest.read() if size < 0 else data or self._rest.read(size)


class Visit:
    """One request on its way through. sale: what it bought, if it has a price."""

    def __init__(self, sale: Sale | None = None) -> None:
        self.sale = sale

    def use(self, units: int) -> None:
        """Say how many units of a metered price were used."""
        if self.sale is not None:
            self.sale.use(units)


class Paid:
    """A WSGI application behind a till. at: where the sellers' door is (a path or URL), or a Till. prices: by method and path."""

    def __init__(self, app: Application, at: str | Till, prices: dict[str, Wanted], token: str = "", **more: Any) -> None:
        self._app = app
        self._till = at if isinstance(at, Till) else Till(find_door(at, token), **more)
        self._prices = Prices(prices)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        wanted = self._prices.find(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        price = settle_price_now(wanted, environ)
        visit = environ[VISIT] = Visit()
        if price is None:
            return self._app(environ, start_response)
        body = _read_body(environ) if credentials_in(environ) else b""
        decision = self._till.decide(request_of(environ, body), price)
        if isinstance(decision, Answer):
            return _send(start_response, decision)
        visit.sale = decision
        return self._serve(decision, environ, start_response)

    def _serve(self, sale: Sale, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve what is paid. The answer's head waits for the till, and so for the first piece of its body."""
        begun: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], info: Any = None) -> Callable[[bytes], object]:
            begun[:] = [status, headers]
            return early.append

        early: list[bytes] = []
        try:
            chunks = self._app(environ, start)
            body = iter(chunks)
            first = next(body, b"")
        except BaseException:
            self._till.failed(sale)
            raise
        if not begun:
            self._till.failed(sale)
            raise RuntimeError("the application has not called start_response")
        status, headers = begun
        more = self._till.finish(sale, int(status[:3]))
        if isinstance(more, Answer):
            _close(chunks)
            return _send(start_response, more)
        headers = with_headers(headers, more)
        start_response(status, headers)
        sold = (*early, first)
        if not more:
            return _again(sold, body, chunks)
        return kept_copy(self._till, sale, int(status[:3]), headers, _again(sold, body, chunks))


def _again(first: Iterable[bytes], rest: Iterator[bytes], chunks: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from first
        yield from rest
    finally:
        _close(chunks)


def _close(chunks: Iterable[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        close()


def with_headers(headers: Iterable[tuple[str, str]], more: Headers) -> list[tuple[str, str]]:
    """Return an answer's headers with the till's, which replace those of the same name."""
    names = {name.lower() for name, _ in more}
    return [*((name, value) for name, value in headers if name.lower() not in names), *more]


def kept_copy(till: Till, sale: Sale, status: int, headers: Iterable[tuple[str, str]], chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield an answer's body, and keep the answer once it is whole."""
    own = ("content-length", "transfer-encoding", "connection", "date", "server")
    copy: list[bytes] | None = []
    size, is_kept = 0, False
    try:
        for chunk in chunks:
            size += len(chunk)
            if copy is not None:
                copy = None if size > KEPT_BYTES_MAX else [*copy, chunk]
            yield chunk
        if copy is not None:
            is_kept = True
            till.keep(sale, Answer(status, tuple(row for row in headers if row[0].lower() not in own), b"".join(copy)))
    finally:
        if not is_kept:
            till.forget(sale)


def _send(start_response: Callable[..., Any], answer: Answer) -> list[bytes]:
    headers = list(answer.headers)
    if answer.status != 204:
        headers.append(("content-length", str(len(answer.body))))
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
    return [answer.body] if answer.body else []


__all__ = ["Paid", "Price", "Visit"]
