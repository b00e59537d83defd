"""Aim: a purchase pays once, signs never more than one purchase ahead, and survives lost answers, restarts and liars. Method: the
state machine over real channel files and a real ledger, against the shop of shop.py."""

import json
from dataclasses import replace

import pytest

from paychan.client import Refused, ServerMisbehaved, StateBehindServer, StateError
from paychan.core.network import LIVE
from paychan.core.units import DUST_LIMIT
from paychan.mpp.challenge import make_challenge, parse_challenges
from paychan.mpp.credential import parse_credential
from paychan.mpp.receipt import Receipt
from paychan.pay.budget import NO_LIMITS, Budget
from paychan.pay.errors import BudgetExceeded, NotYetConfirmed, PurseBusy, TermsRefused
from paychan.pay.payer import Payer
from paychan.pay.purse import runs_low
from paychan.pay.steps import Answer, Wait, drive
from paychan.pay.terms import chain_id, read_terms
from paychan.pay.wallets import DebugWallet
from tests.system import ROOT
from tests.unit.pay.shop import NOW, OPEN_PRICE, PRICE, Shop, buy


@pytest.fixture
def shop():
    return Shop()


def payer_of(directory, budget=NO_LIMITS, **options):
    return Payer(directory, budget, clock=lambda: NOW, deadline=options.pop("deadline", 0.0), **options)


@pytest.fixture
def payer(tmp_path):
    return payer_of(tmp_path / "purse")


class Costly(DebugWallet):
    """As if its outputs cost something."""

    is_free = False


def the_record(payer):
    (standing,) = payer.purse.standings()
    return standing.record


def paid(payer):
    record = the_record(payer)
    return record.funding.value - record.signed.change_value


def agrees(payer, shop):
    """The ledger, the records and the highest payment that anybody ever saw say the same."""
    sums = sum(payer.purse.ledger.signed_away(name) for name in payer.purse.names())
    signed = sum(s.record.funding.value - s.record.signed.change_value for s in payer.purse.standings() if s.record.signed)
    return sums == signed == shop.signed_most()


def test_the_first_request_takes_two_trips_and_each_later_one(payer, shop):
    assert buy(payer, shop).status == 200
    assert (shop.requests, shop.served) == (2, 1)
    for number in range(2, 6):
        assert buy(payer, shop).status == 200
        assert (shop.requests, shop.served) == (number + 1, number)
    assert paid(payer) == OPEN_PRICE + 5 * PRICE
    assert agrees(payer, shop)


def test_neighbours_of_a_path_take_one_trip_too(payer, shop):
    for number in range(4):
        assert buy(payer, shop, f"/articles/{number}").status == 200
    assert (shop.requests, shop.served) == (5, 4)


def test_what_is_free_stays_free(payer, shop):
    shop.trouble = lambda shop, step: Answer(200)
    assert buy(payer, shop).status == 200
    assert not payer.purse.names()


def test_a_neighbour_that_is_free_is_paid_for_once_at_most_and_that_payment_buys_the_next(payer, shop):
    buy(payer, shop)
    shop.trouble = lambda shop, step: Answer(200)
    buy(payer, shop, "/free")
    buy(payer, shop, "/free")
    shop.trouble = None
    buy(payer, shop)
    assert paid(payer) == OPEN_PRICE + 2 * PRICE
    assert agrees(payer, shop)


def test_head_buys_nothing(payer, shop):
    assert buy(payer, shop, method="HEAD").status == 402
    assert not payer.purse.names()


def lose(*numbers):
    """Lose the answers to these credentials, counted from 1."""
    count = 0

    def trouble(shop, step):
        nonlocal count
        count += bool(step.headers)
        return "lost" if step.headers and count in numbers else None

    return trouble


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_answer_is_asked_for_again_and_paid_once(tmp_path, shop, lost):
    payer = payer_of(tmp_path / "purse", deadline=30)
    shop.trouble = lose(lost)
    for _ in range(4):
        assert buy(payer, shop).status == 200
    assert shop.served == 4
    assert paid(payer) == OPEN_PRICE + 4 * PRICE
    assert agrees(payer, shop)


