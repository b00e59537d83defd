"""Aim: a request that was paid before its route asked costs what the route asks for, once, and nothing if it does not ask.
Method: a FastAPI application behind the till, beside a door that keeps books as the real one does; the real one is in
tests/process."""

import asyncio
import json

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse

from paychan.chain.debug import DEBUG_FUNDING_VALUE
from paychan.core.sender import sign_payment
from paychan.mpp.challenge import parse_challenges
from paychan.mpp.credential import voucher
from paychan.sell.asgi import VISIT
from paychan.sell.facts import Price
from paychan.sell.fastapi import Till
from paychan.sell.steps import Ask, Call
from tests.unit.sell.test_rules import COST, KEY, PRICE, Door


class Client:
    """The till's way to the door, by hand."""

    plain = 0  # charges that were sold at once, and asked for without the rules

    def __init__(self, door):
        self.door = door

    async def ask(self, sales):
        return [await self.ask_one(sale) for sale in sales]

    def ask_one(self, sale):
        future = asyncio.get_running_loop().create_future()
        (told,) = self.door.answer(Ask((sale,)))
        asyncio.get_running_loop().call_soon(future.set_result, told)
        return future

    def charge(self, text):
        future = asyncio.get_running_loop().create_future()
        (told,) = self.door.answer(Ask((json.loads(text),)))
        names = ("received", "spent", "channel_value_left")
        is_plain = told.status == 200 and not told.content["repeated"]
        future.set_result((told.content["purchase"]["number"], *(told.content[name] for name in names)) if is_plain else told)
        self.plain += is_plain
        return future

    async def call(self, method, target):
        return self.door.answer(Call(method, target))


class Shop:
    """A route whose price may not be asked for. spent_before: of the channel, when the application got each request."""

    def __init__(self):
        self.app, self.door, self.payments, self.spent_before = FastAPI(), Door(), 0, []
        self.is_barred = self.is_cached = self.is_broken = False
        self.price, self.challenge = PRICE, None

        @self.app.middleware("http")
        async def first(request, call_next):
            self.spent_before.append(self.door.spent)
            return PlainTextResponse("from elsewhere") if self.is_cached else await call_next(request)

        till = Till(self.app, "/nowhere", secret=b"secret")
        self.client = Client(self.door)
        till.till._client = lambda: self.client

        async def barrier():
            if self.is_broken:
                raise RuntimeError("this dependency fails, as it should")
            if self.is_barred:
                raise HTTPException(403)

        async def priced(request: Request):
            await till.price(self.price).dependency(request)

        @self.app.get("/good", dependencies=[Depends(barrier), Depends(priced)])
        async def good(request: Request, fails: bool = False):
            if fails:
                raise RuntimeError("this handler fails, as it should")
            return {"key": request.scope[VISIT].sale.key}

    def get(self, query=b"", headers=()):
        return asyncio.run(self._get(query, list(headers)))

    async def _get(self, query, headers):
        told = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            told.append(message)

        scope = {"type": "http", "method": "GET", "path": "/good", "raw_path": b"/good", "query_string": query, "headers": headers}
        try:
            await self.app({**scope, "http_version": "1.1", "scheme": "http", "server": ("x", 80)}, receive, send)
        except RuntimeError:
            return 500, {}
        return told[0]["status"], dict(told[0]["headers"])

    def buy(self, query=b""):
        """Buy with the next payment; return status and headers."""
        if self.challenge is None:
            _, headers = self.get()
            (self.challenge,) = parse_challenges([headers[b"www-authenticate"].decode()])
        self.payments += 1
        signed = sign_payment(self.door.terms, DEBUG_FUNDING_VALUE - 1000 - COST * self.payments, KEY)
        self.shown = voucher(self.challenge, self.door.terms.outpoint, signed).render()
        return self.show(query)

    def show(self, query=b""):
        """Show the newest payment, again."""
        self.door.asked.clear()
        return self.get(query, [(b"authorization", self.shown.encode())])


@pytest.fixture
def shop():
    """A shop whose price is known from a request that was not paid."""
    made = Shop()
    assert made.buy()[0] == 200
    return made


def test_a_request_is_paid_before_the_application_sees_it_and_once(shop):
    assert shop.spent_before == [1000, 1000 + COST]  # the first had no credential
    status, headers = shop.buy()
    assert status == 200 and b"payment-receipt" in headers and shop.door.asked == ["charge"]
    assert shop.spent_before[-1] == shop.door.spent == 1000 + 2 * COST


def test_the_same_again_gets_the_same_answer_and_what_is_not_the_same_does_not(shop):
    for _ in range(3):
        bought = shop.buy()
        assert bought[0] == 200 and shop.door.asked == ["charge"]
        assert shop.show() == bought and shop.door.asked == []
    assert shop.client.plain == 3
    assert shop.show(b"another=1") != bought and shop.door.asked == ["charge"]


def test_what_the_route_does_not_ask_for_is_given_back_before_the_answer(shop):
    for bar, expected in (("is_barred", 403), ("is_cached", 200), ("is_broken", 500)):
        setattr(shop, bar, True)
        status, headers = shop.buy()
        assert status == expected and b"payment-receipt" not in headers
        assert shop.door.asked == ["charge", "release"] and shop.door.spent == 1000 + COST
        assert shop.buy()[0] == status and shop.door.asked == []  # it was a wrong guess: who asks next is not paid ahead
        setattr(shop, bar, False)
        assert shop.buy()[0] == 200 and shop.door.asked == ["charge"] and shop.spent_before[-1] == shop.door.spent - COST
        shop.door.spent = 1000 + COST  # its books are as before


def test_what_fails_before_it_is_answered_is_given_back(shop):
    assert shop.buy(b"fails=true")[0] == 500
    assert shop.door.asked == ["charge", "release"] and shop.door.spent == 1000 + COST


def test_another_price_is_paid_anew_and_what_was_paid_ahead_given_back(shop):
    shop.price = Price(COST, repeats=True)  # the challenge is good for this one, too
    status, headers = shop.buy()
    assert status == 200 and b"payment-receipt" in headers
    assert shop.door.asked == ["charge", "release", "charge"] and shop.door.spent == 1000 + 2 * COST
    assert shop.buy()[0] == 200 and shop.door.asked == ["charge"]


def test_a_price_that_the_payment_is_not_for_is_refused_as_ever(shop):
    shop.price = Price(2 * COST)
    assert shop.buy()[0] == 402 and shop.door.asked == ["charge", "release"] and shop.door.spent == 1000 + COST
