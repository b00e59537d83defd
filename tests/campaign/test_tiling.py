"""Aim: the judge of all fault tests tells good histories from bad ones. Method: small histories, written by hand or broken."""

import random

import pytest

from tests.tiling import History, Operation, Outcome, check

FUNDING = 1000


def paid(left: int, received: int, lost: int = 0) -> Operation:
    return Operation(left, Outcome.ACKNOWLEDGED, received, left, lost)


def refused(left: int, lost: int = 0, code: str = "out_of_order") -> Operation:
    return Operation(left, Outcome.REFUSED, lost=lost, code=code)


def unknown(left: int) -> Operation:
    return Operation(left, Outcome.UNKNOWN, lost=1)


def problems(final: int, *operations: Operation, change: int | None = None) -> str:
    history = History("c", FUNDING, list(operations), final, final if change is None else change)
    return "\n".join(check(history).problems)


GOOD = {
    "nothing": (FUNDING, ()),
    "plain": (800, (paid(900, 100), paid(800, 100))),
    "skipping ahead": (700, (paid(900, 100), paid(700, 200), refused(800))),
    "a duplicate": (900, (paid(900, 100), paid(900, 0))),
    "a lost answer, retried": (900, (paid(900, 0, lost=1),)),
    "a lost answer that took no effect": (900, (paid(900, 100, lost=2),)),
    "a lost answer, then a lower payment took it": (800, (paid(800, 200), refused(900, lost=1))),
    "a lost answer hidden below another's payment": (800, (paid(800, 100), refused(900, lost=1))),
    "two lost answers, one gap": (800, (paid(900, 0, lost=1), paid(800, 0, lost=1))),
    "unknown, took effect": (900, (unknown(900),)),
    "unknown, took no effect": (900, (paid(900, 100), unknown(800))),
    "a duplicate, one answer lost": (900, (paid(900, 100), paid(900, 0, lost=1))),
    "exhausted": (0, (paid(900, 100), paid(0, 900))),
    "refused by closing": (900, (paid(900, 100), refused(800, code="channel_closing"))),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes(name):
    final, operations = GOOD[name]
    assert problems(final, *operations) == ""


BAD = {
    "double credit of one payment": (900, (paid(900, 100), paid(900, 100)), "COUNTED TWICE"),
    "overlapping credits": (800, (paid(900, 100), paid(800, 200)), "COUNTED TWICE"),
    "a credit within another": (700, (paid(700, 300), paid(800, 100)), "COUNTED TWICE"),
    "a gap without a lost answer": (800, (paid(900, 50), paid(800, 100)), "MISSING"),
    "a gap at the funding value": (900, (paid(900, 99),), "MISSING"),
    "a gap that another payment's loss cannot explain": (
        700,
        (paid(900, 0, lost=1), paid(800, 50), paid(700, 100)),
        "MISSING",
    ),
    "an acknowledged payment is gone": (900, (paid(900, 100), paid(800, 100)), "LOST"),
    "a lower payment was acknowledged with value 0 and is gone": (900, (paid(900, 100), paid(800, 0, lost=1)), "LOST"),
    "the final left comes from nowhere": (800, (paid(900, 100),), "no payment"),
    "the final left is a refused payment's": (800, (paid(900, 100), refused(800, code="bad_signature")), "no payment"),
    "value 0 for a new payment": (800, (paid(900, 0), paid(800, 0, lost=1)), "nobody was given"),
    "value 0 for the only payment": (900, (paid(900, 0),), "MISSING"),
    "more than the funding value": (900, (paid(900, 101),), "exceeds"),
    "a negative credit": (900, (paid(900, -100),), "answered"),
    "another payment's left": (900, (Operation(900, Outcome.ACKNOWLEDGED, 100, 800),), "answered"),
    "out of order without a lower one": (900, (paid(900, 100), refused(800)), "out of order"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_caught(name):
    final, operations, word = BAD[name]
    assert word in problems(final, *operations)


def test_a_settlement_with_another_change_is_caught():
    assert "settlement" in problems(900, paid(900, 100), change=950)


def simulate(rng: random.Random) -> tuple[list[Operation], int]:
    """Return a correct server's history: payments in a random order, some answers lost, each retried."""
    lefts = sorted(rng.sample(range(FUNDING), 12), reverse=True)
    rng.shuffle(lefts)
    operations, now = [], FUNDING
    for left in lefts:
        lost = rng.random() < 0.3
        took_effect = lost and rng.random() < 0.5 and left < now
        if took_effect:
            now = left
        if left < now:
            operations.append(paid(left, now - left, lost))
            now = left
        elif left == now:
            operations.append(paid(left, 0, lost))
        else:
            operations.append(refused(left, lost))
    return operations, now


def test_every_injected_fault_in_a_long_history_is_caught():
    rng = random.Random(1)
    for _ in range(500):
        operations, final = simulate(rng)
        assert problems(final, *operations) == ""
        claims = [i for i, o in enumerate(operations) if o.received > 0]
        if not claims:
            continue
        at = rng.choice(claims)
        victim = operations[at]
        again = [*operations, victim]
        more = [*operations[:at], paid(victim.left, victim.received + 1, victim.lost), *operations[at + 1 :]]
        unpaid = [*operations[:at], paid(victim.left, 0), *operations[at + 1 :]]
        for broken in (again, more, unpaid):
            assert problems(final, *broken), (victim, operations)
        assert problems(min(FUNDING, operations[claims[-1]].left + 1), *operations)