@pytest.mark.parametrize("lost", [1, 2])
def test_a_payment_whose_answer_is_lost_for_good_is_presented_before_any_other(tmp_path, shop, lost):
    """The process ends, too: all that is known is on the disk."""
    shop.trouble = lose(lost)
    for number in range(1, 4):
        answer = buy(payer_of(tmp_path / "purse"), shop)
        assert (answer is None) == (number == lost)
    payer = payer_of(tmp_path / "purse")
    assert paid(payer) == OPEN_PRICE + 2 * PRICE, "the second was the first one again"
    assert shop.served == 2
    assert agrees(payer, shop)


def test_whoever_sees_a_payment_finds_it_in_the_payers_record_and_ledger(payer, shop):
    """On the disk, where another process reads it."""
    looked = []

    def look(shop, step):
        if step.headers:
            other = payer_of(payer.purse.directory)
            (standing,) = other.purse.standings()
            credential = parse_credential(step.headers["Authorization"].removeprefix("Payment "))
            signed = standing.record.signed
            assert signed is not None and signed.serialize() == credential.payment
            assert standing.paid == other.purse.ledger.signed_away(standing.name)
            looked.append(credential.action)

    shop.trouble = look
    for _ in range(3):
        assert buy(payer, shop).status == 200
    assert looked == ["open", "voucher", "voucher"]


def test_a_busy_channel_is_waited_for_and_no_other_one_opened(payer, shop):
    """To open one costs the open price; the one that was made for later stays unopened."""
    buy(payer, shop)
    terms = read_terms(shop.origin, shop.challenge("/a").session())
    payer.purse._make(terms, PRICE)
    with payer.purse.take(terms, PRICE), pytest.raises(PurseBusy):
        payer.purse.take(terms, PRICE)
    with payer.purse.take(terms, PRICE) as turn:
        assert not turn.is_opening


def test_what_was_paid_and_lost_is_told(tmp_path, shop):
    shop.trouble = lose(2)
    payer = payer_of(tmp_path / "purse")
    buy(payer, shop, "/a")
    assert buy(payer, shop, "/a") is None
    assert buy(payer, shop, "/b").status == 200
    (row,) = payer.purse.ledger.rows()
    assert (row.payments, row.amount, row.opening, row.unanswered) == (3, 3 * PRICE, OPEN_PRICE, PRICE)


def test_a_503_is_unknown_and_brings_the_same_payment_again(tmp_path, shop):
    payer = payer_of(tmp_path / "purse", deadline=30)
    troubles = [None, shop.refuse("/a", "store_unavailable"), shop.refuse("/a", "store_unavailable")]
    shop.trouble = lambda shop, step: troubles.pop(0) if troubles else None
    assert buy(payer, shop).status == 200
    assert len({payment for _, payment in shop.seen}) == 1


def test_nothing_higher_is_signed_while_an_outcome_is_unknown(payer, shop):
    buy(payer, shop)
    shop.trouble = lambda shop, step: Answer(503) if step.headers else None
    for _ in range(5):
        assert buy(payer, shop).status == 503
    assert paid(payer) == OPEN_PRICE + 2 * PRICE


def test_a_dearer_request_presents_the_pending_payment_too(payer, shop):
    buy(payer, shop)
    shop.prices["/dear"] = 5 * PRICE
    shop.trouble = lambda shop, step: Answer(503) if step.headers else None
    buy(payer, shop)
    payer._challenges.clear()
    assert buy(payer, shop, "/dear").status == 503
    assert paid(payer) == OPEN_PRICE + 2 * PRICE
    shop.trouble = None
    assert buy(payer, shop, "/dear").status == 200
    assert paid(payer) == OPEN_PRICE + 6 * PRICE, "the pending payment was worth something"


def test_a_handlers_failure_leaves_the_payment_for_the_next_request(payer, shop):
    buy(payer, shop)
    shop.trouble = lambda shop, step: Answer(500)
    assert buy(payer, shop).status == 500
    shop.trouble = None
    assert buy(payer, shop).status == 200
    assert paid(payer) == OPEN_PRICE + 2 * PRICE


def test_credit_is_used_before_more_is_paid(payer, shop):
    buy(payer, shop)
    (channel,) = shop.channels.values()
    channel.spent -= PRICE  # what a handler's failure after the receipt's start would give back
    buy(payer, shop)  # told so by this receipt
    before = paid(payer)
    assert buy(payer, shop, "/b").status == 200
    assert paid(payer) == before == OPEN_PRICE + 2 * PRICE


