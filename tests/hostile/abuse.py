"""What strangers do to both doors, and what good traffic notices of it.

    python -m tests.hostile.abuse                               # a debug system of its own, every attack, both doors
    python -m tests.hostile.abuse junk_puts idle --rounds 8 --seconds 2

Each attack is a process of its own (at the lowest priority: it stands for other machines), switched on and off by turns while one
payer pays at a steady pace; so both halves of each ratio come from the same run. Printed: the p99 of good payments without and
with,
their ratio, what the attack came to, and the server's memory before and after.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.system import ROOT, System, free_port, processes, resident_bytes, running

GOOD_PER_SECOND = 100
JUNK_FACTOR = 10
"""Junk for each good request."""
IDLE_CONNECTIONS = 2000
SLOW_CONNECTIONS = 200

Attack = Callable[["Scene"], Awaitable[int]]


class Scene:
    """What an attack knows: the port, when it must end, and a target with a payment of right form on a channel that is open."""

    def __init__(self, port: int, seconds: float, target: str) -> None:
        self.port, self.ends, self.target = port, time.monotonic() + seconds, target

    @property
    def is_on(self) -> bool:
        return time.monotonic() < self.ends

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def drip(self, head: bytes, piece: bytes, pause: float = 0.3) -> int:
        """Send `head`, then a piece now and then; return 1 if the server had enough of it."""
        with contextlib.suppress(OSError):
            _, writer = await self.connect()
            with contextlib.closing(writer):
                writer.write(head)
                while self.is_on:
                    await asyncio.sleep(pause)
                    writer.write(piece)
                    await writer.drain()
                return 0
        return 1

    async def send(self, data: bytes) -> bytes:
        """Send on a connection of its own; return what comes back within a second."""
        answer = b""
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await self.connect()
            with contextlib.closing(writer):
                with contextlib.suppress(OSError):
                    writer.write(data)
                    await writer.drain()
                async with asyncio.timeout(1):
                    while piece := await reader.read(65536):
                        answer += piece
        return answer

    async def paced(self, make: Callable[[], bytes]) -> int:
        """Send requests JUNK_FACTOR times as often as good ones come, over 4 connections; read their answers."""
        sent = 0

        async def one() -> int:
            count, due = 0, time.monotonic()
            reader, writer = await self.connect()
            with contextlib.closing(writer):
                while self.is_on:
                    writer.write(make())
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                    await reader.readexactly(size)
                    count += 1
                    due += 4 / (JUNK_FACTOR * GOOD_PER_SECOND)
                    await asyncio.sleep(max(0, due - time.monotonic()))
            return count

        for result in await asyncio.gather(*(one() for _ in range(4)), return_exceptions=True):
            sent += result if isinstance(result, int) else 0
        return sent


def put(target: str) -> bytes:
    return f"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode()


async def slow_headers(scene: Scene) -> int:
    """Heads that never end, a line at a time."""
    return sum(await asyncio.gather(*(scene.drip(b"PUT / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n") for _ in range(SLOW_CONNECTIONS))))


async def slow_bodies(scene: Scene) -> int:
    """Bodies that never end, a byte at a time."""
    head = b"POST /v1/payments HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    return sum(await asyncio.gather(*(scene.drip(head, b"x") for _ in range(SLOW_CONNECTIONS))))


async def idle(scene: Scene) -> int:
    """Connections that say nothing."""
    writers = []
    for _ in range(IDLE_CONNECTIONS // 100):
        found = await asyncio.gather(*(scene.connect() for _ in range(100)), return_exceptions=True)
        writers += [one[1] for one in found if not isinstance(one, BaseException)]
        if not scene.is_on:
            break
    await asyncio.sleep(max(0, scene.ends - time.monotonic()))
    for writer in writers:
        writer.close()
    return len(writers)


async def pipelining(scene: Scene) -> int:
    """Many requests at once on few connections, whose answers are taken late or never."""
    block = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 200
    sent = 0

    async def one(reads: bool) -> None:
        nonlocal sent
        while scene.is_on:
            with contextlib.suppress(OSError, TimeoutError):
                reader, writer = await scene.connect()
                with contextlib.closing(writer):
                    while scene.is_on:
                        writer.write(block)
                        async with asyncio.timeout(0.5):
                            await writer.drain()
                        sent += 200
                        if reads:
                            async with asyncio.timeout(0.5):
                                await reader.read(65536)
                        await asyncio.sleep(0.2)

    await asyncio.gather(*(one(number % 2 == 0) for number in range(8)))
    return sent


async def giants(scene: Scene) -> int:
    """URLs and headers of a megabyte, and heads of thousands of headers."""
    sent = 0
    kinds = [
        b"PUT /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 1_000_000 + b"\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"PUT /v1/channels/a/0?payment=" + b"%41" * 1300 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    while scene.is_on:
        await asyncio.gather(*(scene.send(kind) for kind in kinds))
        sent += len(kinds)
        await asyncio.sleep(0.05)
    return sent


async def junk_puts(scene: Scene) -> int:
    """Payments that are none."""
    return await scene.paced(lambda: put(f"/v1/channels/{secrets.token_hex(32)}/0?payment={secrets.token_urlsafe(60)}"))


async def unknown_channels(scene: Scene) -> int:
    """Payments of right form for channels that do not exist: each is looked for in the store."""
    query = scene.target.partition("?")[2]
    return await scene.paced(lambda: put(f"/v1/channels/{secrets.token_hex(32)}/0?{query}"))


async def bad_signatures(scene: Scene) -> int:
    """Payments of right form and wrong signature for one channel: each costs a verification."""
    return await scene.paced(lambda: put(scene.target))


def smuggling_cases(inner: bytes) -> dict[str, bytes]:
    """Requests that hold another one, which by no careful reading is a request."""
    start, size = b"POST /healthz HTTP/1.1\r\nHost: a\r\n", str(len(inner)).encode()
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    return {
        "a body where none belongs": start + b"Content-Length: " + size + b"\r\n\r\n" + inner,
        "two lengths": start + b"Content-Length: " + size + b"\r\nContent-Length: 0\r\n\r\n" + inner,
        "two lengths, the other way": start + b"Content-Length: 0\r\nContent-Length: " + size + b"\r\n\r\n" + inner,
        "a list of lengths": start + b"Content-Length: 0," + size + b"\r\n\r\n" + inner,
        "a signed length": start + b"Content-Length: +" + size + b"\r\n\r\n" + inner,
        "chunked and a length": start
        + b"Content-Length: "
        + str(len(chunk)).encode()
        + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunk,
        "chunked, ended before, and a length": start
        + b"Content-Length: "
        + str(5 + len(inner)).encode()
        + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + inner,
        "blank before the colon": start + b"Transfer-Encoding : chunked\r\nContent-Length: " + size + b"\r\n\r\n" + inner,
        "vertical tab": start + b"Transfer-Encoding:\x0bchunked\r\nContent-Length: " + size + b"\r\n\r\n" + inner,
        "unknown coding": start + b"Transfer-Encoding: xchunked\r\nContent-Length: " + size + b"\r\n\r\n" + inner,
        "two codings": start
        + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: "
        + size
        + b"\r\n\r\n"
        + inner,
        "folded": start + b"X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: " + size + b"\r\n\r\n" + inner,
        "bare line feeds": start + b"X: y\nContent-Length: " + size + b"\r\n\r\n" + inner,
        "bare carriage return": start + b"X: y\rContent-Length: " + size + b"\r\n\r\n" + inner,
        "a null byte": start + b"Content-Length\x00: " + size + b"\r\nContent-Length: " + size + b"\r\n\r\n" + inner,
        "a chunk's extension": start + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x;a=\n%s\r\n0\r\n\r\n" % (len(inner), inner),
    }


async def smuggling(scene: Scene) -> int:
    """Requests within requests, over and over."""
    sent = 0
    while scene.is_on:
        cases = smuggling_cases(put("/v1/channels/smuggled/0")).values()
        await asyncio.gather(*(scene.send(case) for case in cases))
        sent += len(cases)
    return sent


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (slow_headers, slow_bodies, idle, pipelining, giants, junk_puts, unknown_channels, bad_signatures, smuggling)
}


async def everything(scene: Scene) -> int:
    """All of it at once."""
    return sum(await asyncio.gather(*(attack(scene) for name, attack in ATTACKS.items() if name != "everything")))


ATTACKS["everything"] = everything


# --- good traffic ---


class GoodPayer(threading.Thread):
    """Pays at a steady pace on one connection; every payment must count once. `phase` names where its times go."""

    def __init__(self, system: System, port: int, name: str) -> None:
        super().__init__(daemon=True)
        from tests.system import Client

        self.payer = system.payer(name)
        assert self.payer.open().status == 201
        self.payer.client = Client(port)
        self.phase = "without"
        self.times: dict[str, list[float]] = {"without": [], "with": []}
        self.troubles: list[str] = []
        self.is_over = False

    def run(self) -> None:
        due = time.monotonic()
        while not self.is_over:
            due = max(due + 1 / GOOD_PER_SECOND, time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))
            phase, payment = self.phase, self.payer.sender.pay(1)
            target = self.payer.sender.channel_target(payment)
            started = time.perf_counter()
            try:
                answer = self.payer.client.request("PUT", target)
            except OSError as error:
                self.troubles.append(type(error).__name__)
                answer, _ = self.payer.client.persist("PUT", target)
                continue
            self.times[phase].append(time.perf_counter() - started)
            if answer.status != 200 or answer.json["value_received"] != 1:
                self.troubles.append(f"{answer.status} {answer.code}")


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98] if len(times) > 1 else float("nan")


def memory_of(system: System) -> int:
    """Return the resident bytes of all the system's processes."""
    children: dict[int, list[int]] = {}
    for pid, parent, _ in processes():
        children.setdefault(parent, []).append(pid)
    todo, total = [system.process.pid], 0
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        with contextlib.suppress(OSError):
            total += resident_bytes(pid)
    return total


