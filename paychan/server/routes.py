"""v1's routes: method and path to what is asked for. A route matches a prefix; further segments are tolerated, as in v1."""

from ..errors import Rejection
from .replies import Reply, json_reply
from .worker import Worker


def _segments(path: str) -> list[str]:
    return path.split("/")[1:]


def _is_fundings(path: str) -> bool:
    return _segments(path)[:2] == ["v1", "fundingInfo"]


def _is_new_channel(path: str) -> bool:
    return _segments(path)[:3] == ["v1", "channels", "new"]


def _is_channel(path: str) -> bool:
    segments = _segments(path)
    return segments[:2] == ["v1", "channels"] and len(segments) >= 4 and all(segments[2:4])


async def answer(worker: Worker, method: str, path: str, query: str) -> Reply:
    """Return the answer to a request. Raises Rejection, Unavailable. PUT, the hot one, is asked for first."""
    if method == "PUT":
        return await worker.pay(path, query)
    if method == "GET" and _is_fundings(path):
        return await worker.funding_info(query)
    if method == "POST" and _is_new_channel(path):
        return await worker.open(query)
    if method == "DELETE" and _is_channel(path):
        return await worker.close(path, query)
    if method == "OPTIONS" and (_is_new_channel(path) or _is_channel(path)):
        return Reply(200)
    if method == "GET" and path == "/healthz":
        return json_reply(200, {"alive": True})
    if method == "GET" and path == "/readyz":
        return worker.ready()
    raise Rejection("no_such_route")
