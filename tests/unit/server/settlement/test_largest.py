"""Aim: while too much is received, the largest channels are settled, only as many as must be, and no honest small one for an
attacker's. Method: the real ranking over a real store (database, groups, sums) in a temporary directory.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from paychan._fast.group import StateCache
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.payment import Payment
from paychan.core.sharding import shard_of
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.store_messages import Entry, EntryStatus, Stored, Unsettled, encode_commit
from paychan.server.settlement import largest as module
from paychan.server.settlement.largest import EARLY_MAX, RANKING_SECONDS_MAX, Largest
from store import keys
from store.engines.rocksdb import RocksDB
from store.group import Group
from tests.simulation.loop import SimulatedLoop

SHARDS, FUNDING, PAGE = 4, 10_000_000, 3
CHANNEL_MAX, TOTAL_MAX = 2_000_000, 4_000_000


def outpoint(number: int) -> bytes:
    return number.to_bytes(2, "big") * 18


class Rig:
    """A store with the methods of its client, and the ranking that asks it. Channels expire in the order of their numbers."""

    def __init__(self, directory) -> None:
        self.engine, self.loop, self.walks = RocksDB(directory / "db", sync=False), SimulatedLoop(), 0
        self.page_seconds, self.is_gone = 0.0, False
        self.largest = Largest(self, CHANNEL_MAX, TOTAL_MAX)  # type: ignore[arg-type]

    def put(self, number: int, received: int, phase: Phase = Phase.OPEN) -> None:
        """Bring a channel to a phase, with so much received."""
        key = outpoint(number)
        (stored,) = self.engine.load([key])
        before = ChannelState.parse(stored.state) if stored is not None else None
        old, expected = (before.phase, before.payment.change_value) if before else (ABSENT, FUNDING)
        terms = ChannelTerms(key, b"\2" * 33, b"\3" * 33, 1_900_000_000 + number, FUNDING, b"").serialize()
        state = ChannelState(phase, Payment(FUNDING - received, b"s" * 70, 0x83)).serialize()
        group = Group(self.engine, StateCache(0), self.engine.epochs(SHARDS), SHARDS, self.engine.unsettled())
        entry = Entry(shard_of(key, SHARDS), 0, key, old, expected, state, b"" if before else terms)
        assert list(group.judge(encode_commit([entry.encode()]))) == [EntryStatus.OK]
        self.engine.commit(group.writes | {keys.UNSETTLED: keys.encode_unsettled(group.unsettled)})

    def close(self, number: int) -> None:
        (stored,) = self.engine.load([outpoint(number)])
        self.put(number, FUNDING - ChannelState.parse(stored.state).payment.change_value, Phase.CLOSING)

    async def received(self) -> AsyncIterator[list[tuple[int, bytes]]]:
        self.walks += 1
        after = (0, bytes(36))
        while True:
            await asyncio.sleep(self.page_seconds)
            page = self.engine.scan_received((1 << 32) - 1, *after, PAGE)
            yield [(value, name) for _, value, name in page]
            if len(page) < PAGE:
                return
            after = page[-1][0], page[-1][2]

    async def ask_unsettled(self) -> Unsettled:
        if self.is_gone:
            raise ConnectionGone
        return self.engine.unsettled()

    async def load_many(self, outpoints: list[bytes]) -> list[Stored | None]:
        return self.engine.load(outpoints)

    def due(self, seconds: float = 0.0) -> list[int]:
        """Let some time pass; return the numbers of the channels to settle."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        found = self.loop.run_until_complete(self.largest.due())
        return [int.from_bytes(name[:2], "big") for name in found]


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.engine.close()


def test_an_attackers_large_channel_is_settled_and_no_small_one_for_it(rig):
    """It expires last, and twenty honest ones before it: a satoshi more on one of them."""
    for number in range(20):
        rig.put(number, 100_000)
    rig.put(99, 2_000_000)
    assert rig.due() == []
    assert rig.due(2) == [] and rig.walks == 1
    rig.put(7, 100_001)
    assert rig.due(2) == [99] and rig.walks == 2
    assert rig.due() == [99] and rig.walks == 2
    rig.close(99)
    assert rig.due(2) == []
    assert rig.engine.unsettled() == (2_000_001, 2_000_000)


