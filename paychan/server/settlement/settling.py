"""The settlement machine of one worker's channels: closing -> signed -> broadcast -> settled, each arrow durable.

Re-enterable: `settle` reads where a channel stands, on disk and on the chain, and goes on from there, however often and after
whatever crash. Channels are independent of each other: a task each, its failure is its own. Who decides that a channel must settle
is not known here.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..._fast.channel import ChannelTable, shard_of
from ..._fast.tally import Tally
from ...chain.base import BroadcastRefused, ChainBackend, FundingStatus
from ...core.channel import ChannelState, ChannelTerms, Ending, Event, Phase, next_phase
from ...core.errors import Unavailable
from ...core.fees import BLIND_FACTOR, FeeBounds, Rung, asked_fee, bump_fee_min, fee_limit, replacement_fee, rung_at, wanted_fee
from ...core.outpoint import format_outpoint, txid_hex, txid_of
from ...core.payment import Payment
from ...core.settlement import SettlementError, Uneconomic, check_settlement
from ...core.standardness import check_standard
from ...metrics import families
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.signer_client import SignerClient, SignerRefused
from ...rpc.signer_messages import RefusalCode
from ...rpc.store_client import StoreClient
from ...rpc.store_messages import Entry, EntryStatus
from ..shards.committer import LOST, Committer
from .case import Case
from .spends import Spend, Spends

RUNNING_MAX = 1000
"""Settlements under way in one worker. Each waits for chain and signer, for seconds at worst; payers who close more are told to
come again, and the settler comes again by itself."""

ASKED_MAX = 4
"""Fees that the signer is asked for, each the one that it said would do: its bounds move, with the time and with other channels."""

OFFERS_MAX = 2
"""Versions that one look at a channel offers to the network, the second made because the first was refused for its fee."""

log = logging.getLogger("paychan.settling")


@dataclass(frozen=True)
class SettlingRules:
    """settlement_period: seconds before expiry; confirmations: blocks after which a settlement counts for good. fee_per_byte:
    satoshi, taken for an estimate where the source has none."""

    settlement_period: int
    confirmations: int
    fee_bounds: FeeBounds
    fee_per_byte: int


class Settling:
    """Settles channels of shards that this worker owns."""

    def __init__(
        self,
        rules: SettlingRules,
        channels: ChannelTable,
        shard_count: int,
        committer: Committer,
        store: StoreClient,
        signer: SignerClient,
        chain: ChainBackend,
        now: Callable[[], int],
        tally: Tally | None = None,
    ) -> None:
        self._tally = tally or Tally()
        self._rules, self._channels, self._shard_count, self._committer = rules, channels, shard_count, committer
        self._store, self._signer, self._chain, self._now = store, signer, chain, now
        self._spends = Spends(chain)
        self._running: dict[bytes, asyncio.Task[ChannelState]] = {}
        self.has_estimates = True
        """Whether the chain source could estimate a fee when it was asked last."""
        self.uneconomic: set[bytes] = set()
        """Outpoints of channels that were found to be worth less than their settlement's fee."""

    async def settle(self, outpoint: bytes) -> ChannelState:
        """Drive a channel that is closing, or further, as far as it goes now; return its state, broadcast at least.

        Raises Unavailable: what is done so far is durable, and the next call goes on from there.
        """
        task = self._running.get(outpoint)
        if task is None:
            if len(self._running) >= RUNNING_MAX:
                raise Unavailable("overloaded")
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
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Unavailable) and error.code == "settlement_uneconomic":
            self.uneconomic.add(outpoint)
        else:
            self.uneconomic.discard(outpoint)
        if error is not None:
            log.warning("settlement of %s: %s", format_outpoint(outpoint), error)

    # --- the machine ---

    async def _drive(self, outpoint: bytes) -> ChannelState:
        case = await self._read(outpoint)
        if case.state.phase == Phase.OPEN:
            raise Unavailable("settlement_refused", "The channel is still open")
        if case.state.phase == Phase.SETTLED:
            return case.state
        status = await self._spends.status(case)
        spend = await self._spends.look(case, status)
        if await self._is_over(case, status, spend):
            return case.state
        if status.is_spent and status.spent_confirmations:
            return case.state  # time will tell
        if case.state.phase == Phase.CLOSING:
            await self._sign(case, spend)
        elif not await self._bump(case, spend) and status.is_spent and (spend is None or spend.is_newest):
            # The newest version is on its way, in one form or another, and good enough. What waits for long, or longer than this
            # process knows, is announced again: others may have forgotten it.
            is_announced = self._spends.note_waiting(case, self._now())
            is_overdue = self._spends.is_overdue(case, self._rung(case), self._now())
            if spend is None or spend.txid != case.state.settlement_txid or (is_announced and not is_overdue):
                return case.state
        await self._publish(case)
        if case.state.phase == Phase.SIGNED:
            await self._advance(case, Event.BROADCAST)
        status = await self._spends.status(case)
        await self._is_over(case, status, await self._spends.look(case, status))
        return case.state

    async def _read(self, outpoint: bytes) -> Case:
        try:
            stored = await self._store.load(outpoint)
        except (ConnectionGone, RemoteRefusal) as error:
            raise Unavailable("store_unavailable") from error
        if stored is None:
            self._spends.forget(outpoint)
            raise Unavailable("owner_moved")
        return Case(ChannelTerms.parse(outpoint, stored.terms), ChannelState.parse(stored.state), stored.settlement)

    async def _is_over(self, case: Case, status: FundingStatus, spend: Spend | None) -> bool:
        """Whether some spend of the funding output is buried deep enough; then the channel is settled, durably: by whatever version
        of its settlement, in whatever form. Anything else that spends it is a loss."""
        if not status.is_spent or status.spent_confirmations < self._rules.confirmations:
            return False
        where, newest = format_outpoint(case.terms.outpoint), case.state.settlement_txid
        if spend is not None and spend.paid is not None:
            missing = spend.paid.change_value - case.state.payment.change_value
            await self._advance(case, Event.CONFIRM, spend.txid, ending=Ending(False, spend.paid.fee, max(0, missing)))
            self._count_settled(case, spend.paid.fee, missing)
            if missing > 0:
                log.warning("settled %s by %s, of an older payment: %d satoshi are missing", where, txid_hex(spend.txid), missing)
            else:
                log.info("settled %s by %s%s", where, txid_hex(spend.txid), "" if spend.txid == newest else ", in another form")
        elif case.newest is not None and (spend is None or not spend.is_read):
            await self._advance(case, Event.CONFIRM, status.spent_by, ending=Ending(False, case.fee))
            self._count_settled(case, case.fee, 0)
            log.warning("%s was spent, but maybe not by its newest settlement %s", where, txid_hex(newest))
        else:
            await self._advance(case, Event.LOSE, status.spent_by or newest or bytes(32), ending=Ending(True))
            self._count("lost")
            log.warning("%s was spent by another transaction, %s", where, txid_hex(case.state.settlement_txid))
        self._spends.forget(case.terms.outpoint)
        return True

    def _count(self, step: str) -> None:
        self._tally.add(families.SETTLEMENTS.cell(step))

    def _count_settled(self, case: Case, fee: int, missing: int) -> None:
        """Count a buried settlement, once it is durable that it is. fee, missing: satoshi."""
        self._count("settled_older" if missing > 0 else "settled")
        self._tally.add(families.FEES.at, fee)
        self._tally.add(families.SETTLED_VALUE.at, case.terms.funding_value - case.state.payment.change_value)
        self._tally.add(families.MISSING.at, max(0, missing))

    # --- the fee ---

    def _rung(self, case: Case) -> Rung:
        return rung_at(case.terms.exp_time - self._now(), self._rules.settlement_period)

    async def _wanted(self, case: Case, spend: Spend | None) -> int:
        """Return what a settlement should pay now by itself, satoshi. Raises Unavailable("settlement_uneconomic")."""
        rung = self._rung(case)
        estimate = await self._chain.fee_per_byte(rung.blocks)
        if (estimate is not None) != self.has_estimates:
            self.has_estimates = estimate is not None
            taken = f"no estimate: {self._rules.fee_per_byte} satoshi a byte are taken for one"
            log.warning("fees: %s", "estimates are back" if estimate is not None else taken)
        seen = spend.rival.size if spend is not None and spend.is_newest else 0
        overdue = case.fee if self._spends.is_overdue(case, rung, self._now()) else 0
        usual = self._rules.fee_per_byte if estimate is None else estimate
        try:
            return wanted_fee(case.stake, rung, usual, self._rules.fee_bounds, seen=seen, overdue=overdue)
        except Uneconomic as error:
            raise Unavailable("settlement_uneconomic") from error

    def _affordable(self, case: Case, needed: int) -> bool:
        """Whether a fee is within what may be paid now. If not, say what is missing."""
        try:
            limit = fee_limit(case.stake, self._rung(case), self._rules.fee_bounds)
        except Uneconomic as error:
            raise Unavailable("settlement_uneconomic") from error
        if needed > limit:
            where = format_outpoint(case.terms.outpoint)
            log.warning("the settlement of %s needs %d satoshi to be taken now, and may pay %d", where, needed, limit)
        return needed <= limit

    async def _bump(self, case: Case, spend: Spend | None) -> bool:
        """Sign the settlement again if it should pay more by now, or if what is in its way asks for more; return whether it was. If
        nothing better can be had, the one that there is must do."""
        before, size = case.fee, case.stake.size
        least, needed = bump_fee_min(before, size), replacement_fee(spend.rival, size) if spend is not None else 0
        try:
            fee = await self._wanted(case, spend)
            if fee < least and (spend is None or spend.is_newest or before >= needed):
                return False
            if not self._affordable(case, needed):
                return False
            await self._sign_again(case, max(fee, needed), max(needed, min(fee, least)))
        except Unavailable as error:
            log.info("the settlement of %s keeps its fee: %s", format_outpoint(case.terms.outpoint), error)
            return False
        return True

    async def _sign_again(self, case: Case, fee: int, least: int) -> None:
        """Have a dearer version signed, and make it durable. fee, least: as in `_make`."""
        before = case.fee
        transaction, txid = await self._make(case, fee, least)
        await self._advance(case, Event.BUMP, txid, transaction)
        self._count("raised")
        where = format_outpoint(case.terms.outpoint)
        log.info("%s pays %d satoshi for its settlement now, instead of %d", where, case.fee, before)

    # --- signing and publishing ---

    async def _sign(self, case: Case, spend: Spend | None) -> None:
        """Have the first settlement signed, and make its bytes durable before anybody else sees them."""
        fee, least = await self._wanted(case, spend), self._rules.fee_bounds.floor * case.stake.size
        needed = replacement_fee(spend.rival, case.stake.size) if spend is not None else 0
        if needed and self._affordable(case, needed):
            fee, least = max(fee, needed), needed
        transaction, txid = await self._make(case, fee, min(fee, least))
        await self._advance(case, Event.SIGN, txid, transaction)
        self._count("signed")

    async def _make(self, case: Case, fee: int, least: int) -> tuple[bytes, bytes]:
        """Return a signed and checked settlement and its txid. fee: satoshi; least: what the signer may make of it.

        Raises Unavailable.
        """
        terms, payment = case.terms, case.state.payment
        try:
            transaction, fee = await self._have_signed(terms, payment, fee, least)
            txid = check_settlement(transaction, terms, payment, fee)
            check_standard(transaction, terms.funding_value)
        except (ConnectionGone, RemoteRefusal) as error:
            raise Unavailable("signer_unavailable") from error
        except SignerRefused as error:
            uneconomic = error.refusal.code is RefusalCode.UNECONOMIC
            code = "settlement_uneconomic" if uneconomic else "settlement_refused"
            raise Unavailable(code, f"The signer refuses: {error.refusal.code.name.lower()}") from error
        except SettlementError as error:
            raise Unavailable("settlement_refused", f"The signed settlement is wrong: {error}") from error
        return transaction, txid

    async def _have_signed(self, terms: ChannelTerms, payment: Payment, fee: int, least: int) -> tuple[bytes, int]:
        """Return the signed settlement and its fee.

        Where the fee is above the signer's own bounds, as much is paid as they let: a cheaper settlement is better than none, but
        for one below `least`. A signature that was made before a crash, with a higher fee, is asked for again as it was: the
        signer lets no fee fall.
        """
        proof = await self._proof(terms)
        for _ in range(ASKED_MAX - 1):
            try:
                return await self._signer.settle(terms, payment, fee, proof), fee
            except SignerRefused as error:
                refusal = error.refusal
                lowers = refusal.code in (RefusalCode.FEE_TOO_HIGH, RefusalCode.FEES_OF_THE_DAY) and least <= refusal.fee < fee
                if not lowers and not (refusal.code is RefusalCode.FEE_FALLS and refusal.fee > fee):
                    raise
                fee = refusal.fee
        return await self._signer.settle(terms, payment, fee, proof), fee

    async def _proof(self, terms: ChannelTerms) -> bytes:
        """Return the funding transaction that was kept at the open; empty where none exists."""
        try:
            return await self._store.load_funding(txid_of(terms.outpoint))
        except (ConnectionGone, RemoteRefusal) as error:
            raise Unavailable("store_unavailable") from error

    async def _publish(self, case: Case) -> None:
        """Offer the newest version to the network; if it is refused for its fee, make another one at once, as dear as is asked."""
        for left in reversed(range(OFFERS_MAX)):
            try:
                await self._chain.broadcast(case.transaction)
                break
            except BroadcastRefused as error:
                if not left or not error.for_fee or not await self._pay_what_is_asked(case):
                    raise Unavailable("settlement_refused", f"The network refuses the settlement: {error}") from error
            except OSError as error:
                raise Unavailable("chain_unavailable") from error
        self._count("published")
        self._spends.note_waiting(case, self._now())

    async def _pay_what_is_asked(self, case: Case) -> bool:
        """Sign again what was refused for its fee, with what the source says would do, or where it does not say, with much more;
        return whether that was done."""
        size = case.stake.size
        spend = await self._spends.look(case, await self._spends.status(case))
        asked = await self._chain.relay_fee_per_kb()
        needed = max(
            asked_fee(asked, size) if asked is not None else 0,
            replacement_fee(spend.rival, size) if spend is not None else 0,
        )
        fee = max(needed, await self._wanted(case, spend))
        if fee <= case.fee:  # the source has refused what it should have taken by all that it tells
            fee, needed = BLIND_FACTOR * case.fee, case.fee + 1
        if not self._affordable(case, fee):
            return False
        await self._sign_again(case, fee, max(needed, case.fee + 1))
        return True

    async def _advance(
        self, case: Case, event: Event, txid: bytes = b"", transaction: bytes = b"", ending: Ending | None = None
    ) -> None:
        """Make a step of the transition table durable. ending: of the last one. Raises Unavailable if it did not become so."""
        before = case.state
        after = replace(before, phase=next_phase(before.phase, event), settlement_txid=txid or before.settlement_txid)
        shard = shard_of(case.terms.outpoint, self._shard_count)
        entry = Entry(
            shard=shard,
            epoch=self._channels.epoch_of(shard),
            outpoint=case.terms.outpoint,
            expected_phase=before.phase,
            expected_change_value=before.payment.change_value,
            state=after.serialize(),
            extra=ending.serialize() if ending is not None else transaction,
            credit=0,
            expected_revision=before.sales.revision,
        )
        status = await self._committer.write(entry)
        self._channels.drop(case.terms.outpoint)  # whatever happened, the store knows better
        if status == LOST:
            raise Unavailable("store_unavailable")
        if status != EntryStatus.OK:
            raise Unavailable("owner_moved")
        case.state = after
        case.transaction = transaction or case.transaction
