"""Aim: the till knows at each moment what was paid for, served, and given back. Method: its rules are driven step by step, beside a
door that keeps books as the real one does and loses what a test says; the real one is in tests/process."""

import itertools

import pytest
from coincurve import PrivateKey

from paychan.chain.debug import DEBUG_FUNDING_VALUE, debug_outpoint
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Unavailable
from paychan.core.network import TEST, decode_address
from paychan.core.sales import revision_of
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
    """One channel's books. `loses`: so many of the next answers, after their effect; `is_away`: there is no effect either;
    `swallows`: so many of the next questions, until they `arrive`."""

    def __init__(self):
        pubkey = KEY.public_key.format()
        self.terms = ChannelTerms(
            debug_outpoint(pubkey, 2_000_000_000), SERVER.public_key.format(), pubkey, 2_000_000_000, DEBUG_FUNDING_VALUE,
            decode_address(TEST, CHANGE_ADDRESS),
        )  # fmt: skip
        self.received = self.spent = 1000
        self.sold, self.numbers = {}, itertools.count(1)
        self.loses, self.loses_again, self.is_away, self.asked = 0, 0, False, []
        self.swallows, self.swallowed = 0, []

    def answer(self, step):
        if isinstance(step, Call):
            return Told(200, TERMS) if step.target.endswith("/terms") else self._tell()
        if isinstance(step, Await):
            return step.future.result(0)
        if not isinstance(step, Ask):
            return None
        if self.is_away:
            return [UNSENT] * len(step.sales)
        if self.swallows:
            self.swallows -= 1
            self.swallowed += step.sales
            return None
        told = [self._judge(sale) for sale in step.sales]
        self.loses -= 1
        if any("again" in sale for sale in step.sales):
            self.loses_again -= 1
            return None if self.loses_again >= 0 else told
        return None if self.loses >= 0 else told

    def forget(self):
        """Lose what was taken and sold: a store that was killed before it wrote."""
        self.received, self.spent, self.sold = 1000, 1000, {}

    def arrive(self):
        """Judge what was swallowed: nobody hears the answers."""
        return [self._judge(sale).content["repeated"] for sale in self.swallowed]

    def _number(self, sale):
        return sale.get("attempt", 0) << 40 | next(self.numbers)

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
            self.sold[key] = self._number(sale)
        if not is_repeated:
            self.received += COST
            self.sold[key] = self._number(sale)
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

    def deciding(self, payment=1, target="/good", method="POST"):
        """Return the steps of a request that shows the nth payment."""
        (header,) = [v for n, v in self.drive(self.rules.decide(Request("GET", "/"), PRICE)).headers if n == "www-authenticate"]
        (challenge,) = parse_challenges([header])
        signed = sign_payment(self.door.terms, DEBUG_FUNDING_VALUE - 1000 - COST * payment, KEY)
        shown = voucher(challenge, self.door.terms.outpoint, signed).render()
        return self.rules.decide(Request(method, target, (shown,)), PRICE)

    def ask(self, payment=1, target="/good", method="POST"):
        return self.drive(self.deciding(payment, target, method))

    def serve(self, sale):
        self.drive(self.rules.finish(sale, 200))
        self.rules.forget(sale)


@pytest.fixture
def till():
    return Till()


def test_what_was_charged_though_the_answer_was_lost_is_served_once(till):
    till.door.loses = 1
    sale = till.ask()
    assert isinstance(sale, Sale) and not sale.is_repeated and till.door.asked == ["charge"] * 3
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
    """And the release that did not arrive gives it back no more."""
    sale = till.ask()
    till.door.is_away = True
    till.drive(till.rules.failed(sale))
    till.door.is_away = False
    till.ask(2, "/other")
    again = till.ask()
    assert isinstance(again, Sale) and not again.is_repeated and revision_of(again.number) > revision_of(sale.number)
    assert till.door.asked == ["charge"] * 4 and till.door.spent == 1000 + 2 * COST


def test_what_was_asked_for_in_vain_and_sold_at_the_next_try_is_no_longer_unserved(till):
    till.door.swallows = 1
    till.serve(till.ask())
    again = till.ask()
    assert isinstance(again, Answer) and again.status == 409 and till.door.spent == 1000 + COST


def test_a_charge_that_arrives_late_though_the_next_one_was_given_back_is_owed(till):
    """The door has it from a connection that had ended, when everything seemed to be over."""
    till.door.swallows = 1
    till.drive(till.rules.failed(till.ask()))
    assert till.door.spent == 1000
    assert till.door.arrive() == [False] and till.door.spent == 1000 + COST
    again = till.ask()
    assert isinstance(again, Sale) and not again.is_repeated
    till.serve(again)
    assert till.ask().status == 409


# --- two processes of one shop ---


@pytest.fixture
def other(till):
    return Till(till.door)


def ask_later(till, method="GET"):
    """Ask for what another process may be serving, until that cannot be a moment's matter."""
    first = till.ask(method=method)
    assert isinstance(first, Answer) and first.status == 503
    till.now += REPEAT_SECONDS
    return till.ask(method=method)


