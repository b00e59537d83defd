"""The payers of a simulated world: honest payments, and what thieves, fools and bad lines make of them.

They speak HTTP/1.1 to the workers' own ports, byte for byte. What they see is what the judge is told, and nothing else.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import orjson

from paychan.core.outpoint import format_outpoint
from paychan.core.payment import Payment
from paychan.core.refund import sign_refund
from paychan.core.sender import sign_payment
from paychan.core.units import DUST_LIMIT
from tests.tiling import Operation, Outcome

from .blockchain import Refused
from .hosts import BASE_PORT, OPEN_PRICE, SERVER_PUBKEY
from .kernel import Process
from .payer import REFUND_SIZE, make_channel
from .plan import Event

if TYPE_CHECKING:
    from .world import World

ANSWER_SECONDS = 3.0
ATTEMPTS = 5
CLOSED_CODES = ("channel_closing", "no_such_payment", "channel_expiring", "funding_spent")


class Line(asyncio.Protocol):
    """A connection to one worker. Answers come in the order of the requests."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._waiting: list[asyncio.Future[Any]] = []
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None
        for answer in self._waiting:
            if not answer.done():
                answer.set_result(None)
        self._waiting.clear()

    def ask(self, request: bytes, answer: "asyncio.Future[Any]") -> None:
        if self.transport is None or self.transport.is_closing():
            answer.set_result(None)
            return
        self._waiting.append(answer)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (head_ends := self._rest.find(b"\r\n\r\n") + 4) >= 4:
            head = self._rest[:head_ends].lower()
            at = head.find(b"content-length: ") + 16
            size = int(head[at : head.find(b"\r", at)])
            if len(self._rest) < head_ends + size:
                return
            body, self._rest = self._rest[head_ends : head_ends + size], self._rest[head_ends + size :]
            answer = self._waiting.pop(0)
            if not answer.done():
                answer.set_result((int(head[9:12]), body))


class Crowd:
    """All payers: one process, which nothing happens to, and its connections."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.process = Process(world.kernel, "payers", world.network)
        self._lines: dict[int, Line] = {}

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have something done beside all else."""
        self.process.call_soon(lambda: self.process.create_task(work))

    async def line(self, port: int, is_new: bool = False) -> Line | None:
        """Return a connection to a worker, None if there is none."""
        line = self._lines.get(port)
        if line is not None and line.transport is not None and not is_new:
            return line
        try:
            _, line = await self.world.network.connect(self.process, Line, f"tcp:{port}")
        except OSError:
            return None
        if not is_new:
            self._lines[port] = line
        return line

    async def ask(self, port: int, request: bytes) -> tuple[int, bytes] | None:
        """Send a request; None: no answer came in time, or ever. A port below BASE_PORT is granian's door of a worker."""
        answer = self.process.create_future()
        if port < BASE_PORT:
            self._ask_granian(f"worker{port}", request, answer)
        else:
            line = await self.line(port)
            if line is None:
                return None
            line.ask(request, answer)
        timer = self.process.call_later(ANSWER_SECONDS, lambda: None if answer.done() else answer.set_result(None))
        reply = await answer
        timer.cancel()
        if reply is not None:
            self.world.kernel.note(b"%d %s" % reply)
        return reply


    def _ask_granian(self, name: str, request: bytes, answer: "asyncio.Future[Any]") -> None:
        """Hand a request to a worker as granian does, from another thread: no bytes, but objects."""
        process, network = self.world.hosts[name], self.world.network
        route = network.route("payers", name)

        def arrive() -> None:
            if route.is_held or not process.is_alive or process.door is None:
                return  # nobody answers: the payer waits in vain
            process.door.schedule(_Watcher(process, request, give))

        def give(status: int, body: bytes) -> None:
            if process.is_alive and not route.is_held:
                self.world.kernel.at(process.time() + network.latency(route), take, (status, body))

        def take(reply: tuple[int, bytes]) -> None:
            if not answer.done():
                answer.set_result(reply)

        self.world.kernel.at(self.process.time() + network.latency(route), arrive)


