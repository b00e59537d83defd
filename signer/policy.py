"""What may be signed: a pure judgement over one request, the time, and what was signed or noted before. No I/O, no clock.

Whoever asks is not trusted. It hands over what it knows; the transaction is rebuilt here, and no digest is ever taken
from outside. What a hostile server can gain is bounded by the configuration, the time and the memory alone: settlements that the
payer signed for, paid to our destination, less a bounded fee, and never giving the payer more than was signed or noted before.
"""

from dataclasses import dataclass, field, replace

from bitcoin.core import CTransaction
from coincurve import PrivateKey

from paychan.core.address_script import is_address_script
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Rejection
from paychan.core.fees import RELAY_FEE_PER_BYTE, bump_fee_min, rung_at
from paychan.core.funding import is_proven, output_at
from paychan.core.outpoint import txid_of, vout_of
from paychan.core.payment import parse_payment
from paychan.core.script import p2sh_script_pubkey
from paychan.core.settlement import (
    LONGEST_DESTINATION,
    SettlementError,
    Uneconomic,
    check_settlement,
    inflated_size_max,
    settlement_outputs,
    settlement_size_max,
    sign_settlement,
    verify_payment,
)
from paychan.core.units import is_expiry, is_satoshi
from paychan.rpc.signer_messages import Refusal, RefusalCode, SettleRequest
from paychan.settings.models import SignerConfig

DAYS_REST_DIVISOR = 2
"""Of what is left of the day's fees one settlement takes no more than this part, so that none leaves nothing for the next."""


@dataclass(frozen=True)
class Policy:
    """The key and the bounds on its use. Fees in satoshi per byte, the share in percent of what the server receives, the sum in
    satoshi. settlement_period: seconds before a channel's expiry."""

    key: PrivateKey = field(repr=False)
    pubkey: bytes
    destination: bytes
    fee_per_byte_max: int
    fee_share_percent_max: int
    versions_max: int
    settlement_period: int
    fee_sum_per_day_max: int
    waive_funding_proof: bool = False

    @classmethod
    def of(cls, config: SignerConfig, key: PrivateKey) -> "Policy":
        """Return the policy that a configuration describes."""
        return cls(
            key,
            key.public_key.format(compressed=True),
            config.destination_script,
            config.fee_per_byte_max,
            config.fee_share_percent_max,
            config.versions_max,
            config.settlement_period,
            config.fee_sum_per_day_max,
            config.waive_funding_proof,
        )