def test_credit_buys_the_same_again_each_time_and_once_where_the_answer_was_lost(tmp_path, shop):
    """The payment is the same each time: what the payer says tells two purchases apart, and one from its own repetition."""
    payer = payer_of(tmp_path / "purse")
    buy(payer, shop)
    (channel,) = shop.channels.values()
    channel.spent -= 5 * PRICE  # a stream that used less than was paid
    buy(payer, shop, "/b")
    before, served = paid(payer), shop.served
    assert [buy(payer, shop).status for _ in range(2)] == [200, 200]
    assert (shop.served, paid(payer)) == (served + 2, before)
    shop.trouble = lambda shop, step: "lost"
    assert buy(payer, shop) is None
    shop.trouble = None
    assert buy(payer_of(tmp_path / "purse"), shop).status == 200  # also after a restart
    assert (shop.served, paid(payer)) == (served + 3, before)
    assert buy(payer, shop).status == 200
    assert (shop.served, paid(payer), payer.purse.ledger.credit("127.0.0.1-9-1")) == (served + 4, before, PRICE)


def test_a_stream_that_ends_makes_no_other_purchase_of_one_whose_answer_was_lost(payer, shop):
    buy(payer, shop)
    (channel,) = shop.channels.values()
    channel.spent -= 3 * PRICE
    buy(payer, shop, "/b")
    served = shop.served
    shop.trouble = lambda shop, step: "lost"
    assert buy(payer, shop) is None
    shop.trouble = None
    told = Receipt(channel.terms.outpoint, "", NOW, channel.accepted, channel.spent - PRICE, shop.funding_value, 1)
    drive(payer.stream_ended(told), lambda step: None)
    assert buy(payer, shop).status == 200 and shop.served == served + 1


def test_a_payment_that_is_too_small_is_followed_by_the_least_that_is_taken(tmp_path, shop):
    """What the server told of the credit was wrong, so less was signed than it takes."""
    shop.details["min_voucher_delta"] = 2 * PRICE
    payer = payer_of(tmp_path / "purse")
    buy(payer, shop)
    (name,) = payer.purse.names()
    payer.purse.ledger.note(name, paid(payer), PRICE - 1)
    refusals = []

    def trouble(shop, step):
        if len(refusals) == 1 or not step.headers:
            return None
        refusals.append(paid(payer))
        return shop.refuse("/a", "delta_too_small")

    shop.trouble = trouble
    assert buy(payer, shop).status == 200
    assert refusals == [OPEN_PRICE + PRICE + 1]
    assert paid(payer) == OPEN_PRICE + 3 * PRICE


def test_a_purchase_that_was_served_before_is_known_as_such(payer, shop):
    buy(payer, shop)

    def served(shop, step):
        shop.judge("/a", step)
        (channel,) = shop.channels.values()
        told = {"acceptedCumulative": channel.accepted, "spent": channel.spent}
        return shop.refuse("/a", "already_served", told)

    shop.trouble = served
    assert buy(payer, shop).status == 409
    assert the_record(payer).signed == the_record(payer).acknowledged


def test_a_liar_that_takes_and_gives_nothing_gets_one_payment(payer, shop):
    buy(payer, shop)

    def cheat(shop, step):
        if not step.headers:
            return None
        answer = shop.judge("/a", step)
        (channel,) = shop.channels.values()
        told = {"acceptedCumulative": channel.accepted, "spent": channel.accepted, "requiredCumulative": channel.accepted + PRICE}
        return shop.refuse("/a", "insufficient_credit", told) if answer.status == 200 else answer

    shop.trouble = cheat
    assert buy(payer, shop).status == 402
    assert paid(payer) == OPEN_PRICE + 2 * PRICE


def test_a_liar_that_claims_to_have_less_gets_the_same_payment(payer, shop):
    buy(payer, shop)
    told = {"acceptedCumulative": OPEN_PRICE, "spent": OPEN_PRICE, "requiredCumulative": OPEN_PRICE + PRICE}
    shop.trouble = lambda shop, step: shop.refuse("/a", "insufficient_credit", told) if step.headers else None
    for _ in range(3):
        assert buy(payer, shop).status == 402
    assert paid(payer) == OPEN_PRICE + 2 * PRICE


