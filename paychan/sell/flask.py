"""The till in a Flask application.

    from paychan.sell.flask import Till

    till = Till("state/debug/run/sell.sock")

    @app.get("/joke")
    @till.price(5)                                   # satoshi
    def joke() -> str: ...

A price may be a function of Flask's request that returns satoshi, a `Price`, or None for what is free. A view of a metered price
says what was used by `till.use(units)`.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from flask import Response, current_app, g, make_response, request
from werkzeug.exceptions import HTTPException

from ..mpp.sse import PAUSE_SECONDS_MAX
from . import blocking
from .facts import BODY_BYTES_MAX, KEPT_BYTES_MAX, Answer, Price, Sale, Sign
from .prices import Wanted, as_price, settle_price_now
from .stream import paid_events_now
from .wire import find_door
from .wsgi import credentials_in, kept_copy, request_of, with_headers

__all__ = ["Price", "Till"]


class Till:
    """at: the sellers' door, a path or URL; token: needed at a URL; realm: what payers see you as; sign: see docs/RECEIPTS.md."""

    def __init__(
        self, at: str, token: str = "", realm: str = "paychan", secret: bytes = b"", ca_file: str = "", sign: Sign | None = None
    ) -> None:
        self.till = blocking.Till(find_door(at, token, ca_file), realm, secret, sign)

    def price(self, wanted: Wanted) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return the decorator that makes a view cost something: satoshi, a Price, or a function of the request."""
        priced = wanted if callable(wanted) else as_price(wanted)

        def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(view)
            def paid(*arguments: Any, **names: Any) -> Any:
                price = settle_price_now(priced, request)
                if price is None:
                    return current_app.ensure_sync(view)(*arguments, **names)
                return self._serve(price, lambda: current_app.ensure_sync(view)(*arguments, **names))

            return paid

        return decorate

    def use(self, units: int) -> None:
        """Say how many units of a metered price this request has used."""
        sale: Sale | None = g.get("paychan_sale")
        if sale is not None:
            sale.use(units)

    def stream(self, events: Iterable[str | bytes], pause_seconds: float = PAUSE_SECONDS_MAX) -> Iterator[bytes]:
        """Return the body of a stream of server-sent events that is paid while it runs: each event is a unit (`stream.py`)."""
        sale: Sale | None = g.get("paychan_sale")
        if sale is None:
            raise RuntimeError("this stream has no price")
        return paid_events_now(self.till, sale, events, pause_seconds)

    def _serve(self, price: Price, view: Callable[[], Any]) -> Response:
        decision = self.till.decide(request_of(request.environ, _body()), price)
        if isinstance(decision, Answer):
            return _as_response(decision)
        sale = g.paychan_sale = decision
        try:
            response: Response = make_response(view())
        except HTTPException as error:
            self.till.finish(sale, error.code or 500)
            raise
        except BaseException:
            self.till.failed(sale)
            raise
        more = self.till.finish(sale, response.status_code)
        if isinstance(more, Answer):
            return _as_response(more)
        if more:
            response.headers = type(response.headers)(with_headers(response.headers.items(), more))
            self._keep(sale, response)
        return response

    def _keep(self, sale: Sale, response: Response) -> None:
        """Keep the answer: at once, or when it has been sent, if it is a stream."""
        headers = list(response.headers.items())
        if response.is_streamed or response.direct_passthrough:
            response.direct_passthrough = False
            response.response = kept_copy(self.till, sale, response.status_code, headers, response.iter_encoded())
            return
        body = response.get_data()
        if len(body) > KEPT_BYTES_MAX:
            self.till.forget(sale)
            return
        kept = tuple(row for row in headers if row[0].lower() != "content-length")
        self.till.keep(sale, Answer(response.status_code, kept, body))


def _body() -> bytes | None:
    """Return the request's body, which the view can read again; None if it is too long."""
    if not credentials_in(request.environ):
        return b""
    if request.content_length is not None and request.content_length > BODY_BYTES_MAX:
        return None
    body = request.get_data(cache=True)
    return body if len(body) <= BODY_BYTES_MAX else None


def _as_response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, list(answer.headers))
