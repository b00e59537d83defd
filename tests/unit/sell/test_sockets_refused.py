"""Aim: a WebSocket at a path that costs something is refused, for nobody charges for what goes through it. Method: both kinds of
applications that have them, asked by hand."""

import asyncio

from paychan.sell.asgi import Paid
from paychan.sell.rsgi import Paid as PaidRsgi
from paychan.sell.till import Till
from paychan.sell.wire import Door

TILL = Till(Door("token", socket="/nowhere"))


def test_asgi():
    reached, sent = [], []

    async def app(scope, receive, send):
        reached.append(scope["path"])

    async def send(message):
        sent.append(message)

    async def ask(path):
        await Paid(app, TILL, {"/paid/*": 5})({"type": "websocket", "path": path}, None, send)

    asyncio.run(ask("/paid/x"))
    assert sent == [{"type": "websocket.close", "code": 1008}] and not reached
    asyncio.run(ask("/free"))
    assert reached == ["/free"]


def test_rsgi():
    reached, closed = [], []

    async def app(scope, protocol):
        reached.append(scope.path)

    class Protocol:
        def close(self, status):
            closed.append(status)

    class Scope:
        proto, method = "ws", "GET"

        def __init__(self, path):
            self.path = path

    paid = PaidRsgi(app, TILL, {"/paid/*": 5})
    asyncio.run(paid.__rsgi__(Scope("/paid/x"), Protocol()))
    assert closed == [403] and not reached
    asyncio.run(paid.__rsgi__(Scope("/free"), Protocol()))
    assert reached == ["/free"]