def test_a_receipt_for_less_than_was_signed_leaves_the_payment_pending(payer, shop):
    buy(payer, shop)
    (outpoint,) = shop.channels
    least = Receipt(outpoint, "", NOW, OPEN_PRICE, OPEN_PRICE, shop.funding_value, 1).encode()
    shop.trouble = lambda shop, step: Answer(200, (("payment-receipt", least),))
    for _ in range(3):
        assert buy(payer, shop).status == 200
        assert the_record(payer).signed != the_record(payer).acknowledged
    assert paid(payer) == OPEN_PRICE + 2 * PRICE


@pytest.mark.parametrize("code", ["invalid_challenge", "payment_expired", "delta_too_small", "open_price_short", "bad_signature"])
def test_a_server_that_refuses_for_ever_gets_one_payment(payer, shop, code):
    buy(payer, shop)
    shop.trouble = lambda shop, step: shop.refuse("/a", code) if step.headers else None
    for _ in range(3):
        assert buy(payer, shop).status == 402
    assert paid(payer) == OPEN_PRICE + 2 * PRICE


def test_a_refused_payment_may_be_followed_by_the_price_of_today(payer, shop):
    buy(payer, shop)
    shop.prices["/a"] = 5 * PRICE
    assert buy(payer, shop).status == 200
    assert paid(payer) == OPEN_PRICE + 6 * PRICE
    assert agrees(payer, shop)


def test_a_dearer_request_than_its_unit_is_paid_as_the_server_tells(payer, shop):
    """The challenge's amount is a unit's price; the route reckons what the request costs."""
    buy(payer, shop)
    challenge = shop.challenge("/a")
    shop.challenge = lambda path: challenge
    shop.prices["/a"] = 3 * PRICE
    assert buy(payer, shop).status == 200
    assert paid(payer) == OPEN_PRICE + 4 * PRICE


def test_what_a_dear_request_cost_is_remembered_for_the_next_one(payer, shop):
    test_a_dearer_request_than_its_unit_is_paid_as_the_server_tells(payer, shop)
    before = shop.requests
    assert buy(payer, shop).status == 200
    assert shop.requests == before + 1


def test_a_dear_payment_that_never_arrived_does_not_stop_cheap_requests(payer, shop):
    buy(payer, shop)
    shop.prices["/dear"] = 50 * PRICE
    shop.trouble = lambda shop, step: Answer(503) if step.headers else None
    payer._challenges.clear()
    assert buy(payer, shop, "/dear").status == 503
    assert paid(payer) == OPEN_PRICE + 51 * PRICE
    shop.trouble = None
    shop.prepay_max = 20 * PRICE
    assert buy(payer, shop).status == 200
    assert paid(payer) == OPEN_PRICE + 2 * PRICE
    assert payer.purse.ledger.rows()[0].amount == 2 * PRICE


def test_what_was_given_back_unseen_is_used_where_more_would_be_too_much(payer, shop):
    """The payer does not know how much credit it has: its handlers failed while it was away."""
    for _ in range(3):
        buy(payer, shop)
    (channel,) = shop.channels.values()
    channel.spent -= 3 * PRICE
    shop.prepay_max = PRICE
    before = paid(payer)
    assert buy(payer, shop, "/b").status == 200
    assert paid(payer) == before and channel.spent == before - 2 * PRICE
    (standing,) = payer.purse.standings()
    assert payer.purse.ledger.credit(standing.name) == 2 * PRICE


def test_a_channel_that_the_server_forgot_is_opened_again_with_the_newest_payment(payer, shop):
    buy(payer, shop)
    shop.channels.clear()
    assert buy(payer, shop).status == 200
    assert paid(payer) == OPEN_PRICE + 2 * PRICE
    assert len(payer.purse.names()) == 1


