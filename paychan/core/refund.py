"""The refund transaction: how the payer takes everything back after the channel's expiry (spec section 8)."""

from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import SIGHASH_ALL, CScript, SignatureHash
from coincurve import PrivateKey

from .channel import ChannelTerms
from .outpoint import txid_of, vout_of
from .script import push
from .units import DUST_LIMIT, check_satoshi

SEQUENCE_LOCKTIME = 0xFFFFFFFE
"""The highest sequence with which a lock time is still enforced (BIP 65)."""


def sign_refund(terms: ChannelTerms, fee: int, key: PrivateKey) -> bytes:
    """Return the serialised refund: valid once the chain's median time past exceeds `terms.exp_time`.

    fee: satoshi, taken from the one output, which pays to the change script. Raises ValueError if dust would remain.
    """
    check_satoshi(fee, "fee")
    if terms.funding_value < fee + DUST_LIMIT:
        raise ValueError("the channel's value does not pay for the refund's fee")
    redeem = CScript(terms.redeem_script)
    outpoint = COutPoint(txid_of(terms.outpoint), vout_of(terms.outpoint))
    outputs = [CTxOut(terms.funding_value - fee, CScript(terms.change_script))]

    def spend(script_sig: bytes) -> CTransaction:
        return CTransaction([CTxIn(outpoint, CScript(script_sig), SEQUENCE_LOCKTIME)], outputs, terms.exp_time, 1)

    digest = SignatureHash(redeem, spend(b""), 0, SIGHASH_ALL)
    signature = key.sign(digest, hasher=None) + bytes((SIGHASH_ALL,))
    return spend(push(signature) + b"\x00" + push(bytes(redeem))).serialize()
