"""Payers under load that never give up, use every door, and write down everything they see for the tiling check."""

import base64
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from bitcoin.core import CTransaction

from paychan.channel import ChannelTerms
from paychan.outpoint import make_outpoint, parse_outpoint, txid_hex
from paychan.payment import Payment
from paychan.sender import Sender
from paychan.settlement import check_settlement
from tests.system import OPEN_AMOUNT, Answer, Client, System
from tests.tiling import History, Operation, Outcome, Verdict, check_all

FEE_MAX = 50_000  # satoshi; config/debug pays some 14 000 for a settlement
RETRY_SECONDS = 0.02
OWN_PORT_SHARE, BATCH_SHARE = 0.25, 0.25
"""Of the attempts at payments: so many go to a worker's own port; so many, whatever the port, in a batch."""

TARGETS_MAX = 30.0


class PatientClient(Client):
    """Repeats a request until it is answered. `timeout`: seconds for one attempt, after which a new connection is tried."""

    def __init__(self, port: int, timeout: float = 6.0) -> None:
        super().__init__(port)
        self._connection.timeout = timeout
        self.slowest_attempt = 0.0

    def until_answered(self, method: str, target: str, seconds: float = TARGETS_MAX) -> tuple[Answer, int]:
        """Return the first conclusive answer (not 503), and how many attempts before it had none."""
        deadline, lost = time.monotonic() + seconds, 0
        while True:
            begun, answer = time.monotonic(), None
            with suppress(OSError):
                answer = self.request(method, target)
            self.slowest_attempt = max(self.slowest_attempt, time.monotonic() - begun)
            if answer is not None and answer.status != 503:
                return answer, lost
            lost += 1
            said = f"{answer.status} {answer.code}" if answer else "nothing"
            assert time.monotonic() < deadline, f"no conclusive answer to {method} in {seconds} s; the last one: {said}"
            time.sleep(RETRY_SECONDS)


