"""Aim: a payment through a worker's own port, through granian, forwarded, and in a batch gives byte-identical bodies and the same
state, whatever the mix.

Method: two workers; Hypothesis draws operations on a few channels and a door for each. The same operations are then played on
channels of their own, once through each single door and once mixed; every body must be the one that a model of a channel says, byte
for byte, and in the end the store must hold the model's payment. Then clients of all doors pay on shared channels at once, and the
tiling check judges.

PAYCHAN_FOUR_DOORS: how many sequences are drawn (default 6), and bursts played (a third of it). The long form:

    PAYCHAN_FOUR_DOORS=500 python -m pytest -q tests/process/test_four_doors.py
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import orjson
import pytest
from coincurve import PrivateKey
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from paychan.core.errors import Rejection
from paychan.core.outpoint import format_outpoint
from paychan.core.payment import Payment
from paychan.core.sender import Sender, sign_payment
from paychan.server.protocol.replies import problem
from tests.settled import settled_change
from tests.system import CHANGE_ADDRESS, OPEN_AMOUNT, Client, System, running
from tests.tiling import History, Operation, Outcome, check_all

SEQUENCES = int(os.environ.get("PAYCHAN_FOUR_DOORS", "6"))
PHASES = [Phase.generate, Phase.shrink] if "PAYCHAN_FOUR_DOORS" in os.environ else [Phase.generate]
"""Shrinking a failure takes many systems' worth of requests: that is for the long form."""

DOORS = ("granian", "owner", "forwarded", "batch by granian", "batch by owner", "batch forwarded")
STRANGER = PrivateKey(b"\7" * 32)
UNKNOWN = "/v1/channels/" + "ab" * 32 + "/1"
CHANNELS = 2


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Iterator[System]:
    host = {"server.toml": {"public_host = ": 'public_host = "127.0.0.1"'}}  # so that a Location names the owner's port
    with running(tmp_path_factory.mktemp("doors"), workers=2, changes=host) as system:
        yield system
        log = "".join(system.output)
        assert "Traceback" not in log and "internal error" not in log


@dataclass
class Doors:
    """A client of each port: granian's, and the workers' own."""

    shared: Client
    own: dict[int, Client]

    @classmethod
    def of(cls, system: System) -> "Doors":
        return cls(system.client(), {port: Client(port) for port in system.own_ports()})

    def client(self, door: str, owner: int) -> Client:
        """The client for a door to a channel that the worker with this own port owns."""
        if door.endswith("granian"):
            return self.shared
        return next(client for port, client in self.own.items() if (port == owner) == door.endswith("owner"))

    def close(self) -> None:
        for client in (self.shared, *self.own.values()):
            client.close()


def result(left: int, received: int) -> tuple[int, bytes]:
    text = f'{{"channel_status":"open","channel_value_left":{left},"value_received":{received},"settlement_txid":null}}\n'
    return 200, text.encode()


def refusal(code: str, parameter: str = "payment", detail: str = "") -> tuple[int, bytes]:
    reply = problem(Rejection(code, detail, parameter))
    return reply.status, reply.body


@dataclass
class Channel:
    """One channel, what the server must say of it, and who owns it. `txid` is the settlement's once it is closed."""

    sender: Sender
    owner: int
    left: int
    newest: Payment
    is_closed: bool = False
    txid: str = ""
    targets: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/v1/channels/{format_outpoint(self.sender.terms.outpoint)}"

    def sign(self, left: int) -> Payment:
        return sign_payment(self.sender.terms, left, self.sender.key)


names = count()


def open_channel(system: System, client: Client) -> Channel:
    payer = system.payer(f"four doors {next(names)}")
    payer.newest = payer.sender.pay(OPEN_AMOUNT)
    answer = client.request("POST", payer.sender.open_target(payer.newest))
    assert answer.status == 201
    host, _, _ = answer.headers["location"].removeprefix("http://").partition("/")
    return Channel(payer.sender, int(host.rpartition(":")[2]), payer.sender.change_value, payer.newest)


