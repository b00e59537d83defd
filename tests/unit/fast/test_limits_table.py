"""Aim: each address may have so much in a minute, nobody is counted for another, and the table never grows. Method: the compiled
table beside a dict that counts the same without bound, on made-up times."""

from hypothesis import given, settings
from hypothesis import strategies as st

from paychan._fast.limits import ADDRESSES_MAX, AddressLimits

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
PER_MINUTE = 60
START = 5 * SECOND  # of a machine that was started just now


class Model:
    """The same, slowly: when each address' failures are paid off."""

    def __init__(self):
        self.due = {}

    def fail(self, address, now):
        self.due[address] = min(max(self.due.get(address, 0), now) + MINUTE // PER_MINUTE, now + MINUTE)

    def is_failing(self, address, now):
        return self.due.get(address, 0) + MINUTE // PER_MINUTE > now + MINUTE


STEPS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3 * SECOND), st.integers(1, 40)), max_size=60)


@given(STEPS)
def test_failures_are_counted_as_by_a_table_without_bounds(steps):
    table, model, now = AddressLimits(0, PER_MINUTE), Model(), START
    for address, pause, times in steps:
        now += pause
        for _ in range(times):
            table.fail(address, now)
            model.fail(address, now)
        assert [table.is_failing(one, now) for one in range(1, 8)] == [model.is_failing(one, now) for one in range(1, 8)]


def test_a_minutes_worth_may_come_at_once_and_comes_back_one_by_one():
    table = AddressLimits(PER_MINUTE, PER_MINUTE)
    assert [table.takes_open(1, START) for _ in range(PER_MINUTE + 2)] == [True] * PER_MINUTE + [False] * 2
    assert [table.takes_open(1, START + SECOND) for _ in range(2)] == [True, False]
    assert [table.takes_open(1, START + 2 * MINUTE) for _ in range(PER_MINUTE + 1)] == [True] * PER_MINUTE + [False]
    assert table.takes_open(2, START)
    for _ in range(100 * PER_MINUTE):
        table.fail(1, START)
    assert table.is_failing(1, START) and not table.is_failing(2, START)
    assert not table.is_failing(1, START + SECOND)  # however much it was: who stops is believed again


def test_zero_is_no_limit_and_nobody_is_not_counted():
    table = AddressLimits(0, 0)
    for _ in range(10_000):
        table.fail(7, START)
        assert table.takes_open(7, START)
    assert not table.is_failing(7, START)
    table = AddressLimits(1, 1)
    for _ in range(10):
        table.fail(0, START)
        assert table.takes_open(0, START)
    assert not table.is_failing(0, START) and len(table) == 0


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1 << 63), st.sampled_from((1, 1 << 32, 1 << 8)))
def test_a_stranger_with_any_number_of_addresses_does_not_grow_it_and_refuses_nobody(base, stride):
    """As a /32 of IPv6 is: addresses side by side. The flooder that owes most is not forgotten for them."""
    table, honest, flooder = AddressLimits(PER_MINUTE, PER_MINUTE), (1 << 64) - 1, (1 << 64) - 2
    for _ in range(PER_MINUTE):
        table.fail(flooder, START)
    for number in range(2 * ADDRESSES_MAX):
        table.fail((base + number * stride) % (1 << 63) + 1, START)
        if number % 1000 == 0:
            assert not table.is_failing(honest, START)
    assert len(table) <= ADDRESSES_MAX
    assert table.is_failing(flooder, START)
    assert not any(table.is_failing((base + number * stride) % (1 << 63) + 1, START) for number in range(1000))
    assert table.takes_open(honest, START)
