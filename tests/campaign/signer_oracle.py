"""The signer's judge: whether a signature that the signer gave away was one it may give, told a second time.

It reads the request's bytes and the answer's bytes by itself, with python-bitcoinlib, coincurve and Bitcoin Core's own script
interpreter, and keeps its own memory of what was signed. It shares no function with `signer/` or `paychan/core/settlement.py`.
"""

import struct
from dataclasses import dataclass, field

from bitcoin.core import CTransaction, Hash160
from bitcoin.core.script import OP_1, CScript, SignatureHash
from coincurve import PublicKey

from tests.reference import ALL_BITCOINS, DUST, NONE_ANYONECANPAY, SINGLE_ANYONECANPAY, read_payment, redeem_script

try:
    import pbk
except ImportError:  # a development dependency
    pbk = None

REQUEST_HEAD = struct.Struct("<36sQHH")  # outpoint, fee, length of the terms, length of the payment
TERMS_HEAD = struct.Struct("<BBIQQ33s33s")  # version, length of the script, expiry, funding value, opened at, keys
ALL = 1
SERVER_SIGNATURE_SIZE_MAX = 72  # with its sighash type
TIMES_FROM = 500_000_000


class Violation(Exception):
    """The signer gave away what it may not; `str()` says what."""


@dataclass(frozen=True)
class Rules:
    """What the signer was told when it started."""

    pubkey: bytes
    destination: bytes
    fee_per_byte_max: int
    fee_share_percent_max: int
    versions_max: int


@dataclass
class Memory:
    """What has been signed for one outpoint. `answers`: the signed bytes by txid."""

    change_value: int
    fee: int
    answers: dict[bytes, bytes] = field(default_factory=dict)


def demand(is_true: object, what: str) -> None:
    if not is_true:
        raise Violation(what)