def test_a_dead_channel_is_left_and_another_one_opened_once(payer, shop):
    buy(payer, shop)
    dead = set(shop.channels)

    def trouble(shop, step):
        if not step.headers:
            return None
        credential = parse_credential(step.headers["Authorization"].removeprefix("Payment "))
        return shop.refuse("/a", "channel_closing") if credential.outpoint in dead else None

    shop.trouble = trouble
    assert buy(payer, shop).status == 200
    assert len(payer.purse.names()) == 2
    shop.trouble = lambda shop, step: shop.refuse("/a", "channel_closing") if step.headers else None
    assert buy(payer, shop).status == 402
    assert len(payer.purse.names()) == 3


@pytest.mark.parametrize("code", ["funding_unconfirmed", "funding_not_found"])
def test_confirmations_are_waited_for_and_then_the_same_payment_is_taken(tmp_path, shop, code):
    payer = payer_of(tmp_path / "purse", deadline=60)
    refusals = iter(range(12))
    fields = [("retry-after", "0")]
    shop.trouble = lambda shop, step: (
        shop.refuse("/a", code, {}, fields) if step.headers and next(refusals, None) is not None else None
    )
    monkeypatched_waits(payer)
    assert buy(payer, shop).status == 200
    assert len({payment for _, payment in shop.seen}) == 1
    assert paid(payer) == OPEN_PRICE + PRICE


def monkeypatched_waits(payer):
    """Let a second of waiting take none: the shop says when."""
    wait = payer._confirmation

    def quickly(*arguments):
        for step in wait(*arguments):
            assert step.seconds == 1.0
            yield Wait(0)

    payer._confirmation = quickly


def test_confirmations_that_do_not_come_are_said(tmp_path, shop):
    shop.trouble = lambda shop, step: shop.refuse("/a", "funding_unconfirmed") if step.headers else None
    with pytest.raises(NotYetConfirmed):
        buy(payer_of(tmp_path / "purse"), shop)
    shop.trouble = None
    assert buy(payer_of(tmp_path / "purse"), shop).status == 200
    assert len(shop.channels) == 1


# --- recovery ---


def copy_of(directory, to):
    to.mkdir()
    for file in directory.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
        (to / file.name).chmod(0o600)
    return to


def test_an_old_copy_of_the_purse_goes_on_from_the_servers_snapshot(tmp_path, payer, shop):
    buy(payer, shop)
    old = copy_of(payer.purse.directory, tmp_path / "old")
    for _ in range(3):
        buy(payer, shop)
    restored = payer_of(old)
    assert buy(restored, shop).status == 200
    assert paid(restored) == OPEN_PRICE + 5 * PRICE
    assert agrees(restored, shop)


def test_a_snapshot_that_was_not_signed_here_stops_all_signing(tmp_path, payer, shop):
    buy(payer, shop)
    (channel,) = shop.channels.values()
    forged = replace(channel.newest, change_value=channel.newest.change_value - 10**6)
    figures = (shop.funding_value, shop.funding_value - forged.change_value, OPEN_PRICE, 10**6)
    true = shop.snapshot(channel)
    snapshot = replace(true, deposit=figures[0], accepted=figures[1], payment=forged)
    shop.trouble = lambda shop, step: (
        shop.refuse("/a", "out_of_order", {}, [("payment-session-snapshot", snapshot.encode())]) if step.headers else None
    )
    with pytest.raises(ServerMisbehaved):
        buy(payer, shop)
    assert the_record(payer).hold.code == "server_misbehaved"
    assert paid(payer) == OPEN_PRICE + 2 * PRICE


def test_a_newer_payment_that_is_not_shown_stops_all_signing(payer, shop):
    buy(payer, shop)
    shop.trouble = lambda shop, step: shop.refuse("/a", "out_of_order") if step.headers else None
    with pytest.raises(StateBehindServer):
        buy(payer, shop)
    assert the_record(payer).hold.code == "state_behind_server"


# --- terms ---


@pytest.mark.parametrize(
    ("details", "code"),
    [
        ({"channel_type": "p2wsh-1"}, "other_channel_type"),
        ({"chain": "bip122:" + "ab" * 16}, "wrong_network"),
        ({"dust_limit": 546}, "terms_refused"),
        ({"settlement_period": 2**32 - 1}, "terms_refused"),
        ({"min_voucher_delta": 10**6, "max_prepay": 10}, "terms_refused"),
        ({"min_duration": 1000, "max_duration": 900}, "terms_refused"),
    ],
)
def test_terms_that_nobody_should_agree_to_are_refused_before_anything_is_made(payer, details, code):
    shop = Shop(**details)
    with pytest.raises(TermsRefused) as caught:
        buy(payer, shop)
    assert caught.value.code == code
    assert not [name for name in payer.purse.names() if the_record(payer).signed]
    assert not shop.seen


