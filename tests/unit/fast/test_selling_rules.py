"""Aim: each rule of selling, at its edge: who pays is served once, who does not is not, and what falls back does so at its time.
Method: one compiled table, sales one after the other; tests/property/test_sales_hold.py has them in any order."""

import pytest

from paychan._fast.channel import ChannelTable
from paychan._fast.group import read_state
from paychan._fast.selling import judge
from paychan._fast.status import Status
from paychan.core.channel import ChannelState, Phase
from paychan.core.payment import Payment
from paychan.core.sales import ATTEMPT_MAX, PURCHASES_MAX, RESERVATION_SECONDS_MAX, Purchase, Sales
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all

SELL, SETTLE, PROVE, AGAIN = 1, 2, 3, 4
FUNDING, OPENED, PRICE = 10_000_000, 5000, 700
SAMPLE = make_sample("selling rules", opening_change=FUNDING - OPENED)
OUTPOINT = SAMPLE.terms.outpoint
K = [bytes([number]) * 16 for number in range(9)]


@pytest.fixture
def table():
    made = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
    made.open_price = PRICE
    SAMPLE.load(made)
    return made


def ask(table, kind=SELL, key=K[0], amount=100, number=0, until=0, paid=None, now=NOW, attempt=0):
    """Return (status, charged, spent, purchase)."""
    raw = None if paid is None else paid.raw
    status, *rest = judge(table, kind, OUTPOINT, key, amount, number, until, raw, now, now, attempt)
    return Status(status), *rest


def record(table):
    """Return the state record that would be written."""
    entry = table.seal(OUTPOINT)
    return entry[68 + entry[49] :]


def standing(table):
    """Return (received, spent, revision, purchases) as they would be written."""
    state = ChannelState.parse(record(table))
    return FUNDING - state.payment.change_value, state.sales.spent, state.sales.revision, state.sales.purchases


def refused(table, status, **asked):
    before = record(table)
    assert ask(table, **asked)[0] == status
    assert record(table) == before


# --- credit ---


def test_no_more_is_sold_than_the_credit_covers(table):
    refused(table, Status.INSUFFICIENT_CREDIT, amount=OPENED - PRICE + 1)
    assert table.shortfall == 1
    assert ask(table, amount=OPENED - PRICE)[0] == Status.ACCEPTED
    assert standing(table)[:2] == (OPENED, OPENED)
    refused(table, Status.INSUFFICIENT_CREDIT, key=K[1], amount=1)


def test_the_first_sale_spends_the_open_price_too_and_the_second_does_not(table):
    assert ask(table)[1:3] == (PRICE + 100, PRICE + 100)
    assert ask(table, key=K[1])[1:3] == (100, PRICE + 200)


def test_a_channel_that_received_less_than_the_open_price_has_no_credit(table):
    table.open_price = OPENED + 1
    refused(table, Status.INSUFFICIENT_CREDIT, amount=1)
    assert ask(table, amount=1, paid=SAMPLE.sign(FUNDING - OPENED - 2))[0] == Status.ACCEPTED


@pytest.mark.parametrize("amount", [0, 21 * 10**14 + 1, 2**63, 2**64 - 1])
def test_amounts_out_of_range_are_refused(table, amount):
    refused(table, Status.INVALID_SALE, amount=amount)


# --- the payment that comes with a sale ---


def test_payment_and_charge_are_both_taken_or_neither(table):
    paid = SAMPLE.sign(FUNDING - OPENED - 50)
    refused(table, Status.INSUFFICIENT_CREDIT, amount=OPENED - PRICE + 51, paid=paid)
    status, charged, *_ = ask(table, amount=OPENED - PRICE + 50, paid=paid)
    assert (status, charged, table.value_received) == (Status.ACCEPTED, OPENED + 50, 50)
    assert standing(table)[:2] == (OPENED + 50, OPENED + 50)


def test_nothing_is_sold_on_a_payment_that_is_forged_or_old(table):
    forged = type(SAMPLE.opening)(FUNDING - OPENED - 50, SAMPLE.sign(FUNDING - OPENED - 51).signature, 0x83)
    refused(table, Status.BAD_SIGNATURE, paid=forged)
    refused(table, Status.OUT_OF_ORDER, paid=SAMPLE.sign(FUNDING))


def test_the_newest_payment_again_buys_from_the_credit(table):
    assert ask(table, paid=SAMPLE.opening)[0] == Status.ACCEPTED
    assert table.value_received == 0


def test_a_payment_that_gives_up_everything_buys_and_closes(table):
    status, *_ = ask(table, amount=FUNDING - PRICE, paid=SAMPLE.sign(0, 0x82))
    assert status == Status.EXHAUSTED and table.phase(OUTPOINT) == Phase.CLOSING
    assert standing(table)[:2] == (FUNDING, FUNDING)
    assert ask(table, amount=FUNDING - PRICE)[0] == Status.REPLAYED
    refused(table, Status.CHANNEL_CLOSING, key=K[1])
    refused(table, Status.CHANNEL_CLOSING, kind=SETTLE, number=1, amount=0)


