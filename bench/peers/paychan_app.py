"""Our till behind FastAPI, as docs/SELLING.md has it. DOOR: the sellers' door."""

import os

from fastapi import FastAPI

from paychan.sell.fastapi import Till

app = FastAPI()
till = Till(app, os.environ["DOOR"])


@app.get("/paid")
@till.price(1)
async def paid() -> dict:
    return {"ok": True}


@app.get("/free")
async def free() -> dict:
    return {"ok": True}
