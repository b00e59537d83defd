"""A language model that is paid by the token, as a stream and at once. Against a server in debug mode, which moves no money:

    ./runEverything.sh config/debug/
    .venv/bin/pip install fastapi
    .venv/bin/granian --interface asgi --port 8080 examples.sell_tokens:app

then, in another terminal, examples/buy_tokens.py. The model here has read only one sentence; put yours into `generate`.
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from paychan.sell.asgi import Visit
from paychan.sell.fastapi import Price, Till
from paychan.sell.stream import paid_events

WORDS = ("a", "payment", "is", "a", "signature", "that", "leaves", "the", "payer", "a", "little", "less", "than", "before")
TOKENS_MAX = 400

app = FastAPI(title="Tokens")
till = Till(app, "state/debug/run/sell.sock")


async def generate(tokens: int) -> AsyncIterator[str]:
    """Yield tokens as a model would."""
    for number in range(tokens):
        await asyncio.sleep(0)
        yield WORDS[number % len(WORDS)]


A_TOKEN = Price(1, units=20, unit="token", description="a token")


@app.get("/stream")
@till.price(A_TOKEN)
async def stream(request: Request, tokens: int = 50) -> StreamingResponse:
    """Send tokens as they come. Twenty are charged before they are sent, then the next twenty; what was not sent is given back."""
    return StreamingResponse(paid_events(request.scope, generate(tokens)), media_type="text/event-stream")


AT_MOST = Price(1, units=TOKENS_MAX, unit="token", is_metered=True)


@app.get("/complete")
async def complete(tokens: int = 50, visit: Visit = till.price(AT_MOST)) -> str:  # noqa: B008
    """Answer at once. The price of 400 tokens is held; then what was used is charged, and the rest given back."""
    words = [word async for word in generate(min(tokens, TOKENS_MAX))]
    visit.use(len(words))
    return " ".join(words)
