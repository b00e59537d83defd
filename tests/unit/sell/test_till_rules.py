"""Aim: whatever the sellers' door answers, or does not, becomes what docs/PAYMENT_SCHEME.md says: the status, a challenge where a
new credential helps and nowhere else, Retry-After where waiting does. Method: the rules against answers that are given by hand."""

import json
from dataclasses import replace

import pytest

from paychan.mpp import problems
from paychan.mpp.challenge import parse_challenges
from paychan.mpp.credential import parse_credential
from paychan.sell.challenges import GOOD_SECONDS, RENEW_SECONDS, Challenges
from paychan.sell.facts import Answer, Price, Request, Sale, Standing
from paychan.sell.owed import OWED_SECONDS
from paychan.sell.rules import REPEATS_MAX, TERMS, TERMS_SECONDS, Rules
from paychan.sell.steps import UNSENT, Ask, Await, Call, Pause, Told
from tests.buyer import Buyer, parse_problem
from tests.unit.mpp.test_credential import ADDRESS, CLIENT
from tests.unit.mpp.test_credential import TERMS as CHANNEL
from tests.unit.mpp.test_request import CHAIN, KEY

PRICE = Price(5)
OFFERED = {
    "server_pubkey": KEY.hex(),
    "chain": CHAIN,
    "channel_type": "p2sh-cltv-1",
    "debug": False,
    "funding_tx_min_conf": 2,
    "funding_value_max": 10_000_000,
    "dust_limit": 700,
    "open_price": 1000,
    "settlement_period": 3600,
    "duration_min": 3600,
    "duration_max": 10**7,
    "api": "https://pay.example.com/v1",
}
SOLD = {
    "status": 200,
    "repeated": False,
    "purchase": {"number": 7, "asked": 5, "amount": 5, "until": 0},
    "value_received": 5,
    "received": 1005,
    "spent": 1005,
    "credit": 0,
    "channel_value_left": 98_995,
}
REPEATED = Told(200, {**SOLD, "repeated": True})
STANDING = {"received": 1000, "spent": 1000, "channel_value_left": 99_000, "funding_value": 100_000}


class Desk:
    """Rules, a clock, and the answers that the door gives: by what it is asked, the last one again and again. `ours`: that a
    purchase was there which its first attempt has made, or the last that took it over."""

    def __init__(self, **answers):
        self.now, self.asked, self.maker = 1_795_000_000, [], 0
        self.answers = {
            "terms": [Told(200, OFFERED)],
            "look": [Told(200, STANDING)],
            "sale": [Told(200, SOLD)],
            "POST": [Told(201, {"value_received": 1005, "channel_value_left": 98_995})],
            **{name: found if isinstance(found, list) else [found] for name, found in answers.items()},
        }
        self.rules = Rules(Challenges(lambda: b"secret", "shop"), lambda: self.now, lambda: self.now, lambda: "nobody answers")

    def drive(self, steps):
        result = None
        try:
            while True:
                result = self.answer(steps.send(result))
        except StopIteration as stop:
            return stop.value

    def answer(self, step):
        if isinstance(step, Pause):
            self.now += step.seconds
            return None
        if isinstance(step, Await):
            return None
        self.asked.append(step)
        if isinstance(step, Ask):
            if not self.maker or "again" in step.sales[0]:
                self.maker = step.sales[0].get("attempt", 0)
            told = self.next(step.sales[0]["do"]) if step.sales[0]["do"] in self.answers else self.next("sale")
            return None if told is None else [told]
        assert isinstance(step, Call)
        if step.target == TERMS:
            return self.next("terms")
        return self.next("look" if step.method == "GET" else step.method)

    def next(self, name):
        rows = self.answers[name]
        row = rows.pop(0) if len(rows) > 1 else rows[0]
        return row() if callable(row) else row

    def ours(self):
        return Told(200, {**SOLD, "repeated": True, "purchase": {**SOLD["purchase"], "number": self.maker << 40 | 7}})

    def decide(self, headers=None, method="GET", target="/x", price=PRICE, body=b""):
        credentials = (headers["Authorization"],) if headers else ()
        return self.drive(self.rules.decide(Request(method, target, credentials, body), price))

    def challenge(self, price=PRICE):
        (found,) = parse_challenges([dict(self.decide(price=price).headers)["www-authenticate"]])
        return found

    def buyer(self, price=PRICE):
        from paychan.core.sender import Sender

        made = Buyer(Sender(CHANNEL, CLIENT, ADDRESS), self.challenge(price))
        made.sign(1000)
        return made


