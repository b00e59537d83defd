"""What the signer is told while a channel is open: each time another step of value was received, the newest payment is noted there.

The signer then signs nothing that leaves the payer more, so whoever breaks into this server cannot give back what was noted. Only
what is durable is noted: a payment that the store could lose must not be the least that the signer allows.
"""

import asyncio
import logging

from ..._fast.channel import ChannelTable
from ...core.channel import ChannelState, ChannelTerms
from ...core.outpoint import format_outpoint, txid_of
from ...core.units import MAX_MONEY
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.signer_client import SignerClient, SignerRefused
from ...rpc.store_client import StoreClient

RUNNING_MAX = 64
"""Notes under way in one worker; each waits for store and signer. Beyond, a channel's next payment asks again."""

log = logging.getLogger("paychan.notes")


class Notes:
    """Of one worker's channels. step: satoshi received on a channel between two notes."""

    def __init__(self, channels: ChannelTable, store: StoreClient, signer: SignerClient, step: int) -> None:
        self._channels, self._store, self._signer, self._step = channels, store, signer, step
        self._running: dict[bytes, asyncio.Task[None]] = {}
        channels.watch_above = step

    def want(self, outpoint: bytes) -> None:
        """Have a loaded channel's newest durable payment noted, without letting anybody wait."""
        if len(self._running) >= RUNNING_MAX or outpoint in self._running:
            return
        self._channels.watch(outpoint, MAX_MONEY)
        task = asyncio.get_running_loop().create_task(self._note(outpoint))
        self._running[outpoint] = task
        task.add_done_callback(lambda _: self._running.pop(outpoint, None))

    async def stop(self) -> None:
        """End all tasks; what was not noted is noted after the next payment."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _note(self, outpoint: bytes) -> None:
        """Note what is durable, and watch for the next step; one that could not be noted is made up for by that."""
        try:
            stored = await self._store.load(outpoint)
            if stored is not None:
                terms = ChannelTerms.parse(outpoint, stored.terms)
                payment = ChannelState.parse(stored.state).payment
                await self._signer.note(terms, payment, await self._store.load_funding(txid_of(outpoint)))
        except SignerRefused as error:
            log.warning("the signer does not note a payment on %s: %s", format_outpoint(outpoint), error)
        except (ConnectionGone, RemoteRefusal) as error:
            log.info("a payment on %s is not noted: %s", format_outpoint(outpoint), error)
        finally:
            if self._channels.is_loaded(outpoint):
                self._channels.watch(outpoint, min(self._channels.received(outpoint) + self._step, MAX_MONEY))
