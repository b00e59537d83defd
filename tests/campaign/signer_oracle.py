"""The signer's judge: whether a signature that the signer gave away was one it may give, told a second time.

It reads the request's bytes and the answer's bytes by itself, with python-bitcoinlib, coincurve and Bitcoin Core's own script
interpreter, and keeps its own memory of what was signed. It shares no function with `signer/` or `paychan/core/settlement.py`.
"""

import struct
from dataclasses import dataclass, field

from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut, Hash160
from bitcoin.core.script import OP_1, CScript, SignatureHash
from coincurve import PublicKey

from tests.reference import ALL_BITCOINS, DUST, NONE_ANYONECANPAY, SINGLE_ANYONECANPAY, Paid, read_payment, redeem_script

try:
    import pbk
except ImportError:  # a development dependency
    pbk = None

REQUEST_HEAD = struct.Struct("<36sQHH")  # outpoint, fee, length of the terms, length of the payment
TERMS_HEAD = struct.Struct("<BBIQQ33s33s")  # version, length of the script, expiry, funding value, opened at, keys
ALL = 1
SERVER_SIGNATURE_SIZE_MAX = 72  # with its sighash type
DESTINATION_SIZE_MAX = 34  # bytes: what a fee is reckoned with, whatever the address
INFLATION = 524  # bytes: what a stranger can add to a settlement
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
    settlement_period: int
    fee_sum_per_day_max: int

    def share_at(self, left: int) -> int:
        """Return the per cent of what the server receives that may be burnt `left` seconds before the expiry."""
        steps = ((75, 30), (50, 50), (25, 75), (10, 90), (None, 95))
        share = next(share for part, share in steps if part is None or left >= part * self.settlement_period / 100)
        return min(share, self.fee_share_percent_max)


@dataclass
class Memory:
    """What has been signed for one outpoint. `answers`: the signed bytes by txid."""

    change_value: int
    fee: int
    answers: dict[bytes, bytes] = field(default_factory=dict)


@dataclass
class _Read:
    """What a request says, read and found true."""

    outpoint: bytes
    fee: int
    expiry: int
    client_key: bytes
    change_script: bytes
    redeem: CScript
    locked: bytes
    value: int
    paid: Paid


def demand(is_true: object, what: str) -> None:
    if not is_true:
        raise Violation(what)


