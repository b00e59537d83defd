"""Aim: a channel goes only where the table lets it, and no step lowers the money held. Method: every state × event against a
picture of the life written down a second time; all pairs of updates against an independent statement; walks of all lengths."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan.core.channel import ABSENT, TRANSITIONS, Event, Phase, is_allowed_update, next_phase

# One line for each phase: what may happen there, and where it leads.
LIFE = """
    ABSENT:    open OPEN, exhaust CLOSING
    OPEN:      pay OPEN, exhaust CLOSING, close CLOSING
    CLOSING:   sign SIGNED, confirm SETTLED, lose SETTLED
    SIGNED:    bump SIGNED, broadcast BROADCAST, confirm SETTLED, lose SETTLED
    BROADCAST: bump BROADCAST, confirm SETTLED, lose SETTLED
    SETTLED:
"""


def number(name):
    return ABSENT if name == "ABSENT" else Phase[name]


def picture():
    for line in LIFE.strip().splitlines():
        phase, _, steps = line.strip().partition(":")
        for step in filter(None, steps.strip().split(", ")):
            event, after = step.split()
            yield (number(phase), Event(event)), number(after)


PICTURE = dict(picture())
STATES = [ABSENT, *Phase]


def test_the_table_is_the_picture():
    assert TRANSITIONS == PICTURE


@pytest.mark.parametrize(("phase", "event"), list(itertools.product([*STATES, 6, -1, 255], Event)))
def test_every_state_and_event(phase, event):
    before = dict(TRANSITIONS)
    if (phase, event) in PICTURE:
        assert next_phase(phase, event) is PICTURE[phase, event]
    else:
        with pytest.raises(ValueError):
            next_phase(phase, event)
    assert before == TRANSITIONS


def test_numbers_on_disk_never_change():
    assert {phase.name: int(phase) for phase in Phase} == {
        "OPEN": 1,
        "CLOSING": 2,
        "SIGNED": 3,
        "BROADCAST": 4,
        "SETTLED": 5,
    }
    assert ABSENT == 0


def test_settled_is_the_end_and_every_phase_leads_there():
    reach = {Phase.SETTLED}
    for _ in STATES:
        reach |= {phase for (phase, _), after in PICTURE.items() if after in reach}
    assert reach == set(STATES)
    assert not [phase for phase, _ in PICTURE if phase == Phase.SETTLED]


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_a_life_only_goes_forward(events):
    phase, history = ABSENT, [ABSENT]
    for event in events:
        try:
            phase = next_phase(phase, event)
        except ValueError:
            continue
        history.append(phase)
    assert history == sorted(history)
    if Phase.SETTLED in history:
        # signed before it was broadcast, and closing before anything else; a foreign spend may cut the way short
        way = [phase for phase, _ in itertools.groupby(history)][:-1]
        whole = [Phase.CLOSING, Phase.SIGNED, Phase.BROADCAST]
        first = way.index(Phase.CLOSING)
        assert way[first:] == whole[: len(way) - first]


def is_allowed(phase, value, new_phase, new_value):
    """The rule in other words: creation and payment may only lower what the payer keeps, and creation does not skip the
    channel's life; from closing on the value stays as it is: one step at a time, or none with a better settlement, or to the
    end when somebody else has spent the funding output."""
    if phase in (0, 1):
        return new_phase in (1, 2) and value >= new_value >= 0
    if phase in (2, 3, 4) and value == new_value:
        return new_phase in (phase + 1, 5) or (phase == new_phase != 2)
    return False


VALUES = [-1, 0, 1, 699, 700, 701, 2**53, 2**63, 2**64 - 1]


def test_every_update_of_every_pair_of_states():
    states = list(itertools.product(range(8), VALUES))
    for (phase, value), (new_phase, new_value) in itertools.product(states, states):
        if value >= 0:
            expected = is_allowed(phase, value, new_phase, new_value)
            assert is_allowed_update(phase, value, new_phase, new_value) == expected


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1000)), max_size=50))
def test_the_money_held_never_falls(updates):
    """Whatever order updates come in, the store's rule keeps the change value going down and the phase going up."""
    phase, value = ABSENT, 1000
    for new_phase, new_value in updates:
        if is_allowed_update(phase, value, new_phase, new_value):
            assert new_phase >= phase and new_value <= value
            assert new_value == value or phase in (ABSENT, Phase.OPEN)
            phase, value = new_phase, new_value
