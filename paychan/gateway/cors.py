"""Payers that are pages of other origins (Fetch standard, CORS): without this a browser shows them neither challenge nor receipt,
and asks before each payment whether it may send one.
"""

import re
from typing import Any

from ..sell.facts import Answer
from .refusals import Headers
from .requests import Request

ANY = "*"
PREFLIGHT_SECONDS = 3600
EXPOSED = "WWW-Authenticate, Payment-Receipt, Payment-Session-Snapshot, Retry-After"

_ALLOW, _EXPOSE = "access-control-allow-origin", "access-control-expose-headers"
_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z, -]{1,4096}\Z")


class Cors:
    """origins: that may pay from a page, `*` for all; with none of them nothing is done."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    def wrap(self, scope: Any, proto: Any) -> Any:
        """Return what is to be answered through: `proto` itself, or what adds the fields for the origin that asks."""
        if not self._origins or scope.proto != "http":
            return proto
        origin = scope.headers.get("origin")
        return _Telling(proto, ANY if ANY in self._origins else origin) if self._is_allowed(origin) else proto

    def preflight(self, request: Request) -> Answer | None:
        """Return the answer to a browser's question whether it may ask; None for any other request."""
        origin, method = request.values("origin"), request.values("access-control-request-method")
        if request.method != "OPTIONS" or not method or len(origin) != 1 or not self._is_allowed(origin[0]):
            return None
        wanted = request.values("access-control-request-headers")
        headers = [("access-control-allow-methods", method[0]), ("access-control-max-age", str(PREFLIGHT_SECONDS))]
        if wanted and _NAMES.match(wanted[0]):
            headers.append(("access-control-allow-headers", wanted[0]))
        if not _NAMES.match(method[0]):
            return Answer(400)
        return Answer(204, (*headers, ("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")))

    def _is_allowed(self, origin: str | None) -> bool:
        return bool(origin) and (ANY in self._origins or origin in self._origins)


class _Telling:
    """RSGI's protocol of one request; whatever it answers, the page is told."""

    def __init__(self, proto: Any, origin: str) -> None:
        self._proto, self._origin = proto, origin

    def __call__(self) -> Any:
        return self._proto()

    def __aiter__(self) -> Any:
        return self._proto.__aiter__()

    def client_disconnect(self) -> Any:
        return self._proto.client_disconnect()

    def response_empty(self, status: int, headers: Headers) -> None:
        self._proto.response_empty(status, self._with(headers))

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        self._proto.response_bytes(status, self._with(headers), body)

    def response_stream(self, status: int, headers: Headers) -> Any:
        return self._proto.response_stream(status, self._with(headers))

    def _with(self, headers: Headers) -> Headers:
        exposed = [value for name, value in headers if name == _EXPOSE]
        kept = [pair for pair in headers if pair[0] not in (_ALLOW, _EXPOSE)]
        return [*kept, (_ALLOW, self._origin), (_EXPOSE, ", ".join([EXPOSED, *exposed])), ("vary", "Origin")]
