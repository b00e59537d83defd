"""Channels on any server in debug mode, each paid over a connection of its own, all at once, by the compiled client.

Everything is signed before the clock starts, every answer is checked, and a payment that is not answered as it must be ends it.
Opening and closing are not timed: a server answers 503 when it is asked to open too many at once, and is asked again.
"""

import http.client
import secrets
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from coincurve import PrivateKey, PublicKey

from bench.load.client import Client
from bench.load.failure import Failed
from bench.load.measure import PATIENCE_SECONDS, percentile
from bench.load.payers import Payer
from bench.load.processes import ask
from bench.load.progress import Progress
from tests.system import WEEK

SLICE_SECONDS = 1.0
"""After such a time what is in flight is waited for, and the progress is shown."""

BUSY_SECONDS_MAX = 120.0
BUSY_PAUSE_SECONDS = 0.1

AT_ONCE = 16
"""Channels that are being opened or closed: each waits for the disk."""


@dataclass(frozen=True)
class Server:
    """HOST:PORT as it was given, and what of it a socket wants."""

    text: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Server":
        """Raises ValueError."""
        split = urlsplit(f"//{text}")
        if not split.hostname or not split.port or split.netloc != text or "@" in text:
            raise ValueError(text)
        return cls(text, split.hostname, split.port)

    def ask(self, method: str, target: str) -> tuple[int, dict[str, Any]]:
        """Send a request, again while it is answered 503; return status and JSON. Raises Failed."""
        deadline = time.monotonic() + BUSY_SECONDS_MAX
        while True:
            try:
                status, _, content = ask((self.host, self.port), method, target)
            except UnicodeError as error:
                raise Failed(f"{self.text}: such a host has no address") from error
            except OSError as error:
                raise Failed(f"{self.text}: {error.strerror or error}: ./runEverything.sh config/debug/ starts a server") from error
            except (http.client.HTTPException, ValueError) as error:
                raise Failed(f"{self.text}: this is no paychan server ({type(error).__name__})") from error
            if status != 503 or time.monotonic() > deadline:
                return status, content if isinstance(content, dict) else {}
            time.sleep(BUSY_PAUSE_SECONDS)

    def expect(self, expected: int, method: str, target: str, otherwise: str) -> None:
        """Send a request as `ask` does. Raises Failed, with `otherwise`, if its status is not the expected one."""
        status, content = self.ask(method, target)
        if status != expected:
            raise Failed(f"{self.text}: {otherwise}: {_told(status, content)}")

    def terms(self) -> tuple[bytes, int, int]:
        """Return the server's public key, its price of opening in satoshi, and an expiry that it takes. Raises Failed."""
        exp_time = int(time.time()) + WEEK
        anybody = PrivateKey().public_key.format().hex()
        status, content = self.ask("GET", f"/v1/fundingInfo?client_pubkey={anybody}&exp_time={exp_time}")
        if status != 200:
            raise Failed(f"{self.text}: fundingInfo: {_told(status, content)}")
        try:
            key, price = PublicKey(bytes.fromhex(content["server_pubkey"])).format(), content["open_price"]
            if type(price) is not int or price < 0:
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise Failed(f"{self.text}: this is no paychan server (fundingInfo has no key or price)") from error
        return key, price, exp_time


def _told(status: int, content: dict[str, Any]) -> str:
    """Return what an answer says, in one line."""
    return " ".join(f"{status} {content.get('code', '')} {content.get('detail') or content.get('message') or ''}".split())


@dataclass
class Tally:
    """What the paying came to. latencies: nanoseconds; client_cpu: seconds of this process's CPU."""

    payments: int = 0
    seconds: float = 0.0
    latencies: array = field(default_factory=lambda: array("Q"))
    client_cpu: float = 0.0

    def latency(self, share: float) -> float:
        """Return the latency in seconds that `share` of the answers did not exceed."""
        return percentile(self.latencies, share)


def pay(server: Server, payers: list[Payer], payments: int, progress: Progress) -> Tally:
    """Make `payments` payments of one satoshi for each payer, whose channels are open. Raises Failed, OSError."""
    client = Client([(server.host, server.port)] * len(payers))
    for number, payer in enumerate(payers):
        client.give(number, payer.pay(payments))
        progress.step("signing", payments)
    client.connect()
    tally = Tally()
    while tally.payments < payments * len(payers):
        begun = time.process_time()
        outcome = client.run(payments * len(payers) - tally.payments, SLICE_SECONDS, 0.0, PATIENCE_SECONDS)
        if outcome["wrong"] or outcome["missing"]:
            raise Failed(f"{server.text}: {outcome['wrong']} wrong answers, {outcome['missing']} missing: {outcome['complaint']}")
        tally.payments += outcome["payments"]
        tally.seconds += outcome["seconds"]
        tally.latencies.frombytes(outcome["latencies"])
        tally.client_cpu += time.process_time() - begun
        progress.step("paying", outcome["payments"])
    return tally


def run(server: Server, channels: int, payments: int, key: bytes = b"") -> Tally:
    """Open channels, pay on all at once, close them. key: the server's, where it is known. Raises Failed, OSError."""
    told, price, exp_time = server.terms()
    seed = secrets.token_hex(16)  # channels of an earlier run may be there still
    payers = [Payer(seed, number, key or told, exp_time, server.text) for number in range(channels)]
    progress = Progress(2 * channels * payments + 2 * channels)
    try:
        opened = "a channel was not opened, which takes debug mode"
        _each("opening", payers, lambda payer: server.expect(201, "POST", payer.opening(price), opened), progress)
        tally = pay(server, payers, payments, progress)
        _each("closing", payers, lambda payer: server.expect(202, "DELETE", payer.closing(), "a channel was not closed"), progress)
    finally:
        progress.end()
    return tally


def _each(what: str, payers: list[Payer], work: Callable[[Payer], None], progress: Progress) -> None:
    """Do something for each payer, a few at once. Raises what `work` does; what has not begun then is left."""
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for _ in pool.map(work, payers):
            progress.step(what, 1)
    finally:
        pool.shutdown(cancel_futures=True)
