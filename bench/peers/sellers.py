"""Who sells, or passes on: each a process of its own, or some, on a port of 127.0.0.1, with `/paid` and `/free`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.peers.driving import Values, pids_below
from bench.peers.install import HERE
from paychan.mpp.challenge import parse_challenges
from paychan.mpp.credential import voucher
from tests.ports import free_port
from tests.system import ROOT, System, wait_until

NGINX = "/usr/sbin/nginx"


@dataclass
class Seller:
    """pids: of all processes on the seller's side. sign(first, count): for each connection as many payments, the first of them its
    first-th; None: it only passes requests on. durable: what is kept of a payment when its call is answered."""

    name: str
    url: str
    pids: list[int]
    header: str = "X-Free"
    sign: Callable[[int, int], Values] | None = None
    durable: str = ""


@contextmanager
def running_program(command: list[str], url: str, directory: Path, env: dict[str, str]) -> Iterator[int]:
    """Run a program until the block ends, which begins when it answers at URL/free; yield its process id."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=directory, env={**os.environ, **env}, stdout=log, stderr=log)

        def is_up() -> bool:
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"{Path(command[0]).name} has ended: {log.read()[-1000:].decode(errors='replace')}")
            try:
                return httpx.get(f"{url}/free").status_code == 200
            except httpx.HTTPError:
                return False

        try:
            wait_until(is_up, 60, f"the start of {Path(command[0]).name}")
            yield process.pid
        finally:
            process.terminate()
            process.wait()


@contextmanager
def uvicorn(python: Path | str, app: str, directory: Path, env: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Run an application under uvicorn; yield its URL and process id."""
    port = free_port()
    command = [str(python), "-m", "uvicorn", "--port", str(port), "--log-level", "warning", "--no-access-log", app]
    with running_program(command, f"http://127.0.0.1:{port}", directory, env) as pid:
        yield f"http://127.0.0.1:{port}", pid


# --- ours ---

SYNCED = "yes: synced to disk"


@contextmanager
def our_middleware(system: System, connections: int) -> Iterator[Seller]:
    """Run FastAPI behind paychan.sell. Counted are the shop and the whole channel server."""
    env = {"DOOR": _door(system), "PYTHONPATH": str(ROOT)}
    with uvicorn(sys.executable, "bench.peers.paychan_app:app", ROOT, env) as (url, pid):
        yield Seller("paychan, FastAPI", url, [pid, *_all_of(system)], "Authorization", _signer(system, url, connections), SYNCED)


@contextmanager
def our_gateway(system: System, connections: int, upstream: tuple[str, int], directory: Path) -> Iterator[Seller]:
    """Run our gateway before an upstream. Counted are both, and the whole channel server."""
    port = free_port()
    url, file = f"http://127.0.0.1:{port}", directory / "gateway.toml"
    text = f'[gateway]\nport = {port}\nrealm = "peers"\n[seller]\nsocket = "{_door(system)}"\n'
    text += f'[upstreams.plain]\nurl = "{upstream[0]}"\n'
    file.write_text(text + '[[routes]]\npath = "/paid"\nprice = 1\n[[routes]]\npath = "/free"\nfree = true\n')
    command = [sys.executable, "-m", "paychan", "gateway", str(file)]
    with running_program(command, url, ROOT, {}) as pid:
        pids = [*pids_below(pid), upstream[1], *_all_of(system)]
        yield Seller("paychan, gateway", url, pids, "Authorization", _signer(system, url, connections), SYNCED)


def _door(system: System) -> str:
    return str(system.state_dir.absolute() / "run" / "sell.sock")


def _all_of(system: System) -> list[int]:
    assert system.process is not None
    return pids_below(system.process.pid)


def _signer(system: System, url: str, connections: int) -> Callable[[int, int], Values]:
    """Open channels with the open price alone, so that there is no credit; return what signs on them."""
    payers = [system.payer(f"peers {number} {time.time()}") for number in range(connections)]
    for payer in payers:
        about = f"client_pubkey={payer.sender.terms.client_pubkey.hex()}&exp_time={payer.sender.terms.exp_time}"
        price = system.client().request("GET", f"/v1/fundingInfo?{about}").json["open_price"]
        if payer.open(price).status != 201:
            raise RuntimeError("a channel does not open")
    challenge = parse_challenges(httpx.get(f"{url}/paid").headers.get_list("www-authenticate"))[0]

    def sign(_: int, count: int) -> Values:
        return [[voucher(challenge, one.sender.terms.outpoint, one.sender.pay(1)).render() for _ in range(count)] for one in payers]

    return sign


# --- peers ---


@contextmanager
def x402(python: Path, connections: int, storage: str) -> Iterator[Seller]:
    """Run x402's FastAPI middleware. storage: memory, or a directory for its files."""
    with uvicorn(python, "x402_app:app", HERE, {"STORAGE": storage, "PYTHONPATH": str(HERE)}) as (url, pid):

        def sign(first: int, count: int) -> Values:
            return _printed(
                [str(python), str(HERE / "x402_requests.py"), f"{url}/paid", *map(str, (connections, first, count))], {}
            )

        kept = "no: in memory" if storage == "memory" else "no: in files that are not synced"
        yield Seller("x402, FastAPI", url, [pid], "PAYMENT-SIGNATURE", sign, kept)


@contextmanager
def mppx(folder: Path, connections: int, chain: str) -> Iterator[Seller]:
    """Run mppx's session server, with its own method (tempo) and its store in memory. chain: the URL of its chain's node."""
    port, node = free_port(), shutil.which("node") or "node"
    url, env = f"http://127.0.0.1:{port}", {"CHAIN": chain}
    with running_program([node, "app.js"], url, folder, {**env, "PORT": str(port)}) as pid:

        def sign(first: int, count: int) -> Values:
            return _printed([node, str(folder / "requests.js"), f"{url}/paid", *map(str, (connections, first, count))], env)

        yield Seller("mppx, Node.js", url, [pid], "Authorization", sign, "no: in memory")


def _printed(command: list[str], env: dict[str, str]) -> Values:
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **env})
    values: Values = json.loads(done.stdout)
    return values


# --- what only passes requests on ---


@contextmanager
def plain_upstream() -> Iterator[tuple[str, int]]:
    """Run what the gateway and a plain proxy stand before; yield its URL and process id."""
    with uvicorn(sys.executable, "bench.peers.upstream_app:app", ROOT, {"PYTHONPATH": str(ROOT)}) as found:
        yield found


@contextmanager
def nginx(upstream: tuple[str, int], directory: Path, program: str = NGINX) -> Iterator[Seller | None]:
    """Run nginx as a plain proxy before an upstream; None if it is not installed."""
    if not os.path.exists(program):
        yield None
        return
    port, file = free_port(), directory / "nginx.conf"
    paths = "".join(f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    file.write_text(
        f"daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr; events {{}} http {{ access_log off; {paths} "
        f"upstream plain {{ server {upstream[0].removeprefix('http://')}; keepalive 64; }} "
        f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{ proxy_pass http://plain; "
        'proxy_http_version 1.1; proxy_set_header Connection ""; } } }'
    )
    url = f"http://127.0.0.1:{port}"
    with running_program([program, "-p", str(directory), "-c", str(file)], url, directory, {}) as pid:
        yield Seller("nginx, a plain proxy", url, [*pids_below(pid), upstream[1]])
