"""Where a worker's own port answers otherwise than the shared port, case by case, each with its reason. The suites that run over
both doors read it: without a row the two answer alike.

The own port reads HTTP itself, and strictly; what it refuses gets a problem document too. On the shared port granian answers what
it does not take (empty body, no CORS), and hands on some of what is refused here.
"""

from typing import NamedTuple


class Difference(NamedTuple):
    """The own port's answer. `status` 0: any of those that the shared port may give."""

    status: int
    code: str
    reason: str


_BOUNDS = "a target has at most 4096 bytes, a head at most 8192; the longest request of the protocol has 700"
_NO_CODING = "no transfer coding is understood: where such a body ends is what smuggled requests are made of"

OWN_PORT: dict[str, Difference] = {
    "GET /v1/é": Difference(400, "malformed_request", "a byte above 0x7f is not part of a target"),
    "put {channel}": Difference(400, "malformed_request", "methods are upper-case words"),
    "target of 8000": Difference(414, "target_too_long", _BOUNDS),
    "target of 15000": Difference(414, "target_too_long", _BOUNDS),
    "target of 20000": Difference(414, "target_too_long", _BOUNDS),
    "target of 60000": Difference(414, "target_too_long", _BOUNDS),
    "Content-Length: 1000000000": Difference(413, "body_too_large", "longer than any body, whatever the resource"),
    "Transfer-Encoding: chunked": Difference(501, "transfer_encoding", _NO_CODING),
    "Transfer-Encoding: gzip": Difference(501, "transfer_encoding", _NO_CODING),
    "batch, chunked": Difference(501, "transfer_encoding", _NO_CODING),
    "HTTP/9.9": Difference(505, "http_version", "the version is read, not guessed"),
    "HTTP/2.0": Difference(505, "http_version", "as above"),
    '<>"': Difference(200, "", "printable ASCII after the path is the query, which ignores unknown parameters"),
}

VERSION_OF_ANSWERS_TO_1_0 = {"shared": "HTTP/1.0", "own": "HTTP/1.1"}
"""RFC 9110 2.5: a server tells its own version; granian repeats the client's."""


def expected(door: str, case: str, status: int, code: str) -> tuple[int, str]:
    """Return (status, code) that a door answers to a case; status and code: the shared port's."""
    row = OWN_PORT.get(case)
    return (row.status, row.code) if row is not None and door == "own" else (status, code)