def test_real_bitcoins_over_plain_http_are_refused(tmp_path):
    shop = Shop("http://shop.example", chain=chain_id(LIVE))
    with pytest.raises(TermsRefused, match="plain http"):
        buy(payer_of(tmp_path), shop)


def test_another_key_or_network_than_was_agreed_is_refused_until_the_payer_says_so(payer, shop):
    buy(payer, shop)
    other = Shop(shop.origin)
    shop.trouble = lambda _, step: other.refuse("/a", "invalid_challenge")
    with pytest.raises(TermsRefused) as caught:
        buy(payer, shop)
    assert caught.value.code == "other_key"
    assert paid(payer) == OPEN_PRICE + 2 * PRICE
    payer.purse.trust(shop.origin)
    assert buy(payer, other).status == 200
    assert len(other.channels) == 1


def test_a_second_challenge_that_can_be_paid_is_taken(payer, shop):
    odd = Shop(channel_type="p2wsh-1").challenge("/a").render()
    fields = (("www-authenticate", odd), ("www-authenticate", shop.challenge("/a").render()))
    shop.trouble = lambda shop, step: None if step.headers else Answer(402, fields)
    assert buy(payer, shop).status == 200


def test_a_402_of_another_scheme_is_the_callers(payer, shop):
    shop.trouble = lambda shop, step: Answer(402, (("www-authenticate", 'L402 macaroon="x", invoice="y"'),))
    assert buy(payer, shop).status == 402


def test_a_request_with_a_login_of_its_own_is_not_overwritten(payer, shop):
    with pytest.raises(Refused, match="Authorization"):
        buy(payer, shop, has_authorization=True)


def test_a_header_of_its_own_for_payments_leaves_the_login_alone(payer, shop):
    plain = shop.challenge
    request = plain("/a").request
    named = make_challenge(b"secret", "shop", request, plain("/a").expires, header="Payment-Authorization")
    shop.challenge = lambda path: named
    headers = []

    def move(shop, step):
        if step.headers:
            headers.append(list(step.headers))
            step.headers["Authorization"] = step.headers.pop("Payment-Authorization")

    shop.trouble = move
    assert buy(payer, shop, has_authorization=True).status == 200
    assert headers == [["Payment-Authorization"]]


# --- budgets ---


def test_nothing_is_signed_above_the_budget_and_nothing_is_written(tmp_path, shop):
    payer = payer_of(tmp_path / "purse", Budget(request=PRICE - 1))
    with pytest.raises(BudgetExceeded):
        buy(payer, shop)
    assert the_record(payer).signed is None
    assert not payer.purse.ledger.rows()
    assert not shop.seen


def test_who_is_asked_may_allow_it(tmp_path, shop):
    questions = []
    payer = payer_of(tmp_path / "purse", Budget(request=PRICE - 1), ask=lambda question: questions.append(question) or True)
    assert buy(payer, shop).status == 200
    assert [(question.limit, question.amount, question.most) for question in questions] == [("request", PRICE, PRICE - 1)]


def test_an_open_price_above_the_budget_locks_up_no_money(tmp_path, shop):
    payer = payer_of(tmp_path / "purse", Budget(opening=OPEN_PRICE - 1, deposit=None), wallet=Costly())
    with pytest.raises(BudgetExceeded):
        buy(payer, shop)
    assert not payer.purse.names()


def test_more_than_the_budget_is_not_locked_up(tmp_path, shop):
    payer = payer_of(tmp_path / "purse", Budget(), wallet=Costly())
    with pytest.raises(BudgetExceeded, match="locked up"):
        buy(payer, shop)
    assert not payer.purse.names()


def test_an_open_price_that_rose_since_the_channel_was_made_is_held_to_the_budget(tmp_path, shop):
    payer = payer_of(tmp_path / "purse", Budget(opening=OPEN_PRICE, deposit=None), wallet=Costly())
    shop.trouble = lambda shop, step: shop.refuse("/a", "open_price_short") if step.headers else None
    buy(payer, shop)
    shop.trouble = None
    shop.details["open_price"] = 2 * OPEN_PRICE
    with pytest.raises(BudgetExceeded):
        buy(payer, shop)
    assert the_record(payer).funding.value - the_record(payer).signed.change_value == OPEN_PRICE + PRICE


