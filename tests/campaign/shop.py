"""What the sales campaign sells: one FastAPI application, behind the middleware as `app`, behind the gateway as `upstream`.

    PAYCHAN_SHOP=RECORD PAYCHAN_DOOR=SOCKET PAYCHAN_TOKEN=TOKEN PAYCHAN_SECRET=HEX granian --interface asgi tests.campaign.shop:app

The good is a sentence with the request's id in it. Before it is given away a line says so in RECORD, on disk: what the handler
served, it can never deny. Ids say how a handler behaves: `-f2` fails twice before it serves, `-s80` takes 80 ms before that, and
as long between the record and the answer.
"""

import asyncio
import hashlib
import json
import os
import re
from collections import Counter

from fastapi import Depends, FastAPI, HTTPException, Request

from paychan.core.outpoint import format_outpoint
from paychan.sell.asgi import Visit
from paychan.sell.facts import Price
from paychan.sell.fastapi import Till

PRICES = (100, 10_000)
"""Satoshi of a request. Powers of a hundred: so a sum of purchases says how many there were of each."""

UNITS = 9
"""A metered request holds so many units of one satoshi."""

_FAILS, _SLOW = re.compile(r"-f(\d+)"), re.compile(r"-s(\d+)")


def units_of(ident: str) -> int:
    """Return how many units a metered request uses."""
    return hashlib.sha256(ident.encode()).digest()[0] % (UNITS + 1)


class Record:
    """A file of JSON lines, each on disk before `write` returns. What a kill cut in the middle is no line."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._file, b"\n")

    def write(self, **line: object) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fdatasync(self._file)


class Shop:
    """Serves, or fails, as an id says."""

    def __init__(self, path: str) -> None:
        self._record = Record(path)
        self._failed: Counter[str] = Counter()

    async def serve(self, ident: str, method: str, channel: str) -> str:
        slow = _SLOW.search(ident)
        seconds = int(slow[1]) / 1000 if slow else 0.0
        await asyncio.sleep(seconds)
        found = _FAILS.search(ident)
        if found and self._failed[ident] < int(found[1]):
            self._failed[ident] += 1
            self._record.write(what="failed", id=ident, channel=channel)
            if self._failed[ident] % 2:
                raise HTTPException(500)
            raise RuntimeError("as it should")
        self._record.write(what="served", id=ident, method=method, channel=channel)
        await asyncio.sleep(seconds)
        return f"the good of {ident}"


def _channel_of(visit: Visit) -> str:
    assert visit.sale is not None
    return format_outpoint(visit.sale.outpoint)


def _make_paid() -> FastAPI:
    app, shop = FastAPI(), Shop(os.environ["PAYCHAN_SHOP"])
    secret = bytes.fromhex(os.environ["PAYCHAN_SECRET"])
    till = Till(app, os.environ["PAYCHAN_DOOR"], os.environ["PAYCHAN_TOKEN"], secret=secret)

    def add(price: int, method: str) -> None:
        paid = till.price(price)

        @app.api_route(f"/goods/{price}", methods=[method])
        async def goods(id: str, visit: Visit = paid) -> str:
            return await shop.serve(id, method, _channel_of(visit))

    for price in PRICES:
        add(price, "GET")
        add(price, "POST")

    held = till.price(Price(1, units=UNITS, is_metered=True, repeats=True))

    @app.get("/metered")
    async def metered(id: str, visit: Visit = held) -> str:
        visit.use(units_of(id))
        return await shop.serve(id, "GET", _channel_of(visit))

    return app


def _make_upstream() -> FastAPI:
    app, shop = FastAPI(), Shop(os.environ["PAYCHAN_SHOP"])

    def channel(request: Request) -> str:
        return request.headers["paychan-channel"]

    @app.api_route("/goods/{price}", methods=["GET", "POST"])
    async def goods(price: int, id: str, request: Request, paid: str = Depends(channel)) -> str:
        return await shop.serve(id, request.method, paid)

    return app


def __getattr__(name: str) -> FastAPI:
    if name in ("app", "upstream"):
        return _make_paid() if name == "app" else _make_upstream()
    raise AttributeError(name)