def test_a_channel_near_its_expiry_sells_nothing_new(table):
    ask(table)
    late = SAMPLE.terms.exp_time - SETTLEMENT_PERIOD
    assert ask(table, key=K[1], now=late - 1)[0] == Status.ACCEPTED
    refused(table, Status.CHANNEL_EXPIRING, key=K[2], now=late)
    assert ask(table, now=late)[0] == Status.REPLAYED


def test_a_channel_whose_funding_was_not_looked_at_sells_nothing(table):
    table.chain_generation += 1
    refused(table, Status.UNCHECKED)


def test_who_proves_a_payment_changes_nothing_whatever_it_is_worth(table):
    for paid in (SAMPLE.sign(FUNDING), SAMPLE.opening, SAMPLE.sign(FUNDING - OPENED - 9), SAMPLE.sign(0, 0x82)):
        before = record(table)
        assert ask(table, kind=PROVE, paid=paid)[0] == Status.REPLAYED
        assert record(table) == before
    forged = type(SAMPLE.opening)(FUNDING, SAMPLE.opening.signature, 0x83)
    refused(table, Status.BAD_SIGNATURE, kind=PROVE, paid=forged)


# --- keys ---


def test_a_key_is_charged_once(table):
    first = ask(table)
    assert first[0] == Status.ACCEPTED
    for _ in range(3):
        assert ask(table)[0] == Status.REPLAYED
        assert ask(table)[2:] == first[2:]
    assert standing(table)[1:3] == (PRICE + 100, 1)


def test_a_key_for_another_amount_is_refused(table):
    ask(table)
    refused(table, Status.PURCHASE_DIFFERS, amount=99)
    refused(table, Status.PURCHASE_DIFFERS, amount=101, paid=SAMPLE.sign(FUNDING - OPENED - 500))


def test_a_better_payment_under_an_old_key_is_taken_and_charges_nothing(table):
    ask(table)
    status, charged, spent, _ = ask(table, paid=SAMPLE.sign(FUNDING - OPENED - 30))
    assert (status, charged, spent, table.value_received) == (Status.ACCEPTED, 0, PRICE + 100, 30)


def test_the_latest_purchases_are_remembered(table):
    for number in range(PURCHASES_MAX + 1):
        assert ask(table, key=K[number])[0] == Status.ACCEPTED
    assert [ask(table, key=K[number])[0] for number in range(1, PURCHASES_MAX + 1)] == [Status.REPLAYED] * PURCHASES_MAX
    assert ask(table, key=K[0])[0] == Status.ACCEPTED  # forgotten, so it is another purchase


def test_keys_are_remembered_over_a_restart(table):
    ask(table, key=K[1])
    ask(table, key=K[2], until=NOW + 60)
    state = ChannelState.parse(record(table))
    table.load(SAMPLE.terms, state)
    table.mark_checked(OUTPOINT, table.chain_generation)
    assert [ask(table, key=key)[0] for key in K[1:3]] == [Status.REPLAYED] * 2
    assert ask(table, key=K[2])[3] == (100, 100, 2, NOW + 60)


# --- reservations and what is given back ---


def test_a_reservation_falls_back_at_its_time_and_not_before(table):
    ask(table, until=NOW + 60, amount=OPENED - PRICE)
    refused(table, Status.INSUFFICIENT_CREDIT, key=K[1], amount=1, now=NOW + 59)
    assert ask(table, key=K[1], amount=1, now=NOW + 60)[1:3] == ((1 - (OPENED - PRICE)) % 2**64, PRICE + 1)


def test_what_fell_back_cannot_be_settled(table):
    _, _, _, (_, _, number, _) = ask(table, until=NOW + 60)
    refused(table, Status.MORE_THAN_HELD, kind=SETTLE, number=number, amount=1, now=NOW + 60)
    assert ask(table, kind=SETTLE, number=number, amount=1, now=NOW + 59)[0] == Status.ACCEPTED


@pytest.mark.parametrize("until", [1, NOW, NOW + RESERVATION_SECONDS_MAX + 1, 2**32 - 1])
def test_a_reservation_ends_within_a_day(table, until):
    refused(table, Status.INVALID_SALE, until=until)


def test_open_reservations_are_not_forgotten(table):
    for number in range(PURCHASES_MAX):
        assert ask(table, key=K[number], until=NOW + 60)[0] == Status.ACCEPTED
    refused(table, Status.TOO_MANY_RESERVATIONS, key=K[7])
    assert ask(table, kind=SETTLE, key=K[2], number=3, amount=10)[0] == Status.ACCEPTED
    assert ask(table, key=K[7])[0] == Status.ACCEPTED  # in the place of that one
    assert [row.key for row in standing(table)[3]] == [K[0], K[1], K[7], K[3]]