def start_attack(name: str, port: int, seconds: float, target: str) -> subprocess.Popen[str]:
    command = [
        "nice",
        "-n",
        "19",
        sys.executable,
        "-m",
        "tests.hostile.abuse",
        "--attack",
        name,
        "--port",
        str(port),
        "--for",
        str(seconds),
        "--target",
        target,
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def measure(system: System, name: str, port: int, rounds: int, seconds: float) -> dict[str, object]:
    """Have good traffic with and without one attack, by turns; return what came of it."""
    good = GoodPayer(system, port, f"good {name} {port}")
    victim = system.payer(f"victim {name} {port}")
    assert victim.open().status == 201
    signed = victim.sender.pay(100)
    target = victim.sender.channel_target(type(signed)(signed.change_value - 7, signed.signature, signed.sighash_type))
    before, came_to = memory_of(system), 0
    good.start()
    for _ in range(rounds):
        good.phase = "without"
        time.sleep(seconds)
        attack = start_attack(name, port, seconds + 1.0, target)
        time.sleep(1.0)  # it starts
        good.phase = "with"
        time.sleep(seconds)
        good.phase = "without"
        came_to += json.loads(attack.communicate(timeout=60)[0] or "0")
    good.is_over = True
    good.join(30)
    answer, _ = victim.client.persist("PUT", victim.sender.channel_target(signed))
    return {
        "attack": name,
        "without": p99(good.times["without"]),
        "with": p99(good.times["with"]),
        "came_to": came_to,
        "good": len(good.times["with"]),
        "troubles": good.troubles,
        "memory": (before, memory_of(system)),
        "victim": (answer.status, answer.json.get("value_received")),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"some of {', '.join(ATTACKS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each half of a round")
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--for", type=float, dest="duration", help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    if options.attack:
        print(asyncio.run(ATTACKS[options.attack](Scene(options.port, options.duration, options.target))))
        return 0
    own_port = free_port()
    print(f"{'door':7} {'attack':17} {'came to':>8} {'p99 without':>12} {'with':>9} {'ratio':>6} {'memory, MB':>16}  good payments")
    failed = False
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), changes={"server.toml": {"base_port": f"base_port = {own_port}"}}) as system,
    ):
        for door, port in (("shared", system.port), ("own", own_port)):
            for name in options.attacks or ATTACKS:
                row = measure(system, name, port, options.rounds, options.seconds)
                before, after = row["memory"]
                ratio = row["with"] / row["without"]
                print(
                    f"{door:7} {name:17} {row['came_to']:8}"
                    f" {1000 * row['without']:9.2f} ms {1000 * row['with']:6.2f} ms {ratio:6.2f}"
                    f" {before / 1e6:7.0f} ->{after / 1e6:6.0f}"
                    f"  {row['good']}, {len(row['troubles'])} troubles {row['troubles'][:3]}",
                    flush=True,
                )
                failed = failed or bool(row["troubles"])
        bugs = [line for line in system.output if "Traceback" in line or "internal error" in line]
        print("\n".join(bugs) or "no traceback, no internal error")
    return 1 if failed or bugs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
