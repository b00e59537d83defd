"""Payers under load that never give up, use every door, and write down everything they see for the tiling check.

What they see includes answers that come late, on connections whose request they gave up: a process that was stopped and goes on
must not have credited anything that its successor credits too.
"""

import base64
import http.client
import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from bitcoin.core import CTransaction

from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import make_outpoint, parse_outpoint, txid_hex
from paychan.core.payment import Payment
from paychan.core.sender import Sender
from paychan.core.settlement import check_settlement
from tests.settled import FEE_MAX
from tests.system import OPEN_AMOUNT, Answer, Client, System
from tests.tiling import History, Operation, Outcome, Verdict, check_all

RETRY_SECONDS = 0.02
OWN_PORT_SHARE, BATCH_SHARE = 0.25, 0.25
"""Of the attempts at payments: so many go to a worker's own port; so many, whatever the port, in a batch."""

ANSWER_SECONDS_MAX = 150.0
"""Nothing takes so long but a system that will never answer: test machines are shared, and slow by turns."""

ATTEMPTS_PATIENT, PATIENCE_EACH = 24, 0.125
"""Each attempt without an answer makes the next a little more patient: a slow machine is not a stopped one."""

LATE_SECONDS_MAX = 3.0
"""In the end answers on given-up connections are waited for, so long."""


class PatientClient(Client):
    """Repeats a request until it is answered. `timeout`: seconds for one attempt, after which a new connection is tried."""

    def __init__(self, port: int, timeout: float = 6.0) -> None:
        super().__init__(port)
        self.timeout = self._connection.timeout = timeout
        self.slowest_attempt = 0.0
        self.on_late: Callable[[Answer], None] = lambda _: None
        """What becomes of a late answer to the attempts that follow."""

    def until_answered(self, method: str, target: str, seconds: float = ANSWER_SECONDS_MAX) -> tuple[Answer, int]:
        """Return the first conclusive answer (not 503), and how many attempts before it had none."""
        deadline, lost = time.monotonic() + seconds, 0
        while True:
            begun, answer = time.monotonic(), None
            with suppress(OSError):
                answer = self.request(method, target)
            self.slowest_attempt = max(self.slowest_attempt, time.monotonic() - begun)
            if answer is not None and answer.status != 503:
                self._connection.timeout = self.timeout
                return answer, lost
            lost += 1
            self._connection.timeout = self.timeout * (1 + min(lost, ATTEMPTS_PATIENT) * PATIENCE_EACH)
            said = f"{answer.status} {answer.code}" if answer else "nothing"
            assert time.monotonic() < deadline, f"no conclusive answer to {method} in {seconds} s; the last one: {said}"
            time.sleep(RETRY_SECONDS)


