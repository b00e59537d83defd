"""What strangers do to both doors, and what good traffic notices of it.

    python -m tests.hostile.abuse                               # a debug system of its own, every attack, both doors
    python -m tests.hostile.abuse junk_puts idle --rounds 8 --seconds 2

Each attack is a process of its own (at the lowest priority: it stands for other machines), switched on and off by turns while one
payer pays at a steady pace, and another opens channels; so both halves of each ratio come from the same run. Printed: p50 and p99
of good payments without and with, and their ratios; what the attack came to, and what it was told; of a worker's core, what
verifying signatures took that are not (the promise: 5 %); opens that got through; the server's memory before and after. With
`--node` there is a node behind it that finds a block each second (`counted_node.py`): printed too is what it was asked for.
"""

import argparse
import asyncio
import base64
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
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path

from coincurve import PrivateKey

from paychan._fast.channel import ChannelTable
from paychan._fast.status import Status
from paychan.core.outpoint import format_outpoint, txid_hex, txid_of, vout_of
from paychan.core.payment import Payment
from paychan.core.sender import Sender
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all
from tests.hostile.counted_node import funded_payer, served
from tests.ports import free_port
from tests.reference import Paid
from tests.system import PATIENCE_FACTOR, ROOT, Client, Payer, System, make_sender, processes, resident_bytes, running

GOOD_PER_SECOND = 100
JUNK_FACTOR = 10
"""Junk for each good request."""
IDLE_CONNECTIONS = 2000
SLOW_CONNECTIONS = 200

CHANNELS = 40
"""That a stranger knows of."""
BATCH = 1024
FLOOD_PER_SECOND = 185
"""Opens of made-up outpoints, of a review."""

TELLING = ("out_of_order", "channel_closing", "channel_expiring", "channel_settled", "not_newest_payment", "no_such_payment")
"""Codes that tell of a channel, which who has not signed must not get."""

Attack = Callable[["Scene"], Awaitable[int]]


@dataclass
class Scene:
    """What an attack knows: the port, for how many seconds it lasts, the server's key, outpoints of open channels (in hex), each
    with a payment of right form and wrong signature (in hex), and the path and query that close a channel of its own again."""

    port: int
    seconds: float
    server_pubkey: str = ""
    channels: list[tuple[str, str]] = field(default_factory=list)
    closed: str = ""
    told: Counter[str] = field(default_factory=Counter)
    """Codes that it was answered, each counted."""

    def __post_init__(self) -> None:
        self.ends, self.told = time.monotonic() + self.seconds, Counter(self.told)

    @property
    def target(self) -> str:
        """Path and query of a payment on one of the channels that nobody signed."""
        outpoint, payment = (bytes.fromhex(text) for text in self.channels[0])
        return f"/v1/channels/{format_outpoint(outpoint)}?payment={base64.urlsafe_b64encode(payment).decode()}"

    def see(self, body: bytes) -> None:
        """Count the codes in an answer."""
        for part in body.split(b'"code":"')[1:]:
            self.told[part.partition(b'"')[0].decode()] += 1

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

    async def paced(self, make: Callable[[], bytes], per_second: float = JUNK_FACTOR * GOOD_PER_SECOND) -> int:
        """Send requests over 4 connections, at most so many a second; read their answers."""
        sent = 0

        async def one() -> int:
            count, due = 0, time.monotonic()
            reader, writer = await self.connect()
            with contextlib.closing(writer):
                while self.is_on:
                    writer.write(make())
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                    self.see(await reader.readexactly(size))
                    count += 1
                    due = max(due + 4 / per_second, time.monotonic() - 1)
                    await asyncio.sleep(max(0, due - time.monotonic()))
            return count

        for result in await asyncio.gather(*(one() for _ in range(4)), return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, OSError | EOFError):
                raise result
            sent += result if isinstance(result, int) else 0
        return sent


def head(method: str, target: str, size: int = 0) -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()


def put(target: str) -> bytes:
    return head("PUT", target)


def batch(items: list[tuple[bytes, bytes]]) -> bytes:
    """Return a request with a payment for each (outpoint, payment)."""
    body = b"".join(outpoint + bytes((len(payment),)) + payment for outpoint, payment in items)
    return head("POST", "/v1/payments", len(body)) + body


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


