"""A shop for tests that signs receipts, behind the till: in FastAPI and in Flask. Configured by SHOP_DOOR and SHOP_KEY."""

import os

from paychan.receipts.issuer import Issuer
from paychan.sell.facts import Price

PRICE = 5
METERED = Price(2, units=10, unit="token", is_metered=True)
ORIGIN = "https://shop.example"


def fastapi_app():
    from fastapi import FastAPI, HTTPException, Request

    from paychan.sell.fastapi import Till

    app = FastAPI()
    till = Till(app, os.environ["SHOP_DOOR"], sign=Issuer(os.environ["SHOP_KEY"], ORIGIN).issue)

    @app.api_route("/news", methods=["GET", "POST"], dependencies=[till.price(PRICE)])
    async def news() -> dict:
        return {"news": True}

    @app.get("/metered", dependencies=[till.price(METERED)])
    async def metered(request: Request) -> dict:
        request.scope["paychan.visit"].use(3)
        return {"tokens": 3}

    @app.get("/fails", dependencies=[till.price(PRICE)])
    async def fails() -> dict:
        raise HTTPException(500)

    @app.get("/free")
    async def free() -> dict:
        return {"free": True}

    return app


def flask_app():
    from flask import Flask

    from paychan.sell.flask import Till

    app = Flask("shop")
    till = Till(os.environ["SHOP_DOOR"], sign=Issuer(os.environ["SHOP_KEY"], ORIGIN).issue)

    @app.get("/news")
    @till.price(PRICE)
    def news() -> dict:
        return {"news": True}

    @app.get("/free")
    def free() -> dict:
        return {"free": True}

    return app
