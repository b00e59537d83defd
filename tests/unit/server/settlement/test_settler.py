"""Aim: every channel whose time has come is settled, and none that fails holds up another. Method: the real settler on a simulated
loop; the store's indexes and the owners' answers are what each test says.
"""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from paychan.core.channel import Phase
from paychan.core.errors import Unavailable
from paychan.core.units import LOCKTIME_MAX
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.store_messages import Lease, StoreMessage
from paychan.server.settlement.settler import CONCURRENT_MAX, PAUSE_SECONDS_MAX, SWEEP_SECONDS, Settler
from tests.simulation.loop import SimulatedLoop

PERIOD = 6 * 3600
NOW = 1_700_000_000


def outpoint(number: int) -> bytes:
    return number.to_bytes(36, "big")


class Rig:
    """A settler that holds the lease; `open_until` and `unfinished` are the store's indexes, `early` is what holds too much."""

    def __init__(self) -> None:
        self.loop = SimulatedLoop()
        self.open_until: dict[bytes, int] = {}
        self.unfinished: dict[bytes, Phase] = {}
        self.holds, self.now, self.generation = True, NOW, 1
        self.early: list[bytes] = []
        self.forgotten = 0
        self.fails: dict[bytes, BaseException] = {}
        self.hangs: set[bytes] = set()
        self.stays: set[bytes] = set()
        self.scan_error: Exception | None = None
        self.asked: list[bytes] = []
        self.asked_at: list[float] = []
        self.at_once = self.most_at_once = 0
        ownership = SimpleNamespace(holds=lambda lease: lease is Lease.SETTLER and self.holds)
        self.settler = Settler(ownership, self, self, self.settle, PERIOD, self, lambda: self.now)

    async def due(self) -> list[bytes]:
        return [name for name in self.early if name in self.open_until]

    def forget(self) -> None:
        self.forgotten += 1

    async def scan(self, kind: StoreMessage, before: int = 0, most: int = 1 << 32) -> list[tuple[int, bytes]]:
        if self.scan_error:
            raise self.scan_error
        if kind is StoreMessage.SCAN_UNFINISHED:
            return [(phase, name) for name, phase in self.unfinished.items()]
        soonest = sorted((expiry, name) for name, expiry in self.open_until.items() if expiry < before)
        return soonest[:most]

    async def pages(self, kind: StoreMessage, before: int = 0) -> AsyncIterator[list[tuple[int, bytes]]]:
        yield await self.scan(kind, before)

    async def settle(self, name: bytes) -> None:
        self.asked.append(name)
        self.asked_at.append(self.loop.time())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0.001)
            if name in self.hangs:
                await asyncio.sleep(1e9)
            if name in self.fails:
                raise self.fails[name]
            if name not in self.stays:
                self.open_until.pop(name, None)
                self.unfinished.pop(name, None)
        finally:
            self.at_once -= 1

    def run(self, seconds: float) -> None:
        """Let a new settler sweep for so long, and stop it."""

        async def sweep() -> None:
            self.settler.start()
            await asyncio.sleep(seconds)
            await self.settler.stop()

        self.loop.run_until_complete(sweep())

    def sweep(self) -> list[bytes]:
        """Let it sweep once; return whom it had settled."""
        self.asked.clear()
        self.run(SWEEP_SECONDS / 2)
        return list(self.asked)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_channel_is_settled_from_the_second_on_in_which_it_takes_no_more_payments(rig):
    rig.open_until = {outpoint(1): NOW + PERIOD, outpoint(2): NOW + PERIOD + 1, outpoint(3): NOW - 5}
    assert rig.sweep() == [outpoint(3), outpoint(1)]
    rig.now += 1
    assert rig.sweep() == [outpoint(2)]


def test_the_last_expiry_that_there_is_can_be_looked_for(rig):
    rig.now, rig.open_until = LOCKTIME_MAX, {outpoint(1): LOCKTIME_MAX - 1}
    assert rig.sweep() == [outpoint(1)]


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.SIGNED, Phase.BROADCAST])
def test_what_was_begun_is_gone_on_with(rig, phase):
    rig.unfinished = {outpoint(1): phase}
    assert rig.sweep() == [outpoint(1)]
    assert rig.sweep() == []


@pytest.mark.parametrize("error", [Unavailable("chain_unavailable"), ValueError("a bug")])
def test_one_that_fails_holds_up_no_other(rig, error, caplog):
    rig.unfinished = {outpoint(number): Phase.CLOSING for number in range(5)}
    rig.fails = {outpoint(0): error, outpoint(2): error}
    rig.run(SWEEP_SECONDS / 2)
    assert rig.asked == [outpoint(number) for number in range(5)]
    assert list(rig.unfinished) == [outpoint(0), outpoint(2)]
    assert ("will be tried again" in caplog.text) == isinstance(error, ValueError)


