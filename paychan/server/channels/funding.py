"""Whether a channel's funding output is still there. Asked before the first payment that follows a load or a new best block.

So a reorganisation that takes a funding transaction away freezes its channel until it is back, and a channel that was restored from
a backup is looked at before it earns anything.
"""

import asyncio

from ..._fast.channel import ChannelTable
from ...chain.base import ChainBackend
from ...core.channel import ChannelTerms
from ...core.errors import PaychanError, Rejection, Unavailable
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.store_client import StoreClient

REMEMBERED_MAX = 10_000
"""Bad findings that are remembered until the tip moves, so that a frozen channel's payer does not cost a look-up each time."""


AT_ONCE_MAX = 32
"""Look-ups under way in one worker; the others wait for them. The same few connections carry the tip and settlements."""


class FundingChecks:
    """Looks funding outputs up and tells the channel table what was found well. `confirmations_min`: below it, frozen."""

    def __init__(self, channels: ChannelTable, store: StoreClient, chain: ChainBackend, confirmations_min: int) -> None:
        self._channels, self._store, self._chain = channels, store, chain
        self._confirmations_min = confirmations_min
        self._bad: dict[bytes, PaychanError] = {}
        self._looks: dict[bytes, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(AT_ONCE_MAX)

    def tip_moved(self, generation: int) -> None:
        """Have every channel checked again before its next payment."""
        self._channels.chain_generation = generation
        self._bad.clear()

    async def check(self, outpoint: bytes) -> None:
        """Look at a loaded channel's funding output now, once for all who ask meanwhile.

        Raises Unavailable("funding_disappeared") or ("chain_unavailable"), Rejection("funding_spent").
        """
        if outpoint in self._bad:
            raise self._bad[outpoint]
        look = self._looks.get(outpoint)
        if look is None:
            look = self._looks[outpoint] = asyncio.get_running_loop().create_task(self._look(outpoint))
            look.add_done_callback(lambda done: self._looked(outpoint, done))
        await asyncio.shield(look)

    def _looked(self, outpoint: bytes, look: asyncio.Task[None]) -> None:
        del self._looks[outpoint]
        if not look.cancelled():
            look.exception()  # whoever asked may be gone

    async def _look(self, outpoint: bytes) -> None:
        async with self._places:
            await self._look_now(outpoint)

    async def _look_now(self, outpoint: bytes) -> None:
        generation = self._channels.chain_generation
        try:
            stored = await self._store.load(outpoint)
        except (ConnectionGone, RemoteRefusal) as error:
            raise Unavailable("store_unavailable") from error
        if stored is None:
            raise Rejection("no_such_channel")
        try:
            await self._judge(ChannelTerms.parse(outpoint, stored.terms))
        except PaychanError as error:
            is_newest = generation == self._channels.chain_generation
            if is_newest and error.code != "chain_unavailable" and len(self._bad) < REMEMBERED_MAX:
                self._bad[outpoint] = error
            raise
        if self._channels.is_loaded(outpoint):
            self._channels.mark_checked(outpoint, generation)

    async def _judge(self, terms: ChannelTerms) -> None:
        status = await self._chain.funding_status(terms)
        if status.is_spent:
            raise Rejection("funding_spent")
        if status.confirmations < self._confirmations_min:
            raise Unavailable("funding_disappeared")
