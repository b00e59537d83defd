"""Aim: the operator's books say what the store has, count nothing twice, and answer each view with bounded work. Method: rows put
in by hand and drawn at random, held against plain Python over all of them."""

import random

import pytest

from paychan.core.channel import Phase
from paychan.core.outcome import Outcome
from paychan.operator.books import DAY_SECONDS, HORIZONS, ORDERS, PHASES, UNSETTLED, Books, Cursor, Row, search_text

DAY = 20_000
NOW = DAY * DAY_SECONDS + 5000


def row(number, phase=Phase.OPEN, received=1000, expires_at=NOW + 100_000, opened_at=NOW - 50, **more):
    outpoint = number.to_bytes(32, "big") + bytes(4)
    return Row(outpoint, phase, 10_000_000, received, 0, expires_at, opened_at, NOW, **more)


def some(count, seed=1):
    rng = random.Random(seed)
    for number in range(count):
        yield row(
            number,
            rng.choice(list(Phase)),
            rng.randrange(10_000),
            NOW + rng.randrange(40 * DAY_SECONDS),
            NOW - rng.randrange(90 * DAY_SECONDS),
        )


@pytest.fixture(scope="module")
def filled():
    books, rows = Books(), list(some(3000))
    for one in rows:
        books.put(one, 1)
    yield books, rows
    books.close()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("phase", PHASES)
def test_pages_are_all_rows_of_the_phase_in_order(filled, phase, order):
    books, rows = filled
    column, is_rising = ORDERS[order]
    wanted = [one for one in rows if one.phase in PHASES[phase]]
    wanted.sort(key=lambda one: (getattr(one, column), one.name), reverse=not is_rising)
    found, cursor = [], None
    while True:
        page, cursor = books.page(PHASES[phase], order, 170, cursor)
        found += page
        if cursor is None:
            break
        cursor = Cursor.parse(str(cursor))
    assert found == wanted
    assert books.total(PHASES[phase]) == len(wanted)


def test_a_page_reads_as_many_rows_as_it_shows_for_each_phase(filled):
    books, _ = filled
    books.page(PHASES[""], "value", 50)
    assert books.touched <= 5 * 51


def test_a_search_finds_every_outpoint_that_has_the_text(filled):
    books, rows = filled
    for text in ("ff", f"{7:x}", rows[70].name, rows[70].name[:20], "0/0"):
        wanted = {one.name for one in rows if text in one.name and one.phase != Phase.SETTLED}
        found, cursor = set(), None
        while True:
            page, cursor = books.page(UNSETTLED, "expiry", 500, cursor, text)
            found |= {one.name for one in page}
            if cursor is None:
                break
        assert found == wanted
        assert books.total(UNSETTLED, text) == len(wanted)


def test_what_is_no_part_of_an_outpoint_is_not_searched_for():
    assert search_text(f" {'AB' * 32}:7 ") == f"{'ab' * 32}/7"
    for wrong in ("x", "%", "_", "'", "0/0/0", "ab" * 33, "ab/cd"):
        with pytest.raises(ValueError, match="outpoint"):
            search_text(wrong)


ZEROS = "0" * 64


@pytest.mark.parametrize("text", ["", "1", "1-", f"-1-{ZEROS}/0", f"{1 << 63}-{ZEROS}/0", f"1-{ZEROS[1:]}/0", "1-x"])
def test_another_cursor_is_refused(text):
    with pytest.raises(ValueError, match="cursor"):
        Cursor.parse(text)


def test_what_is_at_risk_is_every_unsettled_satoshi_once(filled):
    books, rows = filled
    found = books.at_risk(NOW)
    assert [until for until, _, _ in found] == [*(NOW + seconds for seconds in HORIZONS), None]
    since = -1
    for until, channels, satoshi in found:
        inside = [one for one in rows if one.phase != Phase.SETTLED and since < one.expires_at <= (until or 1 << 40)]
        assert (channels, satoshi) == (len(inside), sum(one.received for one in inside))
        since = until