@dataclass(frozen=True)
class Request:
    """What is sent, and what must come back. `raw` is the payment's binary form for a batch, None where only a URL can say it."""

    path: str
    query: str
    expected: tuple[int, bytes]
    outpoint: bytes
    raw: bytes | None


def with_payment(channel: Channel, payment: Payment, expected: tuple[int, bytes], extra: str = "") -> Request:
    raw = None if extra else payment.serialize()
    query = f"payment={payment.encode()}{extra}"
    return Request(channel.path, query, expected, channel.sender.terms.outpoint, raw)


def closed_refusal() -> tuple[int, bytes]:
    return refusal("no_such_payment", "")


def make_request(channel: Channel, kind: str, amount: int) -> Request:
    """Return the request of an operation, and let the model take it."""
    left, pays = channel.left, kind in ("pay", "pay with address", "unpadded", "exhaust")
    if pays and not channel.is_closed:
        if kind == "exhaust":
            payment = channel.sign(0)
            channel.is_closed, channel.left, channel.newest = True, 0, payment
            return with_payment(channel, payment, (202, b'"value_received":%d,' % left))
        channel.left -= amount
        channel.newest = channel.sign(channel.left)
        extra = f"&change_address={CHANGE_ADDRESS}&x=%zz" if kind == "pay with address" else ""
        request = with_payment(channel, channel.newest, result(channel.left, amount), extra)
        if kind == "unpadded":
            return Request(request.path, request.query.rstrip("="), request.expected, request.outpoint, request.raw)
        return request
    if kind == "bad address":
        return with_payment(channel, channel.newest, refusal("invalid_change_address", "change_address"), "&change_address=x")
    if kind == "repeated":
        text = f"&payment={channel.newest.encode()}"
        return with_payment(channel, channel.newest, refusal("repeated_parameter", detail="payment is given more than once"), text)
    if kind == "no text":
        return Request(channel.path, "payment=!!!!", refusal("invalid_base64"), b"", None)
    if kind == "missing":
        return Request(channel.path, "", refusal("missing_parameter"), b"", None)
    if kind == "bad path":
        txid = channel.path.split("/")[3]
        return Request(f"/v1/channels/{txid}/x", "payment=x", refusal("invalid_vout", "funding_vout"), b"", None)
    if kind == "unknown":
        outpoint = bytes.fromhex("ab" * 32) + (1).to_bytes(4, "little")
        payment = channel.newest
        return Request(UNKNOWN, f"payment={payment.encode()}", refusal("no_such_channel", ""), outpoint, payment.serialize())
    signature = channel.newest.signature
    if kind == "dust":
        return with_payment(channel, Payment(699, signature, 0x83), refusal("dust_change"))
    if kind == "der":
        return with_payment(channel, Payment(max(left - 1, 700), b"\x31" + signature[1:], 0x83), refusal("invalid_der"))
    if kind == "type":
        return with_payment(channel, Payment(max(left - 1, 700), signature, 0x01), refusal("invalid_sighash_type"))
    if channel.is_closed:
        return with_payment(channel, channel.newest, closed_refusal())
    if kind == "replay":
        return with_payment(channel, channel.newest, result(left, 0))
    if kind == "out of order":
        detail = f"out-of-order payment (assigns {amount} satoshi less value to server)"
        return with_payment(channel, channel.sign(left + amount), refusal("out_of_order", detail=detail))
    assert kind == "wrong signature"
    return with_payment(channel, sign_payment(channel.sender.terms, left - 1, STRANGER), refusal("bad_signature"))


def send(doors: Doors, channel: Channel, door: str, request: Request) -> tuple[int, bytes]:
    """Send one request through a door; what a batch cannot say goes to the same port by its URL."""
    client = doors.client(door, channel.owner)
    if not door.startswith("batch") or request.raw is None:
        answer = client.request("PUT", f"{request.path}?{request.query}", {"Content-Length": "0"})
        assert answer.headers["content-type"] == ("application/json" if answer.status < 400 else "application/problem+json")
        return answer.status, answer.body
    (answered,) = send_batch(client, [request])
    return answered


