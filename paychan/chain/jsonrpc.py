"""A JSON-RPC client over HTTP/1.1 for a Bitcoin node: kept connections, batches, strict parsing, exact amounts.

Every request is a batch, even of one, so there is one form of answer. Nothing is logged: neither credentials nor bodies.
A request is sent again only when connecting failed, when the cookie was stale, or when a kept connection turned out to be
closed before one byte of the answer came. The last might repeat a call, so only calls that may be repeated belong here.
"""

import asyncio
import base64
import json
from collections.abc import Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation
from pathlib import Path
from typing import Any

from ..errors import Unavailable
from ..units import COIN, MAX_MONEY

BODY_SIZE_MAX = 16 * 1024 * 1024
"""Bytes of an answer. The largest that we ask for is a raw transaction in hex: 8 MB."""

HEAD_SIZE_MAX = 64 * 1024
CONNECT_DELAYS = (0.05, 0.2)
"""Seconds before the second and third attempt to connect."""

METHOD_NOT_FOUND = -32601
_EXACT = Context(prec=40, traps=[Inexact, InvalidOperation])
_COIN = Decimal(COIN)


def unavailable(detail: str) -> Unavailable:
    """Return what every trouble with the node is raised as. detail: a sentence for the operator, without secrets."""
    return Unavailable("chain_unavailable", detail)