def told_to_payer(answer):
    assert isinstance(answer, Answer)
    headers = dict(answer.headers)
    return answer.status, parse_problem(answer.body, answer.status), "www-authenticate" in headers, "retry-after" in headers


REFUSALS = [
    code for code, kind in problems.BY_OUR_CODE.items() if kind.status in (402, 503) and code not in ("out_of_order",
    "not_newest_payment")
]


@pytest.mark.parametrize("code", REFUSALS)
def test_each_refusal_of_a_sale_becomes_its_problem(code):
    content = {"status": 400, "code": code, "required": 1010, "missing": 5, "detail": "for the seller"}
    desk = Desk(sale=Told(503 if problems.kind_of(code).status == 503 else 400, content))
    buyer = desk.buyer()
    status, problem, has_challenge, is_passing = told_to_payer(desk.decide(buyer.pay(5)))
    kind = problems.kind_of(code)
    assert (status, problem.type, problem.code) == (kind.status, kind.type, code) or kind.status == 503
    assert has_challenge == (status == 402) and is_passing == kind.is_passing
    assert b"for the seller" not in json.dumps(dict(problem.members)).encode()


@pytest.mark.parametrize("code", ["token_unknown", "invalid_sale", "no_such_route", "too_many_reservations", "not a code"])
def test_our_own_faults_ask_for_no_other_payment(code):
    desk = Desk(sale=Told(403, {"status": 403, "code": code}))
    status, _, has_challenge, _ = told_to_payer(desk.decide(desk.buyer().pay(5)))
    assert status in (500, 503) and not has_challenge


def test_an_opening_that_must_wait_says_for_what():
    content = {"status": 400, "code": "funding_unconfirmed", "confirmations": 1, "required": 2}
    desk = Desk(POST=Told(400, content))
    status, problem, has_challenge, is_passing = told_to_payer(desk.decide(desk.buyer().open(5)))
    assert (status, problem.name, has_challenge, is_passing) == (402, "payment-action-required", True, True)
    assert (problem.members["confirmations"], problem.members["required"]) == (1, 2)


def test_an_opening_without_an_answer_is_unknown_and_charges_nothing():
    desk = Desk(POST=[None])
    status, _, has_challenge, is_passing = told_to_payer(desk.decide(desk.buyer().open(5)))
    assert (status, has_challenge, is_passing) == (503, False, True)
    assert not [step for step in desk.asked if isinstance(step, Ask)]


def test_a_challenge_expires_and_is_made_anew_before():
    desk = Desk()
    buyer = desk.buyer()
    desk.now += RENEW_SECONDS
    assert desk.challenge() != buyer.challenge and isinstance(desk.decide(buyer.pay(5)), Sale)
    desk.now += GOOD_SECONDS
    status, problem, has_challenge, _ = told_to_payer(desk.decide(buyer.pay(5)))
    assert (status, problem.code, problem.name, has_challenge) == (402, "payment_expired", "payment-expired", True)


def test_an_open_price_that_moved_leaves_challenges_good():
    desk = Desk(terms=[Told(200, OFFERED), Told(200, {**OFFERED, "open_price": 2000})])
    buyer = desk.buyer()
    desk.now += TERMS_SECONDS
    assert desk.challenge().session().details.open_price == 2000
    assert isinstance(desk.decide(buyer.pay(5)), Sale)
    desk.answers["terms"] = [Told(200, {**OFFERED, "open_price": 2000, "settlement_period": 7200})]
    desk.now += TERMS_SECONDS
    assert told_to_payer(desk.decide(buyer.pay(5)))[1].code == "invalid_challenge"


def test_terms_that_cannot_be_had_anew_stay_and_without_any_nothing_is_sold():
    desk = Desk(terms=[Told(200, OFFERED), None])
    buyer = desk.buyer()
    desk.now += 10 * TERMS_SECONDS
    assert isinstance(desk.decide(buyer.pay(5)), Sale)
    status, _, has_challenge, _ = told_to_payer(Desk(terms=[None]).decide())
    assert (status, has_challenge) == (503, False)


