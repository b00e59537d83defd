"""The till in a Django project.

    from paychan.sell.django import Till

    till = Till("state/debug/run/sell.sock")

    @till.price(5)                                   # satoshi
    def joke(request): ...

For sync and async views. A price may be a function of the request that returns satoshi, a `Price`, or None for what is free; for
async views it may be async. A view of a metered price says what was used by `till.use(request, units)`. A view that takes POST from
programs needs Django's `csrf_exempt`, as always.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from django.http import HttpResponse  # type: ignore[import-untyped]

from ..mpp.sse import PAUSE_SECONDS_MAX
from . import blocking
from . import till as asyncio_till
from .facts import BODY_BYTES_MAX, KEPT_BYTES_MAX, Answer, Headers, Price, Request, Sale, Sign
from .prices import Wanted, as_price, settle_price, settle_price_now
from .stream import paid_events_now
from .wire import find_door
from .wsgi import kept_copy, request_of

__all__ = ["Price", "Till"]

_SALE = "paychan_sale"


class Till:
    """at: the sellers' door, a path or URL; token: needed at a URL; realm: what payers see you as; sign: see docs/RECEIPTS.md."""

    def __init__(
        self, at: str, token: str = "", realm: str = "paychan", secret: bytes = b"", ca_file: str = "", sign: Sign | None = None
    ) -> None:
        door = find_door(at, token, ca_file)
        self.till = blocking.Till(door, realm, secret, sign)
        self.async_till = asyncio_till.Till(door, realm, secret, sign)

    def price(self, wanted: Wanted) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return the decorator that makes a view cost something: satoshi, a Price, or a function of the request."""
        priced = wanted if callable(wanted) else as_price(wanted)

        def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
            if inspect.iscoroutinefunction(view):

                @wraps(view)
                async def paid_later(request: Any, *arguments: Any, **names: Any) -> Any:
                    price = await settle_price(priced, request)
                    if price is None:
                        return await view(request, *arguments, **names)
                    return await self._serve_later(price, request, view, arguments, names)

                return paid_later

            @wraps(view)
            def paid(request: Any, *arguments: Any, **names: Any) -> Any:
                price = settle_price_now(priced, request)
                if price is None:
                    return view(request, *arguments, **names)
                return self._serve(price, request, view, arguments, names)

            return paid

        return decorate

    def use(self, request: Any, units: int) -> None:
        """Say how many units of a metered price this request has used."""
        sale: Sale | None = getattr(request, _SALE, None)
        if sale is not None:
            sale.use(units)

    def stream(self, request: Any, events: Iterable[str | bytes], pause_seconds: float = PAUSE_SECONDS_MAX) -> Iterator[bytes]:
        """Return the body of a stream of server-sent events that is paid while it runs, for a sync view: each event is a unit
        (`stream.py`)."""
        sale: Sale | None = getattr(request, _SALE, None)
        if sale is None:
            raise RuntimeError("this stream has no price")
        return paid_events_now(self.till, sale, events, pause_seconds)

    def _serve(self, price: Price, request: Any, view: Callable[..., Any], arguments: Any, names: Any) -> Any:
        decision = self.till.decide(_request_of(request), price)
        if isinstance(decision, Answer):
            return _as_response(decision)
        setattr(request, _SALE, decision)
        try:
            response = view(request, *arguments, **names)
        except BaseException:
            self.till.failed(decision)
            raise
        more = self.till.finish(decision, response.status_code)
        if isinstance(more, Answer):
            return _as_response(more)
        return _with_receipt(self.till, decision, response, more)

    async def _serve_later(self, price: Price, request: Any, view: Callable[..., Any], arguments: Any, names: Any) -> Any:
        decision = await self.async_till.decide(_request_of(request), price)
        if isinstance(decision, Answer):
            return _as_response(decision)
        setattr(request, _SALE, decision)
        try:
            response = await view(request, *arguments, **names)
        except BaseException:
            await self.async_till.failed(decision)
            raise
        more = await self.async_till.finish(decision, response.status_code)
        if isinstance(more, Answer):
            return _as_response(more)
        return _with_receipt(self.async_till, decision, response, more)


def _request_of(request: Any) -> Request:
    """Return what the till must know. Django's META has a WSGI environ's names under ASGI, too."""
    meta = {**request.META, "REQUEST_METHOD": request.method}
    if not (meta.get("RAW_URI") or meta.get("REQUEST_URI")):
        meta["REQUEST_URI"] = request.get_full_path()
    if not meta.get("HTTP_AUTHORIZATION") and not meta.get("HTTP_PAYMENT_AUTHORIZATION"):
        return request_of(meta, b"")
    length = meta.get("CONTENT_LENGTH") or "0"
    if not str(length).isdigit() or int(length) > BODY_BYTES_MAX:
        return request_of(meta, None)
    return request_of(meta, request.body)


def _with_receipt(till: Any, sale: Sale, response: Any, more: Headers) -> Any:
    """Return the view's response with the till's headers, and keep it."""
    if not more:
        return response
    for name, value in more:
        response.headers[name] = value
    headers = tuple((str(name), str(value)) for name, value in response.headers.items() if name.lower() != "content-length")
    if not response.streaming and hasattr(response, "content"):
        if len(response.content) <= KEPT_BYTES_MAX:
            till.keep(sale, Answer(response.status_code, headers, response.content))
        else:
            till.forget(sale)
    elif not response.is_async:
        response.streaming_content = kept_copy(till, sale, response.status_code, headers, response.streaming_content)
    else:
        till.forget(sale)
    return response


def _as_response(answer: Answer) -> HttpResponse:
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