class RpcError(Exception):
    """The node answered a call with an error: its code and its message."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")


def parse_amount(value: object) -> int:
    """Return an amount of bitcoins, as JSON gave it (int or Decimal), in satoshi. Raises ValueError unless that is exact."""
    if type(value) is int or isinstance(value, Decimal):
        number = Decimal(value) if isinstance(value, int) else value
        try:
            if number.is_finite() and 0 <= number <= MAX_MONEY // COIN:
                return int(_EXACT.to_integral_exact(_EXACT.multiply(number, _COIN)))
        except (Inexact, InvalidOperation):
            pass
    raise ValueError("not an amount of bitcoins in whole satoshi")


class _Closed(Exception):
    """The connection ended before one byte of the answer."""


class _Unauthorized(Exception):
    """HTTP 401."""


class JsonRpc:
    """Calls to one node. Either `cookie` (the file that the node writes at each start) or `user` and `password`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        cookie: Path | None = None,
        user: str = "",
        password: str = "",
        timeout: float = 10.0,
        connections_max: int = 4,
    ) -> None:
        self._host, self._port = host, port
        self._cookie, self._login = cookie, f"{user}:{password}"
        self._timeout = timeout
        self._places = asyncio.Semaphore(connections_max)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, method: str, *params: Any, path: str = "/", timeout: float = 0) -> Any:
        """Return one call's result. Raises RpcError, Unavailable."""
        (answer,) = await self.batch([(method, *params)], path=path, timeout=timeout)
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def batch(self, calls: Sequence[tuple[Any, ...]], *, path: str = "/", timeout: float = 0) -> list[Any]:
        """Send calls, each (method, parameter, ...), in one request; return their results in order, an RpcError in place
        of a result that is one. path: "/" or a wallet's. timeout: seconds, instead of the usual. Raises Unavailable."""
        body = json.dumps(
            [{"jsonrpc": "1.0", "id": at, "method": call[0], "params": call[1:]} for at, call in enumerate(calls)]
        ).encode()
        try:
            async with asyncio.timeout(timeout or self._timeout), self._places:
                status, answer = await self._post(path, body)
        except TimeoutError:
            raise unavailable("The Bitcoin node did not answer in time") from None
        return _parse_answers(status, answer, len(calls))

    async def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer, after at most one more try with a new connection or a new cookie."""
        for _ in range(2):
            head = self._head(path, len(body))
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else await self._connect()
            try:
                return await self._exchange(connection, head + body)
            except _Unauthorized:
                if self._cookie is None:
                    break
            except _Closed:
                if not kept:
                    raise unavailable("The Bitcoin node closed the connection without an answer") from None
                await self.close()  # the others are as old
            except (OSError, ValueError, EOFError, asyncio.LimitOverrunError):
                raise unavailable("The Bitcoin node's answer broke off, or is no JSON-RPC over HTTP") from None
        raise unavailable("The Bitcoin node refuses our credentials (HTTP 401)")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for delay in (*CONNECT_DELAYS, None):
            try:
                return await asyncio.open_connection(self._host, self._port, limit=HEAD_SIZE_MAX)
            except OSError:
                if delay is not None:
                    await asyncio.sleep(delay)
        raise unavailable("The Bitcoin node cannot be reached")

    def _head(self, path: str, size: int) -> bytes:
        """Return a request's head. The cookie is read each time: the node writes a new one at each start."""
        login = self._login
        if self._cookie is not None:
            try:
                login = self._cookie.read_text().strip()
            except (OSError, UnicodeDecodeError):
                raise unavailable("The Bitcoin node's cookie file cannot be read; is the node running?") from None
        token = base64.b64encode(login.encode()).decode()
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAuthorization: Basic {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {size}\r\nConnection: keep-alive\r\n\r\n"
        ).encode()

    async def _exchange(
        self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
    ) -> tuple[int, bytes]:
        """Send one request and read its answer; the connection is kept only if all of it was read."""
        reader, writer = connection
        keep = False
        try:
            try:
                writer.write(request)
                await writer.drain()
                status, fields = _parse_head(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
                raise _Closed from None
            except ConnectionError:
                raise _Closed from None
            answer = await _read_body(reader, fields)
            keep = fields.get("connection", "").lower() != "close"
        finally:
            if keep:
                self._idle.append(connection)
            else:
                writer.close()
        if status == 401:
            raise _Unauthorized
        return status, answer


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return the status and the fields, names in lower case. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    version, status, *_ = first.split(" ", 2)
    if version != "HTTP/1.1" or len(status) != 3 or not status.isdecimal():
        raise ValueError("not an HTTP/1.1 answer")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name != name.strip() or (name in ("content-length", "transfer-encoding") and name in fields):
            raise ValueError("a malformed or repeated field")
        fields[name] = value.strip()
    return int(status), fields


def _parse_size(text: str, base: int) -> int:
    digits = "0123456789abcdefABCDEF"[: 10 if base == 10 else 22]
    if not text or len(text) > 10 or any(letter not in digits for letter in text) or int(text, base) > BODY_SIZE_MAX:
        raise ValueError("a malformed size, or one beyond what we accept")
    return int(text, base)


async def _read_body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    """Return the body. It must have exactly one of Content-Length and chunks. Raises ValueError, IncompleteReadError."""
    length, encoding = fields.get("content-length"), fields.get("transfer-encoding")
    if (length is None) == (encoding is None) or encoding not in (None, "chunked"):
        raise ValueError("the body's size is not told, or told twice")
    if length is not None:
        return await reader.readexactly(_parse_size(length, 10))
    body = bytearray()
    while size := _parse_size((await reader.readuntil(b"\r\n")).split(b";")[0].strip().decode("latin-1"), 16):
        if len(body) + size > BODY_SIZE_MAX:
            raise ValueError("the answer is too large")
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk does not end where it should")
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return bytes(body)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _parse_answers(status: int, body: bytes, count: int) -> list[Any]:
    """Return results and RpcErrors in the order of the calls. Raises Unavailable."""
    if status == 403:
        raise unavailable("The Bitcoin node does not accept us (HTTP 403): see its rpcallowip and rpcwhitelist")
    if status == 503:
        raise unavailable("The Bitcoin node has too many requests waiting (HTTP 503)")
    try:
        answers = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
        if isinstance(answers, dict):  # an error that concerns the batch as a whole
            error = _parse_answer(answers)
            if not isinstance(error, RpcError):
                raise ValueError("one answer for a batch")
            return [error] * count
        by_id = {answer["id"]: _parse_answer(answer) for answer in answers}
        if len(answers) != count:
            raise ValueError("a wrong number of answers")
        return [by_id[at] for at in range(count)]
    except (ValueError, KeyError, TypeError, RecursionError, InvalidOperation):
        raise unavailable(f"The Bitcoin node's answer (HTTP {status}) is no JSON-RPC") from None


def _parse_answer(answer: dict[str, Any]) -> Any:
    error = answer.get("error")
    if error is None:
        return answer["result"]
    code, message = error["code"], error["message"]
    if type(code) is not int or type(message) is not str:
        raise ValueError("a malformed error")
    return RpcError(code, message)
