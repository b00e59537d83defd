"""Aim: whatever the wall clock says, no channel is settled long before its time, or at a dear rung, and each in time. Method: the
real clock, tip follower and settler on a simulated loop; the machine's clock is wrong from the start, or jumps while they run.
"""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from paychan.chain.base import Tip
from paychan.clock import Clock
from paychan.core.fees import LADDER, rung_at
from paychan.rpc.store_messages import StoreMessage
from paychan.server.settlement import settler as settler_module
from paychan.server.settlement.settler import Settler
from paychan.server.settlement.tip import TipFollower
from tests.simulation.loop import SimulatedLoop

PERIOD = 6 * 3600
AGE_MAX = 3 * 3600
START = 1_700_000_000
DECADE = 10 * 365 * 86400
BLOCK_SECONDS = 600
POLL_SECONDS = 120
DUE = START + PERIOD + 86400
"""The expiry of the channel that is watched."""


@pytest.fixture(autouse=True)
def rare_sweeps(monkeypatch):
    monkeypatch.setattr(settler_module, "SWEEP_SECONDS", 120.0)


class Machine:
    """A server's clock, tip and settler beside a chain that finds a block each ten minutes. `settled`: (true time, rung)."""

    def __init__(self, error: int, kept: int = 0) -> None:
        self.loop, self.error = SimulatedLoop(), error
        self.settled: list[tuple[int, int]] = []
        clock = Clock(lambda: self.true + self.error, kept, AGE_MAX, self.loop.time)
        self.clock, self.follower = clock, TipFollower(self, clock, POLL_SECONDS, AGE_MAX, lambda _: None)
        ownership = SimpleNamespace(holds=lambda _: True)
        self.settler = Settler(ownership, self, self.follower, self.settle, PERIOD, self, clock.sure)

    @property
    def true(self) -> int:
        return START + int(self.loop.time())

    # the chain source

    async def start(self) -> None:
        await asyncio.sleep(5)  # the settler is there first

    async def stop(self) -> None:
        pass

    async def tip(self) -> Tip:
        height = int(self.loop.time()) // BLOCK_SECONDS
        found = START + height * BLOCK_SECONDS
        return Tip(height, height.to_bytes(32, "big"), found, found - 6 * BLOCK_SECONDS)

    # the store and the channel's owner

    async def pages(self, kind: StoreMessage, before: int = 0) -> AsyncIterator[list[tuple[int, bytes]]]:
        yield [(DUE, b"due")] if kind is StoreMessage.SCAN_EXPIRING and before > DUE and not self.settled else []

    async def due(self) -> list[bytes]:
        return []

    async def settle(self, _: bytes) -> None:
        self.settled.append((self.true, LADDER.index(rung_at(DUE - self.clock.sure(), PERIOD))))

    def run(self, *errors: tuple[int, int]) -> None:
        """Live until the channel's expiry; errors: (seconds from now, the wall clock's error from then on)."""

        async def live() -> None:
            self.follower.start()
            self.settler.start()
            for at, error in errors:
                await asyncio.sleep(at - self.loop.time())
                self.error = error
            await asyncio.sleep(DUE - self.true)
            await self.settler.stop()
            await self.follower.stop()

        self.loop.run_until_complete(live())
        self.loop.close()


@pytest.mark.parametrize("error", [-START, -DECADE, -86400, 0, 3600, 86400, DECADE, 2**32 - 1 - START])
def test_a_clock_that_was_always_wrong(error):
    machine = Machine(error)
    machine.run()
    ((when, rung),) = machine.settled
    assert DUE - PERIOD - AGE_MAX <= when <= DUE - PERIOD + 2 * 3600
    assert rung <= 1


@pytest.mark.parametrize("error", [-START, -DECADE, 86400, DECADE])
@pytest.mark.parametrize("lasts", [500, 7200, 40_000])
def test_a_clock_that_jumps_while_running_and_is_set_right(error, lasts):
    machine = Machine(0)
    machine.run((20_000, error), (20_000 + lasts, 0))
    ((when, rung),) = machine.settled
    assert DUE - PERIOD - AGE_MAX <= when <= DUE - PERIOD + 300
    assert rung <= 1


@pytest.mark.parametrize("kept", [START + 86400, START + DECADE, 2**32 - 1])
def test_a_kept_time_that_was_wrong(kept):
    machine = Machine(0, kept)
    machine.run()
    ((when, rung),) = machine.settled
    assert DUE - PERIOD - AGE_MAX <= when <= DUE - PERIOD + BLOCK_SECONDS
    assert rung <= 1