def test_an_unknown_sale_is_asked_for_again_and_if_it_was_ours_it_is_served():
    """The first try had sold, and its answer was lost: `repeated` is what we hear."""
    desk = Desk(release=[None])
    desk.answers["sale"] = [None, desk.ours]
    headers = desk.buyer().pay(5)
    for _ in range(REPEATS_MAX + 2):  # for as often as it fails, and cannot be given back
        sold = desk.decide(headers, method="POST")
        assert isinstance(sold, Sale) and not sold.is_repeated
        desk.drive(desk.rules.finish(sold, 500))
    sold = desk.decide(headers, method="POST")
    assert desk.drive(desk.rules.finish(sold, 200))
    desk.rules.forget(sold)
    assert told_to_payer(desk.decide(headers, method="POST"))[1].code == "already_served"


@pytest.mark.parametrize("is_ours", [True, False])
def test_unknown_to_the_end_and_then_the_same_payment_is_served_if_it_was_ours(is_ours):
    desk = Desk(sale=[None])
    headers = desk.buyer().pay(5)
    assert told_to_payer(desk.decide(headers, method="POST"))[0] == 503
    desk.answers["sale"] = [desk.ours if is_ours else REPEATED]
    sold = desk.decide(headers, method="POST")
    assert isinstance(sold, Sale) if is_ours else told_to_payer(sold)[1].code == "overloaded"
    if not is_ours:
        desk.now += 1
        assert told_to_payer(desk.decide(headers, method="POST"))[1].code == "already_served"


def test_what_was_never_sent_has_made_nothing_and_is_not_remembered():
    """Or who asks for ever while nobody is there has us forget what is owed."""
    for answers, remembered in (([UNSENT], 0), ([UNSENT, None, UNSENT, UNSENT], 1)):
        desk = Desk(sale=answers)
        assert told_to_payer(desk.decide(desk.buyer().pay(5), method="POST"))[0] == 503
        assert len(desk.rules._owed._until) == remembered


@pytest.mark.parametrize(
    ("method", "repeats", "later"), [("GET", None, 200), ("POST", None, 409), ("POST", True, 200), ("GET", False, 409)]
)
def test_what_another_process_sold(method, repeats, later):
    desk = Desk(sale=REPEATED)
    price = Price(5, repeats=repeats)
    headers = desk.buyer(price).pay(5)
    first = desk.decide(headers, method, price=price)
    assert isinstance(first, Answer) and first.status == 503  # it may be under way there, and be given back
    desk.now += 1
    second = desk.decide(headers, method, price=price)
    assert (second.status if isinstance(second, Answer) else 200) == later
    if later == 200:
        assert second.is_repeated
        desk.asked.clear()
        desk.drive(desk.rules.failed(second))
        assert not desk.asked  # it was served elsewhere, maybe: nothing is given back


def test_nobody_gets_more_for_one_price_by_asking_for_ever():
    desk = Desk(sale=[Told(200, SOLD), REPEATED])
    headers = desk.buyer().pay(5)
    for _ in range(1 + REPEATS_MAX):
        sale = desk.decide(headers)
        assert isinstance(sale, Sale) and desk.drive(desk.rules.finish(sale, 200))
        desk.rules.forget(sale)  # too long to be kept
    status, problem, *_ = told_to_payer(desk.decide(headers))
    assert (status, problem.code) == (409, "already_served")


def test_what_was_unknown_long_ago_is_forgotten():
    for passes, is_remembered in ((OWED_SECONDS - 60, True), (OWED_SECONDS + 60, False)):
        desk = Desk(sale=[None])
        price = Price(5, repeats=False)
        headers = desk.buyer(price).pay(5)
        assert told_to_payer(desk.decide(headers, price=price))[0] == 503
        desk.answers["sale"] = [desk.ours]
        desk.now += passes
        sold = desk.decide(headers, price=price)
        assert isinstance(sold, Sale) if is_remembered else told_to_payer(sold)[1].code == "overloaded"
        if not is_remembered:
            desk.now += 1
            assert told_to_payer(desk.decide(headers, price=price))[1].code == "already_served"


def test_what_a_payer_calls_another_purchase_is_one_and_the_same_name_is_the_same():
    desk = Desk()
    credential = parse_credential(desk.buyer().pay(5)["Authorization"].removeprefix("Payment "))
    keys = []
    for name in ("", "after 1", "after 2"):
        headers = {"Authorization": replace(credential, purchase=name).render()}
        sale = desk.decide(headers, "POST")
        assert isinstance(sale, Sale), name
        keys.append(sale.key)
        desk.rules.keep(sale, Answer(200, (), name.encode()))
        assert desk.decide(headers, "POST").body == name.encode()
    assert len(set(keys)) == 3


