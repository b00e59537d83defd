"""Aim: a price list means what it says. Method: patterns, methods, and what is no list."""

import asyncio

import pytest

from paychan.sell.facts import Price, Request, body_hash
from paychan.sell.prices import Prices, settle_price, settle_price_now

LIST = Prices({"GET /a": 1, "/a": 2, "/b/*": 3, "/c/**": 4, "/free": None, "/call": lambda request: request})


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/a", 1), ("HEAD", "/a", 1), ("POST", "/a", 2), ("GET", "/a/", None), ("GET", "/b/x", 3), ("GET", "/b/x/y", None),
        ("GET", "/b/", 3), ("PUT", "/c/x/y", 4), ("GET", "/free", None), ("GET", "/aa", None), ("GET", "/b/x\n", 3),
    ],
)  # fmt: skip
def test_what_a_request_costs(method, path, wanted):
    found = LIST.find(method, path)
    assert (found.amount if found else None) == wanted


@pytest.mark.parametrize("listed", [{"a": 1}, {"get /a": 1}, {"/a": 0}, {"/a": -1}, {"/a": 1.5}, {"/a": True}])
def test_what_is_no_price_list(listed):
    with pytest.raises((ValueError, TypeError)):
        Prices(listed)


def test_functions():
    async def later(request):
        return request

    assert settle_price_now(LIST.find("GET", "/call"), 7) == Price(7)
    assert asyncio.run(settle_price(later, 8)) == Price(8) and asyncio.run(settle_price(later, None)) is None
    assert asyncio.run(settle_price(Price(9), None)) == Price(9)


def test_what_makes_a_request_another():
    base = Request("POST", "/a", body=body_hash(b"x"))
    others = [
        Request("PUT", "/a", body=body_hash(b"x")),
        Request("POST", "/b", body=body_hash(b"x")),
        Request("POST", "/a", body=body_hash(b"y")),
        Request("POST", "/a"),
        Request("POST", "/a", body=body_hash(b"x"), idempotency_key="k"),
        Request("POST", "/a\n1 x", body=b""),
    ]
    assert len({row.fingerprint for row in [base, *others]}) == len(others) + 1
    assert Request("POST", "/a", ("Payment x",), body_hash(b"x")).fingerprint == base.fingerprint
