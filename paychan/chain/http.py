"""A small HTTP/1.1 client on asyncio: kept connections, bounded answers, strict parsing; no redirects, no compression.

Knows nothing of what is asked. The caller bounds the time, with `asyncio.timeout`: a cancelled request closes its connection.
A request is sent a second time only when a kept connection turns out to have been closed before one byte of the answer came.
That might repeat it, so only requests that may be repeated belong here. Nothing is logged.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple

HEAD_SIZE_MAX = 64 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HttpFailure(Exception):
    """No answer was had. `str()` says why, to follow the server's name: "cannot be reached"."""


class HttpAnswer(NamedTuple):
    """Status and body. Of the fields only Content-Encoding and those that say where the body ends are heeded."""

    status: int
    body: bytes


class _Closed(Exception):
    """The connection ended before one byte of the answer."""


class HttpClient:
    """Requests to one host and port. tls: the context for https, None for http. connect_delays: seconds to wait before each
    further attempt to connect; without any there is one attempt."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        connections_max: int = 8,
        connect_delays: Sequence[float] = (),
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._connect_delays = connect_delays
        self._places = asyncio.Semaphore(connections_max)
        self._idle: list[Connection] = []
        bracketed = f"[{host}]" if ":" in host else host
        self._authority = bracketed if port == (443 if tls else 80) else f"{bracketed}:{port}"

    async def request(
        self, method: str, path: str, fields: Mapping[str, str] | None = None, body: bytes = b"", *, body_size_max: int
    ) -> HttpAnswer:
        """Send one request and return its answer, whatever its status. path, fields: sent as they are. body_size_max: bytes of the
        answer's body. Raises HttpFailure."""
        more = "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
        length = f"Content-Length: {len(body)}\r\n" if body or method != "GET" else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._authority}\r\nAccept-Encoding: identity\r\n{more}{length}\r\n"
        async with self._places:
            connection = self._kept()
            if connection is not None:
                try:
                    return await self._exchange(connection, head.encode() + body, body_size_max)
                except _Closed:
                    self.close()  # the others are as old
            try:
                return await self._exchange(await self._connect(), head.encode() + body, body_size_max)
            except _Closed:
                raise HttpFailure("closed the connection without an answer") from None

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop()[1].close()

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection[0].at_eof() and not connection[1].is_closing():
                return connection
            connection[1].close()
        return None

    async def _connect(self) -> Connection:
        for delay in (*self._connect_delays, None):
            try:
                return await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=HEAD_SIZE_MAX)
            except ssl.SSLError:
                raise HttpFailure("cannot prove who it is, or speaks no TLS that we accept") from None
            except (OSError, UnicodeError):  # a host name can be one that does not encode
                if delay is not None:
                    await asyncio.sleep(delay)
        raise HttpFailure("cannot be reached")

    async def _exchange(self, connection: Connection, request: bytes, body_size_max: int) -> HttpAnswer:
        """Send a request and read its answer; the connection is kept only if all of it was read and more may follow."""
        reader, writer = connection
        keep = False
        try:
            status, answer_fields = await _send(reader, writer, request)
            body = await _read_body(reader, answer_fields, body_size_max)
            keep = answer_fields.get("connection", "").lower() != "close"
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError):
            raise HttpFailure("broke off its answer, or it is no HTTP/1.1 that we accept") from None
        finally:
            if keep:
                self._idle.append(connection)
            else:
                writer.close()
        return HttpAnswer(status, body)


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, dict[str, str]]:
    try:
        writer.write(request)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        raise _Closed from None
    except ConnectionError:
        raise _Closed from None
    return _parse_head(head)


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return the status and the fields, names in lower case. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    version, status, *_ = first.split(" ", 2)
    if version != "HTTP/1.1" or len(status) != 3 or not (status.isascii() and status.isdecimal()):
        raise ValueError("not an HTTP/1.1 answer")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name != name.strip() or (name in ("content-length", "transfer-encoding") and name in fields):
            raise ValueError("a malformed or repeated field")
        fields[name] = value.strip()
    if fields.get("content-encoding", "identity") != "identity":
        raise ValueError("an encoding that was not asked for")
    return int(status), fields


def _parse_size(text: str, base: int, size_max: int) -> int:
    digits = "0123456789abcdefABCDEF"[: 10 if base == 10 else 22]
    if not text or len(text) > 10 or any(letter not in digits for letter in text) or int(text, base) > size_max:
        raise ValueError("a malformed size, or one beyond what we accept")
    return int(text, base)


async def _read_body(reader: asyncio.StreamReader, fields: dict[str, str], size_max: int) -> bytes:
    """Return the body. It must have exactly one of Content-Length and chunks. Raises ValueError, IncompleteReadError."""
    length, encoding = fields.get("content-length"), fields.get("transfer-encoding")
    if (length is None) == (encoding is None) or encoding not in (None, "chunked"):
        raise ValueError("the body's size is not told, or told twice")
    if length is not None:
        return await reader.readexactly(_parse_size(length, 10, size_max))
    body = bytearray()
    while size := await _read_chunk_size(reader, size_max):
        if len(body) + size > size_max:
            raise ValueError("the answer is too large")
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk does not end where it should")
    trailers = 0
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        trailers += len(line)
        if trailers > HEAD_SIZE_MAX:
            raise ValueError("too many trailers")
    return bytes(body)


async def _read_chunk_size(reader: asyncio.StreamReader, size_max: int) -> int:
    line = await reader.readuntil(b"\r\n")
    return _parse_size(line.split(b";")[0].strip().decode("latin-1"), 16, size_max)
