"""Which route a request takes. What no route names is not passed on; which is nearest does not depend on their order in the file.

Only the host chooses among hosts, then only the path, then the method: a method that the nearest path does not take never falls
through to a path that costs less. A path that could be read in two ways that cost differently is refused (`targets.readings`).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from .models import Price, Route
from .refusals import Refused
from .targets import fold, readings, scripts

REMEMBERED_MAX = 4096
"""Found routes; a request for one of them costs a look-up."""

_LITERAL, _ANY, _REST = range(3)


@dataclass
class Place:
    """A host and a path of the file, with its routes: one for each method at most."""

    host: str
    path: str
    routes: list[Route] = field(default_factory=list)

    @property
    def is_literal(self) -> bool:
        """Whether the path names one resource."""
        return "*" not in self.path.split("/")

    def rank(self) -> tuple[int, ...]:
        """Return what sorts the nearest place first: letters before `*`, segment by segment."""
        segments = self.path.split("/")[1:]
        last = len(segments) - 1
        return tuple(_LITERAL if text != "*" else _REST if at == last else _ANY for at, text in enumerate(segments))

    def pattern(self, folded: bool = False) -> re.Pattern[str]:
        """Return what a path must match. `*` is one segment, or at the end, all that follows the slash, be it nothing."""
        path = fold(self.path) if folded else self.path
        parts = [re.escape(text) if text != "*" else "[^/]+" for text in path.split("/")]
        if parts[-1] == "[^/]+":
            parts[-1] = ".*"
        return re.compile("/".join(parts) + r"\Z", re.DOTALL)

    def route(self, method: str) -> Route | None:
        """Return the route that takes a method."""
        return next((route for route in self.routes if route.takes(method)), None)


def places_of(routes: Iterable[Route]) -> list[Place]:
    """Return the routes by place, the nearest first."""
    places: dict[tuple[str, str], Place] = {}
    for route in routes:
        places.setdefault((route.host, route.path), Place(route.host, route.path)).routes.append(route)
    return sorted(places.values(), key=Place.rank)


def covers(pattern: str, name: str) -> bool:
    """Return whether a route's host takes a request's. pattern: empty for all, `*.example.com` for those below, but not itself."""
    return not pattern or pattern == name or (pattern.startswith("*.") and name.endswith(pattern[1:]) and name != pattern[2:])


class RouteTable:
    """The routes of a gateway, for look-ups."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._literal_hosts = frozenset(route.host for route in routes if route.host and not route.host.startswith("*."))
        self._tables: dict[str, _Table] = {}
        self.find = lru_cache(REMEMBERED_MAX)(self._find)

    def _find(self, host: str, path: str, method: str) -> Route:
        """Return the route of a request. host: as `targets.check_host` has it; path: checked, decoded. Raises Refused."""
        table = self._table(host)
        if table is None:
            raise Refused("no_such_route")
        return table.find(path, method)

    def _table(self, host: str) -> "_Table | None":
        """Return the places of the nearest host: the name itself, else the longest that covers it."""
        if host in self._literal_hosts:
            nearest = host
        else:
            covering = [route.host for route in self._routes if covers(route.host, host)]
            if not covering:
                return None
            nearest = max(covering, key=len)
        if nearest not in self._tables:
            self._tables[nearest] = _Table([route for route in self._routes if route.host == nearest])
        return self._tables[nearest]


class _Table:
    """One host's places."""

    def __init__(self, routes: list[Route]) -> None:
        places = places_of(routes)
        self._exact = [(place.pattern(), place) for place in places]
        self._folded = [(place.pattern(folded=True), place) for place in places]
        self._has_one_price = len({route.price for route in routes}) == 1

    def find(self, path: str, method: str) -> Route:
        place = _first(self._exact, path)
        if place is None:
            raise Refused("no_such_route")
        route = place.route(method)
        if route is None:
            allow = sorted({taken for one in place.routes for taken in (*one.methods, *(["HEAD"] if one.takes("HEAD") else []))})
            raise Refused("method_not_allowed", allow=", ".join(allow))
        if not place.is_literal and not self._has_one_price:
            self._check_readings(path, method, place, route.price)
        return route

    def _check_readings(self, path: str, method: str, place: Place, price: Price | None) -> None:
        """Refuse a path that an upstream may take for one of a nearer place, or for a script of any place, that is not sold for the
        same. A place that is farther away is not meant: `/a/*/b` costs what it costs, though `/a/x/b/` falls to `/*`."""
        nearness = {id(one): at for at, (_, one) in enumerate(self._exact)}
        nearer = [other for reading in readings(path) if (other := _first(self._folded, reading))]
        nearer = [other for other in nearer if nearness[id(other)] < nearness[id(place)]]
        for other in (*nearer, *(found for script in scripts(path) if (found := _first(self._folded, script)))):
            route = other.route(method)
            if route is None or (route.price is not None and route.price != price):
                raise Refused("ambiguous_target", f"the path may be read as one of {other.path}, which has another price")


def _first(patterns: Sequence[tuple[re.Pattern[str], Place]], path: str) -> Place | None:
    return next((place for pattern, place in patterns if pattern.match(path)), None)
