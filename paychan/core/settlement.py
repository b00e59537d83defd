"""The settlement transaction: how the server takes what it was paid (spec section 8, with defect 1 mended).

One input, the funding output; the payer's change first, then the server's output. The payer signed SINGLE|ANYONECANPAY or
NONE|ANYONECANPAY; the server signs ALL, always: under any weaker type a stranger could replace the server's output.

No signature covers the scriptSig. Anybody may replace its OP_1 by another true value, of up to 520 bytes: the txid is another one
then, and maybe the size, but not what is paid to whom. So a settlement on the chain is known by what it pays, and by the server's
signature.
"""

from dataclasses import dataclass

from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import SIGHASH_ALL, CScript, SignatureHash
from coincurve import PrivateKey, PublicKey

from .._fast.sighash import payment_sighash
from .address_script import ADDRESS_SCRIPT_SIZE_MAX
from .channel import ChannelTerms
from .outpoint import txid_of, vout_of
from .payment import Payment
from .script import ELEMENT_SIZE_MAX, push, read_pushes
from .units import DUST_LIMIT, check_satoshi

SEQUENCE_FINAL = 0xFFFFFFFF

LONGEST_DESTINATION = bytes(ADDRESS_SCRIPT_SIZE_MAX)
"""In place of the server's output script, which the signer alone knows, where a fee is reckoned: by the server, and by the signer
in bounding it."""

_SIGNATURE_SIZE_MAX = 72  # 71 bytes of DER with low S, and the sighash type

SETTLEMENT_SIZE_MAX = 367
"""Bytes of the largest settlement: with the longest keys, signatures, expiry and addresses that there are."""

INFLATION_MAX = 3 + ELEMENT_SIZE_MAX - 1 + 2
"""Bytes by which the largest copy that nodes relay exceeds a settlement: in place of OP_1 it has OP_PUSHDATA2, a length of two
bytes and the data; and the scriptSig's own length takes three bytes, not one."""


class SettlementError(ValueError):
    """A settlement that cannot be built or must not be published; `str()` says why, without secrets."""


class Uneconomic(SettlementError):
    """The server's part does not pay for the fee and an output above dust."""


def settlement_outputs(terms: ChannelTerms, payment: Payment, destination: bytes, fee: int) -> list[CTxOut]:
    """Return the outputs: the payer's change, if any, then the server's. Raises Uneconomic, ValueError for bad amounts."""
    check_satoshi(fee, "fee")
    check_satoshi(terms.funding_value, "funding_value")
    if payment.change_value > terms.funding_value:
        raise SettlementError("the change value exceeds the funding value")
    received = terms.funding_value - payment.change_value
    if received < fee + DUST_LIMIT:
        raise Uneconomic(f"{received} satoshi do not pay for a fee of {fee} and an output of at least {DUST_LIMIT}")
    change = [] if payment.exhausts else [CTxOut(payment.change_value, CScript(terms.change_script))]
    return [*change, CTxOut(received - fee, CScript(destination))]


def _spend(terms: ChannelTerms, script_sig: bytes, outputs: list[CTxOut]) -> CTransaction:
    outpoint = COutPoint(txid_of(terms.outpoint), vout_of(terms.outpoint))
    return CTransaction([CTxIn(outpoint, CScript(script_sig), SEQUENCE_FINAL)], outputs, nLockTime=0, nVersion=1)


def _script_sig(client_signature: bytes, server_signature: bytes, redeem: bytes) -> bytes:
    return push(client_signature) + push(server_signature) + b"\x51" + push(redeem)


def settlement_size_max(terms: ChannelTerms, payment: Payment, destination: bytes) -> int:
    """Return an upper bound in bytes of the signed settlement: exact but for the server's signature, mostly 0 or 1 less."""
    client_signature = payment.signature + bytes((payment.sighash_type,))
    outputs = settlement_outputs(terms, payment, destination, 0)
    script_sig = _script_sig(client_signature, bytes(_SIGNATURE_SIZE_MAX), terms.redeem_script)
    return len(_spend(terms, script_sig, outputs).serialize())


def inflated_size_max(terms: ChannelTerms, payment: Payment, destination: bytes) -> int:
    """Return the most bytes of a copy of the signed settlement that nodes relay: one with 520 bytes in place of OP_1."""
    return settlement_size_max(terms, payment, destination) + INFLATION_MAX


def server_sighash(terms: ChannelTerms, payment: Payment, destination: bytes, fee: int) -> bytes:
    """Return the 32-byte SIGHASH_ALL digest that the server signs."""
    unsigned = _spend(terms, b"", settlement_outputs(terms, payment, destination, fee))
    return SignatureHash(CScript(terms.redeem_script), unsigned, 0, SIGHASH_ALL)


