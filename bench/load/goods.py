"""What is sold in the bench: one FastAPI application, free as `free`, behind the middleware as `paid`.

PAYCHAN_DOOR=SOCKET granian --interface asgi bench.load.goods:paid
"""

import os

from fastapi import FastAPI

from paychan.sell.fastapi import Till

GOOD = "that is all"
PRICE = 1
"""Satoshi."""


def _make(is_paid: bool) -> FastAPI:
    app = FastAPI()
    prices = [Till(app, os.environ["PAYCHAN_DOOR"]).price(PRICE)] if is_paid else []

    @app.get("/good", dependencies=prices)
    @app.get("/free/good")
    async def good() -> str:
        return GOOD

    return app


def __getattr__(name: str) -> FastAPI:
    if name in ("free", "paid"):
        return _make(name == "paid")
    raise AttributeError(name)
