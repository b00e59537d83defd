"""Aim: amounts and times have the ranges that Bitcoin and the protocol give them. Method: the edges, and what Python
takes for a number."""

import pytest

from paychan.core import units
from paychan.core.units import check_satoshi, is_expiry, is_satoshi


def test_the_numbers_are_those_of_bitcoin_and_of_the_protocol():
    assert (units.COIN, units.MAX_MONEY) == (100_000_000, 2_100_000_000_000_000)
    assert units.DUST_LIMIT == 700
    assert (units.LOCKTIME_THRESHOLD, units.LOCKTIME_MAX) == (500_000_000, 2**32 - 1)
    assert units.SECONDS_PER_HOUR == 3600


@pytest.mark.parametrize("value", [0, 1, 2_100_000_000_000_000])
def test_money_is_an_integer_up_to_all_that_there_is(value):
    assert is_satoshi(value)
    assert check_satoshi(value, "fee") == value


@pytest.mark.parametrize("value", [-1, 2_100_000_000_000_001, 2**64, True, False, 1.0, "1", None])
def test_nothing_else_is_money(value):
    assert not is_satoshi(value)
    with pytest.raises(ValueError, match="fee must be"):
        check_satoshi(value, "fee")


def test_an_expiry_is_a_time_and_no_height():
    assert is_expiry(500_000_000) and is_expiry(2**32 - 1)
    assert not any(map(is_expiry, (499_999_999, 2**32, -1, True, 5e8, "500000000", None)))
