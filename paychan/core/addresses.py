"""Whom a request is counted for: the address of the peer, or, behind proxies that are trusted, the one that they vouch for.

An IPv4 address counts for itself, an IPv6 one with its /64: so much the least customer has. Pure: texts in, numbers out.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

NOBODY = 0
"""The number of what is not counted."""

HOPS_MAX = 16
"""Of a chain of proxies: the nearest ones are looked at."""

UNIX = "unix"
"""In a list of networks: whoever comes through a Unix socket, and so has no address."""

HEADERS = ("x-forwarded-for", "forwarded")
"""Either may be what the proxy writes; the other one is the client's own."""

_V4, _LOOPBACK_V6 = 0xFFFFFFFF << 32, 0xFFFFFFFE << 32
"""Where in the numbers IPv4 is, and the /64 that is all zeros: ffff::/16 is multicast, which nobody comes from."""

IP = IPv4Address | IPv6Address


def read_address(text: str) -> IP | None:
    """Return the address that a text is, maybe with a port, in brackets or with a zone; None if it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return _parse(text.partition("%")[0])


@lru_cache(4096)
def _parse(text: str) -> IP | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def number_of(address: IP | None) -> int:
    """Return what an address is counted by, of 64 bits; NOBODY for none."""
    if address is None:
        return NOBODY
    return _V4 | int(address) if isinstance(address, IPv4Address) else int(address) >> 64 or _LOOPBACK_V6


class Networks:
    """Some networks; those of the same texts are equal. `texts`: in CIDR, or "unix". Raises ValueError."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts = tuple(texts)
        self.has_unix = UNIX in self.texts
        found: list[IPv4Network | IPv6Network] = [ip_network(text) for text in self.texts if text != UNIX]
        self._masks = [(one.version, int(one.network_address), int(one.netmask)) for one in found]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and other.texts == self.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def has(self, address: IP | None) -> bool:
        """Return whether an address is in one of them; None: it came through a Unix socket."""
        if address is None:
            return self.has_unix
        number, version = int(address), address.version
        return any(version == kind and number & mask == network for kind, network, mask in self._masks)


def vouched(peer: IP | None, hops: Iterable[IP | None], trusted: Networks) -> IP | None:
    """Return the nearest address that is not a trusted proxy's, else the farthest that could be read.

    peer: who is connected, None through a Unix socket; hops: those before it, the nearest first, None where one cannot be read.
    Each is believed only because the one behind it is trusted: what the client itself wrote is never reached.
    """
    who = peer
    for hop in hops:
        if not trusted.has(who) or hop is None:
            break
        who = hop
    return who


def hops_of(value: str, header: str) -> Iterable[IP | None]:
    """Yield the addresses in a header's value (several lines are joined by commas), the nearest first.

    header: of HEADERS. Forwarded is RFC 7239's, of whose parameters only `for` is read; what hides an address is None.
    """
    if header == HEADERS[0]:
        parts = (part.strip() for part in reversed(value.rsplit(",", HOPS_MAX)[-HOPS_MAX:]))
    else:
        parts = (_for_of(element) for element in reversed(_split(value, ",")[-HOPS_MAX:]))
    return (read_address(part) for part in parts)


def _for_of(element: str) -> str:
    found = [pair.partition("=")[2].strip() for pair in _split(element, ";") if pair.partition("=")[0].strip().lower() == "for"]
    text = found[0] if len(found) == 1 else ""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _split(text: str, separator: str) -> list[str]:
    """Split a text outside of quotes; a backslash in quotes takes the next symbol for itself."""
    parts, start, is_quoted, is_escaped = [], 0, False, False
    for at, symbol in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted and symbol == "\\":
            is_escaped = True
        elif symbol == '"':
            is_quoted = not is_quoted
        elif symbol == separator and not is_quoted:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]
