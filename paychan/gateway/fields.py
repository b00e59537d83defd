"""Header fields on their way through: what ends at a hop, what clients must not say, what the upstream is told.

RFC 9110 section 7.6 (intermediaries), 7.8 (Upgrade); RFC 9112 section 6 (framing). Names are lower case.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from .models import Fields
from .refusals import Headers, Refused

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\t -~]*\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LONE = re.compile(r"[\ud800-\udfff]")
"""Bytes that were no UTF-8."""


_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authenticate")
    + ("proxy-authorization", "proxy-authentication-info", "http2-settings", "expect")
)
"""What is between two neighbours (RFC 9110 section 7.6.1). Trailers are not passed on, so none is announced or asked for."""

_CREDENTIALS = frozenset({"payment-authorization", "payment-receipt", "payment-session-snapshot", "accept-payment"})
"""What is between payer and gateway. Money stands in it, so the upstream never sees it, and never answers it."""

_NOT_FOR_CLIENTS = frozenset(
    ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix")
    + ("x-forwarded-method", "x-forwarded-uri", "x-forwarded-server", "x-real-ip", "x-original-url", "x-original-uri")
    + ("x-rewrite-url", "x-original-method", "x-http-method")
    + ("x-http-method-override", "x-method-override", "x-client-ip", "true-client-ip")
)
"""What upstreams believe of a proxy: where a request came from, or that it is another request than it looks like (Symfony, IIS and
Rails take another target or method from a header: a free request could be a paid one)."""

_FRAMING = frozenset({"content-length", "host"})
_MANAGED = _HOP | _CREDENTIALS | _FRAMING
PAID_PREFIX = "paychan-"
"""Of the fields that tell the upstream who paid; from clients they are not taken."""


@dataclass(frozen=True)
class Sender:
    """Who sent a request, as far as it is believed. address: of the client; scheme and host: as it asked."""

    address: str
    scheme: str
    host: str
    chain: str = ""


def trouble_with_field(name: str, value: str) -> str:
    """Return why an operator cannot have a field set or removed; empty if it can."""
    if not _TOKEN.match(name) or not _VALUE.match(value) or value != value.strip():
        return "is no header field"
    return "is the gateway's own to set or remove" if name in _MANAGED or name.startswith(PAID_PREFIX) else ""


def hop_by_hop(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the names of the fields that end here: the known ones, and those that Connection nominates."""
    named = {part.strip().lower() for name, value in headers if name == "connection" for part in value.split(",")}
    return _HOP | (named - _FRAMING)


def is_payment(value: str) -> bool:
    """Return whether a value of Authorization or WWW-Authenticate has anything of the Payment scheme in it."""
    return any(part.split(None, 1)[0].lower() == "payment" for part in value.split(",") if part.strip())


def to_upstream(headers: Sequence[tuple[str, str]], wanted: Fields, sender: Sender, told: Headers) -> Headers:
    """Return the fields of a request for the upstream, without Host and Content-Length.

    Names with an underscore are dropped: CGI and WSGI take them for the same name with a hyphen. told: who paid what.
    """
    unwanted = wanted.drop | {name for name, _ in wanted.put}
    ends_here = hop_by_hop(headers)
    kept = [
        (name, value)
        for name, value in headers
        if name not in ends_here
        and name not in unwanted
        and name not in _MANAGED
        and name not in _NOT_FOR_CLIENTS
        and "_" not in name
        and not name.startswith(PAID_PREFIX)
        and not (name == "authorization" and is_payment(value))
    ]
    chain = f"{sender.chain}, {sender.address}" if sender.chain else sender.address
    forwarded = (("x-forwarded-for", chain), ("x-forwarded-proto", sender.scheme), ("x-forwarded-host", sender.host))
    kept += [(name, value) for name, value in forwarded if value and name not in unwanted]
    return [*kept, *told, *wanted.put]


def to_client(headers: Sequence[tuple[str, str]], wanted: Fields) -> Headers:
    """Return the fields of an upstream's answer for the client, with Content-Length if there is one.

    What only the gateway may say of payments is dropped, and what is no text in UTF-8. Raises Refused for a field that would end a
    line.
    """
    lower = [(name.lower(), value) for name, value in headers]
    ends_here = hop_by_hop(lower) | _CREDENTIALS | wanted.drop | {name for name, _ in wanted.put}
    kept = [
        (name, value) for name, value in lower if name not in ends_here and not (name == "www-authenticate" and is_payment(value))
    ]
    if any(not _TOKEN.match(name) or _CONTROL.search(value) for name, value in kept):
        raise Refused("upstream_failed", "its answer has a header field that is none")
    return [*((name, value) for name, value in kept if not _LONE.search(value)), *wanted.put]


def check_framing(headers: Sequence[tuple[str, str]], http_version: str) -> int:
    """Return how many bytes the body has. Raises Refused for whatever could end elsewhere to somebody else.

    Chunked bodies are refused: this server does not tell one that broke off from one that ended.
    """
    if not http_version.startswith("1"):
        raise Refused("http_version")
    values = {name: [value for key, value in headers if key == name] for name in ("content-length", "transfer-encoding", "expect")}
    if any(value.strip().lower() != "chunked" for value in values["transfer-encoding"]):
        raise Refused("transfer_encoding")
    if values["transfer-encoding"]:
        raise Refused("length_required")
    if any(value.strip().lower() != "100-continue" for value in values["expect"]):
        raise Refused("unknown_expectation")
    lengths = values["content-length"]
    if len(lengths) > 1 or not all(re.fullmatch(r"[0-9]{1,18}", value) for value in lengths):
        raise Refused("malformed_request", "there may be one Content-Length, in digits")
    return int(lengths[0]) if lengths else 0


def sender_of(
    peer: str, scheme: str, host: str, headers: Sequence[tuple[str, str]], trusted: Sequence[IPv4Network | IPv6Network]
) -> Sender:
    """Return who sent a request, in the words that the upstream is told. peer: ADDRESS:PORT of the connection, as RSGI has it. What
    X-Forwarded-For and X-Forwarded-Proto say is kept only if a trusted proxy says it."""
    address = _address_of(peer)
    if not is_trusted(address, trusted):
        return Sender(address, scheme, host)
    told = {name: value.strip() for name, value in headers if name.startswith("x-forwarded-")}
    hops = [hop.strip() for name, value in headers if name == "x-forwarded-for" for hop in value.split(",") if hop.strip()]
    scheme = told.get("x-forwarded-proto", scheme)
    chain = ", ".join(hops) if all(map(_is_address, hops)) else ""
    return Sender(address, scheme if scheme in ("http", "https") else "http", host, chain)


def _address_of(peer: str) -> str:
    return peer.rpartition(":")[0].strip("[]")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_trusted(address: str, trusted: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Return whether an address is one of the proxies that are believed."""
    if not trusted or not _is_address(address):
        return False
    return any(ip_address(address) in network for network in trusted)