@dataclass(frozen=True, slots=True)
class Record:
    """What was signed for one outpoint: the newest version, which has the lowest change value, and how many there were.

    Values in satoshi; txid: 32 bytes, internal order.
    """

    change_value: int
    fee: int
    versions: int
    txid: bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """What a judgement depends on. signed: the newest version for this outpoint; noted: the lowest change value that was noted for
    it; fees_of_the_day: what the settlements of other channels pay that were signed in the last 24 hours. In satoshi."""

    signed: Record | None = None
    noted: int | None = None
    fees_of_the_day: int = 0


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed settlement, and the record that must be durable before `raw` leaves the process."""

    raw: bytes = field(repr=False)
    record: Record


class _Refused(Exception):
    def __init__(self, code: RefusalCode, detail: str, fee: int = 0) -> None:
        self.refusal = Refusal(code, detail, fee)


def judge(policy: Policy, request: SettleRequest, memory: Memory, now: int) -> Signed | Refusal:
    """Return the signed settlement, or why not. now: unix seconds.

    The first check that fails decides. The same request as the newest one gives the same bytes and an unchanged record, whatever
    the time and the day's fees. Raises SettlementError only if our own product is wrong.
    """
    try:
        _check_truth(policy, request)
        repeated = _repeated(policy, request, memory.signed)
        if repeated is not None:
            return repeated
        _check_fee(policy, request, memory, now)
        _check_progress(request, memory)
        raw, txid = _sign(policy, request)
        return Signed(raw, _next_record(policy, request, txid, memory.signed))
    except _Refused as refused:
        return refused.refusal


def objection(policy: Policy, request: SettleRequest, memory: Memory, now: int) -> Refusal | None:
    """Return why a request would not be signed on a day without other fees, None if it would. Nothing is signed, and nothing is to
    be recorded."""
    try:
        _check_truth(policy, request)
        _check_fee(policy, request, replace(memory, fees_of_the_day=0), now)
        _check_progress(request, memory)
        _check_versions(policy, memory.signed.versions if memory.signed else 0)
        return None
    except _Refused as refused:
        return refused.refusal


def judge_note(policy: Policy, request: SettleRequest) -> int | Refusal:
    """Return the change value (satoshi) that the channel's settlements may not exceed from now on, or why it is not noted. Nothing
    is signed; the request is one to settle, without a fee."""
    try:
        if request.fee:
            raise _Refused(RefusalCode.MALFORMED, "a payment is noted without a fee")
        _check_truth(policy, request)
        return request.payment.change_value
    except _Refused as refused:
        return refused.refusal


def _check_truth(policy: Policy, request: SettleRequest) -> None:
    """Check that the channel is ours and funded as it is said, and that its payer signed this payment."""
    _check_shape(request)
    _check_ours(policy, request.terms)
    if not policy.waive_funding_proof:
        _check_funding(request)
    if not verify_payment(request.terms, request.payment):
        raise _Refused(RefusalCode.BAD_PAYMENT_SIGNATURE, "the payer did not sign this payment on this channel")


def _repeated(policy: Policy, request: SettleRequest, before: Record | None) -> Signed | None:
    """Return what was signed, if this is the newest request again: whoever lost that signature may have it."""
    if before is None or (before.change_value, before.fee) != (request.payment.change_value, request.fee):
        return None
    raw, txid = _sign(policy, request)
    return Signed(raw, before) if txid == before.txid else None


def _check_shape(request: SettleRequest) -> None:
    terms = request.terms
    if not (is_satoshi(request.fee) and is_satoshi(terms.funding_value) and is_expiry(terms.exp_time)):
        raise _Refused(RefusalCode.MALFORMED, "an amount or the expiry is out of range")
    if not is_address_script(terms.change_script):  # others may not be relayed, and lift the fee bound
        raise _Refused(RefusalCode.MALFORMED, "the change script is no address's")
    try:
        parse_payment(request.payment.serialize())
    except (Rejection, ValueError, OverflowError) as error:
        raise _Refused(RefusalCode.MALFORMED, "the payment is malformed") from error
    if request.payment.change_value > terms.funding_value:
        raise _Refused(RefusalCode.MALFORMED, "the change value exceeds the funding value")


def _check_ours(policy: Policy, terms: ChannelTerms) -> None:
    if terms.server_pubkey != policy.pubkey:
        raise _Refused(RefusalCode.NOT_OUR_CHANNEL, "the channel has another server key")
    if terms.client_pubkey == policy.pubkey:
        raise _Refused(RefusalCode.NOT_OUR_CHANNEL, "both keys of the channel are ours")


def _check_funding(request: SettleRequest) -> None:
    """Check that the outpoint exists as the terms say. A legacy signature does not cover the amount spent: with a wrong
    one, the difference would silently become a fee. Nothing is read that the outpoint's txid does not cover."""
    terms, funding = request.terms, request.funding_transaction
    output = output_at(funding, vout_of(terms.outpoint)) if is_proven(funding, txid_of(terms.outpoint)) else None
    if output is None:
        raise _Refused(RefusalCode.FUNDING_NOT_PROVEN, "the funding transaction does not have this outpoint")
    value, script = output
    if value != terms.funding_value:
        raise _Refused(RefusalCode.FUNDING_NOT_PROVEN, "the funding output has another value")
    if script != p2sh_script_pubkey(terms.redeem_script):
        raise _Refused(RefusalCode.FUNDING_NOT_PROVEN, "the funding output pays to another script")


