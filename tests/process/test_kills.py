"""Aim: a process that dies under load costs nobody a satoshi, and the others need no help. Method: the kill campaign, short.

PAYCHAN_KILL_CYCLES: kills for each victim (default 5). PAYCHAN_SEED: makes a failure's choices again; it is in the message.
"""

import os
import secrets

import pytest

from tests.campaign.kill import VICTIMS, campaign

CYCLES = int(os.environ.get("PAYCHAN_KILL_CYCLES", "5"))
SEED = int(os.environ.get("PAYCHAN_SEED", secrets.randbelow(1 << 32)))


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_lost_or_counted_twice_when_a_process_is_killed(tmp_path, victim):
    report = campaign(tmp_path, (victim,), CYCLES, SEED, print)
    print(report)
    assert report.cycles == CYCLES
    assert report.verdict.problems == [], f"seed {SEED}"
    assert report.verdict.claimed > 20 * CYCLES
