"""The settler: whoever holds its lease finds the channels whose time has come, or whose settlement is unfinished.

It only finds them; the owner of each channel settles it. A channel that fails stays in its index and is found again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..errors import PaychanError
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Lease, StoreMessage
from .ownership import Ownership

SWEEP_SECONDS = 2.0
"""Between sweeps. Both indexes are ordered, so a sweep costs what it finds, not what there is."""

CONCURRENT_MAX = 32
"""Channels settled at a time; a slow one holds up none but itself and its place."""

log = logging.getLogger("paychan.settler")


class Settler:
    """Sweeps while this worker holds the lease. `settle(outpoint)` reaches the channel's owner, wherever it is."""

    def __init__(
        self,
        ownership: Ownership,
        store: StoreClient,
        settle: Callable[[bytes], Awaitable[object]],
        settlement_period: int,
        clock: Callable[[], int],
    ) -> None:
        self._ownership, self._store, self._settle = ownership, store, settle
        self._settlement_period, self._clock = settlement_period, clock
        self._places = asyncio.Semaphore(CONCURRENT_MAX)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                if self._ownership.holds(Lease.SETTLER):
                    await self._sweep()
            except (ConnectionGone, RemoteRefusal):
                pass  # the store is away, and so is our lease
            except Exception:
                log.exception("a sweep failed; the next one follows")
            await asyncio.sleep(SWEEP_SECONDS)

    async def _sweep(self) -> None:
        unfinished = await self._store.scan(StoreMessage.SCAN_UNFINISHED)
        # An expiry at `now + period` exactly takes no payment any more, so it is due; the scan is exclusive.
        expiring = await self._store.scan(
            StoreMessage.SCAN_EXPIRING, min(self._clock() + self._settlement_period + 1, 0xFFFFFFFF)
        )
        found = {outpoint for _, outpoint in unfinished} | {outpoint for _, outpoint in expiring}
        await asyncio.gather(*(self._settle_one(outpoint) for outpoint in found))

    async def _settle_one(self, outpoint: bytes) -> None:
        async with self._places:
            try:
                await self._settle(outpoint)
            except PaychanError as error:
                log.debug("not settled yet: %s", error.code)
            except Exception:
                log.exception("settling a channel failed; it will be tried again")
