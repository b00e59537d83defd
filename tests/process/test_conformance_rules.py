"""Aim: the rules that a recorded session cannot show: races between requests, the last second for payments, what is ignored.

Method: real systems with one or two workers, payers in threads; what was acknowledged is compared with the settlement. All of it
through the shared port, a worker's own, granian's public interface, and granian with tasks of its own.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from paychan.core.payment import Payment
from paychan.core.sender import sign_payment
from paychan.core.units import SECONDS_PER_HOUR
from tests.raw_http import CORS
from tests.settled import settled_change
from tests.system import CHANGE_ADDRESS, OPEN_AMOUNT, Answer, Payer, System, running, wait_until
from tests.variants import PUBLIC_WAY

CLOCK_START = 1_795_329_876
SETTLEMENT_PERIOD = 6 * SECONDS_PER_HOUR
WAYS = {
    "shared": ("shared", ""),
    "own": ("own", ""),
    "public, by access log": ("shared", "access log"),
    "public, by source": ("shared", "other source"),
    "private, rust tasks": ("shared", "rust tasks"),
}
"""How payments come in: door and setting of granian."""

OTHER_ADDRESS = "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY"


@contextmanager
def started(directory: Path, workers: int, way: str) -> Iterator[System]:
    server = {"duration_hours_min = ": "duration_hours_min = 0"}
    clock = {"PAYCHAN_CLOCK_START": str(CLOCK_START)}
    door, granian = WAYS[way]
    with running(directory, workers=workers, env=clock, changes={"server.toml": server}, door=door, variant=granian) as system:
        yield system
        log = "".join(system.output)
        assert (PUBLIC_WAY in log) == way.startswith("public")
        assert "Traceback" not in log
        assert "internal error" not in log


@pytest.fixture(scope="module", params=WAYS)
def system(tmp_path_factory, request):
    with started(tmp_path_factory.mktemp("rules"), 2, request.param) as system:
        yield system


names = count()


def new_payer(system: System, **rest) -> Payer:
    return system.payer(f"rules {next(names)}", now=CLOCK_START, **rest)


def at_once(*calls: Callable[[], Answer]) -> list[Answer]:
    """Make calls in threads that start together; return their answers in the calls' order."""
    answers: list[Answer | None] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(place: int, call: Callable[[], Answer]) -> None:
        barrier.wait()
        answers[place] = call()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in answers
    return answers


# --- races ---


def opener(system: System, payer: Payer, amount: int) -> Callable[[], Answer]:
    payment = sign_payment(payer.sender.terms, payer.sender.terms.funding_value - amount, payer.sender.key)
    return lambda: system.client().request("POST", payer.sender.open_target(payment))


@pytest.mark.parametrize("openers", [2] * 5 + [8] * 2)
def test_of_concurrent_opens_one_wins(system, openers):
    payer = new_payer(system)
    amounts = [OPEN_AMOUNT + number for number in range(openers)]
    answers = at_once(*(opener(system, payer, amount) for amount in amounts))
    assert sorted(answer.status for answer in answers) == [201] + [409] * (openers - 1)
    for amount, answer in zip(amounts, answers, strict=True):
        if answer.status == 201:
            winner, location = amount, answer.headers["location"]
            assert answer.json["value_received"] == amount
    assert {answer.headers["location"] for answer in answers} == {location}  # the losers learn where it is, too
    payer.sender.change_value -= winner
    assert payer.pay(7).json["value_received"] == 7


@pytest.mark.parametrize("_", range(2))
def test_of_concurrent_opens_that_exhaust_one_wins(system, _):
    payer = new_payer(system)
    everything = payer.sender.terms.funding_value
    answers = at_once(*(opener(system, payer, everything) for _ in range(2)), opener(system, payer, OPEN_AMOUNT))
    statuses = sorted(answer.status for answer in answers)
    assert statuses in ([202, 409, 409], [201, 409, 409])
    assert all(answer.code in ("", "channel_exists", "channel_settled") for answer in answers)
    if statuses[0] == 202:
        body = next(answer.json for answer in answers if answer.status == 202)
        assert (body["value_received"], body["channel_value_left"]) == (everything, 0)
        txid = body["settlement_txid"]
        assert settled_change(system.broadcast()[txid], txid, payer.sender.terms) == 0


