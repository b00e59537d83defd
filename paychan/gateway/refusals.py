"""How the gateway itself refuses a request, as one table of stable codes. Refusals of payments: `mpp/problems.py`."""

import json
from typing import NamedTuple

RETRY_AFTER_SECONDS = 1


class Kind(NamedTuple):
    """`text` is for people. close: what is left of the request on the connection is not worth reading."""

    status: int
    text: str
    close: bool = False


KINDS = {
    "malformed_request": Kind(400, "The request is not HTTP as RFC 9110 and RFC 9112 demand it", True),
    "ambiguous_target": Kind(400, "Servers read this target in different ways; ask with the plain one"),
    "not_a_proxy": Kind(403, "Only the operator's own proxies may ask here: gateway.trusted_proxies"),
    "not_metered_here": Kind(501, "What is paid while it runs cannot be sold where a proxy asks but once; route it through here"),
    "no_such_route": Kind(404, "Nothing is offered here"),
    "method_not_allowed": Kind(405, "This resource does not take the method"),
    "request_timeout": Kind(408, "The body did not come in time", True),
    "length_required": Kind(411, "A body needs a Content-Length: one that ends early could not be told from a whole one", True),
    "body_too_large": Kind(413, "The body is longer than this resource takes", True),
    "target_too_long": Kind(414, "The request target is longer than any valid one", True),
    "unknown_expectation": Kind(417, "Expect can only be 100-continue", True),
    "upgrade_required": Kind(426, "This resource speaks WebSocket only"),
    "internal_error": Kind(503, "The gateway failed; whether anything was charged is unknown, so send the same request again"),
    "transfer_encoding": Kind(501, "The only transfer coding is chunked, and it is not taken either", True),
    "subprotocol_unsupported": Kind(501, "WebSocket subprotocols are not passed on"),
    "method_unknown": Kind(501, "The gateway does not pass this method on"),
    "upstream_failed": Kind(502, "The server behind this gateway cannot be reached, or broke off before it began to answer"),
    "overloaded": Kind(503, "As many requests are under way as there may be; send the same request again"),
    "stopping": Kind(503, "The gateway is being stopped; send the same request again"),
    "upstream_timeout": Kind(504, "The server behind this gateway did not answer in time"),
    "http_version": Kind(505, "Only HTTP/1.1 and HTTP/1.0 are understood", True),
}

Headers = list[tuple[str, str]]


class Refused(Exception):
    """A request that is not passed on, or that the upstream did not answer. allow: the methods that would have been taken."""

    def __init__(self, code: str, detail: str = "", allow: str = "") -> None:
        super().__init__(code)
        self.code, self.detail, self.allow = code, detail, allow
        self.kind = KINDS[code]

    @property
    def status(self) -> int:
        return self.kind.status

    def body(self) -> bytes:
        """Return the problem document (RFC 9457)."""
        document = {"title": self.kind.text, "status": self.kind.status, "code": self.code}
        return json.dumps({**document, "detail": self.detail} if self.detail else document).encode()

    def headers(self) -> Headers:
        """Return the answer's header fields."""
        headers = [("content-type", "application/problem+json"), ("cache-control", "no-store")]
        if self.kind.status == 503:
            headers.append(("retry-after", str(RETRY_AFTER_SECONDS)))
        if self.kind.status == 405:
            headers.append(("allow", self.allow))
        if self.kind.status == 426:
            headers += [("upgrade", "websocket"), ("connection", "upgrade")]
        return headers
