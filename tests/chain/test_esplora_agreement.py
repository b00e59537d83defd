"""Aim: fewer than `agree` liars change nothing that costs money. Method: the pure rules on hand-made answers, then Hypothesis
puts one arbitrary server beside honest ones, and compares with what the honest ones say alone."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from paychan.chain.agreement import (
    Contradiction,
    Listed,
    Sighting,
    agreed_fee,
    agreed_listing,
    agreed_status,
    agreed_tip,
    agreed_unspent,
    attested,
    fee_for,
)
from paychan.chain.base import UNKNOWN, FundingStatus, Tip

OURS, THEIRS = b"\x01" * 32, b"\x02" * 32
OUTPOINT = bytes(36)
levels = some.integers(UNKNOWN, 1000)
sightings = some.builds(Sighting, levels, some.sampled_from([None, OURS, THEIRS]), some.integers(0, 1000))
tips = some.lists(some.builds(Tip, some.integers(0, 9), some.sampled_from([b"a", b"b"]), some.integers(0, 3), some.integers(0, 3)))


def named(*answers: object) -> dict:
    return {f"{letter}.example": answer for letter, answer in zip("abcdef", answers, strict=False)}


def test_as_many_confirmations_as_enough_servers_attest() -> None:
    assert attested([7, 5], 2) == 5
    assert attested([1_000_000, 5, 6], 2) == 6
    assert attested([UNKNOWN, 6, 6], 2) == 6
    assert attested([6], 2) == UNKNOWN


def test_a_server_that_does_not_know_the_funding_does_not_attest_to_its_being_unspent() -> None:
    spent, unspent, ignorant = Sighting(9, THEIRS, 3), Sighting(9), Sighting(UNKNOWN)
    assert agreed_status(named(spent, unspent, ignorant), 2) == FundingStatus(UNKNOWN)
    assert agreed_unspent(named(unspent, unspent, ignorant), 2) == 9
    assert agreed_unspent(named(unspent, ignorant, ignorant), 2) == UNKNOWN


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_two_camps_that_are_both_large_enough_contradict_each_other(order: tuple[int, ...]) -> None:
    camps = [Sighting(9, THEIRS, 3), Sighting(9, THEIRS, 3), Sighting(9), Sighting(9)]
    with pytest.raises(Contradiction):
        agreed_status(named(*(camps[at] for at in order)), 2)
    listings = [{OUTPOINT: Listed(5, 1)}, {OUTPOINT: Listed(5, 1)}, {}, {}]
    with pytest.raises(Contradiction):
        agreed_listing(named(*(listings[at] for at in order)), 2)
    blocks = [[Tip(5, b"a", 1, 1)], [Tip(5, b"a", 1, 1)], [Tip(5, b"b", 1, 1)], [Tip(5, b"b", 1, 1)]]
    with pytest.raises(Contradiction):
        agreed_tip(named(*(blocks[at] for at in order)), 2)


def test_two_spenders_that_both_have_support_are_a_spend_without_a_name() -> None:
    ours, theirs = Sighting(9, OURS, 8), Sighting(9, THEIRS, 7)
    assert agreed_status(named(ours, theirs, ours, theirs), 2) == FundingStatus(9, True)


def test_contradictions_name_the_servers() -> None:
    with pytest.raises(Contradiction, match="a.example say .* spent, b.example that it is not"):
        agreed_status(named(Sighting(9, THEIRS, 3), Sighting(9)), 2)


def test_one_value_is_not_another() -> None:
    with pytest.raises(Contradiction):
        agreed_listing(named({OUTPOINT: Listed(5, 1)}, {OUTPOINT: Listed(6, 1)}), 2)


def test_a_server_cannot_vote_twice_for_a_block() -> None:
    with pytest.raises(Contradiction):
        agreed_tip(named([Tip(5, b"a", 1, 1)] * 2, [Tip(5, b"b", 1, 1)]), 2)


@pytest.mark.parametrize("blocks, fee", [(1, None), (2, 21), (3, 21), (4, 10), (500, 1)])
def test_fee_for_a_target(blocks: int, fee: int | None) -> None:
    assert fee_for({2: 20.5, 4: 10.0, 144: 0.2}, blocks) == fee
    assert fee_for({}, blocks) is None


@given(some.floats(0, 1e6), some.lists(some.floats(0, 1e6), min_size=2, max_size=4))
def test_one_liar_about_fees_beside_honest_servers_is_not_believed(lie: float, honest: list[float]) -> None:
    """Beside one alone, who would be as likely to lie, only a lower fee is."""
    lower, upper = (max(1, math.ceil(fee)) for fee in (min(honest), max(honest)))
    fee = agreed_fee([{6: lie}, *({2: fee} for fee in honest)], 6, 2)
    assert fee is not None and lower <= fee <= upper
    assert agreed_fee([{6: lie}, {2: honest[0]}], 6, 2) == max(1, math.ceil(min(lie, honest[0])))
    assert agreed_fee([{6: lie}, {}, {7: honest[0]}], 6, 2) is None


@given(sightings, some.integers(0, 2), some.sampled_from([b"", OURS]))
def test_one_liar_beside_two_that_say_unspent(liar: Sighting, place: int, settlement_txid: bytes) -> None:
    answers = [Sighting(6), Sighting(8)]
    answers.insert(place, liar)
    status = agreed_status(named(*answers), 2, settlement_txid)
    assert not status.is_spent
    assert UNKNOWN <= status.confirmations <= 8
    if liar.spender in (None, settlement_txid):
        assert status.confirmations >= 6


@given(sightings, some.integers(0, 2), some.sampled_from([b"", OURS]))
def test_one_liar_beside_two_that_say_spent(liar: Sighting, place: int, settlement_txid: bytes) -> None:
    answers = [Sighting(6, OURS, 1), Sighting(8, OURS, 3)]
    answers.insert(place, liar)
    status = agreed_status(named(*answers), 2, settlement_txid)
    assert status.is_spent and status.spent_by == OURS
    assert 1 <= status.spent_confirmations <= 3


@given(sightings, sightings)
def test_a_deep_spend_is_never_believed_of_one_server(first: Sighting, second: Sighting) -> None:
    try:
        status = agreed_status(named(first, second), 2)
    except Contradiction:
        return
    assert status.spent_confirmations <= min(first.spender_confirmations, second.spender_confirmations)
    if status.is_spent:
        assert first.spender is not None and second.spender is not None


@given(tips, some.integers(0, 2))
def test_one_liar_about_the_tip_beside_two_honest_servers(liar: list[Tip], place: int) -> None:
    honest = [Tip(height, b"x%d" % height, height, height) for height in (5, 4, 3)]
    chains = [honest, honest]
    chains.insert(place, liar or [Tip(9, b"z", 9, 9)])
    assert agreed_tip(named(*chains), 2) == honest[0]


@given(some.dictionaries(some.sampled_from([OUTPOINT, b"\x01" * 36]), some.builds(Listed, some.integers(0, 9), levels)))
def test_one_liar_about_listed_outputs_beside_two_honest_servers(liar: dict[bytes, Listed]) -> None:
    honest = {OUTPOINT: Listed(5, 2)}
    found = agreed_listing(named(honest, liar, honest), 2)
    assert found == honest