# --- those of a review that found what a stranger could do ---

WITHOUT_END = 1e9


def _known(scene: Scene) -> list[tuple[bytes, bytes]]:
    return [(bytes.fromhex(outpoint), bytes.fromhex(payment)) for outpoint, payment in scene.channels]


async def unknown_batches(scene: Scene) -> int:
    """Batches of payments for as many channels that do not exist."""
    payment = _known(scene)[0][1]
    return await scene.paced(lambda: batch([(secrets.token_bytes(36), payment) for _ in range(BATCH)]), WITHOUT_END)


async def junk_batches(scene: Scene) -> int:
    """One batch of payments for one channel, signed by nobody, again and again."""
    request = batch(_known(scene)[:1] * BATCH)
    return await scene.paced(lambda: request, WITHOUT_END)


async def junk_batches_on_many(scene: Scene) -> int:
    """The same for forty channels in turns."""
    known = _known(scene)
    request = batch([known[number % len(known)] for number in range(BATCH)])
    return await scene.paced(lambda: request, WITHOUT_END)


async def probing(scene: Scene) -> int:
    """All change values that there can be, on channels that are and that are not, to be told which are and what is left in them."""
    known = _known(scene)

    def make() -> bytes:
        outpoint, payment = secrets.choice(known)
        values = [secrets.randbelow(21 * 10**14) for _ in range(BATCH)]
        probes = [(outpoint if number % 4 == 0 else secrets.token_bytes(36), value) for number, value in enumerate(values)]
        return batch([(place, value.to_bytes(8, "little") + payment[8:]) for place, value in probes])

    return await scene.paced(make, WITHOUT_END)


def _made_up(scene: Scene, expires_in: int = 7 * 24 * 3600) -> Sender:
    return make_sender(bytes.fromhex(scene.server_pubkey), PrivateKey(secrets.token_bytes(32)), int(time.time()) + expires_in)


async def made_up_keys(scene: Scene) -> int:
    """fundingInfo, and opens by the address that it gives, for keys that nobody funded."""
    numbers = count()

    def make() -> bytes:
        if next(numbers) % 4:
            key, expiry = PrivateKey(secrets.token_bytes(32)).public_key.format().hex(), int(time.time()) + 10**6
            return head("GET", f"/v1/fundingInfo?client_pubkey={key}&exp_time={expiry}")
        sender = _made_up(scene)
        return head("POST", sender.open_target(sender.pay(100_000)))

    return await scene.paced(make)


def _open_of_nothing(scene: Scene, is_signed: bool) -> bytes:
    sender = _made_up(scene)
    sender.terms = replace(sender.terms, outpoint=secrets.token_bytes(36))
    payment, outpoint = sender.pay(100_000), sender.terms.outpoint
    if not is_signed:
        payment = replace(payment, change_value=payment.change_value - 7)
    named = f"&funding_txid={txid_hex(txid_of(outpoint))}&funding_vout={vout_of(outpoint)}"
    return head("POST", sender.open_target(payment) + named)


async def made_up_outpoints(scene: Scene) -> int:
    """Opens that are right in all but that nobody funded the outpoint that they name."""
    return await scene.paced(lambda: _open_of_nothing(scene, True), FLOOD_PER_SECOND)


async def unsigned_opens(scene: Scene) -> int:
    """The same, and not even signed for."""
    return await scene.paced(lambda: _open_of_nothing(scene, False))


async def closing_again(scene: Scene) -> int:
    """A payer's DELETE on a channel that is closed, again and again."""
    return await scene.paced(lambda: head("DELETE", scene.closed), WITHOUT_END)


REVIEWED: tuple[Attack, ...] = (
    unknown_batches, junk_batches, junk_batches_on_many, probing, made_up_keys, made_up_outpoints, unsigned_opens,
    closing_again,
)  # fmt: skip


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


PLAIN: tuple[Attack, ...] = (
    slow_headers, slow_bodies, idle, pipelining, giants, junk_puts, unknown_channels, bad_signatures, smuggling,
)  # fmt: skip
ATTACKS: dict[str, Attack] = {attack.__name__: attack for attack in (*PLAIN, *REVIEWED)}


