"""Aim: the till knows at each moment what was paid for, served, and given back. Method: its rules are driven step by step, beside a
door that keeps books as the real one does and loses what a test says; the real one is in tests/process."""

import itertools

import pytest
from coincurve import PrivateKey

from paychan.chain.debug import DEBUG_FUNDING_VALUE, debug_outpoint
from paychan.core.channel import ChannelTerms
from paychan.core.network import TEST, decode_address
from paychan.core.sender import sign_payment
from paychan.mpp.challenge import parse_challenges
from paychan.mpp.credential import voucher
from paychan.sell.challenges import Challenges
from paychan.sell.facts import Answer, Price, Request, Sale
from paychan.sell.rules import REPEAT_SECONDS, Rules
from paychan.sell.steps import UNSENT, Ask, Await, Call, Told
from tests.system import CHANGE_ADDRESS

COST = 100
PRICE = Price(COST)
KEY, SERVER = PrivateKey(b"\1" * 32), PrivateKey(b"\2" * 32)
TERMS = {
    "server_pubkey": SERVER.public_key.format().hex(),
    "open_price": 1000,
    "funding_value_max": 10**9,
    "chain": "bip122:000000000933ea01ad0ee984209779ba",
    "channel_type": "p2sh-cltv-1",
    "funding_tx_min_conf": 0,
    "settlement_period": 3600,
    "duration_min": 3600,
    "duration_max": 10**7,
    "dust_limit": 700,
}


class Door:
    """One channel's books. `loses`: so many of the next answers, after their effect; `is_away`: there is no effect either."""

    def __init__(self):
        pubkey = KEY.public_key.format()
        self.terms = ChannelTerms(
            debug_outpoint(pubkey, 2_000_000_000), SERVER.public_key.format(), pubkey, 2_000_000_000, DEBUG_FUNDING_VALUE,
            decode_address(TEST, CHANGE_ADDRESS),
        )  # fmt: skip
        self.received = self.spent = 1000
        self.sold, self.numbers = {}, itertools.count(1)
        self.loses, self.loses_again, self.is_away, self.asked = 0, 0, False, []

    def answer(self, step):
        if isinstance(step, Call):
            return Told(200, TERMS) if step.target.endswith("/terms") else self._tell()
        if isinstance(step, Await):
            return step.future.result(0)
        if not isinstance(step, Ask):
            return None
        if self.is_away:
            return [UNSENT] * len(step.sales)
        told = [self._judge(sale) for sale in step.sales]
        self.loses -= 1
        if any("again" in sale for sale in step.sales):
            self.loses_again -= 1
            return None if self.loses_again >= 0 else told
        return None if self.loses >= 0 else told

    def forget(self):
        """Lose what was taken and sold: a store that was killed before it wrote."""
        self.received, self.spent, self.sold = 1000, 1000, {}

    def _tell(self, **more):
        standing = {"received": self.received, "spent": self.spent, "channel_value_left": DEBUG_FUNDING_VALUE - self.received}
        return Told(200, {**standing, **more})

    def _judge(self, sale):
        self.asked.append(sale["do"])
        key = sale["key"]
        if sale["do"] == "release" or sale.get("amount") == 0:
            if self.sold.get(key) != sale["number"]:
                return Told(404, {"code": "no_such_purchase"})
            del self.sold[key]
            self.spent -= COST
            return self._tell()
        is_repeated = key in self.sold
        if is_repeated and "again" in sale:
            if self.sold[key] != sale["again"]:
                return Told(404, {"code": "no_such_purchase"})
            self.sold[key] = next(self.numbers)
        if not is_repeated:
            self.received += COST
            self.sold[key] = next(self.numbers)
            self.spent += COST
        return self._tell(purchase={"number": self.sold[key], "until": 0}, repeated=is_repeated)


class Till:
    def __init__(self, door=None):
        self.door, self.now = door or Door(), 0.0
        challenges = Challenges(lambda: b"secret", "shop")
        self.rules = Rules(challenges, lambda: 1_800_000_000 + self.now, lambda: self.now, lambda: "nobody answers")

    def drive(self, steps):
        result = None
        try:
            while True:
                result = self.door.answer(steps.send(result))
        except StopIteration as stop:
            return stop.value

    def ask(self, payment=1, target="/good", method="POST"):
        """Decide on a request that shows the nth payment."""
        (header,) = [v for n, v in self.drive(self.rules.decide(Request("GET", "/"), PRICE)).headers if n == "www-authenticate"]
        (challenge,) = parse_challenges([header])
        signed = sign_payment(self.door.terms, DEBUG_FUNDING_VALUE - 1000 - COST * payment, KEY)
        shown = voucher(challenge, self.door.terms.outpoint, signed).render()
        return self.drive(self.rules.decide(Request(method, target, (shown,)), PRICE))

    def serve(self, sale):
        self.drive(self.rules.finish(sale, 200))
        self.rules.forget(sale)


@pytest.fixture
def till():
    return Till()


def test_what_was_charged_though_the_answer_was_lost_is_served_once(till):
    till.door.loses = 1
    sale = till.ask()
    assert isinstance(sale, Sale) and sale.is_doubtful and till.door.asked == ["charge"] * 3
    till.serve(sale)
    assert till.ask().status == 409
    assert till.door.spent == 1000 + COST


def test_what_was_asked_for_in_vain_and_then_sold_is_no_longer_unserved(till):
    till.door.loses = 4
    assert till.ask().status == 503
    till.door.forget()
    till.serve(till.ask())
    again = till.ask()
    assert isinstance(again, Answer) and again.status == 409  # or it would run twice, and be given back if it failed then


