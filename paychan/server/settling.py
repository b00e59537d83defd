"""The settlement machine of one worker's channels: closing -> signed -> broadcast -> settled, each arrow durable.

Re-enterable: `settle` reads where a channel stands and goes on from there, however often and after whatever crash. Channels are
independent of each other: a task each, its failure is its own. Who decides that a channel must settle is not known here.
"""

import asyncio
import logging

from .._fast.channel import ChannelTable, shard_of
from ..chain.base import BroadcastRefused, ChainBackend
from ..channel import ChannelState, ChannelTerms, Event, Phase, next_phase
from ..errors import Unavailable
from ..outpoint import format_outpoint
from ..payment import Payment
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.signer_client import SignerClient, SignerRefused
from ..rpc.signer_messages import RefusalCode
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Entry, EntryStatus
from ..settlement import SettlementError, Uneconomic, check_settlement, settlement_size_max
from .committer import LOST, Committer

FEE_TARGET_BLOCKS = 6
"""Within how many blocks a settlement should confirm, at first."""

DESTINATION_SIZE_MAX = 25
"""Bytes of the server's output script: a P2PKH one. The fee is computed for it; P2SH has two fewer."""

log = logging.getLogger("paychan.settling")


class Settling:
    """Settles channels of shards that this worker owns."""

    def __init__(
        self,
        channels: ChannelTable,
        shard_count: int,
        committer: Committer,
        store: StoreClient,
        signer: SignerClient,
        chain: ChainBackend,
        confirmations_needed: int,
    ) -> None:
        self._channels, self._shard_count, self._committer = channels, shard_count, committer
        self._store, self._signer, self._chain = store, signer, chain
        self._confirmations_needed = confirmations_needed
        self._running: dict[bytes, asyncio.Task[ChannelState]] = {}

    async def settle(self, outpoint: bytes) -> ChannelState:
        """Drive a channel that is closing, or further, as far as it goes now; return its state, broadcast at least.

        Raises Unavailable: what is done so far is durable, and the next call goes on from there.
        """
        task = self._running.get(outpoint)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._drive(outpoint))
            self._running[outpoint] = task
            task.add_done_callback(lambda done: self._finished(outpoint, done))
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """End all tasks; what they had not done is done after the next start."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _finished(self, outpoint: bytes, task: "asyncio.Task[ChannelState]") -> None:
        self._running.pop(outpoint, None)
        if not task.cancelled() and task.exception() is not None:
            log.warning("settlement of %s: %s", format_outpoint(outpoint), task.exception())

    async def _drive(self, outpoint: bytes) -> ChannelState:
        try:
            stored = await self._store.load(outpoint)
        except (ConnectionGone, RemoteRefusal) as error:
            raise Unavailable("store_unavailable") from error
        if stored is None:
            raise Unavailable("owner_moved")
        terms, state = ChannelTerms.parse(outpoint, stored.terms), ChannelState.parse(stored.state)
        transaction = stored.settlement
        if state.phase == Phase.CLOSING:
            transaction, state = await self._sign(terms, state)
        if state.phase == Phase.SIGNED:
            await self._broadcast(transaction)
            state = await self._advance(terms, state, Event.BROADCAST)
        if state.phase == Phase.BROADCAST:
            confirmations = await self._chain.confirmations(terms, state.settlement_txid)
            if confirmations >= self._confirmations_needed:
                state = await self._advance(terms, state, Event.CONFIRM)
                log.info("settled %s", format_outpoint(outpoint))
        if state.phase < Phase.BROADCAST:
            raise Unavailable("settlement_refused", "The channel is still open")
        return state

    async def _sign(self, terms: ChannelTerms, state: ChannelState) -> tuple[bytes, ChannelState]:
        """Have the settlement signed, check it, and make its bytes durable before anybody else sees them."""
        fee_per_byte = await self._chain.fee_per_byte(FEE_TARGET_BLOCKS)
        try:
            fee = fee_per_byte * settlement_size_max(terms, state.payment, bytes(DESTINATION_SIZE_MAX))
            transaction, fee = await self._have_signed(terms, state.payment, fee)
            txid = check_settlement(transaction, terms, state.payment, fee)
        except ConnectionGone as error:
            raise Unavailable("signer_unavailable") from error
        except Uneconomic as error:
            raise Unavailable("settlement_uneconomic") from error
        except SignerRefused as error:
            uneconomic = error.refusal.code is RefusalCode.UNECONOMIC
            code = "settlement_uneconomic" if uneconomic else "settlement_refused"
            raise Unavailable(code, f"The signer refuses: {error.refusal.code.name.lower()}") from error
        except SettlementError as error:
            raise Unavailable("settlement_refused", f"The signed settlement is wrong: {error}") from error
        return transaction, await self._advance(terms, state, Event.SIGN, txid, transaction)

    async def _have_signed(self, terms: ChannelTerms, payment: Payment, fee: int) -> tuple[bytes, int]:
        """Return the signed settlement and its fee. A signature that was made before a crash, with a higher fee, is asked
        for again as it was: the signer lets no fee fall."""
        proof = await self._chain.funding_transaction(terms)
        try:
            return await self._signer.settle(terms, payment, fee, proof), fee
        except SignerRefused as error:
            signed_fee = error.refusal.signed_fee
            if error.refusal.code is not RefusalCode.FEE_FALLS or signed_fee <= fee:
                raise
        return await self._signer.settle(terms, payment, signed_fee, proof), signed_fee

    async def _broadcast(self, transaction: bytes) -> None:
        try:
            await self._chain.broadcast(transaction)
        except BroadcastRefused as error:
            raise Unavailable("settlement_refused", "The network refuses the settlement") from error
        except OSError as error:
            raise Unavailable("chain_unavailable") from error

    async def _advance(
        self, terms: ChannelTerms, state: ChannelState, event: Event, txid: bytes = b"", transaction: bytes = b""
    ) -> ChannelState:
        """Make a step of the transition table durable. Raises Unavailable if it did not become so."""
        after = ChannelState(next_phase(state.phase, event), state.payment, txid or state.settlement_txid)
        shard = shard_of(terms.outpoint, self._shard_count)
        entry = Entry(
            shard=shard,
            epoch=self._channels.epoch_of(shard),
            outpoint=terms.outpoint,
            expected_phase=state.phase,
            expected_change_value=state.payment.change_value,
            state=after.serialize(),
            extra=transaction,
        )
        status = await self._committer.write(entry)
        self._channels.drop(terms.outpoint)  # whatever happened, the store knows better
        if status == LOST:
            raise Unavailable("store_unavailable")
        if status != EntryStatus.OK:
            raise Unavailable("owner_moved")
        return after
