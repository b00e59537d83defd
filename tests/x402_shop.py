"""A shop for tests: FastAPI behind x402's own middleware, which asks a paychan server's sellers' door. It is configured by its
environment (DOOR, TOKEN, SERVED), and notes in a file what it has served, before it answers."""

import os
import time

from fastapi import FastAPI, HTTPException
from x402 import x402ResourceServer
from x402.http.middleware.fastapi import payment_middleware

from paychan.receipts.issuer import Issuer
from paychan.sell.x402 import ChannelScheme, facilitator

PRICE = 5
NETWORK = os.environ["NETWORK"]


def offer(price: int) -> dict:
    return {"accepts": {"scheme": "batch-settlement", "network": NETWORK, "payTo": "", "price": price}}


calls = facilitator(os.environ["DOOR"], os.environ["TOKEN"])
issuer = Issuer(os.environ["KEY"]) if "KEY" in os.environ else None
server = x402ResourceServer(calls).register("bip122:*", ChannelScheme(calls, issuer))
app = FastAPI()
app.middleware("http")(
    payment_middleware({"GET /news/:name": offer(PRICE), "GET /fails": offer(PRICE), "GET /slow": offer(PRICE)}, server)
)


def note(what: str) -> None:
    with open(os.environ["SERVED"], "a") as file:
        file.write(f"{what}\n")


@app.get("/news/{name}")
def news(name: str) -> dict:
    note(name)
    return {"news": name}


@app.get("/slow")
def slow() -> dict:
    time.sleep(0.3)
    note("slow")
    return {"news": "slow"}


@app.get("/fails")
def fails() -> dict:
    raise HTTPException(500, "out of paper")


@app.get("/free")
def free() -> dict:
    return {"free": True}
