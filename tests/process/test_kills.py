"""Aim: no fault of a process, its disk or its connections costs anybody a satoshi, and the system recovers without help.

Method: the campaign (tests/campaign/kill.py), short. PAYCHAN_KILL_CYCLES: cycles in all (default 28); PAYCHAN_SEED: makes its
choices again.
"""

import os
import secrets

from tests.campaign.faults import FAULTS
from tests.campaign.kill import VICTIMS, campaign, pairs_of

CYCLES = int(os.environ.get("PAYCHAN_KILL_CYCLES", "28"))
SEED = int(os.environ.get("PAYCHAN_SEED", secrets.randbelow(1 << 32)))
FAULTS_SHORT = ("kill", "kill", *FAULTS)


def test_nothing_is_lost_or_counted_twice_whatever_happens_to_the_processes(tmp_path):
    report = campaign(tmp_path, pairs_of(FAULTS_SHORT, VICTIMS), CYCLES, SEED, print)
    print(report)
    assert report.problems == [], f"seed {SEED}"
    assert report.cycles.total() == CYCLES or "socket worker" not in report.cycles  # where sockets cannot be borrowed
    assert report.acknowledged > 20 * CYCLES
    assert set(report.ways) == {"shared", "shared, batch", "own", "own, batch"}
