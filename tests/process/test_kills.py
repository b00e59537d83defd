"""Aim: no fault of a process, its disk or its connections costs anybody a satoshi, and the system recovers without help.

Method: the campaign (tests/campaign/kill.py), short: each fault once to each process. PAYCHAN_KILL_CYCLES: cycles in all;
PAYCHAN_SEED: makes its choices again.
"""

import os
import secrets

from tests.campaign.faults import FAULTS
from tests.campaign.kill import VICTIMS, campaign, pairs_of

PAIRS = pairs_of(sorted(set(FAULTS) - {"full"}), VICTIMS)  # which wants a file system of its own
CYCLES = int(os.environ.get("PAYCHAN_KILL_CYCLES", str(len(PAIRS))))
SEED = int(os.environ.get("PAYCHAN_SEED", secrets.randbelow(1 << 32)))


def test_nothing_is_lost_or_counted_twice_whatever_happens_to_the_processes(tmp_path):
    report = campaign(tmp_path, PAIRS, CYCLES, SEED, print)
    print(report)
    assert report.problems == [], f"seed {SEED}"
    borrowed = any(name.startswith("socket") for name in report.cycles)  # else this machine does not allow it
    left_out = 0 if borrowed else sum(PAIRS[i % len(PAIRS)][0] == "socket" for i in range(CYCLES))
    assert report.cycles.total() == CYCLES - left_out
    assert report.acknowledged > 20 * CYCLES
    assert set(report.ways) == {"shared", "shared, batch", "own", "own, batch"}
