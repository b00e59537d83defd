"""One slice: some requests of one kind on one server, with the CPU of its processes and the price of a verification beside it.

Slices are short, and those of different kinds take turns, so that whatever else the machine does falls on all of them.
"""

import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from bench.load.client import Client
from bench.load.failure import WrongAnswer
from bench.load.payers import CHANGE_SCRIPT, Payer, Request
from bench.load.processes import CpuClock, Door
from paychan._fast.meter import VerifyBatch
from paychan._fast.sighash import payment_sighash
from paychan.core.payment import SIGHASH_CHANGE

SPARE = 1.3
"""How many requests a connection is given for each that it should send: some are faster than others."""

FIRST_RATE = 1000.0
"""Requests a second, assumed before the first slice has told."""

SECONDS_MAX_FACTOR = 3.0
"""A slice that was to take so many times less is ended."""

SECONDS_MAX_LEAST = 5.0
"""But not before this time: on a busy machine a short slice would end before its first request."""

PATIENCE_SECONDS = 60.0
"""Without a byte from any server, after which answers count as missing: a disk that others use can be slow."""


@dataclass(frozen=True)
class Slice:
    """What one slice gave. Times in seconds, latencies in nanoseconds; `verify`: CPU of one raw verification just then.

    cpu: by process, over the slice; client_cpu: of the load client, for comparison.
    """

    payments: int
    answers: int
    seconds: float
    latencies: array = field(repr=False)
    cpu: dict[str, float]
    client_cpu: float
    verify: float

    @property
    def rate(self) -> float:
        """Payments per second."""
        return self.payments / self.seconds

    @property
    def cpu_each(self) -> float:
        """CPU seconds of all workers and the store for each payment."""
        return sum(self.cpu.values()) / self.payments

    @property
    def verify_share(self) -> float:
        return self.verify / self.cpu_each

    def latency(self, share: float) -> float:
        """Return the latency in seconds that `share` of the answers did not exceed."""
        return percentile(self.latencies, share)


def percentile(latencies: Sequence[int], share: float) -> float:
    """Return a percentile of nanoseconds, in seconds."""
    ordered = sorted(latencies)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e9


class VerifyMeter:
    """V: the CPU time of one raw libsecp256k1 verification, over distinct signatures of distinct keys."""

    def __init__(self, count: int = 800, keys: int = 40) -> None:
        rows = []
        for number in range(keys):
            payer = Payer("verify", number, b"\2" + bytes(31) + b"\1")
            terms = payer.terms
            for raw in payer.sign(count // keys):
                value = int.from_bytes(raw[:8], "little")
                digest = payment_sighash(terms.outpoint, terms.redeem_script, CHANGE_SCRIPT, value, SIGHASH_CHANGE)
                rows.append((raw[8:-1], digest, terms.client_pubkey))
        self._batch, self._count = VerifyBatch(rows), len(rows)

    def seconds(self) -> float:
        """Return V as it is now, in seconds."""
        begun = time.thread_time_ns()
        if self._batch.run() != self._count:
            raise RuntimeError("a signature of our own is not valid")
        return (time.thread_time_ns() - begun) / self._count / 1e9


class Lane:
    """One kind of load on one server: its connections, and how the next requests of each are made.

    make(connection's number, count): the requests, in the order in which they are to be sent.
    pids: the processes whose CPU counts, by name.
    """

    def __init__(
        self,
        name: str,
        doors: list[Door],
        pids: dict[str, list[int]],
        make: Callable[[int, int], list[Request]],
        needle: bytes = b"",
    ) -> None:
        self.name, self._pids, self._make = name, pids, make
        self._client = Client(doors, needle)
        self._rate = FIRST_RATE

    def measure(
        self, seconds: float, verify: VerifyMeter, rate: float = 0.0, where: AbstractContextManager[None] | None = None
    ) -> Slice:
        """Prepare about `seconds` of requests, warm up with one on each connection, and measure. rate: of the open loop.

        where: what holds while requests are sent.
        """
        connections = len(self._client)
        count = max(connections, int((rate or self._rate) * seconds))
        self._prepare(count / connections * (1 if rate else SPARE) + 3)
        with where or nullcontext():
            self._run(connections, 60.0, 0.0)
            return self._timed(count, verify, rate, max(SECONDS_MAX_FACTOR * seconds, SECONDS_MAX_LEAST))

    def measure_given(self, requests: list[list[Request]], verify: VerifyMeter) -> Slice:
        """Measure exactly these requests, a list for each connection; there is no warm-up."""
        self._give(requests)
        return self._timed(sum(map(len, requests)), verify, 0.0, 60.0)

    def _timed(self, count: int, verify: VerifyMeter, rate: float, seconds: float) -> Slice:
        before = verify.seconds()
        cpu, client_cpu = CpuClock(self._pids), time.process_time()
        outcome = self._run(count, seconds, rate)
        used, client_used = cpu.seconds(), time.process_time() - client_cpu
        latencies = array("Q", outcome["latencies"])
        if not rate:
            self._rate = outcome["answers"] / outcome["seconds"]
        price = (before + verify.seconds()) / 2
        return Slice(outcome["payments"], outcome["answers"], outcome["seconds"], latencies, used, client_used, price)

    def visit_all(self, requests: list[list[Request]]) -> int:
        """Send these requests, a list for each connection, without measuring; return how many were answered."""
        self._give(requests)
        return self._run(sum(map(len, requests)), 60.0, 0.0)["answers"]

    def _give(self, requests: list[list[Request]]) -> None:
        for number, part in enumerate(requests):
            self._client.give(number, part)

    def _prepare(self, each: float) -> None:
        for number in range(len(self._client)):
            missing = int(each) + 1 - self._client.waiting(number)
            if missing > 0:
                self._client.give(number, self._make(number, missing))

    def _run(self, count: int, seconds: float, rate: float) -> dict:
        outcome = self._client.run(count, seconds, rate, PATIENCE_SECONDS)
        if outcome["wrong"] or outcome["missing"] or not outcome["answers"]:
            raise WrongAnswer(
                f"{self.name}: {outcome['wrong']} wrong answers, {outcome['missing']} missing: {outcome['complaint']}"
            )
        return outcome
