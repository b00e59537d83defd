"""Aim: interlocks stop payments through every door, and payments go on once they are released. Method: the real intake and rules, a
store in the test's hands; the tip says what each test wants.
"""

import pytest

from tests.unit.doors import KINDS, Desk, asynchronous, settle
from tests.unit.server.shards.test_committer import HandStore


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_no_payment_is_taken_by_a_clock_in_doubt(kind):
    desk = Desk(HandStore())
    raw = desk.samples[0].sign(9_000_000, 0x83).raw
    desk.tip.clock_doubt = "the wall clock is 315360000 seconds beyond the best block"
    refused = desk.submit(kind, 0, raw)
    await settle()
    assert refused.status == 503
    assert refused.json["code"] == "clock_doubtful"
    assert "315360000 seconds" in refused.json["detail"]
    assert desk.store.in_flight == 0
    desk.tip.clock_doubt = ""
    accepted = desk.submit(kind, 0, raw)
    await settle()
    await desk.store.answer()
    await settle()
    assert (accepted.count, accepted.status) == (1, 200)
