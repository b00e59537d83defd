"""The request target: brought into one form, or refused.

What a route's price is looked up by is what the upstream is asked for, letter by letter; a target that servers are known to read in
different ways is refused, or, where people may mean it, all its readings must cost the same (`routes.py`). RFC 3986 section 6,
RFC 9110 section 7.1; what upstreams make of paths besides is experience: each rule says whose.
"""

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

from .._fast.http import is_host
from .refusals import Refused

PATH_BYTES_MAX = 8192
_FORBIDDEN = re.compile(r"[\\;%?#\ufffd]|::")
"""Windows takes a backslash for a slash; Java's servers cut `;parameters` off; who decodes twice makes something else of %, ?, #;
`file::$DATA` is `file` to NTFS; U+FFFD stands for bytes that are no UTF-8."""

_SPECIAL = frozenset("/\\.;%?#:")
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_SAFE = "/:@!$&'()*+,=~"
"""What RFC 3986 lets a path have as it is, beside letters, digits and -._ ; all else is percent-encoded."""

_QUERY = re.compile(r"[!-\"$-~]*\Z")
_INDEX = ("index", "default")
_SCRIPT = re.compile(r"\.[a-z]{2,5}\Z")


def check_path(path: str) -> str:
    """Return a decoded path if there is one way to read it. Raises Refused.

    path: percent-decoded once, as RSGI hands it out, so an encoded slash is a slash here, and is sent as one.
    """
    if not path.startswith("/"):
        raise Refused("ambiguous_target", "the target is no path")
    if len(path.encode(errors="surrogatepass")) > PATH_BYTES_MAX:
        raise Refused("target_too_long")
    if found := _FORBIDDEN.search(path):
        raise Refused("ambiguous_target", f"the path holds {ascii(found[0])}")
    segments = path.split("/")[1:]
    if "" in segments[:-1]:
        raise Refused("ambiguous_target", "the path holds an empty segment")
    if any(segment and segment[-1] in ". " for segment in segments):  # dot segments, and what Windows drops at a name's end
        raise Refused("ambiguous_target", "a segment of the path ends with a dot or a space")
    if not path.isascii():
        _check_letters(path)
    elif not path.isprintable():
        raise Refused("ambiguous_target", "the path holds a control character")
    return path


def _check_letters(path: str) -> None:
    """Refuse letters that are not seen, and those that a normal form turns into a delimiter: U+FF0F is a slash to who composes."""
    for letter in path:
        if unicodedata.category(letter) in _UNSEEN:
            raise Refused("ambiguous_target", "the path holds a letter that is not seen")
        if letter not in _SPECIAL and _SPECIAL & set(unicodedata.normalize("NFKC", letter)):
            raise Refused("ambiguous_target", "the path holds a letter that looks like a delimiter")


def encode_path(path: str) -> str:
    """Return a checked path as it is sent to an upstream: one spelling for each path."""
    return quote(path, safe=_SAFE)


def check_query(query: str) -> str:
    """Return the query as it came; it takes no part in choosing a route. Raises Refused."""
    if not _QUERY.match(query):
        raise Refused("malformed_request", "the query holds what must be percent-encoded")
    return query


def check_host(authority: str | None, hosts: list[str]) -> tuple[str, str]:
    """Return a request's host as (lower case without port and last dot, as it was given). Raises Refused unless it has just one.

    authority: of an absolute-form target, which counts instead of the Host field (RFC 9112 section 3.2.2); here both must agree.
    """
    if len(hosts) != 1 or not is_host(hosts[0].encode(errors="replace")):
        raise Refused("malformed_request", "there must be one Host, and it must be a host")
    name = host_name(hosts[0])
    if authority is not None and (not is_host(authority.encode(errors="replace")) or host_name(authority) != name):
        raise Refused("malformed_request", "the target names another host than the Host field")
    return name, hosts[0]


def host_name(text: str) -> str:
    """Return the name in NAME, NAME:PORT, [IPV6] or [IPV6]:PORT, in the form in which two can be compared."""
    bare = text[: text.index("]") + 1] if text.startswith("[") else text.partition(":")[0]
    return bare.lower().removesuffix(".")


def fold(path: str) -> str:
    """Return a path as who ignores case, width and composition of letters has it."""
    return unicodedata.normalize("NFKC", path).casefold()


def readings(path: str) -> Iterator[str]:
    """Yield, folded, what upstreams may take a checked path for: as it is; with and without its last slash; without a suffix
    (`/report.json`: Rails, Django REST framework, Spring); without a directory's index file. Some come twice."""
    bare = fold(path).removesuffix("/")
    yield from (bare or "/", bare + "/")
    directory, _, name = bare.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    if dot:
        yield from (f"{directory}/{stem}", f"{directory}/{stem}/")
    if (stem or name) in _INDEX:
        yield from (directory or "/", directory + "/")


def scripts(path: str) -> Iterator[str]:
    """Yield, folded, the scripts that may run with the rest of the path as their argument: `/report.php/x` (CGI, PHP, WSGI)."""
    segments = fold(path).split("/")
    for end in range(2, len(segments)):
        if _SCRIPT.search(segments[end - 1]):
            yield "/".join(segments[:end])
