"""What a route is asked, and what it answers: a whole body, or a stream of pieces."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..core.errors import PaychanError, Rejection
from ..server.protocol.replies import INTERNAL_ERROR, RETRY_AFTER_SECONDS, problem

Headers = tuple[tuple[str, str], ...]

NO_STORE: Headers = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))
"""What is answered is of this moment, and for who has the token."""

_JSON: Headers = (("content-type", "application/json"), *NO_STORE)
_PROBLEM: Headers = (("content-type", "application/problem+json"), *NO_STORE)


@dataclass(frozen=True)
class Request:
    """One request to a route. parts: what stands in the path for the names in the route's; query: as it came; headers: by name in
    lower case. who: the token's name; empty: the route wants none."""

    method: str
    path: str
    query: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    who: str = ""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    headers: Headers = _JSON


@dataclass(frozen=True)
class Stream:
    """An answer that goes on, with status 200. `pieces` is closed when who asked is gone, or the process is to end."""

    pieces: AsyncIterator[bytes]
    headers: Headers


def json_answer(content: Any, status: int = 200) -> Answer:
    """Return a success."""
    return Answer(status, orjson.dumps(content) + b"\n")


def worker_answer(status: int, body: bytes) -> Answer:
    """Return what a worker has answered, as it is."""
    more = (("retry-after", str(RETRY_AFTER_SECONDS)),) if status == 503 else ()
    return Answer(status, body, (*(_PROBLEM if status >= 400 else _JSON), *more))


def refusal(error: PaychanError) -> Answer:
    """Return the problem document (RFC 9457) of a refusal, as at every other door."""
    status, more = error.row.status, dict[str, str]()
    if status == 503:
        more["retry-after"] = str(RETRY_AFTER_SECONDS)
    if status == 401:
        more["www-authenticate"] = "Bearer"
    return Answer(status, problem(error).body, (*_PROBLEM, *more.items()))


FAILED = Answer(503, INTERNAL_ERROR.body, (*_PROBLEM, ("retry-after", str(RETRY_AFTER_SECONDS))))
"""The answer to a bug of ours."""


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is. Raises Rejection."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Rejection("invalid_command", "The body is no JSON") from error
    if not isinstance(content, dict):
        raise Rejection("invalid_command", "The body is no JSON object")
    return content
