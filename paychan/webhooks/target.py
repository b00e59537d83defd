"""Where a delivery may go: an URL in its parts, and which addresses are inside. Pure.

Who may name an endpoint may steer the server anyway; but a name that leads inside would have this process ask what only this
machine can reach: a metadata service, a database's port. So what is not of the public network is refused unless the configuration
allows it, by the address that is connected to, at each attempt: a name may change what it means.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..events.endpoint import URL_SIZE_MAX

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_WRAPPING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
"""IPv6 networks whose addresses stand for some other one, of IPv4."""


@dataclass(frozen=True)
class Target:
    """path: with its query. authority: as the Host field has it."""

    is_tls: bool
    host: str
    port: int
    path: str
    authority: str


def parse_target(url: str) -> Target:
    """Return an endpoint's URL in its parts. Raises ValueError with what is wrong, to follow "url"."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > URL_SIZE_MAX:
        raise ValueError(f"must be up to {URL_SIZE_MAX} plain characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("must be https://HOST/PATH")
    if "@" in parts.netloc or "\\" in url or "#" in url:
        raise ValueError("must have neither user, nor fragment, nor backslash")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme == "https", host, port or (443 if parts.scheme == "https" else 80), path, parts.netloc)


def may_reach(address: str, allowed: tuple[Network, ...]) -> bool:
    """Return whether an IP address may be connected to: it is of the public network, or in one that is allowed."""
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if any(found.version == network.version and found in network for network in allowed):
        return True
    wraps = any(found.version == network.version and found in network for network in _WRAPPING)
    return found.is_global and not found.is_multicast and not found.is_reserved and not wraps


def check_url(url: str, allowed: tuple[Network, ...]) -> Target:
    """Return the target of an URL that may be an endpoint's, as far as it can be told without asking anybody. Raises ValueError."""
    target = parse_target(url)
    try:
        address = str(ipaddress.ip_address(target.host))
    except ValueError:
        if not target.is_tls and not allowed:
            raise ValueError("must be https: what is sent would cross the network in plain text") from None
        if target.host == "localhost" and not may_reach("127.0.0.1", allowed):
            raise ValueError("points inside; webhooks.allow in server.toml says where else it may go") from None
        return target
    if not may_reach(address, allowed):
        raise ValueError("points inside; webhooks.allow in server.toml says where else it may go")
    if not target.is_tls and ipaddress.ip_address(address).is_global:
        raise ValueError("must be https: what is sent would cross the network in plain text")
    return target