async def everything(scene: Scene) -> int:
    """All of it at once."""
    return sum(await asyncio.gather(*(attack(scene) for name, attack in ATTACKS.items() if name != "everything")))


ATTACKS["everything"] = everything


# --- good traffic ---


class GoodPayer(threading.Thread):
    """Pays at a steady pace on one connection; every payment must count once. `phase` names where its times go."""

    def __init__(self, payer: Payer, port: int) -> None:
        super().__init__(daemon=True)
        self.payer = payer
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


def p50(times: list[float]) -> float:
    return statistics.median(times) if times else float("nan")


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


class Place:
    """A running server, and the channels on it that an attack knows of."""

    def __init__(self, system: System, make_payer: Callable[[str], Payer], asked: Callable[[], Counter[str]]) -> None:
        """make_payer(name): a payer whose channel is funded; asked(): what the node was asked for since the last time."""
        self.system, self.make_payer, self.asked = system, make_payer, asked
        self._numbers = (f"{secrets.token_hex(4)} {number}" for number in count())

    def open_one(self, name: str = "opener") -> Payer:
        """Open a channel; come again while the attack before has taken all look-ups of the moment."""
        payer = self.make_payer(f"{name} {next(self._numbers)}")
        deadline = time.monotonic() + 30
        while (answer := payer.open()).status == 503 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert answer.status == 201, (answer.status, answer.code)
        return payer

    def watch(self, port: int, seconds: float) -> Counter[str]:
        """Open a channel now and then, at most one attempt each; return how many were tried ("opens"), how many got through
        ("opened"), and what the node was asked for meanwhile."""
        seen, ends = Counter[str](), time.monotonic() + seconds
        self.asked()
        while time.monotonic() < ends:
            payer = self.make_payer(f"beside {next(self._numbers)}")
            payer.client = Client(port)
            seen += Counter(opens=1, opened=int(payer.open().status == 201))
            payer.client.close()
            time.sleep(min(0.5, max(0.0, ends - time.monotonic())))
        return seen + self.asked()

    def scene(self, port: int) -> tuple[Scene, Payer, Payment]:
        """Return what a stranger knows, one of the payers whose channels they are, and a payment of his that was not sent yet."""
        payers = [self.open_one("victim") for _ in range(CHANNELS)]
        signed = payers[0].sender.pay(100)
        channels = [(payers[0], signed), *((payer, payer.newest) for payer in payers[1:])]
        junk = [
            (payer.sender.terms.outpoint.hex(), replace(payment, change_value=payment.change_value - 7).serialize().hex())
            for payer, payment in channels
        ]
        own = self.open_one("attacker")
        assert own.close().status == 202
        closed = own.sender.channel_target(own.newest)
        return Scene(port, 0, self.system.server_pubkey.hex(), junk, closed), payers[0], signed


def place_of(system: System) -> Place:
    """Return a place of debug mode, where every channel is funded and no node is asked."""
    return Place(system, system.payer, Counter)


def verification_seconds() -> float:
    """Return what one verification that fails takes here, by the compiled table itself."""
    table, sample = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD, 1000)), make_sample("verification")
    sample.load(table)
    junk = Paid(8_000_000, sample.sign(8_500_000).signature, 0x83).raw
    query, count = "payment=" + base64.urlsafe_b64encode(junk).decode(), 500
    began = time.process_time()
    assert all(table.pay(sample.path, query, NOW) == Status.BAD_SIGNATURE for _ in range(count))
    return (time.process_time() - began) / count


# --- one attack ---


