"""A shop in FastAPI. With a server in debug mode running (`./runEverything.sh config/debug/`):

granian --interface asgi fastapi_shop:app --port 9000
"""

import os

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from paychan.sell.fastapi import Price, Till
from paychan.sell.stream import paid_events

app = FastAPI(title="shop")
till = Till(app, os.environ.get("SELL_AT", "state/debug/run/sell.sock"))


@app.get("/joke")
@till.price(5)  # satoshi
async def joke() -> dict:
    return {"joke": "Why do channels never argue? They settle."}


async def by_length(request: Request) -> int:
    """A price that depends on the request: a satoshi for each word."""
    return max(1, len((await request.body()).split()))


@app.post("/shout")
@till.price(by_length)
async def shout(request: Request) -> dict:
    return {"shout": (await request.body()).decode().upper()}


@app.get("/tokens")
@till.price(Price(1, units=5, unit="token"))  # five are charged at once, one after the other is delivered
async def tokens(request: Request) -> StreamingResponse:
    async def generate():
        for number in range(8):
            yield f"word {number}"

    return StreamingResponse(paid_events(request.scope, generate()), media_type="text/event-stream")