def _check_fee(policy: Policy, request: SettleRequest, memory: Memory, now: int) -> None:
    """Check the fee against its bounds; whoever is refused hears the lowest of them."""
    try:
        settlement_outputs(request.terms, request.payment, policy.destination, request.fee)
    except Uneconomic as error:
        raise _Refused(RefusalCode.UNECONOMIC, str(error)) from error
    bounds = _fee_bounds(policy, request, memory, now)
    for most, code, detail in bounds:
        if request.fee > most:
            raise _Refused(code, detail, max(0, min(bound[0] for bound in bounds)))


def _fee_bounds(policy: Policy, request: SettleRequest, memory: Memory, now: int) -> list[tuple[int, RefusalCode, str]]:
    """Return what bounds the fee (satoshi) by the time that is left, what is said of a higher one, and how. Before the settlement
    period nothing is urgent: there the rate and the day's sum are bounded, too. Within it the ladder's share alone is the bound,
    for what a settlement must beat has no rate."""
    terms, payment = request.terms, request.payment
    left, received = terms.exp_time - now, terms.funding_value - payment.change_value
    share = min(policy.fee_share_percent_max, rung_at(left, policy.settlement_period).share_percent)
    by_share = max(received * share // 100, _small_fee(policy, request, received))
    said = f"at most {share} % of the value are allowed {left} seconds before the expiry"
    bounds = [(by_share, RefusalCode.FEE_TOO_HIGH, said)]
    if left > policy.settlement_period:
        by_rate = policy.fee_per_byte_max * inflated_size_max(terms, payment, LONGEST_DESTINATION)
        bounds.append((by_rate, RefusalCode.FEE_TOO_HIGH, f"at most {policy.fee_per_byte_max} satoshi per byte are allowed"))
        of_the_day = (policy.fee_sum_per_day_max - memory.fees_of_the_day) // DAYS_REST_DIVISOR
        said = f"at most {policy.fee_sum_per_day_max} satoshi of fees are signed in a day, at most half of what is left for one"
        bounds.append((of_the_day, RefusalCode.FEES_OF_THE_DAY, said))
    return bounds


def _small_fee(policy: Policy, request: SettleRequest, received: int) -> int:
    """Return what the ladder lets any channel pay, a small one too: the least that is relayed, and its first replacement."""
    size = settlement_size_max(request.terms, request.payment, LONGEST_DESTINATION)
    return min(bump_fee_min(RELAY_FEE_PER_BYTE * size, size), received * policy.fee_share_percent_max // 100)


def _check_progress(request: SettleRequest, memory: Memory) -> None:
    before, change_value = memory.signed, request.payment.change_value
    if memory.noted is not None and change_value > memory.noted:
        raise _Refused(RefusalCode.GIVES_PAYER_MORE, "a payment that leaves the payer less was noted before")
    if before is None:
        return
    if change_value > before.change_value:
        raise _Refused(RefusalCode.GIVES_PAYER_MORE, "a settlement that leaves the payer less was signed before")
    if change_value == before.change_value and request.fee < before.fee:
        detail = f"the same payment was signed with a fee of {before.fee} satoshi"
        raise _Refused(RefusalCode.FEE_FALLS, detail, before.fee)


def _sign(policy: Policy, request: SettleRequest) -> tuple[bytes, bytes]:
    """Return the settlement and its txid, having checked our own product as a stranger would."""
    terms, payment, destination = request.terms, request.payment, policy.destination
    raw = sign_settlement(terms, payment, destination, request.fee, policy.key)
    txid = check_settlement(raw, terms, payment, request.fee)
    paid_to = CTransaction.deserialize(raw).vout[-1].scriptPubKey
    if paid_to != destination:
        raise SettlementError("our settlement does not pay to our destination")
    return raw, txid


def _next_record(policy: Policy, request: SettleRequest, txid: bytes, before: Record | None) -> Record:
    versions = before.versions if before else 0
    _check_versions(policy, versions)
    return Record(request.payment.change_value, request.fee, versions + 1, txid)


def _check_versions(policy: Policy, versions: int) -> None:
    if versions >= policy.versions_max:
        raise _Refused(RefusalCode.TOO_MANY_VERSIONS, f"{versions} settlements were signed for this channel")