class RoamingClient(PatientClient):
    """Sends each attempt at a payment through another door: the shared port, the own port of a worker (the channel's owner or not),
    a batch of one through either. Everything else goes to the shared port. `ways` counts what was answered."""

    def __init__(self, system: System, seed: str, timeout: float) -> None:
        super().__init__(system.port, timeout)
        self._system, self._rng, self._timeout = system, random.Random(seed), timeout
        self._own: dict[int, Client] = {}
        self.ways: Counter[str] = Counter()

    def request(self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        if method != "PUT":
            return super().request(method, target, headers, body)
        if self._rng.random() < OWN_PORT_SHARE:
            with suppress(ConnectionRefusedError):  # a dead worker's port: nothing was sent
                return self._send("own", self._own_client(), target)
        return self._send("shared", super(), target)

    def _own_client(self) -> Client:
        """A client of a random worker's own port, as the log tells it; dead ones are not avoided."""
        port = self._rng.choice(self._system.known_own_ports())
        if port not in self._own:
            self._own[port] = Client(port)
            self._own[port]._connection.timeout = self._timeout
        return self._own[port]

    def _send(self, name: str, door: Client, target: str) -> Answer:
        if self._rng.random() >= BATCH_SHARE:
            answer = door.request("PUT", target)
            self.ways[name] += 1
            return answer
        path, _, text = target.partition("?payment=")
        txid, vout = path.split("/")[3:]
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        payment = parse_outpoint(txid, vout) + bytes((len(raw),)) + raw
        answer = door.request("POST", "/v1/payments", body=payment)
        if answer.status != 200:
            return answer
        status, size = (int.from_bytes(answer.body[i : i + 2], "little") for i in (0, 2))
        assert size == len(answer.body) - 4
        self.ways[f"{name}, batch"] += 1
        return Answer(status, answer.headers, answer.body[4:])


def is_outpoint_of(transaction: bytes, outpoint: bytes) -> bool:
    """Return whether a transaction spends exactly one output, this one."""
    inputs = CTransaction.deserialize(transaction).vin
    return [make_outpoint(i.prevout.hash, i.prevout.n) for i in inputs] == [outpoint]


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

    def _sign(self, amount: int) -> Payment:
        with self.lock:
            self.lowest = self.sender.pay(amount)
            return self.lowest

    def _note(self, operation: Operation) -> None:
        with self.lock:
            self.history.operations.append(operation)

    def open(self, client: PatientClient, amount: int = OPEN_AMOUNT) -> None:
        """Open the channel, however long that takes."""
        payment = self._sign(amount)
        answer, lost = client.until_answered("POST", self.sender.open_target(payment))
        assert answer.status == 201 or (lost and answer.code == "channel_exists"), answer
        self._note(self._judge(payment, answer, lost))

    def pay(self, client: PatientClient, amount: int = 1) -> Operation:
        """Sign a payment, send the same bytes until there is an answer, and note it."""
        return self.send(client, self._sign(amount))

    def send(self, client: PatientClient, payment: Payment) -> Operation:
        """Send a signed payment until there is an answer, and note it."""
        answer, lost = client.until_answered("PUT", self.sender.channel_target(payment))
        operation = self._judge(payment, answer, lost)
        self._note(operation)
        return operation

    def _judge(self, payment: Payment, answer: Answer, lost: int) -> Operation:
        if answer.status in (200, 201, 202):
            body = answer.json
            left = body["channel_value_left"]
            return Operation(payment.change_value, Outcome.ACKNOWLEDGED, body["value_received"], left, lost)
        return Operation(payment.change_value, Outcome.REFUSED, lost=lost, code=answer.code)

    def close(self, client: PatientClient) -> bytes:
        """Close with the newest payment and note the final left; return the settlement's txid as hex, as bytes.

        Call it when nobody pays any more and every payment has been answered: the newest is then the lowest.
        """
        answer, _ = client.until_answered("DELETE", self.sender.channel_target(self.lowest))
        assert answer.status == 202, (self.name, answer)
        self.history.final_left = answer.json["channel_value_left"]
        return answer.json["settlement_txid"].encode()

    def check_broadcast(self, broadcast: dict[str, bytes], txid: str) -> None:
        """Check that exactly one transaction spends the channel, that it is the one named, and note what it gives back."""
        mine = {key: raw for key, raw in broadcast.items() if is_outpoint_of(raw, self.terms.outpoint)}
        assert list(mine) == [txid], f"{self.name}: the close said {txid}, broadcast were {list(mine)}"
        assert txid_hex(check_settlement(mine[txid], self.terms, self.lowest, FEE_MAX)) == txid
        outputs = CTransaction.deserialize(mine[txid]).vout
        self.history.settlement_change = 0 if self.lowest.exhausts else outputs[0].nValue


class Load:
    """Threads that pay until they are told to stop: each on a channel of its own, and all on a few shared ones."""

    def __init__(
        self, system: System, seed: int, threads: int = 4, shared: int = 2, timeout: float = 6.0, pause: float = 0.0
    ) -> None:
        self.system, self.seed, self.pause = system, seed, pause
        own = [Account.of(system, f"{seed}-own-{i}") for i in range(threads)]
        self.shared = [Account.of(system, f"{seed}-shared-{i}") for i in range(shared)]
        self.accounts = [*own, *self.shared]
        self._clients = [RoamingClient(system, f"{seed}-{i}", timeout) for i in range(threads)]
        self._threads = [threading.Thread(target=self._run, args=(i, account), daemon=True) for i, account in enumerate(own)]
        self._stop = threading.Event()
        self.errors: list[BaseException] = []
        self.slowest = 0.0
        """Seconds from a payment's first attempt to its answer, at most."""
        self.answered = [0] * threads
        """Payments answered, for each thread."""

    def __enter__(self) -> "Load":
        opener = PatientClient(self.system.port)
        for account in self.accounts:
            account.open(opener)
        opener.close()
        for thread in self._threads:
            thread.start()
        self.wait_for_progress(5)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, number: int, own: Account) -> None:
        rng, client = random.Random(f"{self.seed}-{number}"), self._clients[number]
        try:
            while not self._stop.is_set():
                account = rng.choice(self.shared) if self.shared and rng.random() < 0.4 else own
                begun = time.monotonic()
                if rng.random() < 0.1:
                    account.send(client, account.lowest)  # a replay
                else:
                    account.pay(client, rng.randint(1, 100))
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.answered[number] += 1
                if self.pause:
                    time.sleep(self.pause)
        except BaseException as error:
            self.errors.append(error)

    def wait_for_progress(self, payments: int = 3, seconds: float = TARGETS_MAX) -> None:
        """Return when every thread has had answers to `payments` more payments."""
        goals = [count + payments for count in self.answered]
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
                thread.join(TARGETS_MAX + 5)
        if self.errors:
            raise self.errors[0]

    def close_and_judge(self) -> Verdict:
        """Stop, close every channel, check the settlements that were broadcast, and judge all histories."""
        self.stop()
        client = PatientClient(self.system.port)
        txids = [account.close(client).decode() for account in self.accounts]
        broadcast = self.system.broadcast()
        for account, txid in zip(self.accounts, txids, strict=True):
            account.check_broadcast(broadcast, txid)
        return check_all([account.history for account in self.accounts])

    @property
    def ways(self) -> Counter[str]:
        """How many payments were answered through each door."""
        return sum((client.ways for client in self._clients), Counter())

    @property
    def operations(self) -> int:
        return sum(len(account.history.operations) for account in self.accounts)