def sign_settlement(terms: ChannelTerms, payment: Payment, destination: bytes, fee: int, key: PrivateKey) -> bytes:
    """Return the complete, serialised settlement transaction. Deterministic (RFC 6979): the same input, the same bytes."""
    outputs = settlement_outputs(terms, payment, destination, fee)
    digest = server_sighash(terms, payment, destination, fee)
    server_signature = key.sign(digest, hasher=None) + bytes((SIGHASH_ALL,))
    client_signature = payment.signature + bytes((payment.sighash_type,))
    return _spend(terms, _script_sig(client_signature, server_signature, terms.redeem_script), outputs).serialize()


def settlement_txid(raw: bytes) -> bytes:
    """Return the 32-byte txid (internal order) of a serialised transaction."""
    return CTransaction.deserialize(raw).GetTxid()


def check_settlement(raw: bytes, terms: ChannelTerms, payment: Payment, fee_max: int) -> bytes:
    """Check a settlement that the signer returned, before it is stored or published, and return its txid.

    It must spend this channel with this payment, pay the payer exactly its change, pay the server at least the rest less
    `fee_max` (satoshi), and carry two valid signatures, the server's being SIGHASH_ALL. Raises SettlementError.
    """
    try:
        tx = CTransaction.deserialize(raw)
    except Exception as error:
        raise SettlementError("the settlement does not parse") from error
    if not tx.vout:
        raise SettlementError("the settlement has no output")
    destination = bytes(tx.vout[-1].scriptPubKey)
    fee = terms.funding_value - sum(output.nValue for output in tx.vout)
    if not 0 <= fee <= fee_max:
        raise SettlementError(f"the settlement's fee is {fee} satoshi, allowed are 0 to {fee_max}")
    outputs = settlement_outputs(terms, payment, destination, fee)
    digest = server_sighash(terms, payment, destination, fee)
    client_signature = payment.signature + bytes((payment.sighash_type,))
    prefix = push(client_signature)
    script_sig = bytes(tx.vin[0].scriptSig) if len(tx.vin) == 1 else b""
    size = script_sig[len(prefix)] if len(script_sig) > len(prefix) else 0
    server_signature = script_sig[len(prefix) + 1 : len(prefix) + 1 + size]
    rebuilt = _spend(terms, _script_sig(client_signature, server_signature, terms.redeem_script), outputs)
    if rebuilt.serialize() != raw:
        raise SettlementError("the settlement differs from the one this payment asks for")
    if server_signature[-1:] != bytes((SIGHASH_ALL,)):
        raise SettlementError("the server's signature is not SIGHASH_ALL")
    if not _verifies(server_signature[:-1], digest, terms.server_pubkey):
        raise SettlementError("the server's signature is not valid")
    if not verify_payment(terms, payment):
        raise SettlementError("the payer's signature is not valid")
    return tx.GetTxid()


@dataclass(frozen=True)
class Paid:
    """What a settlement pays, whichever version it is and whatever became of its scriptSig. Values in satoshi, size in bytes.

    outputs: (value, script) each; the payer's change is the first of two.
    """

    outputs: tuple[tuple[int, bytes], ...]
    fee: int
    size: int

    @property
    def change_value(self) -> int:
        """What the payer gets back."""
        return self.outputs[0][0] if len(self.outputs) > 1 else 0


def read_settlement(raw: bytes, terms: ChannelTerms) -> Paid | None:
    """Return what the serialised transaction `raw` pays if it is a settlement of this channel, None if it is something else: a
    refund, or no spend of the funding output.

    It is one if it carries the server's SIGHASH_ALL signature of exactly these outputs: only our signer makes that.
    """
    try:
        tx = CTransaction.deserialize(raw)
    except Exception:  # python-bitcoinlib raises errors of many kinds
        return None
    if len(tx.vin) != 1 or not tx.vout:
        return None
    (spend,) = tx.vin
    pushed = read_pushes(bytes(spend.scriptSig))
    spent = COutPoint(txid_of(terms.outpoint), vout_of(terms.outpoint))
    if spend.prevout != spent or pushed is None or len(pushed) < 4 or pushed[-1] != terms.redeem_script:
        return None
    signature = pushed[-3]
    digest = SignatureHash(CScript(terms.redeem_script), tx, 0, SIGHASH_ALL)
    if signature[-1:] != bytes((SIGHASH_ALL,)) or not _verifies(signature[:-1], digest, terms.server_pubkey):
        return None
    outputs = tuple((output.nValue, bytes(output.scriptPubKey)) for output in tx.vout)
    size = len(CTransaction(tx.vin, tx.vout, tx.nLockTime, tx.nVersion).serialize())  # no witness counts: a txid covers none
    return Paid(outputs, terms.funding_value - sum(value for value, _ in outputs), size)


def verify_payment(terms: ChannelTerms, payment: Payment) -> bool:
    """Return whether the payer's signature fits this payment on this channel."""
    digest = payment_sighash(terms.outpoint, terms.redeem_script, terms.change_script, payment.change_value, payment.sighash_type)
    return _verifies(payment.signature, digest, terms.client_pubkey)


def _verifies(signature: bytes, digest: bytes, pubkey: bytes) -> bool:
    try:
        return PublicKey(pubkey).verify(signature, digest, hasher=None)
    except ValueError:  # a signature that does not parse
        return False