class ListeningClient(Client):
    """Keeps the connections of requests that it gave up, for answers that come late."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.given_up: list[socket.socket] = []

    def take_timeout(self, seconds: float) -> None:
        """Be so patient with the requests on connections that are made from now on."""
        self._connection.timeout = seconds

    def _give_up(self, error: OSError) -> None:
        if isinstance(error, TimeoutError) and self._connection.sock is not None:
            self.given_up.append(self._connection.sock.dup())
        super()._give_up(error)


class RoamingClient(PatientClient):
    """Sends each attempt at a payment through another door: the shared port, the own port of a worker (the channel's owner or not),
    a batch of one through either. Everything else goes to the shared port. `ways` counts what was answered."""

    def __init__(self, system: System, seed: str, timeout: float) -> None:
        super().__init__(system.port, timeout)
        self._system, self._rng = system, random.Random(seed)
        self._doors: dict[int, ListeningClient] = {}
        self._late: dict[socket.socket, Callable[[Answer], None]] = {}
        self.ways: Counter[str] = Counter()
        self.late_answers: Counter[str] = Counter()

    def request(self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        if method != "PUT":
            return super().request(method, target, headers, body)
        is_batch = self._rng.random() < BATCH_SHARE
        if self._rng.random() < OWN_PORT_SHARE:
            with suppress(ConnectionRefusedError):  # a dead worker's port: nothing was sent
                return self._pay("own", self._rng.choice(self._system.known_own_ports()), target, is_batch)
        return self._pay("shared", self._system.port, target, is_batch)

    def _pay(self, name: str, port: int, target: str, is_batch: bool) -> Answer:
        door = self._doors.setdefault(port, ListeningClient(port))
        door.take_timeout(self._connection.timeout)
        try:
            answer = door.request("POST", "/v1/payments", body=batch_of_one(target)) if is_batch else door.request("PUT", target)
        finally:
            while door.given_up:
                self._late[door.given_up.pop()] = self.on_late
        if is_batch:
            answer = first_of_batch(answer)
        self.ways[f"{name}, batch" if is_batch else name] += 1
        return answer

    def take_late(self, seconds: float = 0.0) -> None:
        """Read the answers that came on given-up connections; wait so long for those that have not."""
        deadline = time.monotonic() + seconds
        while self._late:
            readable = select.select(list(self._late), [], [], max(0.0, deadline - time.monotonic()))[0]
            for sock in readable:
                self._take_one(sock, self._late.pop(sock))
            if not readable:
                return

    def _take_one(self, sock: socket.socket, on_late: Callable[[Answer], None]) -> None:
        with sock, suppress(OSError, http.client.HTTPException):
            sock.settimeout(self.timeout)
            response = http.client.HTTPResponse(sock)
            response.begin()
            answer = Answer(response.status, {}, response.read())
            if response.getheader("content-type") == BATCH_TYPE:
                answer = first_of_batch(answer)
            self.late_answers[str(answer.status)] += 1
            if answer.status != 503:
                on_late(answer)


BATCH_TYPE = "application/octet-stream"


def batch_of_one(target: str) -> bytes:
    """Return the body of a batch with the payment in a channel's target."""
    path, _, text = target.partition("?payment=")
    txid, vout = path.split("/")[3:]
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return parse_outpoint(txid, vout) + bytes((len(raw),)) + raw


def first_of_batch(answer: Answer) -> Answer:
    """Return the answer to the one payment of a batch; if the batch as a whole was refused, that refusal."""
    if answer.status != 200:
        return answer
    status, size = (int.from_bytes(answer.body[i : i + 2], "little") for i in (0, 2))
    assert size == len(answer.body) - 4
    return Answer(status, answer.headers, answer.body[4:])


def is_outpoint_of(transaction: bytes, outpoint: bytes) -> bool:
    """Return whether a transaction spends exactly one output, this one."""
    inputs = CTransaction.deserialize(transaction).vin
    return [make_outpoint(i.prevout.hash, i.prevout.n) for i in inputs] == [outpoint]


class CloseRefused(AssertionError):
    """The server does not know a payment that it has acknowledged."""


@dataclass
class Account:
    """One channel and everything that was seen of it. Several threads may pay on it, each with a client of its own."""

    name: str
    sender: Sender
    history: History
    lock: threading.Lock = field(default_factory=threading.Lock)
    lowest: Payment | None = None

    @classmethod
    def of(cls, system: System, name: str) -> "Account":
        sender = system.payer(name).sender
        return cls(name, sender, History(name, sender.terms.funding_value))

    @property
    def terms(self) -> ChannelTerms:
        return self.sender.terms

    def sign(self, amount: int) -> Payment:
        with self.lock:
            self.lowest = self.sender.pay(amount)
            return self.lowest

    def note(self, operation: Operation) -> None:
        with self.lock:
            self.history.operations.append(operation)

    def open(self, client: PatientClient, amount: int = OPEN_AMOUNT) -> None:
        """Open the channel, however long that takes."""
        payment = self.sign(amount)
        answer, lost = client.until_answered("POST", self.sender.open_target(payment))
        assert answer.status == 201 or (lost and answer.code == "channel_exists"), answer
        self.note(self.judge(payment, answer, lost))

    def pay(self, client: PatientClient, amount: int = 1) -> Operation:
        """Sign a payment, send the same bytes until there is an answer, and note it."""
        return self.send(client, self.sign(amount))

    def send(self, client: PatientClient, payment: Payment) -> Operation:
        """Send a signed payment until there is an answer, and note it; also answers that come later."""
        client.on_late = lambda answer: self.note(self.judge(payment, answer, 0))
        answer, lost = client.until_answered("PUT", self.sender.channel_target(payment))
        operation = self.judge(payment, answer, lost)
        self.note(operation)
        return operation

    def judge(self, payment: Payment, answer: Answer, lost: int) -> Operation:
        if answer.status in (200, 201, 202):
            body = answer.json
            left = body["channel_value_left"]
            return Operation(payment.change_value, Outcome.ACKNOWLEDGED, body["value_received"], left, lost)
        return Operation(payment.change_value, Outcome.REFUSED, lost=lost, code=answer.code)

    def close(self, client: PatientClient) -> bytes:
        """Close with the newest payment and note the final left; return the settlement's txid as hex, as bytes.

        Call it when nobody pays any more and every payment has been answered: the newest is then the lowest. Raises CloseRefused.
        """
        answer, _ = client.until_answered("DELETE", self.sender.channel_target(self.lowest))
        if answer.status != 202:
            what = f"acknowledged down to {self.lowest.change_value}, but the close with this payment is refused"
            raise CloseRefused(f"{self.name}: LOST: {what}: {answer.status} {answer.code}")
        self.history.final_left = answer.json["channel_value_left"]
        return answer.json["settlement_txid"].encode()

    def check_broadcast(self, broadcast: dict[str, bytes], txid: str) -> None:
        """Check that exactly one transaction spends the channel, that it is the one named, and note what it gives back."""
        mine = {key: raw for key, raw in broadcast.items() if is_outpoint_of(raw, self.terms.outpoint)}
        assert list(mine) == [txid], f"{self.name}: the close said {txid}, broadcast were {list(mine)}"
        assert txid_hex(check_settlement(mine[txid], self.terms, self.lowest, FEE_MAX)) == txid
        outputs = CTransaction.deserialize(mine[txid]).vout
        self.history.settlement_change = 0 if self.lowest.exhausts else outputs[0].nValue


class Published:
    """The transactions that were broadcast, by the outpoint that each spends. Their files never change: each is read once."""

    def __init__(self, system: System) -> None:
        self._directory = system.state_dir / "broadcast"
        self._seen: set[str] = set()
        self._spending: dict[bytes, dict[str, bytes]] = {}

    def look(self) -> None:
        """Read what is new."""
        for path in self._directory.glob("*.hex"):
            if path.name not in self._seen:
                self._seen.add(path.name)
                raw = bytes.fromhex(path.read_text())
                for spent in CTransaction.deserialize(raw).vin:
                    self._spending.setdefault(make_outpoint(spent.prevout.hash, spent.prevout.n), {})[path.stem] = raw

    def spending(self, outpoint: bytes) -> dict[str, bytes]:
        """Return the transactions that spend an output, as of the last look, by txid."""
        return self._spending.get(outpoint, {})


class Load:
    """Threads that pay until they are told to stop: each on a channel of its own, and all on a few shared ones.

    timeout: seconds that an attempt waits for its answer. pause: seconds between two payments of a thread. lives: so many threads
    more, each of which opens channels, pays a few times and closes them, one after the other.
    """

    def __init__(
        self,
        system: System,
        seed: int | str,
        threads: int = 4,
        shared: int = 2,
        timeout: float = 6.0,
        pause: float = 0.0,
        lives: int = 0,
        published: Published | None = None,
    ) -> None:
        self.system, self.seed, self.pause = system, seed, pause
        own = [Account.of(system, f"{seed}-own-{i}") for i in range(threads)]
        self.shared = [Account.of(system, f"{seed}-shared-{i}") for i in range(shared)]
        self.accounts = [*own, *self.shared]
        self.ended: list[tuple[Account, str]] = []
        """Channels that were closed under load, and the settlements' ids that the payer was told."""
        self._published = published or Published(system)
        self._clients = [RoamingClient(system, f"{seed}-{i}", timeout) for i in range(threads + lives)]
        self._threads = [threading.Thread(target=self._keep, args=(i, self._pay, account)) for i, account in enumerate(own)]
        self._threads += [threading.Thread(target=self._keep, args=(threads + i, self._live)) for i in range(lives)]
        self._stop = threading.Event()
        self.errors: list[BaseException] = []
        self.slowest = 0.0
        """Seconds from a payment's first attempt to its answer, at most."""
        self.answered = [0] * (threads + lives)
        """Payments answered, for each thread."""

    def __enter__(self) -> "Load":
        opener = PatientClient(self.system.port)
        for account in self.accounts:
            account.open(opener)
        opener.close()
        for thread in self._threads:
            thread.daemon = True
            thread.start()
        self.wait_for_progress(5)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _keep(self, number: int, step: Callable[..., None], *arguments: object) -> None:
        """Do something again and again; a thread's life."""
        rng, client = random.Random(f"{self.seed}-{number}"), self._clients[number]
        try:
            while not self._stop.is_set():
                begun = time.monotonic()
                step(rng, client, number, *arguments)
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.answered[number] += 1
                client.take_late()
                if self.pause:
                    time.sleep(self.pause)
            client.take_late(LATE_SECONDS_MAX)
        except BaseException as error:
            self.errors.append(error)

    def _pay(self, rng: random.Random, client: RoamingClient, _: int, own: Account) -> None:
        account = rng.choice(self.shared) if self.shared and rng.random() < 0.4 else own
        if rng.random() < 0.1:
            account.send(client, account.lowest)  # a replay
        else:
            account.pay(client, rng.randint(1, 100))

    def _live(self, rng: random.Random, client: RoamingClient, number: int) -> None:
        account = Account.of(self.system, f"{self.seed}-life-{number}-{self.answered[number]}")
        account.open(client)
        for _ in range(rng.randint(0, 3)):
            account.pay(client, rng.randint(1, 100))
        txid = account.close(client).decode()
        account.send(client, account.sender.pay(1))  # judged with the rest: what is taken now is lost
        self.ended.append((account, txid))

    def wait_for_progress(self, payments: int = 3, seconds: float = ANSWER_SECONDS_MAX) -> None:
        """Return when every thread has had answers to `payments` more payments, or has ended one more channel."""
        payers = len(self.accounts) - len(self.shared)
        goals = [count + (payments if number < payers else 1) for number, count in enumerate(self.answered)]
        deadline = time.monotonic() + seconds
        while any(count < goal for count, goal in zip(self.answered, goals, strict=True)):
            if self.errors:
                raise self.errors[0]
            assert time.monotonic() < deadline, f"not every payer got {payments} payments through in {seconds} s"
            time.sleep(0.005)

    def take_slowest(self) -> float:
        """Return the longest time that a payment took since the last call."""
        slowest, self.slowest = self.slowest, 0.0
        return slowest

    @property
    def slowest_attempt(self) -> float:
        """The longest time that one attempt waited for its answer."""
        return max(client.slowest_attempt for client in self._clients)

    def stop(self) -> None:
        """Stop paying, once each payment in flight has its answer. Raises what went wrong in a thread."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident:
                thread.join(ANSWER_SECONDS_MAX + 5)
        if self.errors:
            raise self.errors[0]

    def close_and_judge(self) -> Verdict:
        """Stop, close every channel, check the settlements that were broadcast, and judge all histories."""
        self.stop()
        client, problems = PatientClient(self.system.port), []
        for account in self.accounts:
            try:
                self.ended.append((account, account.close(client).decode()))
            except CloseRefused as error:
                problems.append(str(error))
        self._published.look()
        for account, txid in self.ended:
            account.check_broadcast(self._published.spending(account.terms.outpoint), txid)
        verdict = check_all([account.history for account, _ in self.ended])
        self.accounts = [account for account in self.accounts if account.history.final_left < 0]
        return Verdict(problems + verdict.problems, verdict.claimed, verdict.gaps)

    @property
    def histories(self) -> list[History]:
        """What was seen of each channel."""
        return [account.history for account in (*self.accounts, *(account for account, _ in self.ended))]

    @property
    def ways(self) -> Counter[str]:
        """How many payments were answered through each door."""
        return sum((client.ways for client in self._clients), Counter())

    @property
    def late_answers(self) -> Counter[str]:
        """How many requests were answered after their payer had given them up, by status."""
        return sum((client.late_answers for client in self._clients), Counter())

    @property
    def operations(self) -> int:
        return sum(len(history.operations) for history in self.histories)
