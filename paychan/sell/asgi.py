"""The till before an ASGI application: Starlette, Litestar, Quart, or what else speaks ASGI.

    from paychan.sell.asgi import Paid

    app = Paid(app, "state/debug/run/sell.sock", {"/joke": 5})          # or app.add_middleware(Paid, at=..., prices={...})

A handler of a metered price says what was used by `scope["paychan.visit"].use(units)`.
"""

import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from .._fast.fields import dress, look
from .facts import BODY_BYTES_MAX, KEPT_BYTES_MAX, Answer, Decision, Headers, Price, Request, Sale
from .prices import Prices, Wanted, settle_price
from .till import Till
from .wire import find_door

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

VISIT = "paychan.visit"
"""Where a scope has its `Visit`."""

_AHEAD_MAX = 4096
"""Paths whose price is remembered."""


class Known:
    """The fixed prices that routes of an application have asked for, by method and path. The next request there that brings a
    credential is paid before the application sees it: while it waits for the sellers' door it then holds next to nothing, and the
    application, which may go through thirty coroutines until its route asks, is not stopped in the middle.

    It is a guess: what was paid for and not asked for is given back, and the price is forgotten."""

    def __init__(self) -> None:
        self._prices: dict[tuple[str, str], Price] = {}

    def note(self, scope: Scope, price: Price) -> None:
        """Remember what a route has asked for."""
        place = scope["method"], scope["path"]
        if self._prices.get(place) is not price:
            if len(self._prices) >= _AHEAD_MAX:
                self._prices.clear()
            self._prices[place] = price

    def forget(self, scope: Scope) -> None:
        """The route has not asked for what it was thought to."""
        self._prices.pop((scope["method"], scope["path"]), None)

    def find(self, scope: Scope) -> Price | None:
        """Return what the route of a request will probably ask for."""
        return self._prices.get((scope["method"], scope["path"]))


class Visit:
    """One request on its way through: what was bought with it, or what it is answered instead of being served."""

    __slots__ = ("_known", "_receive", "ahead", "answer", "credentials", "may_have_body", "request", "sale", "scope", "till")

    def __init__(self, till: Till, scope: Scope, receive: Receive, known: Known) -> None:
        self.till, self.scope, self._receive, self._known = till, scope, receive, known
        self.ahead: tuple[Price, Decision] | None = None
        self.credentials, key, self.may_have_body = look(scope["headers"])
        query = scope["query_string"]
        path = scope.get("raw_path") or scope["path"].encode()
        target = (path + b"?" + query if query else path).decode("latin-1")
        self.request = Request(scope["method"], target, self.credentials, b"", key)
        self.sale: Sale | None = None
        self.answer: Answer | None = None

    async def read_body(self) -> Receive:
        """Read the body, so that it can be hashed, before anybody else does; return what they receive it from."""
        chunks: list[Message] = []
        body, is_whole = hashlib.sha256(), False
        size = 0
        while size <= BODY_BYTES_MAX and not is_whole:
            message = await self._receive()
            chunks.append(message)
            if message["type"] != "http.request":
                break
            part = message.get("body", b"")
            body.update(part)
            size += len(part)
            is_whole = not message.get("more_body", False)
        digest = None if size > BODY_BYTES_MAX else body.digest() if size else b""
        self.request = Request(self.request.method, self.request.target, self.credentials, digest, self.request.idempotency_key)
        rest = iter(chunks)

        async def receive() -> Message:
            message = next(rest, None)
            return await self._receive() if message is None else message

        return receive

    async def pay(self, price: Price | None) -> bool:
        """Have the request paid. False: it is not, and `answer` is what it gets. A request is paid once.

        Raises RuntimeError if it has been, at another price: then it fails, and what was paid is given back.
        """
        if price is None or self.take_ahead(price):
            return True
        if self.sale is not None:
            if self.sale.price != price:
                raise RuntimeError("this request has two prices")
            return True
        decision = await self._decide(price)
        if isinstance(decision, Sale):
            self.sale = decision
            return True
        self.answer = decision
        return False

    def keep_ahead(self, price: Price, decision: Decision) -> None:
        """Take what came of paying before the route has asked. It counts once `pay` is called with this price."""
        self.ahead = price, decision

    def take_ahead(self, price: Price) -> bool:
        """Return whether the request was paid ahead at this price: then the sale is its own."""
        ahead = self.ahead
        if ahead is None or (ahead[0] is not price and ahead[0] != price) or not isinstance(ahead[1], Sale):
            return False
        self.sale, self.ahead = ahead[1], None
        return True

    async def _decide(self, price: Price) -> Decision:
        if self.ahead is not None and self.ahead[0] == price:
            return self.ahead[1]
        await self.drop_ahead()
        return await self.till.decide(self.request, price)

    async def drop_ahead(self) -> None:
        """Give back what was paid ahead, and what no route has asked for."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None and isinstance(ahead[1], Sale):
            self._known.forget(self.scope)
            await self.till.failed(ahead[1])

    def note_price(self, price: Price) -> None:
        """Say that the route has this price, whatever the request."""
        self._known.note(self.scope, price)

    def use(self, units: int) -> None:
        """Say how many units of a metered price were used."""
        if self.sale is not None:
            self.sale.use(units)


CURRENT: ContextVar[Visit] = ContextVar("paychan_visit")
"""The request that is on its way through, for who has no scope at hand."""


class Paid:
    """An ASGI application behind a till. till: where the sellers' door is (a path or URL), or a Till. prices: by method and
    path."""

    def __init__(
        self, app: Application, at: "str | Till", prices: "dict[str, Wanted] | None" = None, token: str = "", **more: Any
    ) -> None:
        self._app = app
        self._till = at if isinstance(at, Till) else Till(find_door(at, token), **more)
        self._prices = Prices(prices or {})
        self._known = Known()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and self._prices.find("GET", scope["path"]) is not None:
            await send({"type": "websocket.close", "code": 1008})  # nobody could charge for what goes through it
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = scope[VISIT] = Visit(self._till, scope, receive, self._known)
        CURRENT.set(visit)
        try:
            await self._answer(visit, scope, receive, send)
        finally:
            scope.pop(VISIT, None)  # each holds the other: both would be left to the garbage collector, with all they hold

    async def _answer(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        if visit.credentials:
            if visit.may_have_body:
                receive = await visit.read_body()
            if scope["method"] == "HEAD" and (answer := await self._till.manage(visit.request)) is not None:
                await send_answer(send, answer)
                return
        wanted = self._prices.find(scope["method"], scope["path"])
        if wanted is None:
            if visit.credentials and (price := self._known.find(scope)) is not None:
                visit.keep_ahead(price, await self._till.decide(visit.request, price))
        elif not await visit.pay(await settle_price(wanted, scope)):
            assert visit.answer is not None
            await send_answer(send, visit.answer)
            return
        await _Serving(self._till, visit, send).run(self._app, scope, receive)


async def send_answer(send: Send, answer: Answer) -> None:
    """Send an answer that the till has made, or has kept."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
    if answer.status != 204:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


