"""Aim: strangers cannot make the server ask its chain source without end. Method: a counting backend and a hand-set clock."""

import asyncio

import pytest

from paychan.chain.base import FundingOutput, FundingRequest
from paychan.core.errors import Unavailable
from paychan.server.channels import lookups as lookups_module
from paychan.server.channels.lookups import (
    ADDRESS_LOOKUPS_MAX,
    ADDRESS_SECONDS,
    BURST_SECONDS,
    KEY_LOOKUPS_MAX,
    NEGATIVE_SECONDS,
    Lookups,
)

OUTPUT = FundingOutput(bytes(36), 1000, 1)


class Chain:
    def __init__(self) -> None:
        self.asked: list[FundingRequest] = []
        self.found: list[FundingOutput] = []
        self.fails = False

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        self.asked.append(request)
        if self.fails:
            raise Unavailable("chain_unavailable")
        return self.found


class Rig:
    def __init__(self, per_second: int = 5) -> None:
        self.chain, self.now = Chain(), 100.0
        self.lookups = Lookups(self.chain, per_second, lambda: self.now)

    def find(self, number: int = 0, outpoint: bytes | None = None, key: int = 2) -> list[FundingOutput]:
        request = FundingRequest(bytes([key]) * 33, 1_900_000_000, number.to_bytes(23, "big"), outpoint)
        return asyncio.run(self.lookups.find(request))

    @property
    def count(self) -> int:
        return len(self.chain.asked)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_nothing_found_is_believed_for_a_moment(rig):
    assert rig.find() == [] == rig.find()
    assert rig.count == 1
    rig.now += NEGATIVE_SECONDS - 0.01
    assert rig.find() == []
    assert rig.count == 1
    rig.now += 0.02
    rig.chain.found = [OUTPUT]
    assert rig.find() == [OUTPUT]
    assert rig.count == 2


def test_what_was_found_is_asked_again(rig):
    rig.chain.found = [OUTPUT]
    assert rig.find() == rig.find() == [OUTPUT]
    assert rig.count == 2


def test_another_address_or_another_outpoint_is_another_question(rig):
    for number, outpoint in ((0, None), (1, None), (0, bytes(36)), (0, b"\1" * 36)):
        rig.find(number, outpoint)
    assert rig.count == 4


def test_a_failure_is_no_answer_and_is_not_remembered(rig):
    rig.chain.fails = True
    with pytest.raises(Unavailable, match="chain_unavailable"):
        rig.find()
    rig.chain.fails, rig.chain.found = False, [OUTPUT]
    assert rig.find() == [OUTPUT]


def test_the_bucket_holds_a_burst_and_refills_with_time(rig):
    for number in range(5 * BURST_SECONDS):
        rig.find(number)
    with pytest.raises(Unavailable, match="overloaded"):
        rig.find(99)
    assert rig.count == 5 * BURST_SECONDS
    rig.now += 0.2
    rig.find(99)
    with pytest.raises(Unavailable, match="overloaded"):
        rig.find(98)


def test_named_outpoints_and_addresses_do_not_share_a_bucket(rig):
    for number in range(5 * BURST_SECONDS):
        rig.find(number)
    for number in range(5 * BURST_SECONDS):
        rig.find(number, bytes(36))
    for outpoint in (None, bytes(36)):
        with pytest.raises(Unavailable, match="Too many funding outputs"):
            rig.find(99, outpoint, key=3)


def test_one_key_does_not_take_all_look_ups_whatever_its_addresses(rig):
    rig = Rig(per_second=1000)
    for number in range(KEY_LOOKUPS_MAX):
        rig.find(number)
    with pytest.raises(Unavailable, match="too often"):
        rig.find(KEY_LOOKUPS_MAX)
    rig.find(KEY_LOOKUPS_MAX, key=3)
    rig.now += ADDRESS_SECONDS
    rig.find(KEY_LOOKUPS_MAX + 1)
    assert rig.count == KEY_LOOKUPS_MAX + 2


def test_the_bucket_never_holds_more_than_a_burst(rig):
    rig.now += 10_000
    for number in range(5 * BURST_SECONDS):
        rig.find(number)
    with pytest.raises(Unavailable, match="overloaded"):
        rig.find(99)


def test_a_remembered_answer_costs_no_token(rig):
    for _ in range(100):
        rig.find()
    assert rig.count == 1


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(lookups_module, "REMEMBERED_MAX", 3)
    rig = Rig(100)
    for number in range(4):
        rig.find(number)
    rig.find(3)
    assert rig.count == 4
    rig.find(0)  # the oldest was forgotten
    assert rig.count == 5


def test_one_address_is_looked_up_a_few_times_within_a_moment_and_no_other_suffers(rig):
    rig = Rig(per_second=1000)
    rig.chain.found = [OUTPUT]
    for _ in range(ADDRESS_LOOKUPS_MAX):
        assert rig.find(1) == [OUTPUT]
    with pytest.raises(Unavailable, match="too often"):
        rig.find(1)
    assert rig.find(2) == [OUTPUT]
    assert rig.count == ADDRESS_LOOKUPS_MAX + 1
    rig.now += ADDRESS_SECONDS
    assert rig.find(1) == [OUTPUT]
