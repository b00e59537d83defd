"""The headers of our answers, the same through every door. protocol-v1 section 8: CORS on all of them, on errors too."""

from ..protocol.replies import RETRY_AFTER_SECONDS, Form, Reply

Headers = list[tuple[str, str]]

_CORS: Headers = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "GET,POST,PUT,DELETE"),
    ("access-control-allow-headers", "Origin,Accept,Content-Type"),
    ("access-control-expose-headers", "Location"),
    ("cache-control", "no-store"),
]
SUCCESS_HEADERS: Headers = [("content-type", "application/json"), *_CORS]
_PROBLEM_HEADERS: Headers = [("content-type", "application/problem+json"), *_CORS]
_UNAVAILABLE_HEADERS: Headers = [*_PROBLEM_HEADERS, ("retry-after", str(RETRY_AFTER_SECONDS))]

PREFLIGHT_SECONDS = 24 * 3600
"""So long a browser may remember that it may ask, for one URL each; some forget sooner. The longest that any of them takes."""

_BY_FORM: dict[Form, Headers] = {
    Form.JSON: SUCCESS_HEADERS,
    Form.BATCH: [("content-type", "application/octet-stream"), *_CORS],
    Form.OPTIONS: [*_CORS, ("access-control-max-age", str(PREFLIGHT_SECONDS))],
}


def absolute(location: str, root: str) -> str:
    """Return a Location as clients can follow it. root: scheme, host and port of this server as they reach it; empty if that is not
    known: then it is relative. A location that is a whole URL points to a worker's own port."""
    return root + location if location.startswith("/") else location


def headers_of(reply: Reply) -> Headers:
    """Return an answer's headers, but for its Location, which needs the client's view of this server."""
    if not reply.is_problem:
        return _BY_FORM[reply.form]
    return _UNAVAILABLE_HEADERS if reply.status in (429, 503) else _PROBLEM_HEADERS
