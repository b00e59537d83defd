"""Aim: fees rise towards the expiry, stay within bounds; replacements are relayed. Method: properties, edges by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan.core.fees import BUMP_PERCENT_MIN, LADDER, RELAY_FEE_PER_BYTE, FeeBounds, bump_fee_min, rung_at, settlement_fee
from paychan.core.settlement import Uneconomic
from paychan.core.units import DUST_LIMIT

PERIOD = 6 * 3600
SIZE = 348
BOUNDS = FeeBounds(1, 1000)

estimates = st.integers(1, 3000)
amounts = st.integers(0, 10**9)
sizes = st.integers(200, 500)
rungs = st.sampled_from(LADDER)
bounds = st.tuples(st.integers(1, 50), st.integers(0, 2000)).map(lambda pair: FeeBounds(pair[0], pair[0] + pair[1]))


@pytest.mark.parametrize(
    ("percent_left", "place"),
    [(1000, 0), (100, 0), (75, 0), (74, 1), (50, 1), (49, 2), (25, 2), (24, 3), (10, 3), (9, 4), (0, 4), (-1, 4), (-500, 4)],
)
def test_each_rung_begins_where_the_ladder_says(percent_left, place):
    assert rung_at(PERIOD * percent_left // 100, PERIOD) is LADDER[place]


def test_the_ladder_steepens():
    for above, below in zip(LADDER, LADDER[1:], strict=False):
        assert above.period_percent > below.period_percent
        assert above.blocks >= below.blocks
        assert above.factor <= below.factor
        assert above.share_percent < below.share_percent <= 100


@given(st.integers(-PERIOD, 20 * PERIOD), st.integers(0, PERIOD), estimates, st.integers(2000, 10**9), sizes)
def test_less_time_never_means_a_lower_fee(seconds_left, less, estimate, received, size):
    def fee(seconds: int) -> int:
        try:
            return settlement_fee(estimate, size, received, rung_at(seconds, PERIOD), BOUNDS)
        except Uneconomic:
            return 0

    assert fee(seconds_left - less) >= fee(seconds_left)


@given(estimates, sizes, amounts, rungs, bounds)
def test_a_fee_is_within_all_its_bounds_or_there_is_none(estimate, size, received, rung, bounds):
    try:
        fee = settlement_fee(estimate, size, received, rung, bounds)
    except Uneconomic:
        assert received - DUST_LIMIT < bounds.floor * size
        return
    assert bounds.floor * size <= fee <= bounds.ceiling * size
    assert fee * 100 <= received * rung.share_percent or fee <= bump_fee_min(bounds.floor * size, size)
    assert received - fee >= DUST_LIMIT


def test_a_small_channel_signs_no_fee_that_it_could_not_raise():
    # 30 % of 1446 is 433; a replacement of that would cost 780, more than the half that a signer may allow.
    assert settlement_fee(2, 347, 1446, LADDER[0], BOUNDS) == 2 * 347
    assert settlement_fee(3, 347, 1446, LADDER[0], BOUNDS) == 2 * 347
    assert settlement_fee(1, 347, 1446, LADDER[0], BOUNDS) == 347
    assert settlement_fee(100, 100, 3000, LADDER[0], FeeBounds(10, 1000)) == 1250  # a replacement pays a quarter more at least


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.period_percent)
def test_the_uneconomic_edge_is_exact(rung):
    least = 2 * SIZE + DUST_LIMIT
    assert settlement_fee(1, SIZE, least, rung, FeeBounds(2, 9)) == 2 * SIZE
    with pytest.raises(Uneconomic):
        settlement_fee(1, SIZE, least - 1, rung, FeeBounds(2, 9))


def test_the_estimate_counts_between_floor_and_ceiling():
    rich, rung = 10**9, LADDER[0]
    assert [settlement_fee(estimate, 100, rich, rung, FeeBounds(5, 50)) for estimate in (1, 7, 90)] == [500, 700, 5000]
    assert settlement_fee(7, 100, rich, LADDER[-1], FeeBounds(5, 100)) == 7 * 8 * 100


@given(st.integers(200, 10**7), sizes)
def test_a_bump_meets_the_replacement_rule_for_any_size_up_to_the_bound(fee, size):
    least = bump_fee_min(fee, size)
    assert least >= fee + RELAY_FEE_PER_BYTE * size  # BIP 125 rule 4
    assert least * 100 >= fee * (100 + BUMP_PERCENT_MIN)
    assert least > fee
    assert least - 1 < fee + RELAY_FEE_PER_BYTE * size or (least - 1) * 100 < fee * (100 + BUMP_PERCENT_MIN)


def test_bumps_from_floor_to_ceiling_are_fewer_than_the_signer_makes():
    fee, bumps = BOUNDS.floor * SIZE, 0
    while fee <= BOUNDS.ceiling * SIZE:
        fee, bumps = bump_fee_min(fee, SIZE), bumps + 1
    assert bumps < 50  # the signer's default is 100 versions


def test_the_ladder_is_the_documented_one():
    rungs = [(rung.period_percent, rung.blocks, rung.factor, rung.share_percent) for rung in LADDER]
    assert rungs == [(75, 6, 1, 30), (50, 3, 1, 50), (25, 2, 2, 75), (10, 1, 4, 90), (0, 1, 8, 95)]
    assert (BUMP_PERCENT_MIN, RELAY_FEE_PER_BYTE) == (25, 1)


@pytest.mark.parametrize("place", range(4))
def test_a_rung_ends_to_the_second(place):
    until = PERIOD * LADDER[place].period_percent // 100
    assert rung_at(until, PERIOD) is LADDER[place]
    assert rung_at(until - 1, PERIOD) is LADDER[place + 1]


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.period_percent)
def test_a_share_is_exact(rung):
    assert settlement_fee(1000, 200, 10_000, rung, BOUNDS) == min(100 * rung.share_percent, 10_000 - DUST_LIMIT)
