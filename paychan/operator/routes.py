"""The operator's routes: method, path, and the least scope of a token that may ask. A route is added here, and nowhere else:
what is refused, what the tests try with each scope, and what openapi.json must have follow from the table.

`{name}` in a path is one segment of it. What follows from a path is exact: no further segments, no slash at the end.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from ..core.errors import Rejection
from . import commands, events, looking, webhooks
from .answers import Answer, Request, Stream
from .context import Context
from .views import channels, cluster, money, page, settlements, token, trouble

Handler = Callable[[Context, Request], Awaitable[Answer | Stream]]


class Scope(IntEnum):
    """What a token is for: each may do what those before it may. NONE: no token is asked for."""

    NONE = 0
    WATCH = 1
    SETTLE = 2
    STEER = 3


SCOPES = {"watch": Scope.WATCH, "settle": Scope.SETTLE, "steer": Scope.STEER}
"""By the names that `paychan token` knows; sellers' have none here."""


@dataclass(frozen=True)
class Route:
    """One row of the table."""

    method: str
    path: str
    scope: Scope
    handler: Handler

    def match(self, path: str) -> dict[str, str] | None:
        """Return what stands for the names in the route's path, None if it is another path."""
        wanted, given = self.path.split("/"), path.split("/")
        if len(wanted) != len(given):
            return None
        parts: dict[str, str] = {}
        for want, have in zip(wanted, given, strict=True):
            if want.startswith("{"):
                parts[want[1:-1]] = have
            elif want != have:
                return None
        return parts


_DESCRIPTION = Answer(200, Path(__file__).with_name("openapi.json").read_bytes())
"""This API in OpenAPI 3.1; tests/hostile/test_operator_openapi.py holds it to the code."""


async def _describe(_: Context, __: Request) -> Answer:
    return _DESCRIPTION


ROUTES: tuple[Route, ...] = (
    Route("GET", "/operator/v1/status", Scope.WATCH, looking.status),
    Route("GET", "/operator/v1/counts", Scope.WATCH, looking.counts),
    Route("POST", "/operator/v1/channels/{txid}/{vout}/settle", Scope.SETTLE, commands.settle),
    Route("PUT", "/operator/v1/opens", Scope.STEER, commands.set_opens),
    Route("POST", "/operator/v1/drain", Scope.STEER, commands.drain),
    Route("GET", "/operator/v1/limits", Scope.WATCH, commands.limits),
    Route("PATCH", "/operator/v1/limits", Scope.STEER, commands.set_limits),
    Route("GET", "/operator/v1/events", Scope.WATCH, events.events),
    Route("GET", "/operator/v1/webhooks", Scope.WATCH, webhooks.list_all),
    Route("POST", "/operator/v1/webhooks", Scope.STEER, webhooks.make),
    Route("DELETE", "/operator/v1/webhooks/{id}", Scope.STEER, webhooks.remove),
    Route("POST", "/operator/v1/webhooks/{id}/redeliver", Scope.STEER, webhooks.redeliver),
    Route("GET", "/operator/v1/webhooks/{id}/deliveries", Scope.WATCH, webhooks.deliveries),
    Route("GET", "/operator/v1/openapi.json", Scope.NONE, _describe),
    Route("GET", "/operator/v1/channels", Scope.WATCH, channels.listed),
    Route("GET", "/operator/v1/channels/{txid}/{vout}", Scope.WATCH, channels.single),
    Route("GET", "/operator/v1/money", Scope.WATCH, money.money),
    Route("GET", "/operator/v1/settlements", Scope.WATCH, settlements.listed),
    Route("GET", "/operator/v1/trouble", Scope.WATCH, trouble.listed),
    Route("GET", "/operator/v1/cluster", Scope.WATCH, cluster.machines),
    Route("GET", "/operator/v1/token", Scope.WATCH, token.shown),
    Route("GET", "/", Scope.NONE, page.start),
    Route("GET", "/page/{name}", Scope.NONE, page.file),
)


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Return the route of a request, and what stands for the names in its path. HEAD is GET. Raises Rejection."""
    wanted = "GET" if method == "HEAD" else method
    for route in ROUTES:
        if route.method == wanted and (parts := route.match(path)) is not None:
            return route, parts
    raise Rejection("no_such_route")
