"""What may be signed: a pure judgement over one request and what was signed before. No I/O, no clock.

Whoever asks is not trusted. It hands over what it knows; the transaction is rebuilt here, and no digest is ever taken
from outside. What a hostile server can gain is bounded by the configuration alone: settlements that the payer signed
for, paid to our destination, less a bounded fee, and never giving the payer more than before.
"""

from dataclasses import dataclass, field

from bitcoin.core import CTransaction
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.errors import Rejection
from paychan.core.funding import is_proven, output_at
from paychan.core.outpoint import txid_of, vout_of
from paychan.core.payment import parse_payment
from paychan.core.script import p2sh_script_pubkey
from paychan.core.settlement import (
    SettlementError,
    Uneconomic,
    check_settlement,
    settlement_outputs,
    settlement_size_max,
    sign_settlement,
    verify_payment,
)
from paychan.core.units import is_expiry, is_satoshi
from paychan.rpc.signer_messages import Refusal, RefusalCode, SettleRequest
from paychan.settings.models import SignerConfig


@dataclass(frozen=True)
class Policy:
    """The key and the bounds on its use. Fees in satoshi per byte, the share in percent of what the server receives."""

    key: PrivateKey = field(repr=False)
    pubkey: bytes
    destination: bytes
    fee_per_byte_max: int
    fee_share_percent_max: int
    versions_max: int
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
class Signed:
    """A signed settlement, and the record that must be durable before `raw` leaves the process."""

    raw: bytes = field(repr=False)
    record: Record


class _Refused(Exception):
    def __init__(self, code: RefusalCode, detail: str, signed_fee: int = 0) -> None:
        self.refusal = Refusal(code, detail, signed_fee)


def judge(policy: Policy, request: SettleRequest, before: Record | None) -> Signed | Refusal:
    """Return the signed settlement, or why not. `before`: what was signed for this outpoint so far.

    The first check that fails decides. The same request as the newest one gives the same bytes and an unchanged record.
    Raises SettlementError only if our own product is wrong.
    """
    try:
        _check(policy, request, before)
        raw, txid = _sign(policy, request)
        return Signed(raw, _next_record(policy, request, txid, before))
    except _Refused as refused:
        return refused.refusal


def objection(policy: Policy, request: SettleRequest, before: Record | None) -> Refusal | None:
    """Return why a request would not be signed, None if it would. Nothing is signed, and nothing is to be recorded."""
    try:
        _check(policy, request, before)
        _check_versions(policy, before.versions if before else 0)
        return None
    except _Refused as refused:
        return refused.refusal


def _check(policy: Policy, request: SettleRequest, before: Record | None) -> None:
    """Check all that is known before a signature is made."""
    _check_shape(request)
    _check_ours(policy, request.terms)
    if not policy.waive_funding_proof:
        _check_funding(request)
    if not verify_payment(request.terms, request.payment):
        raise _Refused(RefusalCode.BAD_PAYMENT_SIGNATURE, "the payer did not sign this payment on this channel")
    _check_fee(policy, request)
    _check_progress(request, before)


def _check_shape(request: SettleRequest) -> None:
    terms = request.terms
    if not (is_satoshi(request.fee) and is_satoshi(terms.funding_value) and is_expiry(terms.exp_time)):
        raise _Refused(RefusalCode.MALFORMED, "an amount or the expiry is out of range")
    if not _is_address_script(terms.change_script):
        raise _Refused(RefusalCode.MALFORMED, "the change script is neither P2PKH nor P2SH")
    try:
        parse_payment(request.payment.serialize())
    except (Rejection, ValueError, OverflowError) as error:
        raise _Refused(RefusalCode.MALFORMED, "the payment is malformed") from error
    if request.payment.change_value > terms.funding_value:
        raise _Refused(RefusalCode.MALFORMED, "the change value exceeds the funding value")


def _is_address_script(script: bytes) -> bool:
    """Return whether an address of v1 stands for this script: others may not be relayed, and lift the fee bound."""
    p2pkh = len(script) == 25 and script[:3] == b"\x76\xa9\x14" and script[23:] == b"\x88\xac"
    return p2pkh or (len(script) == 23 and script[:2] == b"\xa9\x14" and script[22:] == b"\x87")


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


def _check_fee(policy: Policy, request: SettleRequest) -> None:
    terms, payment, fee = request.terms, request.payment, request.fee
    try:
        settlement_outputs(terms, payment, policy.destination, fee)
    except Uneconomic as error:
        raise _Refused(RefusalCode.UNECONOMIC, str(error)) from error
    size = settlement_size_max(terms, payment, policy.destination)
    if fee > policy.fee_per_byte_max * size:
        raise _Refused(RefusalCode.FEE_TOO_HIGH, f"at most {policy.fee_per_byte_max} satoshi per byte are allowed")
    received = terms.funding_value - payment.change_value
    if fee * 100 > received * policy.fee_share_percent_max:
        raise _Refused(RefusalCode.FEE_TOO_HIGH, f"at most {policy.fee_share_percent_max} % of the value are allowed")


def _check_progress(request: SettleRequest, before: Record | None) -> None:
    if before is None:
        return
    change_value = request.payment.change_value
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
    if before and before.txid == txid:
        return before
    _check_versions(policy, versions)
    return Record(request.payment.change_value, request.fee, versions + 1, txid)


def _check_versions(policy: Policy, versions: int) -> None:
    if versions >= policy.versions_max:
        raise _Refused(RefusalCode.TOO_MANY_VERSIONS, f"{versions} settlements were signed for this channel")
