"""Shops for tests: the same wares behind each kind of till. Run by granian, in processes of their own (`running_shop`).

SHOP_DOOR says where the sellers' door is; each run of a handler adds a line to SHOP_RUNS.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs

from paychan.sell.facts import Price
from tests.system import processes

ROOT = Path(__file__).parent.parent
KINDS = {
    "fastapi": "asgi",
    "starlette": "asgi",
    "rsgi": "rsgi",
    "wsgi": "wsgi",
    "flask": "wsgi",
    "django": "wsgi",
    "django_async": "asgi",
}
LONG = "x" * 100_000
METERED = Price(2, units=10, unit="token", is_metered=True)
STREAM = Price(1, units=3, unit="token")


def door() -> str:
    return os.environ["SHOP_DOOR"]


def run(name: str) -> int:
    """Note that a handler runs; return how often handlers have run by now."""
    path = os.environ["SHOP_RUNS"]
    with open(path, "a") as file:
        file.write(f"{name}\n")
    return Path(path).read_text().count("\n")


def ware(path: str, query: str, body: bytes, use=lambda units: None) -> tuple[int, str]:
    """Return status and text of what the shop has at a path. Raises for what fails. /held waits until `Shop.go`; with SHOP_FAILS
    in the environment it fails then."""
    number = run(path)
    if path == "/fail":
        raise RuntimeError("this handler fails, as it should")
    if path == "/slowly-failing":
        time.sleep(1)
        raise RuntimeError("this handler fails, as it should")
    if path == "/missing":
        return 404, "nothing"
    if path == "/long":
        return 200, LONG
    if path == "/held":
        while not Path(f"{os.environ['SHOP_RUNS']}.go").exists():
            time.sleep(0.02)
        if "SHOP_FAILS" in os.environ:
            raise RuntimeError("this handler fails, as it should")
    if path == "/slow":
        time.sleep(1)
    if path == "/metered":
        use(int(parse_qs(query)["n"][0]))
    return 200, json.dumps({"path": path, "run": number, "body": body[:100].decode()})


def dynamic(query: str) -> int | None:
    return int(parse_qs(query)["n"][0]) or None


PRICES = {
    "/joke": 5,
    "POST /do": 5,
    "/fail": 5,
    "/missing": 5,
    "/long": 5,
    "/slow": 5,
    "/held": 5,
    "/slowly-failing": 5,
    "/metered": METERED,
}


def fastapi_app():
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import StreamingResponse

    from paychan.sell.fastapi import Till
    from paychan.sell.stream import paid_events

    app = FastAPI(title="shop")
    till = Till(app, door())

    @app.get("/free")
    async def free() -> dict:
        return {"free": True}

    async def price_of(request: Request) -> int | None:
        return dynamic(request.url.query)

    def add(method: str, path: str, price) -> None:
        @till.price(price)
        async def handler(request: Request) -> Response:
            visit = request.scope["paychan.visit"]
            body = await request.body()
            status, text = await asyncio.to_thread(ware, path, request.url.query, body, visit.use)
            return Response(text, status)

        app.add_api_route(path, handler, methods=[method])

    for listed, price in PRICES.items():
        method, _, path = listed.rpartition(" ")
        add(method or "GET", path, price)
    add("GET", "/dynamic", price_of)

    @app.get("/sync")
    @till.price(5)
    def sync(n: int) -> dict:
        return {"run": run("/sync"), "n": n}

    @app.get("/two-prices", dependencies=[till.price(1)])
    @till.price(100)
    async def two_prices() -> dict:
        return {"run": run("/two-prices")}

    @app.get("/tokens", dependencies=[till.price(STREAM)])
    async def tokens(request: Request, n: int, pause: float = 60.0):
        async def generate():
            for number in range(n):
                run("token")
                yield f"token {number}"

        return StreamingResponse(paid_events(request.scope, generate(), pause), media_type="text/event-stream")

    return app


def starlette_app():
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import Response
    from starlette.routing import Route

    from paychan.sell.asgi import Paid

    async def handler(request):
        if request.url.path == "/free":
            return Response('{"free": true}')
        body = await request.body()
        status, text = await asyncio.to_thread(ware, request.url.path, request.url.query, body, request.scope["paychan.visit"].use)
        return Response(text, status)

    async def price_of(scope) -> int | None:
        return dynamic(scope["query_string"].decode())

    routes = [Route("/{path}", handler, methods=["GET", "POST"])]
    return Starlette(routes=routes, middleware=[Middleware(Paid, at=door(), prices={**PRICES, "/dynamic": price_of})])


def rsgi_app():
    from paychan.sell.rsgi import Paid
    from paychan.sell.wsgi import Visit

    async def app(scope, protocol) -> None:
        if scope.path == "/free":
            protocol.response_str(200, [], '{"free": true}')
            return
        body = await protocol()
        status, text = await asyncio.to_thread(ware, scope.path, scope.query_string, body, getattr(protocol, "visit", Visit()).use)
        if scope.path == "/long":
            stream = protocol.response_stream(status, [("content-type", "text/plain")])
            await stream.send_str(text[:50_000])
            await stream.send_str(text[50_000:])
        else:
            protocol.response_str(status, [("content-type", "application/json")], text)

    return Paid(app, door(), {**PRICES, "/dynamic": lambda scope: dynamic(scope.query_string)})


def wsgi_app():
    from paychan.sell.wsgi import Paid

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/free":
            start_response("200 OK", [])
            return [b'{"free": true}']
        body = environ["wsgi.input"].read()
        status, text = ware(path, environ["QUERY_STRING"], body, environ["paychan.visit"].use)
        start_response(f"{status} X", [("content-type", "application/json")])
        return [text[:10].encode(), text[10:].encode()]

    return Paid(app, door(), {**PRICES, "/dynamic": lambda environ: dynamic(environ["QUERY_STRING"])})


def flask_app():
    from flask import Flask, Response, request

    from paychan.sell.flask import Till

    app = Flask("shop")
    till = Till(door(), realm=os.environ.get("SHOP_REALM", "shop"))

    def add(method: str, path: str, price) -> None:
        @till.price(price)
        def handler():
            status, text = ware(path, request.query_string.decode(), request.get_data(), till.use)
            if path == "/long":
                return Response((text[at : at + 1000] for at in range(0, len(text), 1000)), status)
            return text, status

        app.add_url_rule(path, path, handler, methods=[method])

    for listed, price in PRICES.items():
        method, _, path = listed.rpartition(" ")
        add(method or "GET", path, price)
    add("GET", "/dynamic", lambda request: dynamic(request.query_string.decode()))
    app.add_url_rule("/free", "free", lambda: {"free": True})

    @app.get("/tokens")
    @till.price(STREAM)
    def tokens():
        def generate(many=int(request.args["n"])):
            for number in range(many):
                run("token")
                yield f"token {number}"

        return Response(till.stream(generate(), float(request.args.get("pause", 60))), mimetype="text/event-stream")

    return app


def _django_urls(is_async: bool):
    from django.http import HttpResponse
    from django.urls import path as url
    from django.views.decorators.csrf import csrf_exempt

    from paychan.sell.django import Till

    till = Till(door())

    def view_of(path: str, price):
        def handle(request):
            query = request.META["QUERY_STRING"]
            status, text = ware(path, query, request.body, lambda units: till.use(request, units))
            return HttpResponse(text, status=status)

        async def handle_later(request):
            return await asyncio.to_thread(handle, request)

        return csrf_exempt(till.price(price)(handle_later if is_async else handle))

    views = {listed.rpartition(" ")[2]: price for listed, price in PRICES.items()}
    views["/dynamic"] = lambda request: dynamic(request.META["QUERY_STRING"])
    free = [url("free", lambda request: HttpResponse('{"free": true}'))]
    return free + [url(path[1:], view_of(path, price)) for path, price in views.items()]


def _django(is_async: bool):
    import types

    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF="shop_urls", SECRET_KEY="not a secret", LOGGING_CONFIG=None)
    django.setup(set_prefix=False)
    urls = types.ModuleType("shop_urls")
    sys.modules["shop_urls"] = urls
    urls.urlpatterns = _django_urls(is_async)
    return get_asgi_application() if is_async else get_wsgi_application()


def django_app():
    return _django(False)


def django_async_app():
    return _django(True)


def running_shop(kind: str, door: str, directory: Path, port: int, workers: int = 1) -> "AbstractContextManager[Shop]":
    """Run one of the shops above."""
    return running_application(f"tests.shops:{kind}_app", KINDS[kind], door, directory, port, workers, is_factory=True)


@contextmanager
def running_application(
    name: str, interface: str, door: str, directory: Path, port: int, workers: int = 1, is_factory: bool = False
) -> Iterator["Shop"]:
    """Run an application under granian, and yield it once it answers. name: module and attribute."""
    import httpx

    runs = directory / f"runs-{port}"
    runs.touch()
    command = [sys.executable, "-m", "granian", "--interface", interface, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(workers), "--no-ws", "--workers-kill-timeout", "2", *(["--factory"] if is_factory else [])]
    command += ["--blocking-threads", "8"] if interface == "wsgi" else []
    path = f"{ROOT}:{ROOT / 'examples' / 'sell'}"
    env = {**os.environ, "SHOP_DOOR": door, "SELL_AT": door, "SHOP_RUNS": str(runs), "PYTHONPATH": path}
    with (directory / f"log-{port}").open("w+") as log:
        process = subprocess.Popen([*command, name], cwd=ROOT, env=env, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        client.get("/free")
                        break
                    except httpx.TransportError:
                        assert process.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
                        time.sleep(0.05)
                yield Shop(client, runs, Path(log.name), process)
        finally:
            process.terminate()
            process.wait(20)


class Shop:
    """A running shop. runs(): how often a handler has run."""

    def __init__(self, client, runs: Path, log: Path, process: subprocess.Popen) -> None:
        self.client, self._runs, self.log, self._process = client, runs, log, process

    def go(self) -> None:
        """Let what is held go on."""
        Path(f"{self._runs}.go").touch()

    def kill(self) -> None:
        """End all of its processes at once."""
        pids = [pid for pid, parent, _ in processes() if parent == self._process.pid]
        for pid in (self._process.pid, *pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(20)

    def runs(self) -> int:
        return self._runs.read_text().count("\n")

    def get(self, path: str, headers=None):
        return self.client.get(path, headers=headers)

    def head(self, path: str, headers=None):
        return self.client.head(path, headers=headers)

    def post(self, path: str, body: bytes, headers=None):
        return self.client.post(path, content=body, headers=headers)
