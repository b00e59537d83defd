"""Sell with x402's own middleware, to x402's own clients. Against a server in debug mode, which moves no money:

    ./runEverything.sh config/debug/
    .venv/bin/pip install 'x402[fastapi,httpx]'
    .venv/bin/granian --interface asgi --port 8080 examples.sell_x402:app

then, in another terminal, examples/buy_x402.py. The lines that sell are marked.
"""

from fastapi import FastAPI
from x402.http.middleware.fastapi import payment_middleware  # sells

from paychan.sell.x402 import offer, patient, seller  # sells

app = FastAPI(title="News")
server = seller("state/debug/run/sell.sock")  # sells
app.middleware("http")(patient(payment_middleware({"GET /news": offer(5, "test")}, server)))  # sells, for 5 satoshi


@app.get("/news")
async def news() -> dict[str, str]:
    """Tell what is new."""
    return {"news": "another block was found"}