# --- channels ---


def funded_by(monkeypatch, shop, value):
    for place in ("paychan.pay.wallets.DEBUG_FUNDING_VALUE", "paychan.client.debug.DEBUG_FUNDING_VALUE"):
        monkeypatch.setattr(place, value)
    shop.funding_value = value


def test_what_is_left_below_the_dust_limit_is_not_given_away(tmp_path, shop, monkeypatch):
    """A pending payment is worth presenting on a channel that pays for nothing more; the next purchase goes to another."""
    funded_by(monkeypatch, shop, OPEN_PRICE + 2 * PRICE + DUST_LIMIT)
    shop.trouble = lose(2)
    payer = payer_of(tmp_path / "purse")
    assert buy(payer, shop).status == 200
    assert buy(payer, shop) is None
    assert buy(payer, shop, "/b").status == 200
    assert len(shop.channels) == 2
    assert not [payment for _, payment in shop.seen if payment.exhausts]
    assert agrees(payer, shop)


def test_the_next_channel_is_made_before_the_old_one_is_used_up_and_opened_when_it_is(tmp_path, shop, monkeypatch):
    funded_by(monkeypatch, shop, OPEN_PRICE + 12 * PRICE)
    payer = payer_of(tmp_path / "purse")
    made_at = []
    for _ in range(30):
        assert buy(payer, shop).status == 200
        made_at.append(len(payer.purse.names()))
    assert made_at[5] == 1 and made_at[7] == 2, "while the old one still pays"
    assert shop.served == 30
    assert shop.requests == 31, "no request had to be repeated for it"
    assert agrees(payer, shop)


def test_the_next_channel_is_made_before_the_old_one_expires(tmp_path, shop):
    time = NOW
    payer = Payer(tmp_path / "purse", NO_LIMITS, clock=lambda: time, deadline=0)
    buy(payer, shop)
    shop.challenge = _with_long_expiry(shop)
    time = NOW + 28 * 86_400
    buy(payer, shop)
    assert len(payer.purse.names()) == 2
    time = NOW + 30 * 86_400
    assert buy(payer, shop).status == 200
    assert len(shop.channels) == 2


def test_a_channel_runs_low_at_the_figures_that_both_purses_share():
    for row in json.loads((ROOT / "tests" / "vectors" / "low-channels.json").read_text()):
        figures = [row[name] for name in ("left", "value", "cost", "time_left", "life")]
        assert runs_low(*figures) is row["is_low"], row["what"]


def test_a_server_whose_channels_are_short_does_not_have_two_from_the_start(tmp_path, shop):
    shop.details["max_duration"] = 2 * 86_400  # less than a tenth of the days that the purse would like
    shop.challenge = _with_long_expiry(shop)
    payer = payer_of(tmp_path / "purse")
    assert buy(payer, shop).status == 200
    assert len(payer.purse.names()) == 1


def _with_long_expiry(shop):
    from paychan.mpp.request import MethodDetails, SessionRequest

    request = SessionRequest(PRICE, shop.recipient, MethodDetails(**shop.details)).encode()
    return lambda path: make_challenge(b"secret", "shop", request)


def test_a_purse_is_a_state_directory_of_the_command_line(payer, shop):
    buy(payer, shop)
    (name,) = payer.purse.names()
    record = json.loads((payer.purse.directory / f"{name}.json").read_text())
    assert record["phase"] == "open"
    assert record["server_pubkey"] == shop.recipient.hex()
    for file in payer.purse.directory.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


def test_a_record_that_cannot_be_read_opens_no_second_channel(payer, shop):
    buy(payer, shop)
    (name,) = payer.purse.names()
    path = payer.purse.directory / f"{name}.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StateError, match="restore it"):
        buy(payer, shop)
    assert payer.purse.names() == [name]


def test_challenges_are_parsed_as_the_scheme_has_them(shop):
    assert parse_challenges([shop.challenge("/a").render()]) == [shop.challenge("/a")]