def send_batch(client: Client, requests: list[Request]) -> list[tuple[int, bytes]]:
    body = b"".join(request.outpoint + bytes((len(request.raw),)) + request.raw for request in requests)
    answer = client.request("POST", "/v1/payments", body=body)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    found, at = [], 0
    while at < len(answer.body):
        status, size = (int.from_bytes(answer.body[at + i : at + i + 2], "little") for i in (0, 2))
        found.append((status, answer.body[at + 4 : at + 4 + size]))
        at += 4 + size
    assert at == len(answer.body) and len(found) == len(requests)
    return found


def check(channel: Channel, request: Request, answered: tuple[int, bytes]) -> None:
    """The body is the model's to the byte; where everything was given up, to the byte but for the settlement's txid."""
    if request.expected[0] != 202:
        assert answered == request.expected
        return
    status, body = answered
    assert status == 202 and request.expected[1] in body
    channel.txid = orjson.loads(body)["settlement_txid"]
    text = b'{"channel_status":"closed","channel_value_left":0,%s"settlement_txid":"%s"}\n'
    assert body == text % (request.expected[1], channel.txid.encode())


def check_end(system: System, doors: Doors, channel: Channel, door: str) -> None:
    """The newest payment is the model's: its replay says so through any door, and a close settles it and nothing else."""
    request = make_request(channel, "replay", 0)
    for each in (door, *DOORS[:3]):
        check(channel, request, send(doors, channel, each, request))
    if not channel.is_closed:
        answer = doors.client(door, channel.owner).request("DELETE", f"{channel.path}?payment={channel.newest.encode()}")
        assert (answer.status, answer.json["channel_value_left"]) == (202, channel.left)
        channel.txid = answer.json["settlement_txid"]
    assert settled_change(system.broadcast()[channel.txid], channel.txid, channel.sender.terms) == channel.left


KINDS = (
    *("pay", "pay", "pay", "unpadded", "pay with address", "replay", "replay", "out of order", "wrong signature", "exhaust"),
    *("bad address", "repeated", "no text", "missing", "bad path", "unknown", "dust", "der", "type"),
)
OPERATIONS = st.lists(
    st.tuples(st.integers(0, CHANNELS - 1), st.sampled_from(KINDS), st.integers(1, 1000), st.sampled_from(DOORS)),
    min_size=8,
    max_size=24,
)