def test_who_is_late_gives_nothing_back_that_another_process_has_taken_over(till, other):
    first, second = till.ask(method="GET"), ask_later(other)
    assert second.is_repeated and revision_of(second.number) > revision_of(first.number)
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
    assert isinstance(again, Sale) and not again.is_repeated


def test_what_is_owed_stays_owed_though_not_even_its_owner_is_told(till):
    sale = till.ask()
    till.door.is_away = True
    till.drive(till.rules.failed(sale))
    till.door.is_away, till.door.loses = False, 4
    assert till.ask().status == 503
    again = till.ask()
    assert isinstance(again, Sale) and not again.is_repeated


def test_what_another_process_gives_back_meanwhile_was_not_called_served_and_is_sold_anew(till, other):
    sale = till.ask()
    assert other.ask().status == 503
    till.drive(till.rules.failed(sale))
    again = other.ask()
    assert isinstance(again, Sale) and not again.is_repeated and till.door.spent == 1000 + COST


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
    again = ask_later(till, "POST")
    assert isinstance(again, Answer) and again.status == 409 and till.door.spent == 1000 + COST


@pytest.mark.parametrize("is_late", [False, True], ids=["was lost", "is late"])
def test_what_another_process_sold_while_our_charge_was_unknown_is_not_served_again(till, other, is_late):
    till.door.swallows = 4
    assert till.ask().status == 503
    other.serve(other.ask())
    assert not is_late or till.door.arrive() == [True] * 4
    again = ask_later(till, "POST")
    assert isinstance(again, Answer) and again.status == 409 and till.door.spent == 1000 + COST


def test_what_another_process_sold_while_our_charge_was_unknown_is_run_again_where_that_is_harmless_and_not_given_back(till, other):
    till.door.loses = 4
    assert till.ask(method="GET").status == 503
    till.door.forget()  # the charge had not come to the books
    other.serve(other.ask(method="GET"))
    again = ask_later(till)
    assert again.is_repeated
    till.drive(till.rules.failed(again))
    assert till.door.spent == 1000 + COST and "release" not in till.door.asked


def test_what_a_process_has_served_it_does_not_serve_again_after_a_charge_without_an_answer(till):
    till.serve(till.ask())  # the answer was not kept
    till.door.loses = 4
    assert till.ask().status == 503
    again = till.ask()
    assert isinstance(again, Answer) and again.status == 409 and till.door.spent == 1000 + COST


def test_what_is_taken_over_from_another_process_without_an_answer_is_not_given_back(till, other):
    """It has the attempt of who took it over, and that did not make it."""
    other.serve(other.ask(method="GET"))
    assert till.ask(method="GET").status == 503
    till.now += REPEAT_SECONDS
    till.door.loses, till.door.loses_again = 1, 1  # the charge before it has no answer at first, either
    assert till.ask(method="GET").status == 503
    again = ask_later(till)
    assert again.is_repeated
    till.drive(till.rules.failed(again))
    assert till.door.spent == 1000 + COST


def test_a_request_that_is_stopped_while_it_takes_over_what_is_owed_leaves_it_owed(till):
    sale = till.ask()
    till.door.is_away = True
    till.drive(till.rules.failed(sale))
    till.door.is_away = False
    steps, result = till.deciding(), None
    while not isinstance(step := steps.send(result), Ask) or "again" not in step.sales[0]:
        result = till.door.answer(step)
    till.door.answer(step)  # it is taken over, and nobody listens any more
    steps.close()
    again = till.ask()
    assert isinstance(again, Sale) and not again.is_repeated


def test_a_part_of_a_stream_that_two_processes_serve_is_not_given_back(till, other):
    first, second = till.ask(method="GET"), ask_later(other)
    key, number = other.drive(other.rules.extend(second, 1))
    assert number  # it is new, and nobody else delivers it yet
    assert till.drive(till.rules.extend(first, 1)) == (key, 0)
    other.drive(other.rules.end_part(second, key, number, 0))
    till.drive(till.rules.end_part(first, key, 0, 0))
    assert till.door.spent == 1000 + 2 * COST


def test_a_part_of_a_stream_whose_charge_had_no_answer_is_ours_and_given_back(till):
    sale = till.ask(method="GET")
    till.door.loses = 1
    key, number = till.drive(till.rules.extend(sale, 1))
    assert number and till.door.spent == 1000 + 2 * COST
    till.drive(till.rules.end_part(sale, key, number, 0))
    assert till.door.spent == 1000 + COST


def test_a_part_that_another_process_sold_while_our_charge_was_unknown_is_not_given_back(till, other):
    first, second = till.ask(method="GET"), ask_later(other)
    till.door.swallows = 4
    with pytest.raises(Unavailable):
        till.drive(till.rules.extend(first, 1))
    assert other.drive(other.rules.extend(second, 1))[1]
    till.door.loses = 1
    assert till.drive(till.rules.extend(first, 1))[1] == 0


def test_a_receipt_has_a_number_that_javascript_holds_exactly(till):
    sale = till.ask()
    assert sale.number >= 2**40 and sale.bought.number == 1
