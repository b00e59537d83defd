"""The settler: whoever holds its lease finds the channels whose time has come, or whose settlement is unfinished.

It only finds them; the owner of each channel settles it. A channel that fails stays in its index and is found again, after a pause
that grows while nothing changes and ends when the chain's tip moves.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from ...core.channel import Phase
from ...core.errors import PaychanError
from ...core.units import LOCKTIME_MAX
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.store_client import StoreClient
from ...rpc.store_messages import Lease, StoreMessage
from ..background import Background
from ..shards.ownership import Ownership
from .largest import Largest
from .tip import TipFollower

SWEEP_SECONDS = 2.0
"""Between sweeps. Both indexes are ordered, so a sweep costs what it finds, not what there is."""

PAUSE_SECONDS_MAX = 60.0
"""Between two attempts at one channel while the tip stands still."""

CONCURRENT_MAX = 32
"""Channels settled at a time; a slow one holds up none but itself and its place."""

log = logging.getLogger("paychan.settler")


class Settler(Background):
    """Sweeps while this worker holds the lease. `settle(outpoint)` reaches the channel's owner, wherever it is."""

    def __init__(
        self,
        ownership: Ownership,
        store: StoreClient,
        tip: TipFollower,
        settle: Callable[[bytes], Awaitable[object]],
        settlement_period: int,
        largest: Largest,
        now: Callable[[], int],
    ) -> None:
        self._ownership, self._store, self._tip, self._settle = ownership, store, tip, settle
        self._settlement_period, self._largest, self._now = settlement_period, largest, now
        self._places = asyncio.Semaphore(CONCURRENT_MAX)
        self._pauses: dict[bytes, tuple[float, float]] = {}
        self._generation = 0

    async def _run(self) -> None:
        while True:
            try:
                if self._ownership.holds(Lease.SETTLER):
                    await self._sweep()
                else:
                    self._largest.forget()
            except (ConnectionGone, RemoteRefusal):
                pass  # the store is away, and so is our lease
            except Exception:
                log.exception("a sweep failed; the next one follows")
            await asyncio.sleep(SWEEP_SECONDS)

    async def _sweep(self) -> None:
        moved = self._generation != self._tip.generation
        if moved:
            self._generation = self._tip.generation
            self._pauses.clear()
        running: dict[bytes, asyncio.Task[None]] = {}

        def ended(outpoint: bytes, _: asyncio.Task[None]) -> None:
            del running[outpoint]
            self._places.release()

        seen: set[bytes] = set()
        try:
            async for outpoint in self._found(moved):
                if outpoint in self._pauses:
                    seen.add(outpoint)
                if outpoint not in running and not self._rests(outpoint):
                    seen.add(outpoint)
                    await self._places.acquire()
                    running[outpoint] = asyncio.get_running_loop().create_task(self._settle_one(outpoint))
                    running[outpoint].add_done_callback(partial(ended, outpoint))
            await asyncio.gather(*running.values())
        finally:
            for task in running.values():
                task.cancel()
        self._pauses = {outpoint: pause for outpoint, pause in self._pauses.items() if outpoint in seen}

    async def _found(self, moved: bool) -> AsyncIterator[bytes]:
        """Yield the channels whose settlement is unfinished, then the open ones that must be settled: near their expiry, or the
        largest while one or all together hold too much. A page of the store's indexes at a time: there may be a million."""
        async for page in self._store.pages(StoreMessage.SCAN_UNFINISHED):
            for phase, outpoint in page:
                if phase == Phase.BROADCAST and not moved and outpoint not in self._pauses:
                    # only blocks bring it further; without a new one it is looked at once in a while
                    self._pause(outpoint, PAUSE_SECONDS_MAX)
                yield outpoint
        # An expiry at `now + period` exactly takes no payment any more, so it is due; the scan is exclusive.
        before = min(self._now() + self._settlement_period + 1, LOCKTIME_MAX)
        async for page in self._store.pages(StoreMessage.SCAN_EXPIRING, before):
            for _, outpoint in page:
                yield outpoint
        for outpoint in await self._largest.due():
            yield outpoint

    def _rests(self, outpoint: bytes) -> bool:
        return self._pauses.get(outpoint, (0.0, 0.0))[0] > asyncio.get_running_loop().time()

    def _pause(self, outpoint: bytes, seconds: float) -> None:
        self._pauses[outpoint] = (asyncio.get_running_loop().time() + seconds, seconds)

    async def _settle_one(self, outpoint: bytes) -> None:
        _, before = self._pauses.get(outpoint, (0.0, SWEEP_SECONDS / 2))
        try:
            await self._settle(outpoint)
        except PaychanError as error:
            log.debug("not settled yet: %s", error.code)
        except Exception:
            log.exception("settling a channel failed; it will be tried again")
        self._pause(outpoint, min(2 * before, PAUSE_SECONDS_MAX))
