"""Aim: no payer and no stranger keeps a settlement out of blocks that its channel can pay for. Method: fights drawn at random;
those of a review, which the ladder of before lost; planted faults. The campaign is `python -m tests.simulation.pinning`.
"""

import secrets
from dataclasses import replace

import pytest

from . import pinning
from .breaks import BREAKS, find
from .pinning import Fight, draw

SEEDS = 40
CAMPAIGN_SEEDS = 100_000
RICH = replace(
    draw("any"),
    received=1_990_000,
    early=0,
    rise=1.0,
    rises_at=600,
    pin=0.0,
    children=1,
    pinner_waits=0,
    luck=0.0,
    own="28",
    miners="28",
    fullness=1.0,
    kind="node",
    minimum=0.3,
    estimates="",
    sensible_at=0,
)


def test_random_fights_are_won_where_they_can_be():
    first = secrets.randbelow(CAMPAIGN_SEEDS - SEEDS)
    print(f"first seed {first}")
    outcomes = [(seed, Fight(str(seed)).run()) for seed in range(first, first + SEEDS)]
    assert [(seed, outcome.violation()) for seed, outcome in outcomes if outcome.violation()] == []
    assert sum(outcome.in_time for _, outcome in outcomes) > SEEDS * 8 // 10


def fought(monkeypatch, seed: str, **changes):
    monkeypatch.setattr(pinning, "draw", lambda _: replace(RICH, **changes))
    return Fight(seed).run()


QUICK_BREAKS = (
    "a refusal for the fee teaches nothing",
    "no settlement without an estimate",
    "what full mempools ask is not paid",
    "the proof is asked for when it is needed",
)

ATTACKS = [
    {},
    {"luck": 1.0},
    {"pin": 1.0},
    {"pin": 1.0, "rate": 6.0, "rise": 14 / 6},
    {"luck": 1.0, "pin": 1.0, "rate": 6.0, "rise": 14 / 6},
    *({"luck": 1.0, "pin": 1.0, "rate": rate} for rate in (5.0, 10.0, 20.0, 30.0, 36.0)),
    {"luck": 1.0, "pin": 5.0, "rate": 20.0, "rise": 2.0},
    {"luck": 1.0, "pin": 5.0, "rate": 20.0, "rise": 2.0, "children": 63, "own": "31", "miners": "31"},
    {"luck": 1.0, "pin": 5.0, "rate": 20.0, "rise": 2.0, "kind": "explorer"},
    {"luck": 1.0, "pin": 0.9, "rate": 20.0, "rise": 2.0, "own": "28", "miners": "31"},
]


@pytest.mark.parametrize("changes", ATTACKS, ids=str)
def test_the_attacks_of_the_review_are_won(monkeypatch, changes):
    for number in range(3):
        outcome = fought(monkeypatch, f"review {number}", **changes)
        assert outcome.in_time and not outcome.violation(), outcome
        assert outcome.lost_share < 0.6


def test_a_pin_that_costs_more_than_everything_is_told_for_what_it_is(monkeypatch):
    outcome = fought(monkeypatch, "poor", received=90_000, luck=1.0, pin=9.0, rate=40.0, rise=8.0)
    assert not outcome.in_time and not outcome.could and not outcome.violation()
    assert outcome.why() == "it would have cost more than 95 %"


@pytest.mark.parametrize("name", QUICK_BREAKS)
def test_a_planted_fault_is_found(name):
    seeds, what = find(name, 0, 150)
    assert seeds, f"not found: {name}"
    assert name in BREAKS and what
