"""What spends the funding outputs of channels that are being settled: read from the chain, known by what it pays, remembered.

The memory is this process' own and small: since when a version waits, and in which other form it was seen to travel. A new process
begins to count again.
"""

import logging
from dataclasses import dataclass, field

from bitcoin.core import CTransaction

from ...chain.base import ChainBackend, FundingStatus
from ...core.fees import BLOCK_SECONDS, Rival, Rung
from ...core.outpoint import format_outpoint, make_outpoint, txid_hex
from ...core.settlement import Paid, read_settlement
from .case import Case

log = logging.getLogger("paychan.settling")


@dataclass(frozen=True)
class Spend:
    """A transaction that spends a funding output, in the mempool or in a block.

    paid: what it pays if it is a settlement of the channel, else None. is_read: the source has its bytes; a node without txindex
    has not once it is in a block. is_newest: it pays what our newest version pays, in whatever form. rival: what a replacement
    must beat, while it is in the mempool.
    """

    txid: bytes
    paid: Paid | None
    is_read: bool
    is_newest: bool
    rival: Rival


@dataclass
class _Memory:
    """Of one channel. version: the txid that waits, since when (unix seconds). form: txid and bytes of a settlement that is not our
    newest byte for byte. told: what was logged about what is in the mempool."""

    version: bytes = b""
    since: int = 0
    form: tuple[bytes, bytes] = (b"", b"")
    told: set[tuple[str, bytes]] = field(default_factory=set)


class Spends:
    """The chain's answers about one worker's channels."""

    def __init__(self, chain: ChainBackend) -> None:
        self._chain = chain
        self._memories: dict[bytes, _Memory] = {}

    def forget(self, outpoint: bytes) -> None:
        """Forget a channel that is settled, or another worker's."""
        self._memories.pop(outpoint, None)

    def _memory(self, case: Case) -> _Memory:
        return self._memories.setdefault(case.terms.outpoint, _Memory())

    # --- waiting ---

    def note_waiting(self, case: Case, now: int) -> bool:
        """Note that the newest version is on its way; return whether that was known. now: unix seconds."""
        memory = self._memory(case)
        is_known = memory.version == case.state.settlement_txid
        if not is_known:
            memory.version, memory.since = case.state.settlement_txid, now
        return is_known

    def is_overdue(self, case: Case, rung: Rung, now: int) -> bool:
        """Whether the newest version has been on its way for longer than a rung has patience."""
        memory = self._memories.get(case.terms.outpoint)
        is_known = memory is not None and memory.version == case.state.settlement_txid
        return is_known and memory is not None and now - memory.since >= rung.patience * BLOCK_SECONDS

    # --- looking ---

    async def status(self, case: Case) -> FundingStatus:
        """Return what became of the funding output. A spender that the source does not name is looked for in the form in which it
        was seen to travel, too. Raises Unavailable."""
        status = await self._chain.funding_status(case.terms, case.state.settlement_txid)
        form, _ = self._memory(case).form
        if status.is_spent and not status.spent_by and form:
            again = await self._chain.funding_status(case.terms, form)
            return again if again.spent_by else status
        return status

    async def look(self, case: Case, status: FundingStatus) -> Spend | None:
        """Return what spends the funding output, None if nothing does, or nobody can name it. Raises Unavailable."""
        txid, newest = status.spent_by, case.newest
        if not status.is_spent or not txid:
            return None
        is_ours = txid == case.state.settlement_txid
        if is_ours and status.spent_confirmations and newest is not None:
            return Spend(txid, newest, True, True, Rival(newest.fee, newest.size))
        found = await self._chain.spender(txid)
        memory = self._memory(case)
        raw = case.transaction if is_ours else found.transaction
        if not raw and memory.form[0] == txid:
            raw = memory.form[1]
        paid = read_settlement(raw, case.terms)
        if paid is not None and not is_ours:
            memory.form = txid, raw
        fee, size = (paid.fee, paid.size) if paid is not None else _fee_and_size(raw, case)
        is_newest = paid is not None and newest is not None and paid.outputs == newest.outputs
        spend = Spend(txid, paid, bool(raw), is_newest, Rival(fee, size, found.fees))
        if not status.spent_confirmations:
            self._tell(case, spend, is_ours)
        return spend

    def _tell(self, case: Case, spend: Spend, is_ours: bool) -> None:
        """Log, once each, what is no accident: somebody is at work on the settlement in the mempool."""
        where, told = format_outpoint(case.terms.outpoint), self._memory(case).told
        if spend.is_newest and not is_ours and ("form", spend.txid) not in told:
            told.add(("form", spend.txid))
            size = case.stake.size
            log.warning(
                "the settlement of %s travels as %s, %d bytes instead of %d: somebody has changed its scriptSig",
                where, txid_hex(spend.txid), spend.rival.size, size,
            )  # fmt: skip
        hung = (spend.rival.evicted or 0) - spend.rival.fee
        if spend.paid is not None and hung > 0 and ("pin", spend.txid) not in told:
            told.add(("pin", spend.txid))
            log.warning("transactions with %d satoshi of fees hang on the settlement of %s: a new version pays them", hung, where)


def _fee_and_size(raw: bytes, case: Case) -> tuple[int, int]:
    """Return fee and size of a transaction that spends the funding output alone, as the payer's refund does; 0 if not known."""
    try:
        tx = CTransaction.deserialize(raw)
    except Exception:  # python-bitcoinlib raises errors of many kinds
        return 0, 0
    if [make_outpoint(spends.prevout.hash, spends.prevout.n) for spends in tx.vin] != [case.terms.outpoint]:
        return 0, 0
    fee = case.terms.funding_value - sum(output.nValue for output in tx.vout)
    return max(0, fee), len(CTransaction(tx.vin, tx.vout, tx.nLockTime, tx.nVersion).serialize())
