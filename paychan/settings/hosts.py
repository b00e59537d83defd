"""What a configuration may name as a host or a URL: one rule for each place where one stands, and words for what is wrong.

Nothing is looked up: a name is judged by its form. Which hosts are near enough for plain text is said here too.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_\-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?\Z")
_NAME_SIZE_MAX = 253
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*\Z")
"""RFC 3986's characters; a URL becomes part of headers and of requests."""


def listening_address(text: str) -> str:
    """Return the IP address to listen on, as `ipaddress` writes it. `localhost` is 127.0.0.1. Raises ValueError, which says why."""
    if text == "localhost":
        return "127.0.0.1"
    if text == "*":
        raise ValueError("is no address: all of them are 0.0.0.0 (IPv4) or ::")
    if text.startswith("["):
        raise ValueError("is written without brackets here")
    try:
        address = _address(text)
    except ValueError:
        raise ValueError("must be an IP address of this machine, or localhost") from None
    return str(address)


def host(text: str) -> str:
    """Return a host to connect to, or to tell clients, as given but without the brackets of an IPv6 address. Raises ValueError."""
    if "://" in text or "/" in text:
        raise ValueError("must be a host alone: no scheme, no path")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare or bare != text:
        try:
            if isinstance(address := _address(bare), IPv6Address):
                return str(address)
        except ValueError:
            pass
        raise ValueError("is no IPv6 address" if bare.count(":") > 1 or bare != text else "must be a host alone: no port")
    if not text.isascii():
        raise ValueError("is not ASCII: a name of other letters has a form that begins with xn--")
    if len(text) > _NAME_SIZE_MAX or not _NAME.match(text):
        raise ValueError("is neither a host name nor an IP address")
    return text


def in_url(bare: str) -> str:
    """Return a host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{bare}]" if ":" in bare else bare


def trouble_with_url(url: str) -> str:
    """Return what is wrong with the URL of a server, an empty text if nothing is."""
    if not url.startswith(("http://", "https://")):
        return "must start with http:// or https://"
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if not _URL.match(url) or not name or port == 0:
        return "is no URL"
    if parts.username is not None or parts.password is not None:
        return "must hold no credentials: it is shown and logged"
    try:
        host(name)
    except ValueError as error:
        return f"names a host that {error}"
    return "must have neither query nor fragment" if parts.query or parts.fragment or url[-1] in "?#" else ""


def host_of(url: str) -> str:
    """Return a URL's host, in the one form in which two can be compared; empty if it has none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_near(text: str) -> bool:
    """Whether what is said to a host, or where an address is listened on, stays on this machine or in a private network."""
    address = _known_address(text)
    return address is not None and not address.is_unspecified and (address.is_loopback or address.is_private)


def is_loopback(text: str) -> bool:
    """Whether a host is this machine."""
    address = _known_address(text)
    return address is not None and address.is_loopback


def _address(text: str) -> IPv4Address | IPv6Address:
    """Raises ValueError, also for an address with a zone: what we hand it to does not take one."""
    if "%" in text:
        raise ValueError("has a zone")
    return ip_address(text)


def _known_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is; None of a name that only a look-up could tell. An IPv4 address inside an IPv6 one is that
    address: `::ffff:0.0.0.0` is all of IPv4."""
    if text.lower().rstrip(".") == "localhost":
        return ip_address("127.0.0.1")
    try:
        address = _address(text.strip("[]"))
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
