"""Aim: whenever the tip moves, every open channel's funding output is looked at, whatever becomes of single looks. Method: the real
watcher on a simulated loop; the store's index, the chain and the owners do what each test says.
"""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from paychan.chain.base import FundingStatus
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Rejection, Unavailable
from paychan.core.outpoint import format_outpoint
from paychan.core.units import LOCKTIME_MAX
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.store_messages import Lease, Stored, StoreMessage
from paychan.server.settlement.watcher import CONCURRENT_MAX, LOOK_SECONDS, PAUSE_SECONDS, Watcher
from tests.simulation.loop import SimulatedLoop

PAGE = 3 * CONCURRENT_MAX + 1


def outpoint(number: int) -> bytes:
    return number.to_bytes(36, "big")


class Rig:
    """A watcher that holds the lease, for `count` open channels."""

    def __init__(self, count: int = 3) -> None:
        self.loop = SimulatedLoop()
        self.outpoints = [outpoint(number) for number in range(count)]
        self.gone: set[bytes] = set()
        self.status: dict[bytes, FundingStatus | Exception] = {}
        self.holds, self.generation, self.store_error = True, 1, None
        self.looked: list[bytes] = []
        self.settled: list[bytes] = []
        self.settle_error: Exception | None = None
        self.at_once = self.most_at_once = 0
        ownership = SimpleNamespace(holds=lambda lease: lease is Lease.CHAIN_WATCHER and self.holds)
        self.watcher = Watcher(ownership, self, self, self, self.settle)

    async def pages(self, kind: StoreMessage, before: int):
        assert (kind, before) == (StoreMessage.SCAN_EXPIRING, LOCKTIME_MAX)
        if self.store_error:
            raise self.store_error
        for start in range(0, len(self.outpoints), PAGE):
            yield [(1, name) for name in self.outpoints[start : start + PAGE]]

    async def load_many(self, outpoints: list[bytes]) -> list[Stored | None]:
        assert len(outpoints) <= CONCURRENT_MAX
        return [None if name in self.gone else self._stored(name) for name in outpoints]

    @staticmethod
    def _stored(name: bytes) -> Stored:
        return Stored(ChannelTerms(name, b"\2" * 33, b"\3" * 33, 600_000_000, 1000, b"").serialize(), b"", b"")

    async def funding_status(self, terms: ChannelTerms, settlement_txid: bytes = b"") -> FundingStatus:
        self.looked.append(terms.outpoint)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.001)
        self.at_once -= 1
        status = self.status.get(terms.outpoint, FundingStatus(1))
        if isinstance(status, Exception):
            raise status
        return status

    async def settle(self, name: bytes) -> None:
        self.settled.append(name)
        if self.settle_error:
            raise self.settle_error

    def run(self, seconds: float) -> None:
        async def watch() -> None:
            self.watcher.start()
            await asyncio.sleep(seconds)
            await self.watcher.stop()

        self.loop.run_until_complete(watch())

    def look(self) -> list[bytes]:
        """Let it look once at the tip; return at which channels it looked."""
        self.looked.clear()
        self.run(1.5 * LOOK_SECONDS)
        return list(self.looked)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_every_open_channel_is_looked_at_once_for_each_best_block(rig):
    assert rig.look() == rig.outpoints
    assert rig.look() == []
    rig.generation += 1
    assert rig.look() == rig.outpoints
    assert rig.settled == []


def test_of_many_channels_few_are_looked_at_at_a_time():
    rig = Rig(2 * PAGE + 5)
    assert rig.look() == rig.outpoints
    assert rig.most_at_once == CONCURRENT_MAX


def test_who_does_not_hold_the_lease_looks_at_nothing(rig):
    rig.holds = False
    assert rig.look() == []


def test_a_spent_output_has_its_channel_settled_at_once(rig, caplog):
    rig.status[outpoint(1)] = FundingStatus(5, True, b"\7" * 32, 0)
    rig.look()
    assert rig.settled == [outpoint(1)]
    assert f"the funding output {format_outpoint(outpoint(1))} has been spent" in caplog.text


def test_a_settlement_that_fails_is_told_and_keeps_no_look_from_coming(rig, caplog):
    rig.status[outpoint(0)] = FundingStatus(5, True)
    rig.settle_error = Rejection("funding_spent")
    assert rig.look() == rig.outpoints
    assert rig.settled == [outpoint(0)]
    assert rig.settle_error.detail in caplog.text
    assert rig.look() == []


def test_an_output_that_disappeared_is_told_of_once_until_it_is_back(rig, caplog):
    def warnings() -> int:
        return caplog.text.count("has disappeared")

    rig.status[outpoint(1)] = FundingStatus(-1)
    for _ in range(3):
        rig.look()
        rig.generation += 1
    assert warnings() == 1
    rig.status[outpoint(1)] = FundingStatus(0)  # back in the mempool is not back
    rig.look()
    rig.generation += 1
    assert warnings() == 1
    rig.status[outpoint(1)] = FundingStatus(1)
    rig.look()
    rig.generation += 1
    rig.status[outpoint(1)] = FundingStatus(0)
    rig.look()
    assert warnings() == 2
    assert rig.settled == []


def test_a_channel_that_went_meanwhile_is_passed_over(rig):
    rig.gone = {outpoint(1)}
    assert rig.look() == [outpoint(0), outpoint(2)]


@pytest.mark.parametrize(
    ("error", "level"), [(Unavailable("chain_unavailable", "silent"), logging.WARNING), (ValueError("a bug"), logging.ERROR)]
)
def test_a_look_that_fails_keeps_no_other_from_coming_and_all_are_looked_at_again(rig, error, level, caplog):
    rig.status[outpoint(0)] = error
    rig.looked.clear()
    rig.run(PAUSE_SECONDS / 2 + LOOK_SECONDS)
    assert rig.looked == rig.outpoints
    rig.status.clear()
    rig.looked.clear()
    rig.run(PAUSE_SECONDS + 3 * LOOK_SECONDS)
    assert rig.looked == rig.outpoints
    rig.status[outpoint(0)] = error
    rig.generation += 1
    rig.run(PAUSE_SECONDS + 1.5 * LOOK_SECONDS)
    assert [record.levelno for record in caplog.records] == [level]


def test_a_store_that_is_away_is_no_trouble_of_the_chains(rig, caplog):
    rig.store_error = ConnectionGone()
    assert rig.look() == []
    assert caplog.records == []
    rig.store_error = None
    assert rig.look() == rig.outpoints


def test_one_that_was_never_started_can_be_stopped(rig):
    rig.loop.run_until_complete(rig.watcher.stop())
    assert rig.looked == []
