"""A shop for tests that signs receipts, behind the till: in FastAPI and in Flask. Configured by SHOP_DOOR and SHOP_KEY."""

import os

from paychan.receipts.issuer import Issuer
from paychan.receipts.keys import WELL_KNOWN, published
from paychan.sell.facts import Price

PRICE = 5
STREAM = Price(2, units=4, unit="word")
METERED = Price(2, units=10, unit="token", is_metered=True)
ORIGIN = "https://shop.example"


def fastapi_app():
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.responses import StreamingResponse

    from paychan.sell.fastapi import Till
    from paychan.sell.stream import paid_events

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

    @app.get("/words")
    @till.price(STREAM)
    async def words(request: Request, count: int) -> StreamingResponse:
        async def generate():
            for number in range(count):
                yield f"word {number}"

        return StreamingResponse(paid_events(request.scope, generate()), media_type="text/event-stream")

    @app.get("/free")
    async def free() -> dict:
        return {"free": True}

    app.get(WELL_KNOWN)(published(os.environ["SHOP_KEY"]))
    return app


def flask_app():
    from flask import Flask, Response, request

    from paychan.sell.flask import Till

    app = Flask("shop")
    till = Till(os.environ["SHOP_DOOR"], sign=Issuer(os.environ["SHOP_KEY"], ORIGIN).issue)

    @app.get("/news")
    @till.price(PRICE)
    def news() -> dict:
        return {"news": True}

    @app.get("/words")
    @till.price(STREAM)
    def words():
        many = int(request.args["count"])
        return Response(till.stream(f"word {number}" for number in range(many)), mimetype="text/event-stream")

    @app.get("/free")
    def free() -> dict:
        return {"free": True}

    app.get(WELL_KNOWN)(published(os.environ["SHOP_KEY"]))
    return app