def test_no_more_is_given_back_than_a_purchase_holds(table):
    ask(table)
    refused(table, Status.MORE_THAN_HELD, kind=SETTLE, number=1, amount=101)
    assert ask(table, kind=SETTLE, number=1, amount=40)[1:3] == ((-60) % 2**64, PRICE + 40)
    assert ask(table, kind=SETTLE, number=1, amount=40)[0] == Status.REPLAYED
    refused(table, Status.MORE_THAN_HELD, kind=SETTLE, number=1, amount=41)


def test_a_late_release_does_not_give_back_the_next_purchase_of_the_key(table):
    ask(table)
    assert ask(table, kind=SETTLE, number=1, amount=0)[0] == Status.ACCEPTED
    assert ask(table)[3] == (100, 100, 3, 0)
    refused(table, Status.NO_SUCH_PURCHASE, kind=SETTLE, number=1, amount=0)
    assert standing(table)[1] == PRICE + 100


def test_a_reservation_settled_whole_is_final(table):
    ask(table, until=NOW + 60)
    assert ask(table, kind=SETTLE, number=1, amount=100)[:2] == (Status.ACCEPTED, 0)
    assert ask(table, key=K[1], now=NOW + 61)[2] == PRICE + 200


# --- taking a purchase over ---


def test_what_was_taken_over_is_neither_given_back_nor_settled_by_its_old_number(table):
    ask(table)
    assert ask(table, kind=AGAIN, number=1) == (Status.ACCEPTED, 0, PRICE + 100, (100, 100, 2, 0))
    for amount in (0, 40, 100):
        refused(table, Status.NO_SUCH_PURCHASE, kind=SETTLE, number=1, amount=amount)
    assert standing(table)[1:3] == (PRICE + 100, 2)
    assert ask(table)[3] == (100, 100, 2, 0)  # for who asks as always
    assert ask(table, kind=SETTLE, number=2, amount=0)[1:3] == ((-100) % 2**64, PRICE)


def test_only_who_knows_a_purchases_number_takes_it_over(table):
    ask(table)
    assert ask(table, kind=AGAIN, number=1)[3][2] == 2
    for number in (0, 1, 3):
        refused(table, Status.NO_SUCH_PURCHASE, kind=AGAIN, number=number)
    refused(table, Status.PURCHASE_DIFFERS, kind=AGAIN, number=2, amount=99)


def test_a_purchase_says_which_attempt_has_made_it_or_taken_it_over(table):
    assert ask(table, attempt=5)[3][2] == 5 << 40 | 1
    assert ask(table, attempt=6)[3][2] == 5 << 40 | 1  # it has made nothing
    refused(table, Status.NO_SUCH_PURCHASE, kind=AGAIN, number=1, attempt=6)
    assert ask(table, kind=AGAIN, number=5 << 40 | 1, attempt=ATTEMPT_MAX)[3][2] == ATTEMPT_MAX << 40 | 2
    for number in (1, 2, 5 << 40 | 1, 5 << 40 | 2):
        refused(table, Status.NO_SUCH_PURCHASE, kind=SETTLE, number=number, amount=0)
    last = 2**63 - 2**40 + 2
    assert standing(table)[3][0].number == last == ask(table, kind=SETTLE, number=last, amount=0, attempt=9)[3][2]
    assert ask(table, attempt=7)[3][2] == 7 << 40 | 4  # bought anew
    assert ask(table, kind=AGAIN, number=7 << 40 | 4)[3][2] == 5  # who does not say


def test_the_oldest_is_forgotten_whatever_attempt_has_made_it(table):
    for number in range(PURCHASES_MAX + 1):
        assert ask(table, key=K[number], attempt=9 - number)[0] == Status.ACCEPTED
    assert [row.key for row in standing(table)[3]] == [K[4], *K[1:4]]


@pytest.mark.parametrize("number", [1, 9])
def test_what_is_not_there_any_more_is_charged_anew(table, number):
    assert ask(table, kind=AGAIN, number=number)[:2] == (Status.ACCEPTED, PRICE + 100)
    assert ask(table, kind=SETTLE, number=1, amount=0)[0] == Status.ACCEPTED
    assert ask(table, kind=AGAIN, number=number) == (Status.ACCEPTED, 100, PRICE + 100, (100, 100, 3, 0))


