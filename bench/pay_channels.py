"""The load behind `benchPayChanServer.sh`: channels in parallel, each opened, paid and closed on a connection of its own.

Every request is signed and serialised before the clock starts, and every answer is checked. A broken connection or a 503 is
retried with the same bytes, as a payer must.
"""

import argparse
import asyncio
import http.client
import json
import sys
import time
from urllib.parse import urlencode

import uvloop
from coincurve import PrivateKey

from tests.system import OPEN_AMOUNT, WEEK, make_sender

RETRY_SECONDS = 0.2
ATTEMPTS_MAX = 100
PROGRESS_SECONDS = 0.2


class Tally:
    """What has happened so far, over all channels."""

    def __init__(self) -> None:
        self.payments = 0
        self.retries = 0


def server_pubkey(host: str, port: int) -> bytes:
    """Ask the server for its public key."""
    query = urlencode({"client_pubkey": PrivateKey().public_key.format().hex(), "exp_time": _exp_time()})
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request("GET", f"/v1/fundingInfo?{query}")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        sys.exit(f"fundingInfo: {answer.status} {body.decode(errors='replace')}")
    return bytes.fromhex(json.loads(body)["server_pubkey"])


def _exp_time() -> int:
    return int(time.time()) + WEEK


def prepare(host: str, server_key: bytes, payments: int) -> list[tuple[bytes, int, int]]:
    """Return one channel's requests as (bytes, expected status, expected value_received in satoshi)."""
    sender = make_sender(server_key, PrivateKey(), _exp_time())
    payment = sender.pay(OPEN_AMOUNT)
    requests = [(_request("POST", sender.open_target(payment), host), 201, OPEN_AMOUNT)]
    for _ in range(payments):
        payment = sender.pay(1)
        requests.append((_request("PUT", sender.channel_target(payment), host), 200, 1))
    requests.append((_request("DELETE", sender.channel_target(payment), host), 202, 0))
    return requests


def _request(method: str, target: str, host: str) -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()


class ChannelRun(asyncio.Protocol):
    """Sends one channel's requests one after the other, each when the one before has been answered."""

    def __init__(self, requests: list[tuple[bytes, int, int]], tally: Tally) -> None:
        self._requests, self._tally = requests, tally
        self._next = 0
        self._attempts = 0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._buffer = transport, b""  # type: ignore[assignment]
        self.lost = asyncio.get_running_loop().create_future()
        self._send()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def _send(self) -> None:
        self._transport.write(self._requests[self._next][0])  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = self._buffer[head_end + 4 :]
        if len(body) < size:
            return
        self._buffer = b""
        self._judge(int(head[9:12]), body)

    def _judge(self, status: int, body: bytes) -> None:
        _, expected_status, expected_value = self._requests[self._next]
        if status == 503 and self._attempts < ATTEMPTS_MAX:
            self._retry()
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._send)
            return
        # After a retry the first attempt may have counted: then this one adds nothing, and an open exists already.
        expected = [(expected_status, expected_value), *([(expected_status, 0), (409, None)] if self._attempts else [])]
        received = json.loads(body).get("value_received")
        if (status, received) not in expected:
            self._fail(f"expected {expected}, got {status} {body.decode(errors='replace')}")
            return
        self._tally.payments += expected_status == 200
        self._next, self._attempts = self._next + 1, 0
        if self._next < len(self._requests):
            self._send()
        elif not self.done.done():
            self.done.set_result(None)

    def _retry(self) -> None:
        self._attempts += 1
        self._tally.retries += 1

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))

    async def run(self, host: str, port: int) -> None:
        """Connect, and connect again whenever the connection breaks, until all is answered."""
        while not self.done.done():
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, host, port)
                await asyncio.wait([self.done, self.lost], return_when=asyncio.FIRST_COMPLETED)
            except OSError:
                pass
            if not self.done.done():
                self._retry()
                if self._attempts > ATTEMPTS_MAX:
                    self._fail("the server cannot be reached")
                await asyncio.sleep(RETRY_SECONDS)
        await self.done
        if self._transport:
            self._transport.close()


async def _show_progress(tally: Tally, total: int) -> None:
    while True:
        print(f"\r{tally.payments}/{total} payments", end="", file=sys.stderr, flush=True)
        await asyncio.sleep(PROGRESS_SECONDS)


async def run_channels(host: str, port: int, channels: list[list[tuple[bytes, int, int]]]) -> tuple[Tally, float]:
    """Run all channels at once; return what was done and the seconds it took, open and close included."""
    tally = Tally()
    progress = asyncio.create_task(_show_progress(tally, sum(len(requests) - 2 for requests in channels)))
    started_at = time.perf_counter()
    try:
        await asyncio.gather(*(ChannelRun(requests, tally).run(host, port) for requests in channels))
    finally:
        seconds = time.perf_counter() - started_at
        progress.cancel()
        print("\r", end="", file=sys.stderr)
    return tally, seconds


def main() -> None:
    """Parse the command line, run, report; exit status 1 if any answer was wrong."""
    parser = argparse.ArgumentParser(prog="benchPayChanServer.sh", description=__doc__.splitlines()[0])
    parser.add_argument("payments", type=int, metavar="NUM_PAYMENTS", help="one-satoshi payments for each channel")
    parser.add_argument("channels", type=int, metavar="NUM_THREADS", help="channels in parallel")
    parser.add_argument("server", metavar="HOST:PORT")
    parser.add_argument("pubkey", nargs="?", metavar="SERVER_PUBKEY", help="in hex; asked for if it is not given")
    arguments = parser.parse_args()
    host, _, port_text = arguments.server.rpartition(":")
    if not host or not port_text.isdigit() or arguments.payments < 1 or arguments.channels < 1:
        parser.error("needs two positive counts and HOST:PORT")
    port = int(port_text)
    key = bytes.fromhex(arguments.pubkey) if arguments.pubkey else server_pubkey(host, port)
    print(f"signing {arguments.payments * arguments.channels} payments", file=sys.stderr)
    channels = [prepare(arguments.server, key, arguments.payments) for _ in range(arguments.channels)]
    try:
        tally, seconds = uvloop.run(run_channels(host, port, channels))
    except RuntimeError as error:
        sys.exit(f"failed: {error}")
    print(f"{tally.payments} payments executed in {seconds:.2f} s over {arguments.channels} channels", end="")
    print(f", {tally.retries} retries" if tally.retries else ", no error")
    print(f"{tally.payments / seconds:.0f} payments per second (opens and closes included)")


if __name__ == "__main__":
    main()