class _Serving:
    """What an application sends in answer to one request, on its way out: with the receipt, and a copy for who asks again."""

    __slots__ = (
        "_copy",
        "_is_begun",
        "_is_kept",
        "_is_replaced",
        "_is_sold",
        "_send",
        "_size",
        "_status",
        "_texts",
        "_till",
        "_visit",
    )

    def __init__(self, till: Till, visit: Visit, send: Send) -> None:
        self._till, self._visit, self._send = till, visit, send
        self._copy: list[bytes] | None = None
        self._size = self._status = 0
        self._texts: tuple[str, ...] = ()
        self._is_begun = self._is_replaced = self._is_sold = self._is_kept = False

    async def run(self, app: Application, scope: Scope, receive: Receive) -> None:
        """Have the application answer. What it bought is given back if it fails before it began to."""
        try:
            await app(scope, receive, self._take)
        except BaseException:
            if not self._is_begun:
                await self._give_back()
            raise
        finally:
            if self._is_sold and not self._is_kept and self._visit.sale is not None:
                self._till.forget(self._visit.sale)
        if not self._is_begun:
            await self._give_back()

    async def _give_back(self) -> None:
        await self._visit.drop_ahead()
        if self._visit.sale is not None:
            await self._till.failed(self._visit.sale)

    def _take(self, message: Message) -> Awaitable[None]:
        """Pass a message on. Mostly that takes no step of ours, nor a coroutine."""
        kind = message["type"]
        if kind == "http.response.start":
            more = self._more_at_once(message["status"])
            return self._begin(message) if more is None else self._send(self._dressed(message, more))
        if self._is_replaced:
            return _nothing()
        if kind == "http.response.body" and self._copy is not None:
            self._note(message)
        return self._send(message)

    def _more_at_once(self, status: int) -> Headers | None:
        """Return what an answer is sent with, if that takes no step; None if it does."""
        visit = self._visit
        if self._is_begun or visit.sale is None or visit.answer is not None or visit.ahead is not None:
            return None
        return self._till.finish_plainly(visit.sale, status)

    async def _begin(self, message: Message) -> None:
        if self._is_replaced:
            return
        visit, self._is_begun = self._visit, True
        await visit.drop_ahead()
        if visit.answer is not None:
            self._is_replaced = True
            await send_answer(self._send, visit.answer)
            return
        if visit.sale is not None:
            more = await self._till.finish(visit.sale, message["status"])
            if isinstance(more, Answer):
                self._is_replaced = True
                await send_answer(self._send, more)
                return
            message = self._dressed(message, more)
        await self._send(message)

    def _dressed(self, message: Message, more: Headers) -> Message:
        """Return the beginning of an answer with the till's headers; a handler's own cache-control gives way to it, for what was
        paid for is not for everybody."""
        self._is_begun, self._status = True, message["status"]
        self._is_sold = 200 <= self._status < 300
        headers, texts = dress(message.get("headers", ()), more)
        if self._is_sold:
            self._texts, self._copy = texts, []
        return {**message, "headers": headers}

    def _note(self, message: Message) -> None:
        """Copy what is sent, and keep it once it is whole."""
        assert self._copy is not None
        body = message.get("body", b"")
        self._size += len(body)
        if self._size > KEPT_BYTES_MAX:
            self._copy = None
            return
        self._copy.append(body)
        if not message.get("more_body", False) and self._visit.sale is not None:
            self._is_kept = True
            self._till.keep_texts(self._visit.sale, self._status, b"".join(self._copy), self._texts)


async def _nothing() -> None:
    """Take no step."""