class Oracle:
    """Judges every answer of one signer. `memories` by outpoint."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.memories: dict[bytes, Memory] = {}
        self.kernel_checks = 0

    def check(self, request: bytes, raw: bytes) -> None:
        """Check a signed settlement against the request (a payload) that it answers, and remember it. Raises Violation."""
        rules = self.rules
        outpoint, fee, terms_size, payment_size = REQUEST_HEAD.unpack_from(request)
        at = REQUEST_HEAD.size
        version, script_size, expiry, claimed, _, server_key, client_key = TERMS_HEAD.unpack_from(request, at)
        change_script = request[at + TERMS_HEAD.size : at + terms_size]
        payment_bytes = request[at + terms_size : at + terms_size + payment_size]
        funding = CTransaction.deserialize(request[at + terms_size + payment_size :])
        demand(version == 1 and len(change_script) == script_size, "a malformed terms record was accepted")

        # whose channel, and what is in it
        demand(server_key == rules.pubkey, "the redeem script holds another server's key")
        demand(client_key != rules.pubkey, "both keys of the channel are the signer's")
        demand(TIMES_FROM <= expiry < 2**32, "the expiry is no time")
        redeem = redeem_script(rules.pubkey, client_key, expiry)
        txid, vout = outpoint[:32], int.from_bytes(outpoint[32:], "little")
        demand(funding.GetTxid() == txid and vout < len(funding.vout), "the funding transaction is another one")
        output = funding.vout[vout]
        locked = b"\xa9\x14" + Hash160(redeem) + b"\x87"
        demand(bytes(output.scriptPubKey) == locked, "the funding output pays to another script")
        demand(output.nValue == claimed, "the amount is not proven")

        # what is spent, and to whom
        tx = CTransaction.deserialize(raw)
        demand(tx.serialize() == raw and (tx.nVersion, tx.nLockTime, len(tx.vin)) == (1, 0, 1), "a transaction of another shape")
        (spend,) = tx.vin
        demand(spend.prevout.hash == txid and spend.prevout.n == vout, "another output is spent")
        demand(spend.nSequence == 0xFFFFFFFF, "the sequence number is not final")
        paid = read_payment(payment_bytes)
        *change, ours = tx.vout
        demand(bytes(ours.scriptPubKey) == rules.destination, "it pays to another destination")
        demand(ours.nValue >= DUST, "the server's output is dust")
        if paid.sighash_type == NONE_ANYONECANPAY:
            demand(not change and paid.change_value == 0, "an exhausting payment has change")
        else:
            demand(paid.sighash_type == SINGLE_ANYONECANPAY and len(change) == 1, "there is not one change output")
            demand(bytes(change[0].scriptPubKey) == change_script, "the change goes elsewhere")
            demand(DUST <= change[0].nValue == paid.change_value <= ALL_BITCOINS, "the change is another amount")
        is_p2pkh = len(change_script) == 25 and change_script[:3] == b"\x76\xa9\x14" and change_script[23:] == b"\x88\xac"
        is_p2sh = len(change_script) == 23 and change_script[:2] == b"\xa9\x14" and change_script[22:] == b"\x87"
        demand(is_p2pkh or is_p2sh, "the change script is no address's")

        # signatures
        pushes = list(spend.scriptSig)
        demand(len(pushes) == 4 and pushes[2] == 1, "the scriptSig has another shape")
        client_signature, server_signature = pushes[0], pushes[1]
        demand(bytes(pushes[3]) == bytes(redeem), "another redeem script is revealed")
        again = CScript([client_signature, server_signature, OP_1, bytes(redeem)])
        demand(bytes(again) == bytes(spend.scriptSig), "the pushes are not minimal")
        demand(client_signature == paid.signature + bytes([paid.sighash_type]), "the payer's signature was changed")
        demand(server_signature[-1] == ALL, "the signature is not SIGHASH_ALL")
        self._verify(server_signature, rules.pubkey, redeem, tx, "the server's signature is not of this transaction")
        self._verify(client_signature, client_key, redeem, tx, "the payer did not sign this")
        if pbk is not None:
            flags = pbk.ScriptVerificationFlags.ALL & ~pbk.ScriptVerificationFlags.TAPROOT
            verified = pbk.ScriptPubkey(locked).verify(output.nValue, pbk.Transaction(raw), None, 0, flags)
            demand(verified, "Bitcoin Core does not take it")
            self.kernel_checks += 1

        # money
        received = output.nValue - paid.change_value
        burnt = received - ours.nValue
        size_max = len(raw) + SERVER_SIGNATURE_SIZE_MAX - len(server_signature)
        demand(0 <= burnt == fee, "another fee than the one asked for")
        demand(burnt <= rules.fee_per_byte_max * size_max, "the fee rate is above its bound")
        demand(burnt * 100 <= rules.fee_share_percent_max * received, "the fee's share is above its bound")
        self._remember(outpoint, paid.change_value, burnt, tx.GetTxid(), raw)

    def _verify(self, signature: bytes, pubkey: bytes, redeem: CScript, tx: CTransaction, what: str) -> None:
        digest = SignatureHash(redeem, tx, 0, signature[-1])
        try:
            demand(PublicKey(pubkey).verify(signature[:-1], digest, hasher=None), what)
        except ValueError as error:
            raise Violation(what) from error

    def _remember(self, outpoint: bytes, change_value: int, fee: int, txid: bytes, raw: bytes) -> None:
        before = self.memories.get(outpoint)
        if before is None:
            self.memories[outpoint] = Memory(change_value, fee, {txid: raw})
            return
        demand(change_value <= before.change_value, "the payer gets more than was signed before")
        demand(change_value < before.change_value or fee >= before.fee, "the fee of the same payment fell")
        demand(before.answers.get(txid, raw) == raw, "the same settlement was signed in another way")
        before.answers[txid] = raw
        demand(len(before.answers) <= self.rules.versions_max, "too many versions")
        before.change_value, before.fee = change_value, fee