def test_who_takes_over_with_an_old_payment_does_and_buys_nothing_anew_with_it(table):
    ask(table, paid=SAMPLE.opening)
    ask(table, key=K[1], paid=SAMPLE.sign(FUNDING - OPENED - 50))
    assert ask(table, kind=AGAIN, number=1, paid=SAMPLE.opening)[3] == (100, 100, 3, 0)
    refused(table, Status.NO_SUCH_PURCHASE, kind=AGAIN, number=1, paid=SAMPLE.opening)
    assert ask(table, kind=SETTLE, number=3, amount=0)[0] == Status.ACCEPTED
    refused(table, Status.OUT_OF_ORDER, kind=AGAIN, number=3, paid=SAMPLE.opening)
    forged = type(SAMPLE.opening)(FUNDING, SAMPLE.opening.signature, 0x83)
    refused(table, Status.BAD_SIGNATURE, kind=AGAIN, key=K[1], number=2, paid=forged)


def test_a_better_payment_is_taken_with_what_is_taken_over(table):
    ask(table)
    status, charged, spent, row = ask(table, kind=AGAIN, number=1, paid=SAMPLE.sign(FUNDING - OPENED - 30))
    assert (status, charged, spent, row[2], table.value_received) == (Status.ACCEPTED, 0, PRICE + 100, 2, 30)


@pytest.mark.parametrize(("ahead", "ends"), [(30, 60), (90, 90), (0, 60)])
def test_a_reservation_that_is_taken_over_ends_no_sooner(table, ahead, ends):
    ask(table, until=NOW + 60)
    assert ask(table, kind=AGAIN, number=1, until=NOW + ahead if ahead else 0)[3] == (100, 100, 2, NOW + ends)


def test_what_was_settled_stays_settled(table):
    ask(table, until=NOW + 60)
    ask(table, kind=SETTLE, number=1, amount=40)
    assert ask(table, kind=AGAIN, number=1, until=NOW + 90) == (Status.ACCEPTED, 0, PRICE + 40, (100, 40, 3, 0))


def test_in_a_channel_that_stands_still_nothing_is_taken_over_for_nothing_is_given_back(table):
    ask(table)
    late = SAMPLE.terms.exp_time - SETTLEMENT_PERIOD
    assert ask(table, kind=AGAIN, number=1, now=late) == (Status.REPLAYED, 0, PRICE + 100, (100, 100, 1, 0))
    ask(table, key=K[1], paid=SAMPLE.sign(0, 0x82))
    before = record(table)
    assert ask(table, kind=AGAIN, number=1)[0] == Status.REPLAYED
    assert record(table) == before
    refused(table, Status.CHANNEL_CLOSING, kind=SETTLE, number=1, amount=0)


def test_in_a_channel_whose_funding_was_not_looked_at_nothing_is_taken_over_and_the_caller_waits(table):
    ask(table)
    table.chain_generation += 1
    refused(table, Status.UNCHECKED, kind=AGAIN, number=1)


# --- durability ---


def test_a_sale_is_durable_when_its_revision_is(table):
    assert table.is_durable(OUTPOINT)
    ask(table)
    table.seal(OUTPOINT)
    ask(table, key=K[1])
    assert not table.is_durable(OUTPOINT)
    table.acknowledge(OUTPOINT)
    assert not table.is_durable(OUTPOINT)  # the second was not sent
    entry = table.seal(OUTPOINT)
    assert entry[49] == 16 and int.from_bytes(entry[68:76], "little") == 1  # judged on the first
    table.acknowledge(OUTPOINT)
    assert table.is_durable(OUTPOINT)


def test_a_channel_that_sold_nothing_is_written_as_before(table):
    assert table.pay(SAMPLE.path, f"payment={_text(SAMPLE.sign(FUNDING - OPENED - 9))}", NOW) == Status.ACCEPTED
    entry = table.seal(OUTPOINT)
    assert entry[49] == 0 and entry[68] == 1 and len(entry) == 68 + 12 + entry[71]
    assert read_state(entry[68:]) == (Phase.OPEN, FUNDING - OPENED - 9)


def _text(paid):
    return Payment(paid.change_value, paid.signature, paid.sighash_type).encode()


@pytest.mark.parametrize("sales", [Sales(OPENED + 1, 1), Sales(2**64 - 1, 1)])
def test_records_in_which_more_was_spent_than_received_are_not_loaded(table, sales):
    payment = Payment(FUNDING - OPENED, SAMPLE.opening.signature, 0x83)
    before = record(table)
    with pytest.raises(ValueError):
        table.load(SAMPLE.terms, ChannelState(Phase.OPEN, payment, sales=sales))
    assert record(table) == before
    table.load(SAMPLE.terms, ChannelState(Phase.OPEN, payment, sales=Sales(OPENED, 1, (Purchase(K[0], 9, 9, 1),))))


def test_dropped_channels_give_their_sales_back(table):
    for _ in range(3000):
        ask(table)
        table.drop(OUTPOINT)
        SAMPLE.load(table)
    assert ask(table)[0] == Status.ACCEPTED
