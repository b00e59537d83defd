"""Sell what a FastAPI application answers. Against a server in debug mode, which moves no money:

    ./runEverything.sh config/debug/
    .venv/bin/pip install fastapi
    .venv/bin/granian --interface asgi --port 8080 examples.sell_fastapi:app

then, in another terminal, examples/buy.py. The lines that sell are marked.
"""

import random

from fastapi import FastAPI, Request

from paychan.sell.fastapi import Till  # sells

JOKES = (
    "There are 10 kinds of people: those who know binary, and those who do not.",
    "A channel walks into a bar. It leaves some change.",
    "Why was the payment so calm? It was already on disk.",
)

app = FastAPI(title="Jokes")
till = Till(app, "state/debug/run/sell.sock")  # sells


@app.get("/joke")
@till.price(5)  # sells, for 5 satoshi
async def joke() -> str:
    """Tell a joke."""
    return random.choice(JOKES)


def price_of_jokes(request: Request) -> int | None:
    """Return 4 satoshi a joke; None is free, and what makes no sense is refused by the route itself."""
    count = request.query_params.get("count", "1")
    return 4 * int(count) if count.isdigit() and 0 < int(count) < 100 else None


@app.get("/jokes")
@till.price(price_of_jokes)  # a price may depend on what is asked for
async def jokes(count: int = 1) -> list[str]:
    """Tell many."""
    return random.choices(JOKES, k=max(0, min(count, 99)))