CROWD_PAUSE = 0.003
"""Seconds between two payments of one thread: without a pause a close seldom hits upon the newest payment."""


class Crowd:
    """Threads that send ever better payments for one channel until they are refused."""

    def __init__(self, system: System, payer: Payer, size: int) -> None:
        self._system, self._payer, self._lock = system, payer, threading.Lock()
        self._next = self.least = payer.sender.change_value
        self.newest: Payment | None = None
        self.acknowledged = 0
        self.last_words: list[tuple[int, str]] = []
        self._threads = [threading.Thread(target=self._pay) for _ in range(size)]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.acknowledged > 10, 10, "paying")

    def _pay(self) -> None:
        client, sender = self._system.client(), self._payer.sender
        while True:
            with self._lock:
                self._next -= 1
                payment = sign_payment(sender.terms, self._next, sender.key)
            time.sleep(random.uniform(0, 2 * CROWD_PAUSE))
            answer = client.request("PUT", sender.channel_target(payment))
            if answer.status == 200:
                self._note(payment)
            elif (answer.status, answer.code) != (400, "out_of_order"):  # another thread's better one was faster
                self.last_words.append((answer.status, answer.code))
                return

    def _note(self, payment: Payment) -> None:
        with self._lock:
            self.acknowledged += 1
            if payment.change_value < self.least:
                self.least, self.newest = payment.change_value, payment

    def join(self) -> None:
        """Wait until all are refused, and check that it was for the only good reason."""
        for thread in self._threads:
            thread.join()
        assert len(self.last_words) == len(self._threads)
        assert set(self.last_words) <= {(410, "channel_closing"), (404, "no_such_payment")}


@pytest.mark.parametrize("_", range(2))
def test_a_close_amid_payments_settles_all_that_were_acknowledged(system, _):
    payer = new_payer(system)
    assert payer.open().status == 201
    crowd = Crowd(system, payer, 3)
    closer, attempts = system.client(), 0
    while True:
        attempts += 1
        answer = closer.request("DELETE", payer.sender.channel_target(crowd.newest))
        if answer.status == 202:
            break
        assert (answer.status, answer.code) == (400, "not_newest_payment")
        assert attempts < 5000
    crowd.join()
    txid = answer.json["settlement_txid"]
    change = settled_change(system.broadcast()[txid], txid, payer.sender.terms)
    assert change == crowd.least == answer.json["channel_value_left"]


@pytest.mark.parametrize("_", range(2))
def test_giving_up_everything_amid_payments(system, _):
    payer = new_payer(system)
    assert payer.open().status == 201
    crowd = Crowd(system, payer, 2)
    answer = system.client().request("PUT", payer.sender.channel_target(payer.sender.pay(payer.sender.change_value)))
    crowd.join()
    assert (answer.status, answer.json["channel_value_left"]) == (202, 0)
    assert answer.json["value_received"] == crowd.least  # so the sum of what was received is the funding value
    txid = answer.json["settlement_txid"]
    assert settled_change(system.broadcast()[txid], txid, payer.sender.terms) == 0


def test_concurrent_closes_have_one_settlement(system):
    payer = new_payer(system)
    payer.open()
    target = payer.sender.channel_target(payer.newest)
    answers = at_once(*([lambda: system.client().request("DELETE", target)] * 6))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["settlement_txid"] for answer in answers}) == 1


def test_one_payment_sent_twice_at_once_is_received_once(system):
    for _ in range(5):
        payer = new_payer(system)
        payer.open()
        target = payer.sender.channel_target(payer.sender.pay(5))
        answers = at_once(*([lambda target=target: system.client().request("PUT", target)] * 4))
        assert {answer.status for answer in answers} == {200}
        assert sorted(answer.json["value_received"] for answer in answers) == [0, 0, 0, 5]