def test_more_than_can_be_settled_at_a_time_are_settled_all(rig):
    rig.unfinished = {outpoint(number): Phase.CLOSING for number in range(3 * CONCURRENT_MAX)}
    rig.run(SWEEP_SECONDS / 2)
    assert rig.unfinished == {}
    assert rig.most_at_once == CONCURRENT_MAX


def test_a_slow_one_takes_its_place_and_no_more(rig):
    rig.unfinished = {outpoint(number): Phase.CLOSING for number in range(2 * CONCURRENT_MAX)}
    rig.hangs = {outpoint(0)}
    rig.run(SWEEP_SECONDS / 2)
    assert list(rig.unfinished) == [outpoint(0)]


def test_one_that_fails_is_tried_again_after_pauses_that_grow(rig):
    rig.unfinished, rig.fails = {outpoint(1): Phase.CLOSING}, {outpoint(1): Unavailable("signer_unavailable")}
    rig.run(300)
    pauses = [later - earlier for earlier, later in zip(rig.asked_at, rig.asked_at[1:], strict=False)]
    expected = [SWEEP_SECONDS * 2**number for number in range(5)] + [PAUSE_SECONDS_MAX] * 3
    assert len(pauses) >= len(expected)
    for pause, least in zip(pauses, expected, strict=False):
        assert least <= pause <= least + 1.5 * SWEEP_SECONDS, (pauses, expected)


def test_a_new_best_block_ends_every_pause(rig):
    rig.unfinished, rig.fails = {outpoint(1): Phase.CLOSING}, {outpoint(1): Unavailable("chain_unavailable")}
    rig.run(600)
    rig.asked.clear()
    rig.generation += 1
    rig.run(SWEEP_SECONDS / 2)
    assert rig.asked == [outpoint(1)]


def test_a_pause_ends_with_what_it_was_for(rig):
    rig.unfinished, rig.fails = {outpoint(1): Phase.CLOSING}, {outpoint(1): Unavailable("signer_unavailable")}
    rig.run(600)
    rig.unfinished, rig.fails = {}, {}
    rig.sweep()
    rig.open_until = {outpoint(1): NOW}
    assert rig.sweep() == [outpoint(1)]


def test_what_was_broadcast_is_looked_at_with_each_block_and_seldom_between(rig):
    rig.unfinished, rig.stays = {outpoint(1): Phase.BROADCAST}, {outpoint(1)}
    rig.run(300)
    assert 300 / (PAUSE_SECONDS_MAX + 2 * SWEEP_SECONDS) <= len(rig.asked) <= 5 + 300 / PAUSE_SECONDS_MAX
    rig.asked.clear()
    rig.generation += 1
    rig.run(SWEEP_SECONDS / 2)
    assert rig.asked == [outpoint(1)]


def test_what_is_broadcast_by_others_is_not_looked_at_before_its_time(rig):
    rig.sweep()
    rig.unfinished, rig.stays = {outpoint(1): Phase.BROADCAST, outpoint(2): Phase.SIGNED}, {outpoint(1)}
    rig.run(PAUSE_SECONDS_MAX - 2 * SWEEP_SECONDS)
    assert rig.asked == [outpoint(2)]
    rig.run(4 * SWEEP_SECONDS)
    assert rig.asked == [outpoint(2), outpoint(1)]


def test_what_holds_too_much_is_settled_early_after_what_is_due(rig):
    rig.open_until = {outpoint(number): NOW + PERIOD + number - 1 for number in range(1, 5)}
    rig.early = [outpoint(4), outpoint(1), outpoint(3)]
    assert rig.sweep() == [outpoint(1), outpoint(4), outpoint(3)]
    assert list(rig.open_until) == [outpoint(2)]


def test_who_does_not_hold_the_lease_settles_nothing(rig):
    rig.unfinished, rig.holds = {outpoint(1): Phase.CLOSING}, False
    rig.run(60)
    assert rig.asked == [] and rig.forgotten >= 60 / SWEEP_SECONDS
    rig.holds, rig.forgotten = True, 0
    assert rig.sweep() == [outpoint(1)] and not rig.forgotten


@pytest.mark.parametrize(("error", "is_logged"), [(ConnectionGone(), False), (ValueError("a bug"), True)])
def test_a_sweep_that_fails_is_followed_by_the_next(rig, error, is_logged, caplog):
    rig.unfinished, rig.scan_error = {outpoint(1): Phase.CLOSING}, error
    assert rig.sweep() == []
    rig.scan_error = None
    assert rig.sweep() == [outpoint(1)]
    assert ("a sweep failed" in caplog.text) == is_logged


def test_one_that_was_never_started_can_be_stopped(rig):
    rig.loop.run_until_complete(rig.settler.stop())
    assert rig.asked == []