@dataclass
class Row:
    """What came of an attack. By phase, "without" and "with": times of good payments, in seconds; what the node was asked for, and
    the opens that were tried and got through. verified_share: of a worker's core."""

    attack: str
    times: dict[str, list[float]]
    came_to: int
    told: Counter[str]
    asked: dict[str, Counter[str]]
    verified_share: float
    troubles: list[str]
    memory: tuple[int, int]
    victim: tuple[int, int | None]

    def __str__(self) -> str:
        without, with_ = self.times["without"], self.times["with"]
        ratios = [f"{1000 * of(without):.2f} -> {1000 * of(with_):.2f} ms, {of(with_) / of(without):.2f}" for of in (p50, p99)]
        before, after = self.memory
        told = ", ".join(f"{code} {count:,}" for code, count in self.told.most_common(5)) or "nothing"
        lines = [
            f"{self.attack:20} {self.came_to:8,} | p50 {ratios[0]} | p99 {ratios[1]} | {before / 1e6:.0f} -> {after / 1e6:.0f} MB",
            f"    told: {told}; verifying took {100 * self.verified_share:.1f} % of a core;"
            f" opens {self.asked['with']['opened']} of {self.asked['with']['opens']}",
            f"    good payments {len(with_)}, {len(self.troubles)} troubles {self.troubles[:3]}",
        ]
        kinds = sorted(kind for kind in self.asked["without"] | self.asked["with"] if not kind.startswith("open"))
        if kinds:
            counts = ", ".join(f"{kind} {self.asked['without'][kind]} -> {self.asked['with'][kind]}" for kind in kinds)
            lines.append(f"    the node was asked for: {counts}")
        return "\n".join(lines)


def start_attack(name: str, scene: Scene, seconds: float) -> subprocess.Popen[str]:
    known = json.dumps(asdict(replace(scene, seconds=seconds)))
    command = ["nice", "-n", "10", sys.executable, "-m", "tests.hostile.abuse", "--attack", name]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(known + "\n")
    process.stdin.flush()
    return process


def measure(place: Place, name: str, port: int, rounds: int, seconds: float) -> Row:
    """Have good traffic with and without one attack, by turns; return what came of it."""
    good = GoodPayer(place.make_payer(f"good {name} {port}"), port)
    scene, victim, signed = place.scene(port)
    before, came_to, told = memory_of(place.system), 0, Counter[str]()
    asked = {"without": Counter[str](), "with": Counter[str]()}
    good.start()
    for _ in range(rounds):
        good.phase = "without"
        asked["without"] += place.watch(port, seconds)
        attack = start_attack(name, scene, seconds + 1.0)
        time.sleep(1.0)  # it starts
        good.phase = "with"
        asked["with"] += place.watch(port, seconds)
        good.phase = "without"
        sent, seen = json.loads(attack.communicate(timeout=PATIENCE_FACTOR * 60)[0] or "[0, {}]")
        came_to, told = came_to + sent, told + Counter(seen)
    good.is_over = True
    good.join(30)
    answer, _ = victim.client.persist("PUT", victim.sender.channel_target(signed))
    share = told["bad_signature"] * verification_seconds() / (rounds * (seconds + 1.0))
    return Row(
        name, good.times, came_to, told, asked, share, good.troubles, (before, memory_of(place.system)),
        (answer.status, answer.json.get("value_received")),
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"some of {', '.join(ATTACKS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each half of a round")
    parser.add_argument("--node", action="store_true", help="with a node behind it, whose calls are counted")
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    if options.attack:
        scene = Scene(**json.loads(sys.stdin.readline()))
        print(json.dumps([asyncio.run(ATTACKS[options.attack](scene)), scene.told]))
        return 0
    own_port, failed = free_port(), False
    start = with_node if options.node else in_debug_mode
    with tempfile.TemporaryDirectory() as directory, start(Path(directory), own_port) as place:
        for door, port in (("shared", place.system.port), ("own", own_port)):
            for name in options.attacks or ATTACKS:
                row = measure(place, name, port, options.rounds, options.seconds)
                print(f"{door:7}{row}", flush=True)
                tells = [code for code in TELLING if row.told[code]]
                failed = failed or bool(row.troubles or tells)
        bugs = [line for line in place.system.output if "Traceback" in line or "internal error" in line]
        print("\n".join(bugs) or "no traceback, no internal error")
    return 1 if failed or bugs else 0


@contextlib.contextmanager
def in_debug_mode(directory: Path, own_port: int) -> Iterator[Place]:
    with running(directory, changes={"server.toml": {"base_port": f"base_port = {own_port}"}}) as system:
        yield place_of(system)


@contextlib.contextmanager
def with_node(directory: Path, own_port: int) -> Iterator[Place]:
    with served(directory, own_port) as (system, node):
        yield Place(system, lambda name: funded_payer(system, node, name), node.asked)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