class _Watcher:
    """A request as granian gives it to its scheduler: `scope` and `proto` are this object too."""

    scheme = "http"
    client = "127.0.0.1:1"

    def __init__(self, process: Process, request: bytes, give: Callable[[int, bytes], None]) -> None:
        self._process, self._give = process, give
        head, _, self._body = request.partition(b"\r\n\r\n")
        self.method, target = head.split(b" ", 2)[:2]  # type: ignore[assignment]
        self.method, target = self.method.decode(), target.decode()
        self.path, _, self.query_string = target.partition("?")
        self.headers = {"host": "sim", **({"content-length": str(len(self._body))} if self._body else {})}
        self.scope = self.proto = self

    async def __call__(self) -> bytes:
        return self._body

    def response_bytes(self, status: int, _: Any, body: bytes) -> None:
        process = self._process
        process.writes += process.is_alive
        if process.writes == process.dies_at_write:
            if process.dies_how == "after":
                self._give(status, body)
            process.die()
        else:
            self._give(status, body)


def _request(method: str, target: str, body: bytes = b"") -> bytes:
    size = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {target} HTTP/1.1\r\nHost: sim\r\n{size}\r\n".encode() + body


def _code(body: bytes) -> str:
    return orjson.loads(body).get("code", "")


class Person:
    """One payer with one channel."""

    def __init__(self, world: "World", number: int) -> None:
        self.world, self.crowd, self.number = world, world.crowd, number
        self.chance = random.Random(f"{world.plan.seed}/payer {number}")
        plan = self.plan = world.plan.channels[number]
        exp_time = int(world.now() + (plan.period_at * 120) + 3600)
        self.sender, self.funding = make_channel(self.chance, number, SERVER_PUBKEY, exp_time, plan.value, plan.funding_size)
        self.promise = world.judge.expect(self.sender.terms)
        self.payments: list[Payment] = []
        self.opening: Payment | None = None
        self.is_open = False
        self.has_ended = False
        self._side: set[asyncio.Task[None]] = set()

    # --- what the plan asks for ---

    async def live(self, events: list[Event]) -> None:
        """Do what is planned, one honest step after the other; the rest beside them."""
        for event in events:
            wait = event.at - self.crowd.process.time()
            if wait > 0:
                await asyncio.sleep(wait)
            act = getattr(self, "_" + event.kind.replace(" ", "_"))
            if event.kind in ("open", "pay", "close", "exhaust"):
                await act(*event.details)
            elif self.opening is not None:
                task = asyncio.get_running_loop().create_task(act(*event.details))
                self._side.add(task)
                task.add_done_callback(self._side.discard)
        while self._side:
            await asyncio.wait(list(self._side))

    def _own_port(self) -> int:
        return BASE_PORT + self.chance.randrange(self.world.plan.workers)

    def _port(self) -> int:
        """Return the door to go to: a worker's own port, or granian's."""
        door = BASE_PORT if self.chance.random() < 0.6 else 0
        return door + self.chance.randrange(self.world.plan.workers)

    # --- honest ---

    async def _open(self, share: float, is_all: bool = False, is_twice: bool = False) -> None:
        room = max(0, self.sender.change_value - OPEN_PRICE)
        amount = self.sender.change_value if is_all else OPEN_PRICE + round(share * room / 2)
        self.opening = self.sender.pay(min(amount, self.sender.change_value))
        self.payments.append(self.opening)
        if is_twice:
            await self._reopen(share, 0.0)
        if not self.is_open:
            await self.open_with(self.opening, ATTEMPTS)

    async def open_with(self, payment: Payment, attempts: int) -> None:
        request = _request("POST", self.sender.open_target(payment))
        lost, outcome, place = 0, Operation(payment.change_value, Outcome.UNKNOWN), self._begin(payment)
        for _ in range(attempts):
            sent_at = self.world.kernel.now
            reply = await self.crowd.ask(self._port(), request)
            status, code = (reply[0], _code(reply[1])) if reply else (0, "")
            if status in (201, 202):
                outcome = self._acknowledge(payment, reply[1], sent_at, lost)  # type: ignore[index]
                self.is_open, self.has_ended = True, self.has_ended or status == 202
                break
            if code in ("channel_exists", "channel_settled"):
                self.is_open = True
                outcome = Operation(payment.change_value, Outcome.UNKNOWN if lost else Outcome.REFUSED, lost=lost, code=code)
                break
            lost += status in (0, 503)
            if status not in (0, 503) and code not in ("funding_not_found", "funding_unconfirmed"):
                self._refused(code, "a good open", ("exp_time_too_soon",) if self.world.plan.settles else ())
                outcome = Operation(payment.change_value, Outcome.REFUSED, lost=lost, code=code)
                break
            outcome = Operation(payment.change_value, Outcome.UNKNOWN, lost=lost)
            await asyncio.sleep(self.chance.uniform(0.1, 1.5))
        self.promise.operations[place] = outcome

    def _begin(self, payment: Payment) -> int:
        """Note a payment that is about to be sent, unanswered so far; return its place among the operations."""
        self.promise.operations.append(Operation(payment.change_value, Outcome.UNKNOWN, lost=1))
        return len(self.promise.operations) - 1

    async def _pay(self, share: float, is_patient: bool) -> None:
        most = self.sender.change_value - DUST_LIMIT
        if not self.is_open or self.has_ended or most < 1:
            return
        payment = self.sender.pay(max(1, round(most * share)))
        self.payments.append(payment)
        await self.put(payment, ATTEMPTS if is_patient else 1)

    async def _exhaust(self) -> None:
        if self.is_open and not self.has_ended:
            payment = self.sender.pay(self.sender.change_value)
            self.payments.append(payment)
            self.has_ended = True
            await self.put(payment, ATTEMPTS)

    async def _close(self) -> None:
        """Ask for the settlement, with the newest payment that the server may have."""
        if not self.is_open:
            return
        self._may_close()
        for payment in dict.fromkeys((self.payments[-1], *self.payments[-3:-1][::-1])):
            for _ in range(ATTEMPTS):
                reply = await self.crowd.ask(self._port(), _request("DELETE", self.sender.channel_target(payment)))
                if reply is not None and reply[0] == 202:
                    self.promise.closed_at = min(self.promise.closed_at, self.world.kernel.now)
                    self.has_ended = True
                    if orjson.loads(reply[1])["channel_value_left"] > self.promise.lowest:
                        self.world.judge.breach("a close leaves the payer more than was acknowledged")
                    return
                if reply is not None and reply[0] != 503:
                    break
                await asyncio.sleep(self.chance.uniform(0.1, 1.0))

    def _may_close(self) -> None:
        self.world.judge.auditor.accounts[self.sender.terms.outpoint].may_close = True

    async def put(self, payment: Payment, attempts: int, port: int = 0, is_good: bool = True) -> bool:
        """Send a payment until it is answered; tell the judge. Return whether it was acknowledged."""
        request = _request("PUT", self.sender.channel_target(payment))
        lost, place = 0, self._begin(payment)
        operation = self.promise.operations[place]
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(self.chance.uniform(0.05, 1.0))
            sent_at = self.world.kernel.now
            reply = await self.crowd.ask(port or self._port(), request)
            if reply is None or reply[0] == 503:
                lost += 1
                operation = Operation(payment.change_value, Outcome.UNKNOWN, lost=lost)
                continue
            operation = self._see_answer(payment, reply, sent_at, lost, is_good)
            break
        self.promise.operations[place] = operation
        return operation.outcome is Outcome.ACKNOWLEDGED

    def _see_answer(self, payment: Payment, reply: tuple[int, bytes], sent_at: float, lost: int, is_good: bool) -> Operation:
        status, body = reply
        if status in (200, 202):
            self.has_ended = self.has_ended or status == 202
            return self._acknowledge(payment, body, sent_at, lost)
        code = _code(body)
        self.has_ended = self.has_ended or code in CLOSED_CODES
        if is_good:
            codes = CLOSED_CODES if self.world.plan.settles else CLOSED_CODES[:2] + CLOSED_CODES[3:]
            self._refused(code, "a good payment", ("out_of_order", *codes))
        return Operation(payment.change_value, Outcome.REFUSED, lost=lost, code=code)

    def _acknowledge(self, payment: Payment, body: bytes, sent_at: float, lost: int) -> Operation:
        content = orjson.loads(body)
        left, received = content["channel_value_left"], content["value_received"]
        self.world.judge.acknowledged(self.promise, payment.change_value, left, received, sent_at)
        return Operation(payment.change_value, Outcome.ACKNOWLEDGED, received, left, lost)

    def _refused(self, code: str, what: str, allowed: tuple[str, ...]) -> None:
        if code not in allowed:
            self.world.judge.breach(f"{format_outpoint(self.sender.terms.outpoint)[:8]}: {what} was refused: {code}")

    async def take_refund(self) -> None:
        """Race the settlement from the moment the lock time allows it."""
        terms, chain = self.sender.terms, self.world.chain
        while chain.median_time_past <= terms.exp_time:
            await asyncio.sleep(1.0)
        while (spender := chain.spender(terms.outpoint, chain.miners)) is None or chain.confirmations(spender.txid) < 1:
            rate = 1.5 * max(chain.market.rate, chain.minimum, spender.fee_rate + 5 if spender else 1)
            with contextlib.suppress(Refused):
                chain.publish(sign_refund(terms, min(round(rate * REFUND_SIZE), terms.funding_value - DUST_LIMIT), self.sender.key))
            await asyncio.sleep(1.5)

    # --- not so honest ---

    async def _replay(self, which: float, _: float) -> None:
        """An older payment again, or the newest one."""
        await self.put(self.payments[int(which * len(self.payments))], 1, is_good=False)

    async def spurt(self, seconds: float) -> None:
        """Pay a few times within so many seconds, at every worker, without waiting for answers."""
        puts = []
        for _ in range(4):
            most = self.sender.change_value - DUST_LIMIT
            if not self.is_open or self.has_ended or most < 10:
                break
            self.payments.append(self.sender.pay(max(1, round(most * self.chance.random() / 20))))
            puts.append(asyncio.get_running_loop().create_task(self.put(self.payments[-1], 2, 0, False)))
            await asyncio.sleep(seconds * self.chance.random() / 2)
        for put in puts:
            await put

    async def _twin(self, *_: float) -> None:
        """The newest payment at two workers at once."""
        await asyncio.gather(*(self.put(self.payments[-1], 1, BASE_PORT + port, False) for port in range(self.world.plan.workers)))

    async def _fork(self, one: float, other: float) -> None:
        """Several different payments at several workers at once; the payer goes on from the lowest."""
        if self.has_ended or self.sender.change_value - DUST_LIMIT < 10:
            return
        puts = []
        for share in (one, other, one * other):
            most = self.sender.change_value - DUST_LIMIT
            self.payments.append(self.sender.pay(max(0, round(most * share / 4))))
            puts.append(self.put(self.payments[-1], 1, is_good=False))
        self.chance.shuffle(puts)
        await asyncio.gather(*puts)

    async def _junk(self, how: float, _: float) -> None:
        """A payment that is worth nothing: another channel's key, a changed value, a cut signature."""
        newest = self.payments[-1]
        value = max(DUST_LIMIT, newest.change_value // 2)
        if value >= newest.change_value:
            return
        other = self.world.people[(self.number + 1) % len(self.world.people)]
        forged = sign_payment(self.sender.terms, value, other.sender.key)
        junk = (forged, Payment(value, newest.signature, 0x83), Payment(value, newest.signature[:-1], 0x83))[int(how * 3)]
        if junk is forged and other is self:
            return
        reply = await self.crowd.ask(self._port(), _request("PUT", self.sender.channel_target(junk)))
        if reply is not None and reply[0] < 300:
            self.world.judge.breach("a payment that nobody signed was acknowledged")

    async def _reopen(self, share: float, _: float) -> None:
        """Open twice at once: the same, and with another opening payment."""
        assert self.opening is not None, "it was opened before"
        value = self.sender.terms.funding_value
        other = sign_payment(self.sender.terms, max(DUST_LIMIT, value - OPEN_PRICE - round(share * value / 3)), self.sender.key)
        self.sender.change_value = min(self.sender.change_value, other.change_value)
        self.payments.append(other)
        await asyncio.gather(self.open_with(other, 1), self.open_with(self.opening, 1))

    async def _close_old(self, which: float, _: float) -> None:
        """Close with an older payment: refused, unless it is the newest that the server has."""
        payment = self.payments[int(which * len(self.payments))]
        lowest = self.promise.lowest
        self._may_close()
        reply = await self.crowd.ask(self._port(), _request("DELETE", self.sender.channel_target(payment)))
        if reply is not None and reply[0] == 202:
            self.promise.closed_at = min(self.promise.closed_at, self.world.kernel.now)
            self.has_ended = True
            if payment.change_value > lowest:
                self.world.judge.breach("a close with an old payment was accepted")

    async def _batch(self, share: float, _: float) -> None:
        """Several payments in one request."""
        if self.has_ended:
            return
        sent, body = [], b""
        for part in range(3):
            most = self.sender.change_value - DUST_LIMIT
            if part and most > 3:
                self.payments.append(self.sender.pay(max(1, round(most * share / 5))))
            sent.append(self.payments[-1])
            raw = sent[-1].serialize()
            body += self.sender.terms.outpoint + bytes((len(raw),)) + raw
        places = [self._begin(payment) for payment in sent]
        sent_at = self.world.kernel.now
        reply = await self.crowd.ask(self._port(), _request("POST", "/v1/payments", body))
        content = reply[1] if reply is not None and reply[0] == 200 else b""
        at = 0
        for place, payment in zip(places, sent, strict=True):
            if content:
                status, size = (int.from_bytes(content[at + offset : at + offset + 2], "little") for offset in (0, 2))
                answer, at = content[at + 4 : at + 4 + size], at + 4 + size
                if status != 503:
                    self.promise.operations[place] = self._see_answer(payment, (status, answer), sent_at, 0, False)

    async def _hang_up(self, share: float, _: float) -> None:
        """Pay, and do not wait for the answer."""
        most = self.sender.change_value - DUST_LIMIT
        line = await self.crowd.line(self._own_port(), is_new=True)
        if line is None or self.has_ended or most < 2:
            return
        payment = self.sender.pay(max(1, round(most * share / 8)))
        self.payments.append(payment)
        self._begin(payment)
        line.ask(_request("PUT", self.sender.channel_target(payment)), self.crowd.process.create_future())
        await asyncio.sleep(self.chance.choice((0.0, 0.0005, 0.003)))
        if line.transport is not None:
            line.transport.abort()

    async def _half(self, share: float, _: float) -> None:
        """Half a request, and no more."""
        line = await self.crowd.line(self._own_port(), is_new=True)
        if line is None:
            return
        request = _request("PUT", self.sender.channel_target(self.payments[-1]))
        line.ask(request[: int(share * (len(request) - 1))], self.crowd.process.create_future())
        await asyncio.sleep(0.3)
        if line.transport is not None:
            line.transport.abort()

    async def _flood(self, share: float, _: float) -> None:
        """Many payments in one line, without waiting."""
        puts = []
        port = self._own_port()
        for _ in range(6):
            most = self.sender.change_value - DUST_LIMIT
            if self.has_ended or most < 2:
                break
            self.payments.append(self.sender.pay(max(1, round(most * share / 20))))
            puts.append(self.put(self.payments[-1], 1, port, False))
        if puts:
            await asyncio.gather(*puts)
