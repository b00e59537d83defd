"""HTTP/1.1 as bytes: one request out, one response in. No sockets here; both faces of the client use it."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

HEAD_SIZE_MAX = 16 << 10
BODY_SIZE_MAX = 4 << 20
"""Bytes. A channel server's answers are below 1 KiB; a block explorer's transactions may be long."""

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?\Z")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?\Z")


class WireError(Exception):
    """The bytes are no HTTP response, or it is cut off."""


@dataclass(frozen=True)
class Reply:
    """A complete response; header names in lower case. `keeps_alive`: whether the connection can carry another request."""

    status: int
    headers: dict[str, str]
    body: bytes
    keeps_alive: bool = False


@dataclass(frozen=True)
class NoReply:
    """No complete response. `is_sent`: whether the server may have seen the request."""

    reason: str
    is_sent: bool


@dataclass(frozen=True)
class Server:
    """Where a server is: what its base URL says. `prefix`: the path before `/v1`."""

    is_tls: bool
    host: str
    port: int
    prefix: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority."""
        return f"{'https' if self.is_tls else 'http'}://{self.authority}"

    @property
    def is_loopback(self) -> bool:
        """Whether requests stay on this machine."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_url(url: str) -> Server:
    """Return the server behind an http(s) URL. A final `/v1` is dropped. Raises ValueError, which does not repeat the URL: it may
    hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("the URL's host or port makes no sense") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("the URL must be http://HOST[:PORT][/PATH] or https://...")
    if not re.fullmatch(r"[\x21-\x7e]+", url) or not re.fullmatch(r"[0-9A-Za-z.:_-]{1,253}", parts.hostname):
        raise ValueError("the URL must be plain ASCII")
    if not all(0 < len(label) <= 63 for label in parts.hostname.removesuffix(".").split(".")) or port == 0:
        raise ValueError("the URL's host or port makes no sense")
    is_tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return Server(is_tls, parts.hostname, port or (443 if is_tls else 80), prefix)


def render_request(server: Server, method: str, target: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request. `target`: path and query below the server's prefix."""
    head = (
        f"{method} {server.prefix}{target} HTTP/1.1\r\nHost: {server.authority}\r\nAccept: application/json\r\n"
        f"Accept-Encoding: identity\r\nUser-Agent: paychan\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def parse_response(data: bytes, is_ended: bool) -> Reply | None:
    """Return the response that `data` holds, None if more bytes are needed. `is_ended`: no more will come. Raises WireError."""
    while True:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if is_ended or len(data) > HEAD_SIZE_MAX:
                raise WireError("the answer is cut off" if is_ended and data else "no answer")
            return None
        version, status, headers = _parse_head(data[:end])
        data = data[end + 4 :]
        if status >= 200:
            break
    body = _parse_body(status, headers, data, is_ended)
    if body is None:
        if is_ended:
            raise WireError("the answer is cut off")
        return None
    content, is_delimited = body
    keeps = is_delimited and version == "1" and "close" not in headers.get("connection", "").lower()
    return Reply(status, headers, content, keeps)


def _parse_head(head: bytes) -> tuple[str, int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    match = _STATUS_LINE.match(first)
    if not match:
        raise WireError("the answer is not HTTP")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if not colon or name != name.strip():
            raise WireError("the answer has a broken header")
        if headers.setdefault(name, value) != value and name in ("content-length", "transfer-encoding"):
            raise WireError("the answer contradicts itself about its length")
    return match[1], int(match[2]), headers


def _parse_body(status: int, headers: dict[str, str], data: bytes, is_ended: bool) -> tuple[bytes, bool] | None:
    """Return (body, whether its end was told rather than the connection's), None if it is incomplete."""
    if status in (204, 304):
        return b"", not data
    if len(data) > 2 * BODY_SIZE_MAX:
        raise WireError("the answer is too long")
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked":
            raise WireError("the answer has an unknown encoding")
        return _parse_chunks(data)
    length = headers.get("content-length")
    if length is None:
        return (data, False) if is_ended else None
    if not re.fullmatch("[0-9]{1,9}", length) or int(length) > BODY_SIZE_MAX:
        raise WireError("the answer is too long")
    if len(data) < int(length):
        return None
    return data[: int(length)], len(data) == int(length)


def _parse_chunks(data: bytes) -> tuple[bytes, bool] | None:
    body, at = bytearray(), 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        match = _CHUNK_SIZE.match(data[at:end])
        if not match:
            raise WireError("the answer has a broken chunk")
        size, at = int(match[1], 16), end + 2
        if size == 0:  # then trailers, which nobody reads, and an empty line
            has_ended = data.startswith(b"\r\n", at) or data.find(b"\r\n\r\n", at) >= 0
            return (bytes(body), data[at:] == b"\r\n") if has_ended else None
        if len(body) + size > BODY_SIZE_MAX:
            raise WireError("the answer is too long")
        if len(data) < at + size + 2:
            return None
        body += data[at : at + size]
        at += size + 2
