"""Aim: the compiled path and the slow judge answer alike. Method: 1500 random requests, many of them spoiled; a full run is
`python -m tests.differential.compare --count 100000`."""

import pytest

from paychan._fast.channel import ChannelTable
from paychan._fast.status import Status
from tests.differential import compare

OF_PAYMENTS = {status.name.lower() for status in Status if status < Status.INVALID_SALE}
HOT_STATUSES = OF_PAYMENTS - {"ok", "no_such_payment", "unchecked", "too_many_failures", "too_many_refused"}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_compiled_and_judge_agree(seed):
    outcomes = compare.run(500, seed)
    assert outcomes["accepted"] > 25


def test_the_requests_reach_every_answer():
    """A generator that no longer reaches a check would agree for ever; settled channels are tried in
    test_fast_channel, floods of bad signatures in tests/hostile/test_failures and test_addresses."""
    outcomes = sum((compare.run(1000, seed) for seed in (4, 5)), start=type(compare.run(1, 0))())
    assert set(outcomes) == HOT_STATUSES


def test_a_difference_is_reported(monkeypatch):
    class Liar(ChannelTable):
        def pay(self, *request):
            status = super().pay(*request)
            return int(Status.ACCEPTED) if status == Status.HIGH_S else status

    monkeypatch.setattr(compare, "ChannelTable", Liar)
    with pytest.raises(compare.Difference, match="seed 6, request"):
        compare.run(500, 6)