class Oracle:
    """Judges every answer of one signer. `memories` and `noted` (lowest change values) by outpoint."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.memories: dict[bytes, Memory] = {}
        self.noted: dict[bytes, int] = {}
        self.kernel_checks = 0
        self._burnt: list[tuple[int, bytes, int]] = []  # when, for which outpoint, how much

    def burnt_in_a_day(self, outpoint: bytes, now: int) -> int:
        """Return what the settlements of other channels pay that were signed in the 24 hours before: of each the dearest."""
        dearest: dict[bytes, int] = {}
        for at, other, fee in self._burnt:
            if other != outpoint and 0 <= now - at < 24 * 3600:
                dearest[other] = max(fee, dearest.get(other, 0))
        return sum(dearest.values())

    def saw_burnt(self, now: int, outpoint: bytes, fee: int) -> None:
        """Remember the fee of a new version."""
        self._burnt.append((now, outpoint, fee))

    def is_over_the_days_sum(self, outpoint: bytes, expiry: int, fee: int, now: int) -> bool:
        """Whether a fee is more than half of what the day still allows, where the day counts: before the settlement period."""
        is_early = expiry - now > self.rules.settlement_period
        return is_early and 2 * fee > self.rules.fee_sum_per_day_max - self.burnt_in_a_day(outpoint, now)

    def check_note(self, request: bytes) -> None:
        """Check a note that was taken, and remember it. Raises Violation."""
        read = self._read(request)
        demand(read.fee == 0, "a fee was noted")
        digest_type = read.paid.sighash_type
        spend = CTxIn(COutPoint(read.outpoint[:32], int.from_bytes(read.outpoint[32:], "little")))
        change = [CTxOut(read.paid.change_value, CScript(read.change_script))] * (digest_type == SINGLE_ANYONECANPAY)
        signature = read.paid.signature + bytes([digest_type])
        tx = CTransaction([spend], change)
        self._verify(signature, read.client_key, read.redeem, tx, "the payer did not sign what was noted")
        demand(read.paid.change_value <= read.value, "more change was noted than there is")
        self.noted[read.outpoint] = min(read.paid.change_value, self.noted.get(read.outpoint, read.paid.change_value))

    def _read(self, request: bytes) -> _Read:
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

        paid = read_payment(payment_bytes)
        return _Read(outpoint, fee, expiry, client_key, change_script, redeem, locked, output.nValue, paid)

    def check(self, request: bytes, raw: bytes, now: int) -> None:
        """Check a signed settlement against the request (a payload) that it answers, and remember it. now: unix seconds, when it
        was answered. Raises Violation."""
        rules, read = self.rules, self._read(request)
        outpoint, paid, change_script = read.outpoint, read.paid, read.change_script
        txid, vout = outpoint[:32], int.from_bytes(outpoint[32:], "little")

        # what is spent, and to whom
        tx = CTransaction.deserialize(raw)
        demand(tx.serialize() == raw and (tx.nVersion, tx.nLockTime, len(tx.vin)) == (1, 0, 1), "a transaction of another shape")
        (spend,) = tx.vin
        demand(spend.prevout.hash == txid and spend.prevout.n == vout, "another output is spent")
        demand(spend.nSequence == 0xFFFFFFFF, "the sequence number is not final")
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
        is_segwit = (change_script[:2], len(change_script)) in ((b"\0\x14", 22), (b"\0\x20", 34), (b"\x51\x20", 34))
        demand(is_p2pkh or is_p2sh or is_segwit, "the change script is no address's")

        # signatures
        pushes = list(spend.scriptSig)
        demand(len(pushes) == 4 and pushes[2] == 1, "the scriptSig has another shape")
        client_signature, server_signature = pushes[0], pushes[1]
        demand(bytes(pushes[3]) == bytes(read.redeem), "another redeem script is revealed")
        again = CScript([client_signature, server_signature, OP_1, bytes(read.redeem)])
        demand(bytes(again) == bytes(spend.scriptSig), "the pushes are not minimal")
        demand(client_signature == paid.signature + bytes([paid.sighash_type]), "the payer's signature was changed")
        demand(server_signature[-1] == ALL, "the signature is not SIGHASH_ALL")
        self._verify(server_signature, rules.pubkey, read.redeem, tx, "the server's signature is not of this transaction")
        self._verify(client_signature, read.client_key, read.redeem, tx, "the payer did not sign this")
        if pbk is not None:
            flags = pbk.ScriptVerificationFlags.ALL & ~pbk.ScriptVerificationFlags.TAPROOT
            verified = pbk.ScriptPubkey(read.locked).verify(read.value, pbk.Transaction(raw), None, 0, flags)
            demand(verified, "Bitcoin Core does not take it")
            self.kernel_checks += 1

        # money
        received = read.value - paid.change_value
        burnt = received - ours.nValue
        size = len(raw) + SERVER_SIGNATURE_SIZE_MAX - len(server_signature) + DESTINATION_SIZE_MAX - len(rules.destination)
        demand(0 <= burnt == read.fee, "another fee than the one asked for")
        if raw not in self.memories.get(outpoint, Memory(0, 0)).answers.values():
            left = read.expiry - now
            is_small = burnt <= 2 * size and burnt * 100 <= rules.fee_share_percent_max * received
            demand(is_small or burnt * 100 <= rules.share_at(left) * received, "the fee's share is above its bound")
            if left > rules.settlement_period:
                demand(burnt <= rules.fee_per_byte_max * (size + INFLATION), "the fee rate is above its bound")
                demand(not self.is_over_the_days_sum(outpoint, read.expiry, burnt, now), "more was burnt in a day than may be")
            demand(paid.change_value <= self.noted.get(outpoint, ALL_BITCOINS), "the payer gets more than was noted before")
            self.saw_burnt(now, outpoint, burnt)
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
        if before.answers.get(txid) == raw and (change_value, fee) == (before.change_value, before.fee):
            return
        demand(change_value <= before.change_value, "the payer gets more than was signed before")
        demand(change_value < before.change_value or fee >= before.fee, "the fee of the same payment fell")
        demand(before.answers.get(txid, raw) == raw, "the same settlement was signed in another way")
        before.answers[txid] = raw
        demand(len(before.answers) <= self.rules.versions_max, "too many versions")
        before.change_value, before.fee = change_value, fee