# --- the last second ---


@pytest.mark.parametrize("way", ["shared", "own"])
def test_no_payment_from_the_settlement_period_on_and_the_channel_is_settled(tmp_path, way):
    """fundingInfo tells the server's second: an expiry one second earlier is too soon from the deadline on.

    One worker: the clock that debug mode starts is each worker's own.
    """
    with started(tmp_path, 1, way) as system:
        client, key = system.client(), new_payer(system).sender.terms.client_pubkey.hex()

        def is_past(exp_time: int) -> bool:
            answer = client.request("GET", f"/v1/fundingInfo?client_pubkey={key}&exp_time={exp_time - 1}")
            assert answer.code in ("", "exp_time_too_soon")
            return answer.status == 400

        soonest = CLOCK_START + SETTLEMENT_PERIOD
        while is_past(soonest):
            soonest += 1
        payer = new_payer(system, expires_in=soonest + 2 - CLOCK_START)
        exp_time = payer.sender.terms.exp_time
        assert payer.open().status == 201
        least, accepted = payer.sender.change_value, 0
        while True:
            was_past = is_past(exp_time)
            answer = payer.pay(1)
            if answer.status != 200:
                break
            assert not was_past
            least, accepted = payer.sender.change_value, accepted + 1
        assert is_past(exp_time)
        refusals = ((410, "channel_expiring"), (410, "channel_closing"), (404, "no_such_payment"))  # the settler may be first
        assert (answer.status, answer.code) in refusals
        assert accepted > 10
        answer = payer.pay(1)
        assert (answer.status, answer.code) in refusals
        wait_until(system.broadcast, 15, "settling the channel whose time has come")
        ((txid, raw),) = system.broadcast().items()
        assert settled_change(raw, txid, payer.sender.terms) == least


# --- what is ignored, and what is not ---


def test_unknown_parameters_are_ignored_everywhere_even_repeated(system):
    client, payer = system.client(), new_payer(system)
    for extra in ("test=undefined", "test=true", "test=1&test=2", "exp_time_=1", "&&;;", "=", "x=%zz", "x=%ff", "a;b"):
        terms = payer.sender.terms
        keys = f"client_pubkey={terms.client_pubkey.hex()}&exp_time={terms.exp_time}"
        for query in (f"{keys}&{extra}", f"{extra}&{keys}"):
            assert client.request("GET", f"/v1/fundingInfo?{query}").status == 200, query
    payment = payer.sender.pay(OPEN_AMOUNT)
    target = payer.sender.open_target(payment)
    assert client.request("POST", target + "&test=undefined&test=true&x=%zz").status == 201
    payment = payer.sender.pay(3)
    answer = client.request("PUT", payer.sender.channel_target(payment) + "&test=undefined&exp_time=a&exp_time=b")
    assert (answer.status, answer.json["value_received"]) == (200, 3)
    answer = client.request("DELETE", payer.sender.channel_target(payment) + ";test=;client_pubkey=x")
    assert answer.status == 202


def test_a_change_address_on_pay_changes_nothing(system):
    payer = new_payer(system)
    payer.open()
    payment = payer.sender.pay(1000)
    target = payer.sender.channel_target(payment)
    assert payer.client.request("PUT", f"{target}&change_address={OTHER_ADDRESS}").status == 200
    assert payer.client.request("PUT", f"{target}&change_address={CHANGE_ADDRESS}").json["value_received"] == 0
    answer = payer.client.request("DELETE", target)
    txid = answer.json["settlement_txid"]
    assert settled_change(system.broadcast()[txid], txid, payer.sender.terms) == payer.sender.change_value


def test_a_preflight_names_what_browsers_ask_for(system):
    payer = new_payer(system)
    place = payer.sender.channel_target(payer.sender.pay(1)).split("?")[0]
    for path in ("/v1/channels/new", place):
        headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "DELETE"}
        answer = system.client().request("OPTIONS", path, headers)
        assert (answer.status, answer.body) == (200, b"")
        assert CORS.items() <= answer.headers.items()
