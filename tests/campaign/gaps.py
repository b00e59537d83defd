"""How long a channel gives no answer when a process is replaced or killed: payers at a steady pace, and the longest pause of each.

    python -m tests.campaign.gaps [--events 20] [--kind reload,worker,...] [--workers 2]

Kinds: reload (SIGHUP to the server: every worker is replaced), restart (SIGTERM to store, signer and server in turn, as for an
upgrade), worker, store, signer, server (kill -9). A sample is one channel's longest time between two payments that were answered
200, around one event; the channels lie in shards of both workers. What payers saw is judged by the tiling check too.
"""

import argparse
import asyncio
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import paychan.supervisor
from tests.campaign.load import Account, PatientClient
from tests.system import Answer, System, running, wait_until
from tests.tiling import check_all

KINDS = ("reload", "restart", "worker", "store", "signer", "server")
CHANNELS = 16
PAUSE_SECONDS = 0.02
RETRY_SECONDS = 0.005
ATTEMPT_SECONDS_MAX = 1.0
CALM_SECONDS = 0.5
"""Before each event."""

HEALTHY_SECONDS = paychan.supervisor.HEALTHY_SECONDS + 0.5
"""A process that dies again sooner is kept waiting by the supervisor, and such a worker makes granian end. Not asked here."""

RECOVERY_SECONDS_MAX = 120.0


class Payer:
    """Pays on one channel over one connection to the shared port, and notes when it was answered 200."""

    def __init__(self, account: Account, port: int) -> None:
        self.account, self._port = account, port
        self.answered: list[float] = []
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            payment = self.account.sign(1)
            target, lost = self.account.sender.channel_target(payment), 0
            while (answer := await self._attempt(target)) is None or answer.status == 503:
                lost += 1
                await asyncio.sleep(RETRY_SECONDS)
            if answer.status == 200:
                self.answered.append(time.monotonic())
            self.account.note(self.account.judge(payment, answer, lost))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _attempt(self, target: str) -> Answer | None:
        """Return an answer; None if there was none. After any trouble the next attempt takes a new connection."""
        answer = None
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS_MAX):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._streams
                writer.write(f"PUT {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
                headers = dict(line.split(": ", 1) for line in head[1:] if line)
                answer = Answer(int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"])))
        except (OSError, EOFError, TimeoutError):
            pass
        if self._streams is not None and (answer is None or answer.status != 200):
            self._streams[1].transport.abort()
            self._streams = None
        return answer

    def longest(self, begun: float, ended: float) -> float:
        """Return the longest time between two answers, of those that overlap a time."""
        pairs = zip(self.answered, self.answered[1:], strict=False)
        return max(after - before for before, after in pairs if after > begun and before < ended)


@dataclass
class Gaps:
    """Seconds: by kind of event, one for each channel and event."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    operations: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{'':10}{'samples':>8}{'p50':>8}{'p99':>8}{'max':>8}   longest pause of a channel, ms"]
        for kind, found in self.samples.items():
            figures = (found[len(found) // 2], found[len(found) * 99 // 100], found[-1])
            lines.append(f"{kind:10}{len(found):8}" + "".join(f"{1000 * seconds:8.0f}" for seconds in figures))
        return "\n".join([*lines, f"{self.operations} payments, {len(self.problems)} problems"])


def is_whole(system: System, server: int, gone: set[int]) -> bool:
    """Return whether all workers serve, none of them among those that should be gone."""
    now = set(system.worker_pids())
    return system.child_pid("server") != server and len(now) == system.workers == system.ready_workers() and not now & gone


def inflict(system: System, kind: str) -> Callable[[], bool]:
    """Do it, and return what tells whether the system is whole again."""
    workers, server = set(system.worker_pids()), system.child_pid("server")
    if kind == "reload":
        os.kill(server, signal.SIGHUP)
        return lambda: is_whole(system, 0, workers)
    if kind == "restart":
        for name in ("store", "signer", "server"):
            system.kill(name, signal.SIGTERM)
            time.sleep(CALM_SECONDS)
        return lambda: is_whole(system, server, workers)
    victim = system.kill(kind)
    return lambda: is_whole(system, server if kind == "server" else 0, {victim})


async def measure(system: System, kinds: tuple[str, ...], events: int, seed: int, say: Callable[[str], None]) -> Gaps:
    """Inflict `events` of each kind on a running system, one after the other."""
    gaps, client, stop = Gaps({kind: [] for kind in kinds}), PatientClient(system.port), asyncio.Event()
    payers = [Payer(Account.of(system, f"gap-{seed}-{i}"), system.port) for i in range(CHANNELS)]
    for payer in payers:
        await asyncio.to_thread(payer.account.open, client)
    tasks = [asyncio.ensure_future(payer.run(stop)) for payer in payers]
    for number in range(events * len(kinds)):
        kind = kinds[number % len(kinds)]
        await asyncio.sleep(CALM_SECONDS if kind == "reload" else HEALTHY_SECONDS)
        begun = time.monotonic()
        back = await asyncio.to_thread(inflict, system, kind)
        await asyncio.to_thread(wait_until, back, RECOVERY_SECONDS_MAX, f"the recovery from {kind}")
        ended = time.monotonic()
        await asyncio.to_thread(wait_until, lambda: all(p.answered[-1] > ended for p in payers), 10, "an answer to each payer")  # noqa: B023
        found = [payer.longest(begun, ended) for payer in payers]
        gaps.samples[kind] += found
        say(f"{number + 1}/{events * len(kinds)} {kind}: at most {1000 * max(found):.0f} ms")
    stop.set()
    await asyncio.gather(*tasks)
    for payer in payers:
        await asyncio.to_thread(payer.account.close, client)
    gaps.problems = check_all([payer.account.history for payer in payers]).problems
    gaps.operations = sum(len(payer.account.history.operations) for payer in payers)
    gaps.samples = {kind: sorted(found) for kind, found in gaps.samples.items()}
    return gaps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20, help="of each kind")
    parser.add_argument("--kind", default=",".join(KINDS))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    kinds = tuple(arguments.kind.split(","))
    if set(kinds) - set(KINDS):
        parser.error(f"the kinds are {', '.join(KINDS)}")
    end = "\r\x1b[K" if sys.stdout.isatty() else "\n"
    with tempfile.TemporaryDirectory(prefix="paychan-gaps-") as directory, running(Path(directory), arguments.workers) as system:
        gaps = asyncio.run(
            measure(system, kinds, arguments.events, secrets.randbelow(1 << 32), lambda text: print(text, end=end, flush=True))
        )
    print(f"{gaps}\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for problem in gaps.problems[:20]:
        print(f"  {problem}")
    return int(bool(gaps.problems))


if __name__ == "__main__":
    sys.exit(main())