@settings(max_examples=SEQUENCES, deadline=None, database=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(operations=OPERATIONS, alone=st.sampled_from(DOORS))
def test_every_door_gives_the_models_bodies_and_its_state(system, operations, alone):
    doors = Doors.of(system)
    try:
        for only in (alone, ""):
            channels = [open_channel(system, doors.shared) for _ in range(CHANNELS)]
            for number, kind, amount, drawn in operations:
                channel = channels[number]
                request = make_request(channel, kind, amount)
                check(channel, request, send(doors, channel, only or drawn, request))
            for channel in channels:
                check_end(system, doors, channel, only or "granian")
    finally:
        doors.close()


@pytest.mark.parametrize("door", DOORS)
def test_each_kind_of_request_through_each_door(system, door):
    """No luck needed: all of them, those that end the channel last."""
    doors = Doors.of(system)
    channel = open_channel(system, doors.shared)
    for kind in dict.fromkeys([*(kind for kind in KINDS if kind != "exhaust"), "exhaust", *KINDS]):
        request = make_request(channel, kind, 7)
        check(channel, request, send(doors, channel, door, request))
    assert channel.is_closed
    for kind in KINDS:
        request = make_request(channel, kind, 7)
        check(channel, request, send(doors, channel, door, request))
    check_end(system, doors, channel, door)
    doors.close()


@settings(max_examples=max(2, SEQUENCES // 2), deadline=None, database=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(operations=OPERATIONS, port=st.sampled_from(["granian", "owner", "forwarded"]))
def test_a_batch_of_many_answers_each_in_its_place(system, operations, port):
    """Payments of channels of both owners, mixed, in one request; each answer is what its own PUT would have had."""
    doors = Doors.of(system)
    try:
        channels = [open_channel(system, doors.shared) for _ in range(CHANNELS)]
        items = []
        for number, kind, amount, _ in operations:
            if kind not in ("exhaust", "bad address", "repeated", "no text", "missing", "bad path", "pay with address"):
                items.append((channels[number], make_request(channels[number], kind, amount)))
        client = doors.client(port, channels[0].owner)
        answered = send_batch(client, [request for _, request in items])
        for (channel, request), answer in zip(items, answered, strict=True):
            check(channel, request, answer)
        for channel in channels:
            check_end(system, doors, channel, port)
    finally:
        doors.close()


# --- at once ---


class Crowd:
    """A thread for each door, all paying on the same channels; histories for the tiling check."""

    def __init__(self, system: System, seed: int) -> None:
        self.system, self.errors = system, []
        opener = system.client()
        self.channels = [open_channel(system, opener) for _ in range(CHANNELS)]
        self.histories = [History(f"{seed}-{i}", channel.sender.terms.funding_value) for i, channel in enumerate(self.channels)]
        for channel, history in zip(self.channels, self.histories, strict=True):
            history.operations.append(Operation(channel.left, Outcome.ACKNOWLEDGED, OPEN_AMOUNT, channel.left))
        self._lock = threading.Lock()

    def _next(self, number: int, amount: int) -> Payment:
        with self._lock:
            channel = self.channels[number]
            channel.left -= amount
            channel.newest = channel.sign(channel.left)
            return channel.newest

    def _note(self, number: int, payment: Payment, answered: tuple[int, bytes]) -> None:
        status, body = answered
        left = payment.change_value
        if status == 200:
            read = orjson.loads(body)
            assert answered == result(left, read["value_received"])
            operation = Operation(left, Outcome.ACKNOWLEDGED, read["value_received"], read["channel_value_left"])
        else:
            code = orjson.loads(body)["code"]
            assert (status, code) == (400, "out_of_order"), body
            operation = Operation(left, Outcome.REFUSED, code=code)
        with self._lock:
            self.histories[number].operations.append(operation)

    def run(self, door: str, rounds: int) -> None:
        try:
            doors = Doors.of(self.system)
            for turn in range(rounds):
                number = turn % CHANNELS
                channel = self.channels[number]
                payments = [self._next(number, 1 + turn) for _ in range(3)]
                payments = payments if turn % 3 else [payments[2], payments[0], payments[2]]
                requests = [with_payment(channel, payment, (0, b"")) for payment in payments]
                if door.startswith("batch"):
                    answers = send_batch(doors.client(door, channel.owner), requests)
                else:
                    answers = [send(doors, channel, door, request) for request in requests]
                for payment, answer in zip(payments, answers, strict=True):
                    self._note(number, payment, answer)
            doors.close()
        except BaseException as error:
            self.errors.append(error)


@pytest.mark.parametrize("seed", range(max(1, SEQUENCES // 6)))
def test_all_doors_at_once_on_shared_channels(system, seed):
    crowd = Crowd(system, seed)
    threads = [threading.Thread(target=crowd.run, args=(door, 20)) for door in DOORS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if crowd.errors:
        raise crowd.errors[0]
    doors = Doors.of(system)
    for channel, history in zip(crowd.channels, crowd.histories, strict=True):
        # The least that was acknowledged is the newest; the last signed one was answered, so it is that.
        check_end(system, doors, channel, "granian")
        history.final_left = history.settlement_change = channel.left
    verdict = check_all(crowd.histories)
    assert (verdict.problems, verdict.gaps) == ([], 0)
    assert verdict.claimed > len(DOORS)
    doors.close()