def test_what_could_not_be_given_back_is_served_for_the_same_payment(till):
    """And never given back later: another process may have served it by then."""
    sale = till.ask()
    till.door.is_away = True
    till.drive(till.rules.failed(sale))
    till.door.is_away = False
    till.ask(2, "/other")
    again = till.ask()
    assert isinstance(again, Sale) and not again.is_repeated and again.number > sale.number
    assert till.door.asked == ["charge"] * 4 and till.door.spent == 1000 + 2 * COST


# --- two processes of one shop ---


@pytest.fixture
def other(till):
    return Till(till.door)


def ask_later(till):
    """Ask for what another process may be serving, until it is run again."""
    first = till.ask(method="GET")
    assert isinstance(first, Answer) and first.status == 503
    till.now += REPEAT_SECONDS
    return till.ask(method="GET")


def test_who_is_late_gives_nothing_back_that_another_process_has_taken_over(till, other):
    first, second = till.ask(method="GET"), ask_later(other)
    assert second.is_repeated and second.number > first.number
    other.serve(second)
    assert second.bought.number == first.bought.number and other.ask(method="GET").bought.number == 1  # one receipt
    till.drive(till.rules.failed(first))
    assert till.door.asked[-1] == "release" and till.door.spent == 1000 + COST
    assert ask_later(till).is_repeated  # and it does not count as owed


def test_what_was_given_back_before_it_was_taken_over_is_charged_anew_and_given_back_again(till, other):
    first = till.ask(method="GET")
    assert other.ask(method="GET").status == 503
    other.now += REPEAT_SECONDS
    till.drive(till.rules.failed(first))
    second = other.ask(method="GET")
    assert isinstance(second, Sale) and not second.is_repeated
    other.drive(other.rules.failed(second))
    assert till.door.spent == 1000


def test_a_release_that_arrives_late_does_not_give_back_what_was_served_since(till):
    first = till.ask()
    till.door.is_away = True
    till.drive(till.rules.failed(first))
    till.door.is_away = False
    till.serve(till.ask())
    release = {"do": "release", "key": first.key, "number": first.number}
    assert till.door.answer(Ask((release,)))[0].code == "no_such_purchase" and till.door.spent == 1000 + COST


def test_what_is_owed_and_was_taken_over_is_not_given_back(till, other):
    first = till.ask(method="GET")
    till.door.is_away = True
    till.drive(till.rules.failed(first))
    till.door.is_away = False
    other.serve(ask_later(other))
    again = ask_later(till)
    assert again.is_repeated
    till.drive(till.rules.failed(again))
    assert till.door.spent == 1000 + COST


def test_who_has_not_heard_that_it_took_over_does_so_later(till, other):
    till.ask(method="GET")
    assert other.ask(method="GET").status == 503
    other.now += REPEAT_SECONDS
    till.door.loses_again = 1
    assert other.ask(method="GET").status == 503
    other.now += REPEAT_SECONDS
    assert other.ask(method="GET").is_repeated and till.door.spent == 1000 + COST


def test_what_is_owed_stays_owed_if_nobody_has_heard_that_it_was_taken_over(till):
    sale = till.ask()
    till.door.is_away = True
    till.drive(till.rules.failed(sale))
    till.door.is_away = False
    till.door.loses_again = 1
    assert till.ask().status == 503
    again = till.ask()
    assert isinstance(again, Sale) and again.is_doubtful  # by us, or by another since


def test_what_is_owed_stays_ours_while_it_has_the_number_that_we_know(till):
    sale = till.ask()
    till.door.is_away = True
    till.drive(till.rules.failed(sale))
    till.door.is_away, till.door.loses = False, 4  # not even who owns it is told
    assert till.ask().status == 503
    again = till.ask()
    assert isinstance(again, Sale) and not again.is_repeated


def test_two_processes_take_one_over_and_neither_gives_it_back(till, other):
    third = Till(till.door)
    first = till.ask(method="GET")
    sales = [ask_later(other), ask_later(third)]
    for one, sale in ((till, first), (other, sales[0]), (third, sales[1])):
        one.drive(one.rules.failed(sale))
    assert till.door.spent == 1000 + COST


def test_what_another_process_sold_while_our_charge_was_unknown_is_served_once_if_it_was_not_sent(till, other):
    till.door.is_away = True
    assert till.ask().status == 503
    till.door.is_away = False
    other.serve(other.ask())
    again = till.ask()
    assert isinstance(again, Answer) and again.status == 409 and till.door.spent == 1000 + COST


def test_what_another_process_sold_while_our_charge_was_unknown_is_not_given_back(till, other):
    till.door.loses = 4
    assert till.ask().status == 503
    till.door.forget()  # the charge had not come to the books
    served = other.ask()
    assert not served.is_doubtful
    other.serve(served)
    again = till.ask()
    assert isinstance(again, Sale) and again.is_doubtful and again.key == served.key  # docs/SELLING.md: what a handler can go by
    till.drive(till.rules.failed(again))
    assert till.door.spent == 1000 + COST and "release" not in till.door.asked
    till.serve(till.ask())  # what failed here stays owed
    assert till.ask().status == 409


def test_a_part_of_a_stream_that_two_processes_serve_is_not_given_back(till, other):
    first, second = till.ask(method="GET"), ask_later(other)
    key, number = other.drive(other.rules.extend(second, 1))
    assert number  # it is new, and nobody else delivers it yet
    assert till.drive(till.rules.extend(first, 1)) == (key, 0)
    other.drive(other.rules.end_part(second, key, number, 0))
    till.drive(till.rules.end_part(first, key, 0, 0))
    assert till.door.spent == 1000 + 2 * COST