def test_sums_follow_a_channel_through_its_life():
    books = Books()
    for phase in Phase:
        books.put(row(1, phase, 700), 1)
        books.put(row(1, phase, 750), 2)
        assert books.counts() == {other: (1, 750) if other == phase else (0, 0) for other in Phase}
    books.remove(row(1).outpoint)
    assert set(books.counts().values()) == {(0, 0)}


def test_days_count_a_channel_once_before_and_after_it_is_settled():
    books, one = Books(), row(1, opened_at=NOW - DAY_SECONDS)
    books.put(one, 1)
    assert {day: sums.opened for day, sums in books.days().items()} == {DAY - 1: 1}
    outcome = Outcome(NOW, NOW - DAY_SECONDS, 1000, 30, 5)
    for _ in range(3):
        books.count_outcome(one.outpoint, outcome, 0)
        books.put(row(1, Phase.SETTLED, opened_at=NOW - DAY_SECONDS, settled_at=NOW), 2)
    days = books.days()
    assert [day.opened for day in days.values()] == [1, 0]
    today = days[DAY]
    assert (today.settled, today.received, today.arrived, today.fees, today.lost) == (1, 1000, 965, 30, 5)


def test_a_lost_channel_is_no_revenue():
    books = Books()
    books.count_outcome(b"a" * 36, Outcome(NOW, NOW, 1000, missing=1000, is_lost=True), 0)
    today = books.days()[DAY]
    assert (today.opened, today.settled, today.lost_channels) == (1, 0, 1)
    assert (today.received, today.arrived, today.fees, today.lost) == (1000, 0, 0, 1000)


def test_days_are_the_same_in_whichever_order_outcomes_are_told():
    outcomes = [(bytes([n]) * 36, Outcome(NOW + n * 9000, NOW - n * 7000, 1000 + n, n)) for n in range(60)]
    told = []
    for seed in (1, 2):
        books, order = Books(), outcomes * 2
        random.Random(seed).shuffle(order)
        for outpoint, outcome in order:
            books.count_outcome(outpoint, outcome, 0)
        told.append(books.days())
    assert told[0] == told[1]


def test_only_the_latest_settled_channels_keep_their_rows():
    books = Books(kept=3)
    for number in range(6):
        books.put(row(number, Phase.SETTLED, settled_at=NOW - number), 1)
    books.put(row(9), 1)
    books.drop_old()
    assert {one.settled_at for one in books.page((Phase.SETTLED,), "value", 10)[0]} == {NOW, NOW - 1, NOW - 2}
    assert books.total(UNSETTLED) == 1


def test_a_phase_is_seen_since_its_first_look():
    books = Books()
    books.put(row(1, Phase.CLOSING), 1)
    later = row(1, Phase.CLOSING, received=2000)
    books.put(Row(*(getattr(later, name) for name in Row.__slots__[:7]), NOW + 500), 2)
    assert books.get(later.outpoint).phase_at == NOW


def test_confirmations_are_of_the_transaction_that_was_asked_about():
    books = Books()
    books.put(row(1, Phase.BROADCAST, txid="aa"), 1)
    books.confirmed(row(1).outpoint, "bb", 3)
    assert books.get(row(1).outpoint).confirmations is None
    books.confirmed(row(1).outpoint, "aa", 3)
    books.put(row(1, Phase.BROADCAST, txid="aa", received=2000), 2)
    assert books.get(row(1).outpoint).confirmations == 3
    books.put(row(1, Phase.BROADCAST, txid="cc"), 3)
    assert books.get(row(1).outpoint).confirmations is None


def test_what_a_look_did_not_find_is_told():
    books = Books()
    for number in (1, 2, 3):
        books.put(row(number), 1)
    books.put(row(4, Phase.SETTLED), 1)
    books.put(row(1), 2)
    books.saw([row(2).outpoint], 2)
    assert books.unseen(2) == [row(3).outpoint]
