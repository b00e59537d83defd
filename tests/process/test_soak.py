"""Aim: a system that runs for long grows in nothing.

Method: two rounds of the soak (tests/campaign/soak.py, a command with a duration), judged by the tiling check; and its judge of
growth on figures that are made up, with noise and without.
"""

import random

import pytest

from tests.campaign.soak import GROWTH_BYTES, VARIANT, Soak, run
from tests.system import running

MIB = 1 << 20


def test_ordinary_life_leaves_no_problem(tmp_path):
    with running(tmp_path, workers=2, variant=VARIANT) as system:
        soak = run(system, 4.0, 1, print, round_seconds=1.5)
    print(soak)
    assert soak.problems == []
    assert soak.rounds >= 2
    assert soak.operations > 50
    assert set(soak.memory) == {"store", "signer", "server", "worker 1", "worker 2"} == set(soak.open)
    assert all(size > MIB for sizes in soak.memory.values() for size in sizes)


@pytest.mark.parametrize(
    ("growth", "leaked", "problems"),
    [(0, 0, 0), (GROWTH_BYTES // 400, 0, 0), (GROWTH_BYTES // 40, 0, 1), (0, 1, 1), (GROWTH_BYTES // 40, 1, 2)],
)
def test_growth_is_told_from_noise(growth, leaked, problems):
    noise, soak = random.Random(7), Soak(rounds=200)
    soak.memory["signer"] = [min(60, number) * MIB + number * growth + noise.randrange(2 * MIB) for number in range(200)]
    soak.open["signer"] = [20 + number * leaked // 20 + noise.randrange(2) for number in range(200)]
    soak.judge_growth()
    assert len(soak.problems) == problems, soak
