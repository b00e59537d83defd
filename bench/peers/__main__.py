"""`python -m bench.peers`: CPU of a paid call behind our FastAPI middleware and behind x402's, in turns, on this machine.

Both are FastAPI under uvicorn, one process, one voucher a call, a fixed price; all requests are signed before, each answer is
looked at. Counted is the CPU of all processes on the seller's side: for us the shop and the whole channel server, which has each
payment on disk before its call is answered; for x402 the shop alone, which keeps channels in memory (or in files that it does not
sync). Only the ratios of one run mean something. Nothing is installed but into SCRATCH.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from bench.load.processes import CpuClock
from paychan.core.outpoint import format_outpoint
from paychan.mpp.challenge import parse_challenges
from paychan.mpp.credential import voucher
from paychan.printing import say, show
from tests.system import ROOT, System, free_port, processes, running, wait_until

PACKAGES = ("x402[evm,fastapi]==2.25.0", "coincurve", "uvicorn[standard]", "httpx")
HERE = Path(__file__).parent


def install(scratch: Path) -> Path:
    """Return the Python of the scratch installation, made if it is not there."""
    python = scratch / "bin" / "python"
    if not (scratch / "installed").exists():
        say(f"installing {', '.join(PACKAGES)} into {scratch}")
        venv.create(scratch, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (scratch / "installed").touch()
    return python


@contextmanager
def shop(python: Path | str, app: str, directory: Path, env: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Run a shop under uvicorn; yield its URL and process id."""
    port = free_port()
    command = [str(python), "-m", "uvicorn", "--port", str(port), "--log-level", "warning", "--no-access-log", app]
    process = subprocess.Popen(command, cwd=directory, env={**os.environ, **env})
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return httpx.get(f"{url}/free").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_until(is_up, 60, f"the start of {app}")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def drive(url: str, header: str, requests: list[list[str]], path: str) -> None:
    """Send the requests of each connection, one after the other; all connections at once. Raises if one is not answered 200."""
    port, failed = int(url.rpartition(":")[2]), []

    def work(values: list[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for value in values:
            connection.request("GET", path, headers={header: value})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed.append(answer.status)
                return

    threads = [threading.Thread(target=work, args=(values,)) for values in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"{url} has answered {failed[0]}")


def cost(url: str, pids: list[int], header: str, requests: list[list[str]], path: str = "/paid") -> float:
    """Return the CPU microseconds of a call."""
    clock = CpuClock({"all": pids})
    drive(url, header, requests, path)
    return clock.seconds()["all"] * 1e6 / sum(map(len, requests))


def pids_below(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    found = [pid]
    for child, parent, _ in sorted(processes()):
        if parent in found:
            found.append(child)
    return found


def our_requests(system: System, url: str, channels: list, calls: int) -> list[list[str]]:
    """Sign a voucher for each call, on channels that are open."""
    challenge = parse_challenges(httpx.get(f"{url}/paid").headers.get_list("www-authenticate"))[0]
    return [
        [voucher(challenge, payer.sender.terms.outpoint, payer.sender.pay(1)).render() for _ in range(calls)] for payer in channels
    ]


def open_channels(system: System, count: int) -> list:
    """Open channels with the open price alone: there is no credit."""
    payers = [system.payer(f"peers {number} {time.time()}") for number in range(count)]
    for payer in payers:
        price = system.client().request("GET", f"/v1/fundingInfo?{_about(payer)}").json["open_price"]
        assert payer.open(price).status == 201, format_outpoint(payer.sender.terms.outpoint)
    return payers


def _about(payer) -> str:
    return f"client_pubkey={payer.sender.terms.client_pubkey.hex()}&exp_time={payer.sender.terms.exp_time}"


class Round(NamedTuple):
    """CPU microseconds of a call: a paid one, and one of the same shop that costs nothing."""

    ours: float
    theirs: float
    our_base: float
    their_base: float


def measure(arguments: argparse.Namespace, directory: Path) -> list[Round]:
    """Return what each round has shown."""
    python, rounds = install(arguments.scratch), []
    total = arguments.calls * arguments.rounds
    with running(directory) as system:
        door = {"DOOR": str(system.state_dir.absolute() / "run" / "sell.sock"), "PYTHONPATH": str(ROOT)}
        with (
            shop(sys.executable, "bench.peers.paychan_app:app", ROOT, door) as (ours, our_pid),
            shop(python, "x402_app:app", HERE, {"STORAGE": arguments.storage, "PYTHONPATH": str(HERE)}) as (theirs, their_pid),
        ):
            mine = our_requests(system, ours, open_channels(system, arguments.connections), total)
            command = [str(python), str(HERE / "x402_requests.py"), f"{theirs}/paid", str(arguments.connections), str(total)]
            signed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            assert system.process is not None
            our_pids = [our_pid, *pids_below(system.process.pid)]
            for number in range(arguments.rounds):
                part = slice(number * arguments.calls, (number + 1) * arguments.calls)
                a = cost(ours, our_pids, "Authorization", [values[part] for values in mine])
                b = cost(theirs, [their_pid], "PAYMENT-SIGNATURE", [values[part] for values in signed])
                free = [["x"] * arguments.calls] * arguments.connections
                bases = (cost(ours, our_pids, "X-Free", free, "/free"), cost(theirs, [their_pid], "X-Free", free, "/free"))
                say(f"round {number + 1}: paychan {a:.0f}, unpaid {bases[0]:.0f}; x402 {b:.0f}, unpaid {bases[1]:.0f} microseconds")
                rounds.append(Round(a, b, *bases))
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scratch", type=Path, default=Path(tempfile.gettempdir()) / "paychan-peers", help="where peers are installed"
    )
    parser.add_argument("--calls", type=int, default=300, help="of each connection in a round")
    parser.add_argument("--connections", type=int, default=5, help="up to 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--storage", default="memory", help="x402's: memory, or a directory for its files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rounds = measure(arguments, Path(directory))
    whole = statistics.median(row.theirs / row.ours for row in rounds)
    share = statistics.median((row.theirs - row.their_base) / max(row.ours - row.our_base, 1) for row in rounds)
    where = "memory: a payment is lost with the process" if arguments.storage == "memory" else "files that are not synced"
    show(f"CPU, x402's FastAPI middleware over ours, {arguments.connections} connections:")
    show(f"  of a paid call, FastAPI and uvicorn included: {whole:.1f}; of what payment adds to an unpaid one: {share:.1f}")
    show(f"durable when answered: paychan, synced to disk; x402, {where}")


if __name__ == "__main__":
    main()
