"""Aim: an adapter changes nothing but the payment, gives its channel back whatever happens, and never pays somebody else. Method:
each library against the shop of http_shop.py, with lost answers, cancelled tasks, redirections and logins."""

import asyncio
import threading
import time

import aiohttp
import httpx
import httpx2
import pytest
import requests

from paychan.client import Refused
from paychan.core.errors import ConfigError
from paychan.pay.aiohttp import Payer as AiohttpPayer
from paychan.pay.budget import NO_LIMITS
from paychan.pay.httpx import Payer as HttpxPayer
from paychan.pay.httpx2 import Payer as Httpx2Payer
from paychan.pay.plain import Payer as PlainPayer
from paychan.pay.purse import Purse
from paychan.pay.requests import Payer as RequestsPayer
from paychan.pay.steps import Answer
from tests.unit.pay.http_shop import serving
from tests.unit.pay.shop import OPEN_PRICE, PRICE


@pytest.fixture
def shop():
    with serving() as shop:
        yield shop


def paid(directory):
    return sum(standing.paid for standing in Purse(directory).standings())


def by_httpx(directory, url, body, **options):
    with httpx.Client(auth=HttpxPayer(directory, NO_LIMITS, **options)) as client:
        return client.post(url, content=body).text


def by_httpx2(directory, url, body, **options):
    with httpx2.Client(auth=Httpx2Payer(directory, NO_LIMITS, **options)) as client:
        return client.post(url, content=body).text


def by_requests(directory, url, body, **options):
    session = requests.Session()
    session.mount("http://", RequestsPayer(directory, NO_LIMITS, **options))
    return session.post(url, data=body).text


def by_aiohttp(directory, url, body, **options):
    async def post():
        async with aiohttp.ClientSession(middlewares=[AiohttpPayer(directory, NO_LIMITS, **options)]) as session:
            return await (await session.post(url, data=body)).text()

    return asyncio.run(post())


def by_hand(directory, url, body, **options):
    with PlainPayer(directory, NO_LIMITS, **options).request("POST", url, body=body) as response:
        return response.read().decode()


EACH = pytest.mark.parametrize("buy", [by_httpx, by_httpx2, by_requests, by_aiohttp, by_hand])


@EACH
def test_the_body_goes_with_every_attempt(shop, tmp_path, buy):
    assert buy(tmp_path, f"{shop.origin}/a", b"some body") == "goods of /a for some body"
    assert paid(tmp_path) == OPEN_PRICE + PRICE


@EACH
def test_a_503_is_waited_out_with_the_same_payment(shop, tmp_path, buy):
    troubles = [None, shop.refuse("/a", "store_unavailable"), shop.refuse("/a", "overloaded")]
    shop.trouble = lambda shop, step: troubles.pop(0) if troubles else None
    assert buy(tmp_path, f"{shop.origin}/a", b"x") == "goods of /a for x"
    assert len({payment for _, payment in shop.seen}) == 1


@pytest.mark.parametrize("buy", [by_requests, by_aiohttp, by_hand])
def test_a_lost_answer_is_asked_for_again(shop, tmp_path, buy):
    """Where the adapter sees that none came. httpx tells that to its caller alone."""
    troubles = [None, "lost"]
    shop.trouble = lambda shop, step: troubles.pop(0) if troubles else None
    assert buy(tmp_path, f"{shop.origin}/a", b"x") == "goods of /a for x"
    assert (shop.served, paid(tmp_path)) == (1, OPEN_PRICE + PRICE)


@EACH
def test_a_lost_answer_is_the_callers_in_the_end_and_the_channel_is_free(shop, tmp_path, buy):
    troubles = [None, "lost"]
    shop.trouble = lambda shop, step: troubles.pop(0) if troubles else None
    with pytest.raises(Exception) as caught:
        buy(tmp_path, f"{shop.origin}/a", b"x", deadline=0.0)
    assert not isinstance(caught.value, AssertionError | ConfigError)
    shop.trouble = None
    assert buy(tmp_path, f"{shop.origin}/a", b"x", deadline=0.0) == "goods of /a for x"
    assert (shop.served, paid(tmp_path)) == (1, OPEN_PRICE + PRICE), "the same payment for the same request"


@EACH
def test_what_is_not_to_be_paid_raises_and_frees_the_channel(shop, tmp_path, buy):
    buy(tmp_path, f"{shop.origin}/a", b"x")
    shop.details["channel_type"] = "p2wsh-1"
    with pytest.raises(Refused, match="another type"):
        buy(tmp_path, f"{shop.origin}/a", b"x")
    shop.details["channel_type"] = "p2sh-cltv-1"
    assert buy(tmp_path, f"{shop.origin}/a", b"x").startswith("goods")


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_cancelled_request_gives_its_channel_back_and_its_payment_is_presented_next(shop, tmp_path, library):
    began = threading.Event()

    def slow(shop, step):
        if step.headers:
            began.set()
            time.sleep(0.3)

    async def cancel_one():
        payer = (HttpxPayer if library is httpx else Httpx2Payer)(tmp_path, NO_LIMITS)
        async with library.AsyncClient(auth=payer) as client:
            await client.get(f"{shop.origin}/a")
            shop.trouble = slow
            task = asyncio.create_task(client.get(f"{shop.origin}/b"))
            await asyncio.to_thread(began.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            shop.trouble = None
            return (await client.get(f"{shop.origin}/b")).status_code

    assert asyncio.run(cancel_one()) == 200
    assert paid(tmp_path) == OPEN_PRICE + 2 * PRICE


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_cancelled_at_any_moment_it_goes_on(shop, tmp_path, library):
    """The files are written in threads, which a cancelled task waits for."""

    async def cancel_many():
        payer = (HttpxPayer if library is httpx else Httpx2Payer)(tmp_path, NO_LIMITS)
        async with library.AsyncClient(auth=payer) as client:
            for number in range(25):
                task = asyncio.create_task(client.get(f"{shop.origin}/{number}"))
                await asyncio.sleep(0.004 * number)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return (await client.get(f"{shop.origin}/last")).status_code

    assert asyncio.run(cancel_many()) == 200
    (channel,) = shop.channels.values()
    assert paid(tmp_path) == channel.accepted == channel.spent
    assert channel.accepted <= OPEN_PRICE + 26 * PRICE


def test_who_is_redirected_elsewhere_pays_nobody_there(shop, tmp_path):
    with serving() as other:
        shop.trouble = lambda _, step: Answer(302, (("location", f"{other.origin}/trap"),))
        with httpx.Client(auth=HttpxPayer(tmp_path, NO_LIMITS), follow_redirects=True) as client:
            assert client.get(f"{shop.origin}/a").status_code == 402
        assert not other.seen
        assert paid(tmp_path) == 0


@EACH
def test_what_is_free_is_as_it_was(shop, tmp_path, buy):
    shop.trouble = lambda shop, step: Answer(200, (("x-free", "yes"),))
    assert buy(tmp_path, f"{shop.origin}/a", b"x") == "goods of /a for x"
    assert not shop.seen and paid(tmp_path) == 0


def test_a_login_of_ones_own_is_kept_and_not_paid_over(shop, tmp_path):
    session = requests.Session()
    session.mount("http://", RequestsPayer(tmp_path, NO_LIMITS))
    with pytest.raises(Refused, match="Authorization"):
        session.get(f"{shop.origin}/a", auth=("me", "secret"))
