"""A shop with a page that pays: articles for some satoshis each, and a stream that is paid by the second.

    (cd clients/js && npm ci && npm run build && npm run demo)      # the page, once
    ./runEverything.sh config/debug/                                # with [sell] in server.toml: docs/SELLING.md
    .venv/bin/python examples/page/shop.py state/debug/run/sell.sock

and open http://127.0.0.1:8080. With `--regtest config/regtest` beside `./runEverything.sh config/regtest/` the page has a button
that pays with the regtest node's coins.
"""

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from paychan.sell.fastapi import Price, Till
from paychan.sell.stream import paid_events

PAGE = Path(__file__).parents[2] / "clients" / "js" / "dist" / "demo"
SECONDS_AHEAD = 5
"""So many seconds of the stream are paid ahead; what is not watched is given back."""

ARTICLES = {
    "promise": (
        "A promise that pays itself",
        "Two people put coins behind a lock with two keys. One of them hands over half-signed pages, each worth a little more than "
        "the one before. The other keeps the newest, and throws the rest away.\n\n"
        "Nothing has moved yet. But whoever holds the newest page can turn its promise into coins at any time, without asking, "
        "by adding the second signature. So the page is as good as the coins, and handing it over takes no longer than a letter "
        "through a slot.\n\n"
        "And if the other one vanishes? Then the lock opens by itself on an agreed day, for the one who put the coins in.",
    ),
    "smallest": (
        "The smallest coin that is worth the walk",
        "A payment that costs more to make than it carries is a gift to the road. That is why a newspaper never sold you one "
        "article, and a library never charged by the page.\n\n"
        "When a payment costs a ten-thousandth of what it carries, shops can be as small as you like: a shop for one sentence, one "
        "second of music, one answer.\n\n"
        "You have just been in one.",
    ),
    "change": (
        "On always getting your change",
        "The oldest rule of shops is that you get your change. A channel turns it around: all the coins lie on the counter, and "
        "you say each time how many of them you want back.\n\n"
        "The number only ever falls. The shop cannot raise its share by itself, and you cannot lower it again. That is all there "
        "is to trust.",
    ),
}


class Need(BaseModel):
    """What a page asks the faucet for. value: satoshi."""

    address: str
    value: int


def make_app(door: str, token: str = "", regtest: Path | None = None) -> FastAPI:
    """Return the shop. door: the sellers' door, a path or URL. regtest: the configuration of a regtest node that gives coins."""
    app = FastAPI(title="Pay as you read", openapi_url=None)
    till = Till(app, door, token)

    @app.get("/articles/{name}", dependencies=[till.price(5)])
    async def article(name: str) -> dict[str, str]:
        if name not in ARTICLES:
            raise HTTPException(404)
        title, text = ARTICLES[name]
        return {"title": title, "text": text}

    @app.get("/tide", dependencies=[till.price(Price(1, units=SECONDS_AHEAD, unit="second"))])
    async def tide(request: Request) -> StreamingResponse:
        return StreamingResponse(paid_events(request.scope, tides()), media_type="text/event-stream")

    @app.get("/about")
    async def about() -> dict[str, object]:
        network = "regtest" if regtest else "test"
        articles = [{"path": f"articles/{name}", "title": title} for name, (title, _) in ARTICLES.items()]
        faucet = "regtest" if regtest else "debug"
        return {"network": network, "faucet": faucet, "articles": articles, "stream": {"path": "tide", "title": "The tide"}}

    @app.post("/faucet")
    def faucet(need: Need) -> dict[str, object]:
        if regtest is None or not 0 < need.value <= 100_000_000:
            raise HTTPException(404)
        txid, vout, value = _node(regtest, "fund", need.address, str(need.value)).split(":")
        _node(regtest, "mine", "1")
        return {"txid": txid, "vout": int(vout), "value": int(value)}

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def _node(config: Path, *words: str) -> str:
    """Run a command of the regtest node; return what it prints."""
    command = [sys.executable, "-m", "tests.node", "--config", str(config), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]).stdout.strip()


async def tides() -> AsyncIterator[str]:
    """Yield the height of an invented tide, from 0 to 1, once a second."""
    second = 0
    while True:
        height = 0.5 + 0.32 * math.sin(second / 9) + 0.14 * math.sin(second / 3.1)
        yield json.dumps({"second": second, "height": round(height, 4)})
        second += 1
        await asyncio.sleep(1)


def main() -> None:
    from granian import Granian  # type: ignore[attr-defined]
    from granian.constants import Interfaces

    parser = argparse.ArgumentParser(description="a shop with a page that pays")
    parser.add_argument("door", help="the sellers' door: a socket's path or a URL")
    parser.add_argument("--token", default=os.environ.get("SHOP_TOKEN", ""), help="for a URL; or in SHOP_TOKEN")
    parser.add_argument("--regtest", type=Path, help="give coins of this configuration's regtest node away")
    parser.add_argument("--port", type=int, default=8080)
    chosen = parser.parse_args()
    os.environ["SHOP"] = json.dumps([chosen.door, chosen.token, str(chosen.regtest or "")])
    Granian("shop:app", port=chosen.port, interface=Interfaces.ASGI, working_dir=Path(__file__).parent).serve()


if "SHOP" in os.environ:  # in a worker of granian's
    _door, _token, _regtest = json.loads(os.environ["SHOP"])
    app = make_app(_door, _token, Path(_regtest) if _regtest else None)

if __name__ == "__main__":
    main()
