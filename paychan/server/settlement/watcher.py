"""The chain watcher: whoever holds its lease looks at the funding outputs of all open channels whenever the tip moves.

What it finds wrong it reports; the owner of a channel looks for itself before each first payment (`funding.py`). A funding output
that was spent has its channel settled at once: whatever spent it, nothing more may be taken on it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ...chain.base import ChainBackend
from ...core.channel import ChannelTerms
from ...core.errors import PaychanError
from ...core.outpoint import format_outpoint
from ...core.units import LOCKTIME_MAX
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.store_client import StoreClient
from ...rpc.store_messages import Lease, Stored, StoreMessage
from ..background import Background
from ..shards.ownership import Ownership
from .tip import TipFollower

LOOK_SECONDS = 1.0
"""Between two looks at whether the tip has moved."""

PAUSE_SECONDS = 10.0
"""Before all channels are looked at again because some could not be."""

CONCURRENT_MAX = 16
"""Channels looked up at a time: a node answers some thousand look-ups a second, and has other things to do."""

log = logging.getLogger("paychan.watcher")


class Watcher(Background):
    """Looks while this worker holds the lease. `settle(outpoint)` reaches the channel's owner, wherever it is."""

    def __init__(
        self,
        ownership: Ownership,
        store: StoreClient,
        tip: TipFollower,
        chain: ChainBackend,
        settle: Callable[[bytes], Awaitable[object]],
    ) -> None:
        self._ownership, self._store, self._tip, self._chain, self._settle = ownership, store, tip, chain, settle
        self._generation = 0
        self._missing: set[bytes] = set()  # of this round, and
        self._missed: set[bytes] = set()  # of the one before: what was said once is not said again

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self._ownership.holds(Lease.CHAIN_WATCHER) and self._generation != self._tip.generation:
                    generation = self._tip.generation
                    await self._look_at_all()
                    self._generation = generation
            except (ConnectionGone, RemoteRefusal):
                pass  # the store is away, and so is our lease
            except PaychanError as error:
                log.warning("funding outputs could not be looked at: %s", error.detail)
            except Exception:
                log.exception("looking at funding outputs failed; it will be tried again")

    async def _look_at_all(self) -> None:
        """Look at a few channels at a time, however many there are: this worker takes payments meanwhile."""
        failure: Exception | None = None
        self._missing, self._missed = set(), self._missing
        async for page in self._store.pages(StoreMessage.SCAN_EXPIRING, LOCKTIME_MAX):
            for start in range(0, len(page), CONCURRENT_MAX):
                outpoints = [outpoint for _, outpoint in page[start : start + CONCURRENT_MAX]]
                looks = map(self._look, outpoints, await self._store.load_many(outpoints))
                outcomes = await asyncio.gather(*looks, return_exceptions=True)
                failure = failure or next((outcome for outcome in outcomes if isinstance(outcome, Exception)), None)
        if failure:
            await asyncio.sleep(PAUSE_SECONDS)
            raise failure

    async def _look(self, outpoint: bytes, stored: Stored | None) -> None:
        if stored is None:
            return
        status = await self._chain.funding_status(ChannelTerms.parse(outpoint, stored.terms))
        if status.is_spent:
            log.warning("the funding output %s has been spent; its channel is closed", format_outpoint(outpoint))
            try:
                await self._settle(outpoint)
            except PaychanError as error:
                log.warning("%s: %s", format_outpoint(outpoint), error.detail)
        elif status.confirmations < 1:
            if outpoint not in self._missed:
                log.warning("the funding transaction of %s has disappeared; its channel is frozen", format_outpoint(outpoint))
            self._missing.add(outpoint)
