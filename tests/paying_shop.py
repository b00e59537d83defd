"""A shop for tests of payers: a FastAPI application behind the real till, in a process of its own.

`selling(directory)` runs it before a real system in debug mode. What it served stands in a file, a line each.
"""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from paychan.settings.tokens import cookie_file
from tests.ports import free_port
from tests.selling import SOCKET, Seller, sell_changes
from tests.system import ROOT, System, running, wait_until

PRICE = 5
DOOR, SERVED = "PAYING_SHOP_DOOR", "PAYING_SHOP_SERVED"


def make_app():
    """Return the application; granian loads it."""
    from paychan.sell.asgi import Visit
    from paychan.sell.fastapi import Price, Till
    from paychan.sell.stream import paid_events

    app = FastAPI(title="shop")
    till = Till(app, os.environ[DOOR], realm="shop", secret=b"the shop's, for tests")
    served = os.open(os.environ[SERVED], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    broken, at_most = {"left": 1}, Price(1, units=40, is_metered=True)

    @app.get("/")
    async def home() -> str:
        return "open"

    @app.get("/joke/{number}", dependencies=[till.price(PRICE)])
    async def joke(number: int) -> dict[str, int]:
        os.write(served, f"joke {number}\n".encode())
        return {"joke": number}

    @app.post("/echo", dependencies=[till.price(PRICE)])
    async def echo(request: Request) -> dict[str, str]:
        body = await request.body()
        os.write(served, b"echo\n")
        return {"echo": body.decode()}

    @app.get("/dear", dependencies=[till.price(Price(3, units=10))])
    async def dear() -> str:
        os.write(served, b"dear\n")
        return "dear"

    @app.get("/stream/{count}", dependencies=[till.price(Price(2, units=4, unit="word"))])
    async def stream(count: int, request: Request, stuck_at: int = -1) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            for number in range(count):
                if number == stuck_at:
                    await asyncio.sleep(3600)
                os.write(served, b"word\n")
                yield f"word {number}"

        return StreamingResponse(paid_events(request.scope, words()), media_type="text/event-stream")

    @app.get("/measured")
    async def measured(visit: Visit = till.price(at_most)) -> str:  # noqa: B008
        visit.use(1)
        return "one"

    @app.get("/fails", dependencies=[till.price(PRICE)])
    async def fails() -> str:
        if broken["left"]:
            broken["left"] -= 1
            raise HTTPException(500)
        os.write(served, b"fails\n")
        return "mended"

    return app


@dataclass
class Shop:
    """A shop that is open. served: the file of what it served."""

    system: System
    port: int
    served: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self) -> int:
        return len(self.served.read_text().splitlines()) if self.served.exists() else 0

    def channels(self) -> list[dict]:
        """Return the channels as the sellers' door tells them."""
        token = cookie_file(self.system.state_dir.absolute() / "run" / "sell.sock").read_text().strip()
        return Seller(self.system, token).request("GET", "/v1/sell/channels?limit=100").json["channels"]


def start(system: System, port: int, served: Path) -> subprocess.Popen[bytes]:
    door = str(system.state_dir.absolute() / "run" / "sell.sock")
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--no-ws", "--port", str(port)]
    command += ["--log-level", "error", "tests.paying_shop:make_app"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, DOOR: door, SERVED: str(served)}, start_new_session=True)

    def answers() -> bool:
        with suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).status == 200
        return False

    wait_until(answers, 30, "starting the shop")
    return process


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait(30)


@contextmanager
def selling(directory: Path, **options) -> Iterator[Shop]:
    """Run a system with a sellers' door, and the shop before it."""
    with running(directory, changes=sell_changes(SOCKET), **options) as system:
        port, served = free_port(), directory / "served"
        shop = Shop(system, port, served, start(system, port, served))
        try:
            yield shop
        finally:
            stop(shop.process)
