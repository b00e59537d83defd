"""The payer's own transactions: its refund after the expiry, and the check of the server's settlement."""

import math
from dataclasses import dataclass

from bitcoin.core import CTransaction
from coincurve import PrivateKey

from ..core import refund as core
from ..core.channel import ChannelTerms
from ..core.outpoint import make_outpoint, txid_hex
from ..core.units import SECONDS_PER_HOUR, is_satoshi
from .errors import InvalidAmount, Refused, ServerMisbehaved
from .record import Agreement, ChannelRecord, Funding

MEDIAN_TIME_LAG = SECONDS_PER_HOUR
"""Seconds by which the median time of the last 11 blocks is behind the clock, in practice."""

FEE_SHARE_MAX = 0.5
"""Of the channel's value; a refund that costs more is a mistake in the fee rate."""


@dataclass(frozen=True)
class Refund:
    """A signed refund. Fee and value (of its one output) in satoshi. Valid when the chain's median time past exceeds
    `valid_after`; expect that from `expected_at` on (both unix seconds)."""

    raw: bytes
    txid: str
    fee: int
    value: int
    valid_after: int
    expected_at: int


def make_refund(terms: ChannelTerms, key: PrivateKey, fee_rate: float) -> Refund:
    """Return the refund paying at least `fee_rate` satoshi for each of its bytes. Raises InvalidAmount."""
    if not (isinstance(fee_rate, int | float) and math.isfinite(fee_rate) and fee_rate >= 0):
        raise InvalidAmount("the fee rate must be a number of satoshi per byte")
    try:
        size = len(core.sign_refund(terms, 0, key)) + 2  # other signatures may be 1 byte longer, or 2 in all
        fee = math.ceil(size * fee_rate)
        if fee > terms.funding_value * FEE_SHARE_MAX:
            raise InvalidAmount(f"a fee of {fee} satoshi would take more than half of {terms.funding_value}")
        raw = core.sign_refund(terms, fee, key)
    except ValueError as error:
        raise InvalidAmount(str(error)) from error
    txid = txid_hex(CTransaction.deserialize(raw).GetTxid())
    return Refund(raw, txid, fee, terms.funding_value - fee, terms.exp_time, terms.exp_time + MEDIAN_TIME_LAG)


def find_funding(agreement: Agreement, raw: bytes) -> Funding:
    """Return the output of the serialised transaction `raw` that funds the channel: its value is proven by the txid.

    Of several at the channel's address, the one with the amount that was asked for. Raises Refused if there is none, or no such
    one: then it must be chosen by its outpoint.
    """
    try:
        transaction = CTransaction.deserialize(raw)
    except Exception as error:
        raise Refused("the funding transaction does not parse", "funding_not_found") from error
    found = [
        Funding(make_outpoint(transaction.GetTxid(), vout), output.nValue)
        for vout, output in enumerate(transaction.vout)
        if bytes(output.scriptPubKey) == agreement.script_pubkey
    ]
    if len(found) > 1:
        found = [funding for funding in found if funding.value == agreement.planned_value] or found
    if len(found) != 1 or not (is_satoshi(found[0].value) and found[0].value > 0):
        raise Refused(f"{len(found)} outputs of this transaction pay to {agreement.funding_address}", "funding_not_found")
    return found[0]


def check_settlement(record: ChannelRecord, raw: bytes) -> int:
    """Check that the serialised settlement `raw` pays the payer its change; return that, in satoshi.

    It is judged by what it pays, not by its txid: no signature covers its scriptSig, so anybody can have it mined under another one
    than was announced, and an older version with a lower fee may be the one that is mined. Raises ServerMisbehaved if it pays less
    than the newest signed payment leaves, or does not spend the channel's funding output.
    """
    terms = record.terms
    try:
        transaction = CTransaction.deserialize(raw)
    except Exception as error:
        raise Refused("the settlement does not parse", "invalid_transaction") from error
    spent = [make_outpoint(spends.prevout.hash, spends.prevout.n) for spends in transaction.vin]
    if terms.outpoint not in spent:
        raise ServerMisbehaved("this transaction does not spend the channel's funding output")
    paid = sum(output.nValue for output in transaction.vout if bytes(output.scriptPubKey) == terms.change_script)
    newest = record.acknowledged if record.settlement_txid else record.signed
    owed = newest.change_value if newest else terms.funding_value
    if paid < owed:
        raise ServerMisbehaved(f"the settlement pays {paid} satoshi of change, owed are {owed}")
    return paid
