"""The till in a FastAPI application.

    from paychan.sell.fastapi import Till

    till = Till(app, "state/debug/run/sell.sock")

    @app.get("/joke")
    @till.price(5)                                           # satoshi
    async def joke() -> str: ...

or `@app.get("/joke", dependencies=[till.price(5)])`, which asks for the payment before parameters are judged, and takes more time.
A route whose price is fixed is paid before it asks, once its price is known (`asgi.Known`); what is not asked for is given back.
A price may be a function of the request, sync or async, that returns satoshi, a `Price`, or None for what is free. What is offered
stands in the application's own OpenAPI.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from fastapi import FastAPI, HTTPException, Request, params, routing
from fastapi.concurrency import run_in_threadpool

from ..mpp import discovery
from . import till as asyncio_till
from .asgi import CURRENT, VISIT, Paid, Visit
from .facts import Price, Sign
from .prices import Wanted, as_price, settle_price
from .wire import find_door

__all__ = ["Price", "Till"]

_MARK = "paychan_price"


async def _pay(visit: Visit | None, wanted: Wanted, request: Request | None) -> Visit:
    """Have a request paid. request: for a price that depends on it. Raises what becomes the till's answer on its way out."""
    if visit is None:
        raise RuntimeError("this application is not behind the till: Till(app, ...)")
    if isinstance(wanted, Price):
        visit.note_price(wanted)
        price: Price | None = wanted
    else:
        price = await settle_price(wanted, request or Request(visit.scope))
    if not await visit.pay(price):
        assert visit.answer is not None
        raise HTTPException(visit.answer.status)
    return visit


class _Priced:
    """A dependency that has the request paid before its handler runs."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted

    async def __call__(self, request: Request) -> Visit:
        visit: Visit | None = request.scope.get(VISIT)
        if visit is not None and isinstance(self.wanted, Price) and visit.take_ahead(self.wanted):
            return visit
        return await _pay(visit, self.wanted, request)


class _Tag(params.Depends):
    """A price: a dependency, or a decorator of the handler."""

    def __call__(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
            raise TypeError("a handler that yields has its price among its dependencies")
        priced = self.dependency
        assert isinstance(priced, _Priced)
        is_async, wanted = inspect.iscoroutinefunction(handler), priced.wanted

        @wraps(handler)
        async def paid(*arguments: Any, **names: Any) -> Any:
            request = next((value for value in names.values() if isinstance(value, Request)), None)
            await _pay(CURRENT.get(None), wanted, request)
            if is_async:
                return await handler(*arguments, **names)
            return await run_in_threadpool(handler, *arguments, **names)

        setattr(paid, _MARK, priced)
        return paid


class Till:
    """Puts an application behind a till. at: the sellers' door, a path or URL; token: needed at a URL; realm: what payers see you
    as; sign: see docs/RECEIPTS.md."""

    def __init__(
        self,
        app: FastAPI,
        at: str,
        token: str = "",
        realm: str = "",
        secret: bytes = b"",
        ca_file: str = "",
        sign: Sign | None = None,
    ) -> None:
        self.till = asyncio_till.Till(find_door(at, token, ca_file), realm or app.title, secret, sign)
        app.add_middleware(Paid, at=self.till)  # type: ignore[arg-type]  # Starlette names the same types otherwise
        describe = app.openapi

        def openapi() -> dict[str, Any]:
            if app.openapi_schema is None:
                _mark(app, describe())
            return describe()

        app.openapi = openapi  # type: ignore[method-assign]

    def price(self, wanted: Wanted) -> Any:
        """Return the decorator, or dependency, that makes a route cost something: satoshi, a Price, or a function of the
        request."""
        return _Tag(_Priced(wanted if callable(wanted) else as_price(wanted)))


def _prices_in(dependant: Any) -> list[_Priced]:
    found = [dependant.call] if isinstance(dependant.call, _Priced) else []
    for below in dependant.dependencies:
        found += _prices_in(below)
    return found


def _mark(app: FastAPI, schema: dict[str, Any]) -> None:
    """Say in an application's description what its operations cost."""
    for path, methods, dependant in _operations(app):
        marked = getattr(dependant.call, _MARK, None)
        for priced in [*_prices_in(dependant), *([marked] if marked is not None else [])]:
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
