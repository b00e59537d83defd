"""The till in a FastAPI application.

    from paychan.sell.fastapi import Till

    till = Till(app, "state/debug/run/sell.sock")

    @app.get("/joke", dependencies=[till.price(5)])          # satoshi
    async def joke() -> str: ...

A price may be a function of the request, sync or async, that returns satoshi, a `Price`, or None for what is free. What is offered
stands in the application's own OpenAPI.
"""

from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, routing

from ..mpp import discovery
from . import till as asyncio_till
from .asgi import VISIT, Paid, Visit
from .facts import Price
from .prices import Wanted, settle_price
from .wire import find_door

__all__ = ["Price", "Till"]


class _Priced:
    """A dependency that has the request paid before its handler runs."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted

    async def __call__(self, request: Request) -> Visit:
        visit: Visit | None = request.scope.get(VISIT)
        if visit is None:
            raise RuntimeError("this application is not behind the till: Till(app, ...)")
        if not await visit.pay(await settle_price(self.wanted, request)):
            assert visit.answer is not None
            raise HTTPException(visit.answer.status)  # which becomes the till's answer on its way out
        return visit


class Till:
    """Puts an application behind a till. at: the sellers' door, a path or URL; token: needed at a URL; realm: what payers see you
    as."""

    def __init__(self, app: FastAPI, at: str, token: str = "", realm: str = "", secret: bytes = b"", ca_file: str = "") -> None:
        self.till = asyncio_till.Till(find_door(at, token, ca_file), realm or app.title, secret)
        app.add_middleware(Paid, at=self.till)  # type: ignore[arg-type]  # Starlette names the same types otherwise
        describe = app.openapi

        def openapi() -> dict[str, Any]:
            if app.openapi_schema is None:
                _mark(app, describe())
            return describe()

        app.openapi = openapi  # type: ignore[method-assign]

    def price(self, wanted: Wanted) -> Any:
        """Return the dependency that makes a route cost something: satoshi, a Price, or a function of the request."""
        if type(wanted) is int:
            wanted = Price(wanted)
        return Depends(_Priced(wanted))


def _prices_in(dependant: Any) -> list[_Priced]:
    found = [dependant.call] if isinstance(dependant.call, _Priced) else []
    for below in dependant.dependencies:
        found += _prices_in(below)
    return found


def _mark(app: FastAPI, schema: dict[str, Any]) -> None:
    """Say in an application's description what its operations cost."""
    for path, methods, dependant in _operations(app):
        for priced in _prices_in(dependant):
            fixed = priced.wanted if isinstance(priced.wanted, Price) else None
            for method in methods:
                operation = schema.get("paths", {}).get(path, {}).get(method.lower())
                if operation is not None:
                    discovery.mark(operation, fixed.amount if fixed else None, fixed.description if fixed else "")


def _operations(app: FastAPI) -> list[tuple[str, set[str], Any]]:
    """Return (path, methods, dependencies) of each operation, those of included routers among them."""
    listed: Any = getattr(routing, "iter_route_contexts", iter)
    return [
        (route.path_format, set(route.methods or ()), route.dependant)
        for route in listed(app.routes)
        if getattr(route, "dependant", None) is not None and getattr(route, "methods", None)
    ]