def test_only_2xx_is_kept_and_all_else_given_back():
    for status in (200, 204, 206, 302, 304, 400, 404, 429, 500, 503):
        desk = Desk(release=Told(200, {**SOLD, "spent": 1000}))
        sale = desk.decide(desk.buyer().pay(5))
        more = desk.drive(desk.rules.finish(sale, status))
        released = [step for step in desk.asked if isinstance(step, Ask) and step.sales[0]["do"] == "release"]
        assert bool(more) == (status < 300) and bool(released) == (status >= 300)


def test_a_metered_sale_that_cannot_be_settled_is_not_served():
    metered = Price(2, units=10, is_metered=True)
    desk = Desk(reserve=Told(200, {**SOLD, "purchase": {**SOLD["purchase"], "until": 1_900_000_000}}), settle=[None])
    sale = desk.decide(desk.buyer(metered).pay(20), price=metered)
    assert sale.is_open
    sale.use(3)
    answer = desk.drive(desk.rules.finish(sale, 200))
    assert isinstance(answer, Answer) and answer.status == 503
    desk.answers["settle"] = [Told(200, SOLD)]
    assert [step.sales[0]["amount"] for step in desk.asked if isinstance(step, Ask) and step.sales[0]["do"] == "settle"] == [6] * 4


def test_a_metered_sale_of_another_process_that_cannot_be_settled_is_not_ours_to_give_back():
    metered = Price(2, units=10, is_metered=True)
    desk = Desk(settle=[None])
    held = {**SOLD, "repeated": True, "purchase": {**SOLD["purchase"], "until": 1_900_000_000}}

    def reserve():
        return Told(200, {**held, "purchase": {**held["purchase"], "number": desk.maker << 40 | 7}})

    desk.answers["reserve"] = [Told(200, held), Told(200, held), reserve]
    headers = desk.buyer(metered).pay(20)
    assert told_to_payer(desk.decide(headers, price=metered))[0] == 503  # it may be under way elsewhere
    desk.now += 1
    sale = desk.decide(headers, price=metered)
    assert sale.is_repeated and desk.drive(desk.rules.finish(sale, 200)).status == 503
    again = desk.decide(headers, price=metered)
    assert isinstance(again, Sale) and again.is_repeated


def test_what_is_known_of_a_channel_may_be_old_and_refuses_nobody():
    """Another process has charged meanwhile: by what this one knew, the payment is too high."""
    desk = Desk()
    buyer = desk.buyer()
    assert isinstance(desk.decide(buyer.pay(5)), Sale)
    desk.answers["look"] = [Told(200, {**STANDING, "received": 1505, "spent": 1505, "channel_value_left": 98_495})]
    buyer.sign(500)
    assert isinstance(desk.decide(buyer.pay(5)), Sale)
    buyer.sign(500)
    assert told_to_payer(desk.decide(buyer.pay(5)))[1].code == "prepay_too_large"


def test_giving_up_all_may_be_more_than_is_required_if_the_rest_could_not_be_signed_for():
    rich = {**STANDING, "received": 99_300, "spent": 99_300, "channel_value_left": 700}
    for left, code in ((5 + 100 + 699, None), (5 + 100 + 700, "prepay_too_large")):
        desk = Desk(look=Told(200, {**rich, "received": 100_000 - left, "spent": 100_000 - left, "channel_value_left": left}))
        buyer = desk.buyer()
        decision = desk.decide(buyer.pay(buyer.sender.change_value))
        assert isinstance(decision, Sale) if code is None else told_to_payer(decision)[1].code == code


def test_a_stream_beyond_the_channel_ends():
    from paychan.core.errors import Rejection
    from paychan.mpp.sse import NeedVoucher

    desk = Desk()
    sale = desk.decide(desk.buyer().pay(5))
    refusal = {"status": 402, "code": "insufficient_credit", "missing": 5, "required": 1010}
    desk.answers["sale"] = [Told(402, refusal)]
    assert desk.drive(desk.rules.extend(sale, 1)) == NeedVoucher(sale.outpoint, 1010, 1005, 100_000)
    desk.answers["sale"] = [Told(402, {**refusal, "required": 100_001})]
    with pytest.raises(Rejection, match="amount_exceeds_deposit"):
        desk.drive(desk.rules.extend(sale, 1))
    assert sale.standing == Standing(100_000, 1005, 1005)
