"""Aim: fees rise towards the expiry, with the stake and with waiting, and stay within bounds; replacements are relayed. Method:
properties, edges by hand, and the simulated mempool's rules for what a replacement must pay."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan.core.fees import (
    BLIND_FACTOR,
    BLOCK_SECONDS,
    BUMP_PERCENT_MIN,
    LADDER,
    RELAY_FEE_PER_BYTE,
    STAKE_FACTOR,
    STAKE_PERCENT,
    FeeBounds,
    Rival,
    Stake,
    asked_fee,
    bump_fee_min,
    fee_limit,
    replacement_fee,
    rung_at,
    wanted_fee,
)
from paychan.core.settlement import Uneconomic
from paychan.core.units import DUST_LIMIT
from tests.simulation.mempool import CORE_28, CORE_31, Mempool, Refused, Tx

PERIOD = 6 * 3600
SIZE, INFLATED = 348, 872
BOUNDS = FeeBounds(1, 1000)

estimates = st.integers(1, 3000)
amounts = st.integers(0, 10**9)
sizes = st.integers(200, 500)
rungs = st.sampled_from(LADDER)
bounds = st.tuples(st.integers(1, 50), st.integers(0, 2000)).map(lambda pair: FeeBounds(pair[0], pair[0] + pair[1]))


def stake(received: int, size: int = SIZE) -> Stake:
    return Stake(received, size, size + 524)


POOR = 10**5
"""So little that 2 % of it pay for no more than the estimates here."""


@pytest.mark.parametrize(
    ("percent_left", "place"),
    [(1000, 0), (100, 0), (75, 0), (74, 1), (50, 1), (49, 2), (25, 2), (24, 3), (10, 3), (9, 4), (0, 4), (-1, 4), (-500, 4)],
)
def test_each_rung_begins_where_the_ladder_says(percent_left, place):
    assert rung_at(PERIOD * percent_left // 100, PERIOD) is LADDER[place]


@pytest.mark.parametrize("place", range(4))
def test_a_rung_ends_to_the_second(place):
    until = PERIOD * LADDER[place].period_percent // 100
    assert rung_at(until, PERIOD) is LADDER[place]
    assert rung_at(until - 1, PERIOD) is LADDER[place + 1]


def test_the_ladder_steepens():
    for above, below in itertools.pairwise(LADDER):
        assert above.period_percent > below.period_percent
        assert above.blocks >= below.blocks
        assert above.factor <= below.factor
        assert above.share_percent < below.share_percent <= 100
        assert above.is_late <= below.is_late
        assert above.patience > below.patience >= 1
        assert above.growth_percent <= below.growth_percent


def test_the_ladder_is_the_documented_one():
    text = (Path(__file__).parents[3] / "docs" / "SETTLING.md").read_text()
    form = r"(?m)^\| [^|]*?(\d+) %[^|]*\| (\d+) \| (\d+) \| (\d+) % \| (as signed|the largest copy) \| (\d+) \| (\d+) % \|$"
    rows = re.findall(form, text)
    told = [(*map(int, row[:4]), row[4] != "as signed", *map(int, row[5:])) for row in rows]
    assert [row[1:] for row in told] == [
        (rung.blocks, rung.factor, rung.share_percent, rung.is_late, rung.patience, rung.growth_percent) for rung in LADDER
    ]
    assert [row[0] for row in told] == [rung.period_percent for rung in LADDER[:-1]] + [LADDER[-2].period_percent]


def test_the_constants_are_the_documented_ones():
    assert (BUMP_PERCENT_MIN, RELAY_FEE_PER_BYTE, STAKE_PERCENT, STAKE_FACTOR, BLIND_FACTOR, BLOCK_SECONDS) == (25, 1, 2, 2, 2, 600)


# --- what is wanted -------------------------------------------------------------------------------------------------


def or_none(function, *arguments, **named) -> int:
    try:
        return function(*arguments, **named)
    except Uneconomic:
        return 0


@given(st.integers(-PERIOD, 20 * PERIOD), st.integers(0, PERIOD), estimates, st.integers(2000, 10**9), sizes)
def test_less_time_never_means_a_lower_fee(seconds_left, less, estimate, received, size):
    def fee(seconds: int) -> int:
        return or_none(wanted_fee, stake(received, size), rung_at(seconds, PERIOD), estimate, BOUNDS)

    assert fee(seconds_left - less) >= fee(seconds_left)


@given(amounts, amounts, estimates, sizes, rungs, bounds)
def test_more_at_stake_never_means_a_lower_fee(received, more, estimate, size, rung, bounds):
    fees = [or_none(wanted_fee, stake(value, size), rung, estimate, bounds) for value in (received, received + more)]
    assert fees[0] <= fees[1]


@given(estimates, sizes, amounts, rungs, bounds, st.integers(0, 2000), st.integers(0, 10**6))
def test_a_fee_is_within_all_its_bounds_or_there_is_none(estimate, size, received, rung, bounds, seen, overdue):
    try:
        fee = wanted_fee(stake(received, size), rung, estimate, bounds, seen=seen, overdue=overdue)
    except Uneconomic:
        assert received - DUST_LIMIT < bounds.floor * size
        return
    assert bounds.floor * size <= fee
    assert fee <= bounds.ceiling * (size + 524) or fee <= 2 * overdue
    assert fee * 100 <= received * rung.share_percent or fee <= bump_fee_min(bounds.floor * size, size)
    assert received - fee >= DUST_LIMIT


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.period_percent)
def test_the_estimate_is_paid_for_the_bytes_that_a_rung_reckons_with(rung):
    fee = wanted_fee(stake(POOR), rung, 7, BOUNDS)
    assert fee == 7 * rung.factor * (INFLATED if rung.is_late else SIZE)


def test_a_copy_that_the_network_has_is_paid_for():
    def fee(seen: int) -> int:
        return wanted_fee(stake(POOR), LADDER[0], 10, BOUNDS, seen=seen)

    assert [fee(seen) for seen in (0, 347, 348, 500, 872)] == [3480, 3480, 3480, 5000, 8720]
    assert fee(100_000) == 8720  # nobody can make a larger one that is relayed: whoever claims it is not believed


def test_what_waited_too_long_is_late_and_grows_with_its_rung():
    for rung in LADDER:
        base = wanted_fee(stake(POOR), rung, 7, BOUNDS, overdue=1)
        assert base == 7 * rung.factor * INFLATED
        assert wanted_fee(stake(10**7), rung, 1, BOUNDS, overdue=50_001) == -(-50_001 * (100 + rung.growth_percent) // 100)
    assert wanted_fee(stake(POOR), LADDER[4], 7, BOUNDS, overdue=90_000) == 95_000  # its share


def test_the_first_fee_grows_with_what_is_at_stake():
    def fee(received: int, estimate: int = 10) -> int:
        return wanted_fee(stake(received), LADDER[0], estimate, BOUNDS)

    assert fee(100_000) == 10 * SIZE  # 2 % are less than that
    assert fee(500_000) == 10_000
    assert fee(2_000_000) == 2 * 10 * INFLATED  # what makes sure is enough
    assert fee(2_000_000, estimate=100) == 40_000
    assert fee(2_000_000, estimate=1) == 2 * INFLATED
    assert wanted_fee(stake(10**9), LADDER[0], 400, FeeBounds(1, 500)) == 500 * INFLATED


def test_the_estimate_counts_between_floor_and_ceiling():
    def fee(estimate: int, rung=LADDER[0]) -> int:
        return wanted_fee(stake(POOR), rung, estimate, FeeBounds(5, 50))

    assert [fee(estimate) for estimate in (7, 90)] == [7 * SIZE, 50 * SIZE]
    assert wanted_fee(stake(POOR // 2), LADDER[0], 1, FeeBounds(5, 50)) == 5 * SIZE
    assert fee(7, LADDER[-1]) == 50 * INFLATED


# --- what may be paid -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.period_percent)
def test_a_share_is_exact(rung):
    assert fee_limit(stake(10**6), rung, BOUNDS) == 10**4 * rung.share_percent
    assert wanted_fee(stake(10_000, 200), rung, 1000, BOUNDS) == min(100 * rung.share_percent, 10_000 - DUST_LIMIT)


def test_a_small_channel_signs_no_fee_that_it_could_not_raise():
    # 30 % of 1446 is 433; a replacement of that would cost 780, more than the half that a signer may allow.
    assert wanted_fee(stake(1446, 347), LADDER[0], 2, BOUNDS) == 2 * 347
    assert wanted_fee(stake(1446, 347), LADDER[0], 3, BOUNDS) == 2 * 347
    assert wanted_fee(stake(1446, 347), LADDER[0], 1, BOUNDS) == 347
    assert wanted_fee(stake(3000, 100), LADDER[0], 100, FeeBounds(10, 1000)) == 1250  # a replacement pays a quarter more at least


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.period_percent)
def test_the_uneconomic_edge_is_exact(rung):
    least = 2 * SIZE + DUST_LIMIT
    assert wanted_fee(stake(least), rung, 1, FeeBounds(2, 9)) == 2 * SIZE
    for function in (lambda one: fee_limit(one, rung, FeeBounds(2, 9)), lambda one: wanted_fee(one, rung, 1, FeeBounds(2, 9))):
        with pytest.raises(Uneconomic):
            function(stake(least - 1))


# --- what a replacement must pay ------------------------------------------------------------------------------------


@given(st.integers(200, 10**7), sizes)
def test_a_bump_meets_the_replacement_rule_for_any_size_up_to_the_bound(fee, size):
    least = bump_fee_min(fee, size)
    assert least >= fee + RELAY_FEE_PER_BYTE * size  # BIP 125 rule 4
    assert least * 100 >= fee * (100 + BUMP_PERCENT_MIN)
    assert least > fee
    assert least - 1 < fee + RELAY_FEE_PER_BYTE * size or (least - 1) * 100 < fee * (100 + BUMP_PERCENT_MIN)


def test_bumps_from_floor_to_ceiling_are_fewer_than_the_signer_makes():
    fee, bumps = BOUNDS.floor * SIZE, 0
    while fee <= BOUNDS.ceiling * INFLATED:
        fee, bumps = bump_fee_min(fee, SIZE), bumps + 1
    assert bumps < 50  # the signer's default is 100 versions


FUNDING = b"\x01" * 36
CHILDREN = st.lists(st.tuples(st.integers(0, 10), st.integers(100, 20_000), st.integers(100, 10_000)), max_size=8)


@given(st.sampled_from([CORE_28, CORE_31]), st.sampled_from([SIZE, INFLATED, 500, 238]), st.integers(1, 200), CHILDREN)
def test_what_is_reckoned_for_a_replacement_is_taken_by_nodes_of_both_kinds(rules, size, rate, children):
    pool, parent = Mempool(rules), Tx(bytes(32), b"", FUNDING, rate * size, 0, None, size)
    pool.add(parent)
    for number, (per_byte, extra, child_size) in enumerate(children):
        tree = list(pool.entries)
        fee, parent_id = per_byte * child_size + extra, tree[extra % len(tree)]
        child = Tx(bytes(31) + bytes((number + 1,)), b"", None, fee, 0, parent_id, child_size)
        try:
            pool.add(child)
        except Refused:
            continue
    known = Rival(parent.fee, parent.size, pool.fees_of(parent.txid))
    fee = replacement_fee(known, SIZE)
    unknown = replacement_fee(Rival(parent.fee, parent.size), SIZE)
    assert unknown <= fee and (len(pool.entries) > 1 or unknown == fee)
    pool.add(Tx(b"\xff" * 32, b"", FUNDING, fee, 0, None, SIZE))
    assert list(pool.entries) == [b"\xff" * 32]


def test_what_is_reckoned_for_a_replacement_is_hardly_too_much():
    pool, parent = Mempool(CORE_28), Tx(bytes(32), b"", FUNDING, 3480, 0, None, SIZE)
    pool.add(parent)
    pool.add(Tx(b"\x02" * 32, b"", None, 100_000, 0, parent.txid, 100_000))
    fee = replacement_fee(Rival(3480, SIZE, pool.fees_of(parent.txid)), SIZE)
    assert fee == 103_480 + SIZE
    with pytest.raises(Refused):
        pool.add(Tx(b"\xff" * 32, b"", FUNDING, fee - 1, 0, None, SIZE))


def test_a_source_that_tells_less_than_the_rival_pays_itself_is_not_followed():
    assert replacement_fee(Rival(5000, 348, 100), 348) == replacement_fee(Rival(5000, 348, 5000), 348) == 5348
    assert replacement_fee(Rival(5000, 0), 348) == 5348


@given(st.integers(0, 10**7), sizes)
def test_what_a_mempool_asks_is_rounded_up(per_kb, size):
    assert (asked_fee(per_kb, size) - 1) * 1000 < per_kb * size <= asked_fee(per_kb, size) * 1000
