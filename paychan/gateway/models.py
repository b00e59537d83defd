"""What a gateway's configuration holds, as frozen objects. `load.py` reads and checks them.

Money is in satoshi, times are in seconds, sizes in bytes.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path


class Unit(Enum):
    """What a price is for."""

    REQUEST = "request"
    KILOBYTE = "kilobyte"
    SECOND = "second"
    EVENT = "event"


@dataclass(frozen=True)
class Price:
    """amount: satoshi for one unit. ahead: how many units are reserved at a time while a stream runs; 1 for requests."""

    amount: int
    unit: Unit = Unit.REQUEST
    ahead: int = 1

    @property
    def is_metered(self) -> bool:
        """Whether the price is known only when the answer has ended."""
        return self.unit is not Unit.REQUEST


@dataclass(frozen=True)
class Limits:
    """What a request may take. answer_seconds: from the request's end to the answer's first byte; idle_seconds: between two bytes
    of a body; stream_seconds: an answer in all. websocket_message_bytes: of one message, either way."""

    body_bytes: int
    concurrency: int
    body_seconds: int
    answer_seconds: int
    idle_seconds: int
    stream_seconds: int
    websocket_message_bytes: int


@dataclass(frozen=True)
class Fields:
    """Header fields that the operator wants otherwise. put: in the place of whatever there is of that name; drop: lower case."""

    put: tuple[tuple[str, str], ...] = ()
    drop: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Upstream:
    """A server behind the gateway. url: scheme, host, port, and a path that is put before the request's, without a last slash."""

    name: str
    url: str
    connections: int
    connect_seconds: int
    preserve_host: bool


@dataclass(frozen=True)
class Route:
    """What is asked for at `host` and `path` with one of `methods` goes to `upstream`, for `price`; None: for nothing.

    host: lower case, empty for any. path: as it stands in the file. methods: empty for all. charged: which statuses of the upstream
    cost the price; others give it back as credit. rerun: whether a request may be passed on again for who paid for it once, and did
    not get the answer; None: if it is a GET. source: what complaints call it.
    """

    source: str
    host: str
    path: str
    methods: frozenset[str]
    upstream: Upstream
    price: Price | None
    description: str
    charged: frozenset[int]
    websocket: bool
    rerun: bool | None
    limits: Limits
    request_fields: Fields
    response_fields: Fields

    def takes(self, method: str) -> bool:
        """Return whether a method is one of this route's. HEAD goes where GET does."""
        return not self.methods or method in self.methods or (method == "HEAD" and "GET" in self.methods)


@dataclass(frozen=True)
class Door:
    """Where payments are judged: the sellers' door of a paychan server, at a Unix socket, or at a URL. token_file: holds a token of
    scope `charge`; None: the one that the door leaves beside its socket."""

    socket: Path | None
    url: str
    token_file: Path | None


@dataclass(frozen=True)
class Receipts:
    """key: the file of the key that signs receipts. older: of keys that did, whose public halves are still published."""

    key: Path
    older: tuple[Path, ...]


@dataclass(frozen=True)
class Discovery:
    """What `GET /openapi.json` says of the service as a whole."""

    title: str
    version: str
    description: str


@dataclass(frozen=True)
class GatewayConfig:
    """`gateway.toml`. realm: what challenges are for; all gateways of one seller that serve the same have the same. public_url: how
    clients reach it, empty if that is as they ask for. trusted_proxies: whose X-Forwarded-* are believed. forward_auth: the path
    where proxies ask whether a request is paid; empty: nowhere. cors_origins: of pages that may pay from a browser.
    """

    source: str
    host: str
    port: int
    workers: int
    public_url: str
    realm: str
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    tls_certificate: Path | None
    tls_key: Path | None
    concurrency: int
    stop_seconds: int
    forward_auth: str
    cors_origins: frozenset[str]
    door: Door | None
    receipts: Receipts | None
    discovery: Discovery | None
    routes: tuple[Route, ...]
