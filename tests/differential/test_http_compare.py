"""Aim: request heads are read as the slow judge and h11 read them, but for named differences. Method: 6000 generated requests, many
of them spoiled; a full run is `python -m tests.differential.http_compare --count 1000000`."""

import pytest

from tests.differential import http_compare
from tests.differential.http_cases import BAD, BODY_MAX, GOOD
from tests.differential.http_judge import judge


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_requests_are_read_alike(seed):
    assert http_compare.run(1000, seed)["accepted"] > 100


def test_the_requests_reach_every_outcome():
    """A generator that no longer reaches a difference would let it grow unseen; and a list must not keep what is no more."""
    outcomes = http_compare.run(3000, 4)
    assert set(outcomes) == {name for name, _, _ in http_compare.DIFFERENCES} | {"accepted", "both refuse", "incomplete"}


def test_the_judge_knows_the_table():
    for request, fields in GOOD.values():
        status, head = judge(request, BODY_MAX)
        assert status == 0
        assert head.items() >= fields.items()
    for request, status in BAD.values():
        assert judge(request, BODY_MAX) == (status, None)


def test_a_difference_from_the_judge_is_reported(monkeypatch):
    monkeypatch.setattr(http_compare.http_judge, "judge", lambda data, body_max: (1, None))
    with pytest.raises(http_compare.Difference, match="seed 5, request 0: the judge says"):
        http_compare.run(10, 5)


@pytest.mark.parametrize("field", ["content_length", "head_size"])
def test_a_difference_from_h11_is_reported(monkeypatch, field):
    real = http_compare.parse_request_head

    def wrong(data, body_max):
        status, head = real(data, body_max)
        return status, {**head, field: head[field] - 1} if head and head["content_length"] else head

    monkeypatch.setattr(http_compare, "parse_request_head", wrong)
    monkeypatch.setattr(http_compare.http_judge, "judge", wrong)
    with pytest.raises(http_compare.Difference, match="h11 reads"):
        http_compare.run(1000, 6)


def test_an_unknown_difference_is_reported(monkeypatch):
    monkeypatch.setattr(http_compare, "DIFFERENCES", http_compare.DIFFERENCES[1:])
    with pytest.raises(http_compare.Difference, match="h11 accepts, we say MALFORMED"):
        http_compare.run(1000, 7)