def test_no_more_are_settled_than_bring_the_sum_to_the_limit(rig):
    for number, received in enumerate([900_000, 1_500_000, 700_000, 1_200_000, 600_000]):
        rig.put(number, received)
    assert rig.due() == [1]  # 4 900 000
    rig.put(5, 600_001)
    assert rig.due(2) == [1, 3]  # 5 500 001: the largest alone would leave a satoshi too much
    rig.close(1)
    rig.close(3)
    assert rig.due(2) == []


def test_what_is_being_settled_counts_as_on_its_way_however_long_it_takes(rig):
    rig.put(1, 2_000_000)
    rig.put(2, 1_900_000)
    rig.put(3, 100_001)
    assert rig.due() == [1]
    rig.close(1)
    for _ in range(50):
        assert rig.due(60) == []


def test_one_that_could_not_be_begun_is_named_again_and_no_other_for_it(rig):
    rig.put(1, 2_000_000)
    rig.put(2, 1_900_000)
    rig.put(3, 100_001)
    assert [rig.due(2) for _ in range(5)] == [[1]] * 5


def test_what_has_closed_since_the_ranking_is_passed_over(rig):
    """Its value is not in the open sum any more, and brings that down no further."""
    for number, received in enumerate([2_000_000, 1_900_000, 1_800_000, 100_000]):
        rig.put(number, received)
    rig.page_seconds = 100.0
    assert rig.due() == [0]
    rig.close(0)
    rig.put(4, 300_000)
    assert rig.walks == 1
    assert rig.due(2) == [1]
    assert rig.walks == 1


def test_a_ranking_lasts_so_many_times_as_long_as_it_took(rig):
    rig.page_seconds = 3.0
    rig.put(1, 1_900_000)
    rig.put(2, 1_800_000)
    rig.put(3, 400_000)
    assert rig.due() == [1]  # two pages, so 6 seconds
    rig.put(4, 1_950_000)
    assert rig.due(20) == [1, 2] and rig.walks == 1
    assert rig.due(10) == [4, 1] and rig.walks == 2


def test_a_channel_that_holds_more_than_a_lowered_limit_is_found_though_nobody_pays_on_it(rig):
    rig.put(1, CHANNEL_MAX)
    rig.put(2, CHANNEL_MAX - 1)
    assert rig.due() == []
    rig.largest = Largest(rig, CHANNEL_MAX - 1, TOTAL_MAX)
    assert rig.due() == [1]
    rig.close(1)
    assert rig.due(2) == []


def test_the_lease_taken_over_and_an_hour_are_reasons_to_rank_anew(rig):
    rig.put(1, 1)
    assert rig.due() == [] and rig.walks == 1
    rig.put(2, CHANNEL_MAX + 1)  # and whoever took the payment died before it settled the channel
    assert rig.due(RANKING_SECONDS_MAX) == [] and rig.walks == 1
    assert rig.due(1) == [2] and rig.walks == 2
    rig.put(3, CHANNEL_MAX + 2)
    rig.largest.forget()
    assert rig.due(2) == [3, 2] and rig.walks == 3


def test_so_many_at_a_time_and_all_in_the_end(rig, monkeypatch):
    """More channels than a ranking holds are above a lowered limit; the ranking's size is all that it keeps in memory."""
    monkeypatch.setattr(module, "RANKED_MAX", EARLY_MAX + 4)
    count, settled = 6 * EARLY_MAX, []
    for number in range(count):
        rig.put(number, 1000 + number)
    rig.largest = Largest(rig, 999, TOTAL_MAX)
    for _ in range(20):
        found = rig.due(2)
        assert len(found) <= EARLY_MAX and len(rig.largest._ranking) <= EARLY_MAX + 4
        settled += found
        for number in found:
            rig.close(number)
    assert settled == list(reversed(range(count)))
    assert rig.walks == 5


def test_a_damaged_channel_is_left_alone(rig):
    rig.put(1, 2_000_000)
    rig.put(2, 1_500_000)
    rig.put(3, 600_000)
    rig.page_seconds = 100.0
    assert rig.due() == [1]
    rig.engine.commit({keys.STATE + outpoint(1): b"?"})
    assert rig.due(2) == [2]


def test_a_store_that_is_gone_is_told_of(rig):
    rig.is_gone = True
    with pytest.raises(ConnectionGone):
        rig.due()
