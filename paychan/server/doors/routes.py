"""v1's routes: method and path to what is asked for. A route matches a prefix; further segments are tolerated, as in v1."""

import logging
from pathlib import Path
from typing import Protocol

from ...core.errors import PaychanError, Rejection, Unavailable
from ...printing import place_of
from ..protocol.replies import INTERNAL_ERROR, Form, Reply, json_reply, problem
from .direct import BATCH_PATH

log = logging.getLogger("paychan.server")

_DESCRIPTION = Reply(200, Path(__file__).with_name("openapi.json").read_bytes())
"""v1 in OpenAPI 3.1, for client generators and testers; tests/hostile/test_openapi.py holds it to the code."""

_MAY_BE_ASKED = Reply(200, form=Form.OPTIONS)
"""On every path, those of no resource too: a browser shows a page the 404 only if its preflight passed; and `*` is no path."""


class Answers(Protocol):
    """What is behind the routes; `paychan.server.worker.Worker` is it. All but `ready` raise Rejection and Unavailable."""

    async def pay(self, path: str, query: str, address: int) -> Reply: ...

    async def pay_batch(self, body: bytes, address: int) -> Reply: ...

    async def open(self, query: str) -> Reply: ...

    async def close(self, path: str, query: str) -> Reply: ...

    async def funding_info(self, query: str) -> Reply: ...

    def ready(self) -> Reply: ...


def takes_body(method: str, path: str) -> bool:
    """Return whether a request may have a body; no other may."""
    return method == "POST" and path == BATCH_PATH


def _segments(path: str) -> list[str]:
    return path.split("/")[1:]


def _is_fundings(path: str) -> bool:
    return _segments(path)[:2] == ["v1", "fundingInfo"]


def _is_new_channel(path: str) -> bool:
    return _segments(path)[:3] == ["v1", "channels", "new"]


def _is_channel(path: str) -> bool:
    segments = _segments(path)
    return segments[:2] == ["v1", "channels"] and len(segments) >= 4 and all(segments[2:4])


def opens(method: str, path: str) -> bool:
    """Return whether a request is for a new channel."""
    return method == "POST" and _is_new_channel(path)


async def _answer(worker: Answers, method: str, path: str, query: str, body: bytes, address: int = 0) -> Reply:
    """Raises Rejection, Unavailable. PUT, the hot one, is asked for first."""
    if method == "PUT":
        return await worker.pay(path, query, address)
    if method == "OPTIONS":
        return _MAY_BE_ASKED
    if method == "HEAD":  # the door leaves the body out
        method = "GET"
    if method == "GET" and _is_fundings(path):
        return await worker.funding_info(query)
    if opens(method, path):
        return await worker.open(query)
    if takes_body(method, path):
        return await worker.pay_batch(body, address)
    if method == "DELETE" and _is_channel(path):
        return await worker.close(path, query)
    if method == "GET" and path == "/v1/openapi.json":
        return _DESCRIPTION
    if method == "GET" and path == "/healthz":
        return json_reply(200, {"alive": True})
    if method == "GET" and path == "/readyz":
        return worker.ready()
    raise Rejection("no_such_route")


async def answer(worker: Answers | None, method: str, path: str, query: str, body: bytes = b"", address: int = 0) -> Reply:
    """Return the answer to a request; it never raises. worker: None while it starts. address: whom its payments are counted for."""
    try:
        if worker is None:
            raise Unavailable("store_unavailable")
        return await _answer(worker, method, path, query, body, address)
    except PaychanError as error:
        return problem(error)
    except Exception as error:
        # A bug of ours. Its text could hold a request's bytes, so only its kind and place are logged.
        log.error("internal error: %s at %s", type(error).__name__, place_of(error.__traceback__))
        return INTERNAL_ERROR
