"""Aim: worlds of several machines come right whatever fails among stores, workers and the database, and the simulation sees it when
they do not. Method: as test_world.py. The campaign is `python -m tests.simulation.world --engine postgres --stores N`.
"""

import secrets
import subprocess
import sys

import pytest

pytest.importorskip("asyncpg")

from .breaks import find  # noqa: E402
from .cluster.breaks import FIRST  # noqa: E402
from .cluster.plan import CLUSTER_KINDS, draw  # noqa: E402
from .world import describe, run_seed, staged  # noqa: E402

WORLDS = {2: 14, 3: 5, 4: 1}
"""How many of how many stores."""

CAMPAIGN_SEEDS = 2000

SEEDS_PER_BREAK = 40
"""Beyond the world that has seen a break before: what worlds draw changes."""


@pytest.fixture
def stage():
    with staged():
        yield


def test_random_seeds_have_no_violations(stage):
    for stores, count in WORLDS.items():
        first = secrets.randbelow(CAMPAIGN_SEEDS - count)
        seeds = [f"postgres{stores}/{number}" for number in range(first, first + count)]
        print(f"first seed {seeds[0]}")
        failed = [seed for seed in seeds if run_seed(seed).judge.violations]
        assert not failed, describe(failed[0])


def test_the_same_seed_replays_the_same_world_in_another_process(stage):
    world = run_seed("postgres2/1")
    assert world.judge.seen["payments acknowledged"] > 0
    assert run_seed("postgres2/1").kernel.trace == world.kernel.trace
    command = [sys.executable, "-m", "tests.simulation.world", "--engine", "postgres", "--stores", "2", "--seed", "1"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"trace {world.kernel.trace:08x}" in told
    assert "--engine postgres --stores 2" in told


@pytest.mark.parametrize("name", FIRST)
def test_a_planted_fault_is_found(name):
    seeds, what = find(name, FIRST[name], SEEDS_PER_BREAK)
    assert seeds, f"not found: {name}"
    assert what


def test_plans_draw_every_kind_of_trouble():
    kinds = {event.kind for seed in range(300) for event in draw(f"postgres3/{seed}").events if event.channel < 0}
    assert set(CLUSTER_KINDS) <= kinds
    assert any(draw(f"postgres3/{seed}").has_twin for seed in range(100))
