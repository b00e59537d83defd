"""`WWW-Authenticate: Payment`: challenges, several in one header, and their ids, which need no memory (section 2.1)."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from . import INTENT, METHOD
from .request import SessionRequest, parse_request
from .text import encode_bytes

SCHEME = "Payment"
CHALLENGE_BYTES_MAX = 8192
"""Of a header with challenges: what is longer is not looked at."""

CREDENTIAL_HEADER = "Payment-Authorization"
"""The one value that `header` may have: the credential comes in this field then, and `Authorization` stays free."""

_SLOTS = ("realm", "method", "intent", "request", "expires", "digest", "opaque")
_REQUIRED = ("id", "realm", "method", "intent", "request")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAM = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")[ \t]*(?=,|\Z)')
_START = re.compile(rf"({_TOKEN})(?:[ ]+|(?=,|\Z))")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)")
_GAP = re.compile(r"[ \t,]*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge, its parameters as they stand on the wire. `expires`: RFC 3339. `digest`: of the request's body, RFC 9530."""

    id: str
    realm: str
    method: str
    intent: str
    request: str
    expires: str = ""
    digest: str = ""
    opaque: str = ""
    header: str = ""
    description: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is of this package's method and intent."""
        return (self.method, self.intent) == (METHOD, INTENT)

    def session(self) -> SessionRequest:
        """Return what it asks for. Raises ValueError if that makes no sense; only for a challenge that `is_ours`."""
        return parse_request(self.request)

    @property
    def expires_at(self) -> int | None:
        """Unix seconds; None: never. Raises ValueError."""
        return _parse_time(self.expires) if self.expires else None

    def params(self) -> dict[str, str]:
        """Return its parameters, those that are there: what a credential echoes. The id first."""
        return {row.name: value for row in fields(self) if (value := getattr(self, row.name))}

    def render(self) -> str:
        """Return the header's value."""
        return f"{SCHEME} " + ", ".join(f"{name}={_quote(value)}" for name, value in self.params().items())


def make_challenge(secret: bytes, realm: str, request: str, expires: str = "", **others: str) -> Challenge:
    """Return a challenge of method bitcoin, intent session, with its id. others: digest, opaque, header, description."""
    bare = Challenge("", realm, METHOD, INTENT, request, expires, **others)
    return Challenge(make_id(secret, bare.params()), realm, METHOD, INTENT, request, expires, **others)


def make_id(secret: bytes, params: Mapping[str, str]) -> str:
    """Return the id of a challenge with these parameters: HMAC-SHA256 over the fixed slots, joined by a pipe, one that is not there
    being empty; `header` is one more slot where it is there. So who made a challenge need not remember it."""
    slots = [params.get(name, "") for name in _SLOTS]
    if params.get("header"):
        slots.append(params["header"])
    return encode_bytes(hmac.digest(secret, "|".join(slots).encode("utf-8", "surrogatepass"), hashlib.sha256))


def is_made_by(secret: bytes, params: Mapping[str, str]) -> bool:
    """Return whether the id belongs to the other parameters, in constant time."""
    return hmac.compare_digest(make_id(secret, params).encode(), params.get("id", "").encode("utf-8", "surrogatepass"))


@lru_cache(64)
def format_time(seconds: int) -> str:
    """Return unix seconds as RFC 3339 writes them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> int:
    """Return the unix seconds of a time in RFC 3339. Raises ValueError."""
    if len(text) > 64:
        raise ValueError("no time")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time has no zone")
    return int(moment.timestamp())


_parse_time = lru_cache(256)(parse_time)


def _quote(value: str) -> str:
    if not all(" " <= letter <= "~" for letter in value):
        value = value.encode("ascii", "replace").decode().translate(dict.fromkeys(range(32), "?"))
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Return the Payment challenges in the values of WWW-Authenticate, those of other schemes and what is broken left out."""
    found = []
    for value in values:
        if len(value) > 4 * CHALLENGE_BYTES_MAX:
            continue
        for scheme, params in _schemes(value):
            if scheme.lower() == SCHEME.lower() and params is not None:
                found += [made] if (made := _challenge(params)) is not None else []
    return found


_NAMES = tuple(row.name for row in fields(Challenge))


def read_challenge(params: Mapping[str, Any]) -> Challenge:
    """Return the challenge whose parameters came as a JSON object; such that are not known are left aside. Raises ValueError."""
    made = _challenge(params)
    if made is None:
        raise ValueError("no challenge")
    return made


def _challenge(params: Mapping[str, Any]) -> Challenge | None:
    known = {name: params[name] for name in _NAMES if name in params}
    for value in known.values():
        if not isinstance(value, str):
            return None
    for name in _REQUIRED:
        if not known.get(name):
            return None
    return Challenge(**known)


def _schemes(value: str) -> Iterable[tuple[str, dict[str, str] | None]]:
    """Yield (scheme, its parameters) as RFC 9110 section 11.6.1 has them. None instead of parameters: it has a token, or one of
    them stands twice. Ends where the header breaks."""
    at, scheme, params = 0, "", {}
    broken = False
    while True:
        at = _GAP.match(value, at).end()  # type: ignore[union-attr]  # it matches the empty text
        if at == len(value):
            break
        param = _PARAM.match(value, at) if scheme else None
        if param is not None:
            name = param[1].lower()
            broken = broken or name in params
            params[name] = param[2] if param[2] is not None else re.sub(r"\\(.)", r"\1", param[3])
            at = param.end()
            continue
        start = _START.match(value, at)
        if scheme:
            yield scheme, None if broken else params
        scheme = ""
        if start is None:
            break
        scheme, params, broken, at = start[1], {}, False, start.end()
        if not _PARAM.match(value, at) and (token := _TOKEN68.match(value, at)):
            broken, at = True, token.end()
    if scheme:
        yield scheme, None if broken else params
