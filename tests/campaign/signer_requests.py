"""Requests of a hostile server to the signer: each generator makes one kind, and says what must become of it.

A `Channel` is honest: funded, signed for by its payer. A hostile request is an honest one with a lie in it; where the lie is one
that the payer would have to sign for, the payer signs, for payer and server may be the same person.
"""

import dataclasses
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from bitcoin.core import CMutableTransaction, COutPoint, CTransaction, CTxIn, CTxInWitness, CTxOut, CTxWitness
from bitcoin.core.script import CScript, CScriptWitness, RawSignatureHash
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import make_outpoint
from paychan.core.payment import Payment
from paychan.core.script import p2sh_script_pubkey
from paychan.core.sender import sign_payment
from paychan.rpc.signer_messages import RefusalCode, SettleRequest
from tests.campaign.signer_oracle import REQUEST_HEAD, TERMS_HEAD, Rules
from tests.reference import GROUP_ORDER, encode_der, split_der

MAX_MONEY = 21 * 10**14
DUST = 700
EXPIRIES = (500_000_000, 500_000_001, 2**31 - 1, 2**31, 2**32 - 1)
SIZE_MIN, SIZE_MAX = 270, 368
"""Bytes: no settlement is shorter or longer. For fees that are surely within or above the bound of the fee rate."""

INFLATION = 524
DESTINATION_SIZE_MAX = 34
"""Bytes that a stranger can add to a settlement, which a fee rate is reckoned with."""

RUNG_MARGIN = 120
"""Seconds: so near to the end of a rung nothing is said of what a fee's share may be."""

SIGN = frozenset()
"""The request must be signed."""

ANY = None
"""What becomes of the request depends on where a random change fell: the oracle judges what is signed."""

Expected = frozenset[RefusalCode] | None


def codes(*refused_with: RefusalCode) -> Expected:
    """Return "it must be refused with one of these"."""
    return frozenset(refused_with)


@dataclass(frozen=True)
class Attempt:
    """A payload, and what must become of it: `SIGN`, codes to be refused with, or `ANY`. is_note: it asks to note, not to sign."""

    payload: bytes
    expected: Expected
    is_note: bool = False


class Channel:
    """One funded channel: `lowest`, `fee`, `versions` and `newest` (a payload) tell what the signer signed for it so far, `noted`
    the lowest change value that it noted. `now()`: the signer's unix seconds."""

    def __init__(
        self, rng: random.Random, rules: Rules, clients: list[PrivateKey], now: Callable[[], int], **changes: object
    ) -> None:
        self.rng, self.rules, self.now = rng, rules, now
        self.client = rng.choice(clients)
        value = rng.choice((rng.randint(60_000, 400_000), rng.randint(10**6, 10**9), rng.randint(10**12, MAX_MONEY // 2)))
        fields = {
            "outpoint": bytes(36),
            "server_pubkey": rules.pubkey,
            "client_pubkey": self.client.public_key.format(),
            "exp_time": self._draw_expiry(),
            "funding_value": value,
            "change_script": address_script(rng),
            **changes,
        }
        terms = ChannelTerms(**fields)
        self.terms, self.funding = fund(rng, terms)
        self.lowest, self.fee, self.versions = terms.funding_value, 0, 0
        self.noted = terms.funding_value
        self.newest = b""
        self.history: list[bytes] = []

    def _draw_expiry(self) -> int:
        """Return an expiry: one of the edges, any, or one whose settlement period is near, or has begun."""
        rng, period = self.rng, self.rules.settlement_period
        if rng.random() < 0.4:
            return self.now() + rng.randint(-period, 3 * period)
        return rng.choice((*EXPIRIES, rng.randint(500_000_000, 2**32 - 1)))

    @property
    def is_early(self) -> bool:
        """Whether the settlement period has not begun, for certain."""
        return self.terms.exp_time - self.now() > self.rules.settlement_period + RUNG_MARGIN

    def share(self) -> int | None:
        """Return the per cent that a fee may be of what the server receives, None near the end of a rung."""
        left = self.terms.exp_time - self.now()
        soon, late = self.rules.share_at(left + RUNG_MARGIN), self.rules.share_at(left - RUNG_MARGIN)
        return soon if soon == late else None

    # What the honest server would ask for

    def spare(self) -> int:
        """Return a fee that no bound forbids and no payment of `lower` makes uneconomic."""
        return self.rng.randint(0, 9_000)

    def lower(self) -> int:
        """Return a change value below all that were signed: at first with 30 000 satoshi or more for the server."""
        top = min(self.lowest - 1, self.noted, self.terms.funding_value - 30_000)
        if top < DUST or self.rng.random() < 0.1:
            return 0
        return self.rng.choice((top, self.rng.randint(DUST, top), max(DUST, top - self.rng.randint(0, 2_000))))

    def payload(self, payment: Payment | None = None, fee: int | None = None, funding: bytes | None = None, **changes) -> bytes:
        """Return a request: the honest one but for what is given. Terms are changed without asking the payer."""
        payment = self.pay(self.lower()) if payment is None else payment
        terms = dataclasses.replace(self.terms, **changes) if changes else self.terms
        fee = self.spare() if fee is None else fee
        return SettleRequest(terms, payment, fee, self.funding if funding is None else funding).encode()

    def pay(self, change_value: int, **changes: object) -> Payment:
        """Return a payment that the payer signed, for these terms or changed ones."""
        terms = dataclasses.replace(self.terms, **changes) if changes else self.terms
        return sign_payment(terms, change_value, self.client)

    def was_signed(self, payload: bytes, change_value: int, fee: int, versions: int) -> None:
        self.newest, self.lowest, self.fee, self.versions = payload, change_value, fee, versions
        if payload not in self.history[-4:]:
            self.history.append(payload)

    def sign_freely(self, change_value: int, script: bytes, digest_type: int) -> bytes:
        """Return the payer's signature over what no honest payer signs: any script, any amount, any type of digest."""
        outputs = [] if change_value < 0 else [CTxOut(change_value, CScript(script))]
        txid, vout = self.terms.outpoint[:32], int.from_bytes(self.terms.outpoint[32:], "little")
        tx = CTransaction([CTxIn(COutPoint(txid, vout))], outputs)
        digest, _ = RawSignatureHash(CScript(self.terms.redeem_script), tx, 0, digest_type)  # SINGLE without output: 1
        return self.client.sign(digest, hasher=None)

    @property
    def is_worn(self) -> bool:
        return self.versions >= self.rules.versions_max

    @property
    def is_exhausted(self) -> bool:
        return self.versions > 0 and self.lowest == 0

    def was_noted(self, change_value: int) -> None:
        self.noted = min(self.noted, change_value)

    def behind(self, change_value: int, otherwise: Expected) -> Expected:
        """Return what becomes of a settlement with so much change: refused if that is behind what was noted."""
        return codes(RefusalCode.GIVES_PAYER_MORE) if change_value > self.noted else otherwise


def address_script(rng: random.Random) -> bytes:
    hash160, hash256 = rng.randbytes(20), rng.randbytes(32)
    base58 = (b"\xa9\x14" + hash160 + b"\x87", b"\x76\xa9\x14" + hash160 + b"\x88\xac")
    return rng.choice((*base58, b"\x00\x14" + hash160, b"\x00\x20" + hash256, b"\x51\x20" + hash256))


def fund(rng: random.Random, terms: ChannelTerms, value: int | None = None, script: bytes | None = None):
    """Return the terms with the outpoint of a new transaction that pays `value` to `script`, or as the terms say."""
    script = p2sh_script_pubkey(terms.redeem_script) if script is None else script
    pays = CTxOut(terms.funding_value if value is None else value, CScript(script))
    vout = rng.randrange(3)
    outputs = [CTxOut(rng.randint(0, 10**6), CScript(address_script(rng))) for _ in range(vout + rng.randrange(2))]
    outputs.insert(vout, pays)
    tx = CTransaction([CTxIn(COutPoint(rng.randbytes(32), rng.randrange(4)))], outputs)
    return dataclasses.replace(terms, outpoint=make_outpoint(tx.GetTxid(), vout)), tx.serialize()


# --- honest ones ------------------------------------------------------------------------------------------------------


def unless_worn(channel: Channel) -> Expected:
    """Return what becomes of a good request that makes a new version."""
    return codes(RefusalCode.TOO_MANY_VERSIONS) if channel.is_worn else SIGN


def newer_payment(channel: Channel) -> Attempt | None:
    return None if channel.is_exhausted else Attempt(channel.payload(), unless_worn(channel))


def newest_parts(channel: Channel) -> SettleRequest:
    return SettleRequest.decode(channel.newest)


def higher_fee(channel: Channel) -> Attempt | None:
    if not channel.versions:
        return None
    newest = newest_parts(channel)
    fee = min(channel.fee + channel.rng.choice((1, 100, 2_000)), 9_000)
    if fee <= channel.fee:
        return None
    expected = channel.behind(newest.payment.change_value, unless_worn(channel))
    return Attempt(dataclasses.replace(newest, fee=fee).encode(), expected)


def at_the_bounds(channel: Channel) -> Attempt | None:
    """The highest fee share that is allowed at this time."""
    change_value, share = channel.lower(), channel.share()
    if share is None or channel.is_exhausted:
        return None
    fee = (channel.terms.funding_value - change_value) * share // 100
    is_late = channel.terms.exp_time - channel.now() < channel.rules.settlement_period - RUNG_MARGIN
    if not is_late and fee > channel.rules.fee_per_byte_max * (SIZE_MIN + INFLATION):
        return None
    return Attempt(channel.payload(channel.pay(change_value), fee), unless_worn(channel))


def replay(channel: Channel) -> Attempt | None:
    return Attempt(channel.newest, SIGN) if channel.versions else None


def with_witness(channel: Channel) -> Attempt | None:
    """A funding transaction with witnesses has the same id, which does not cover them."""
    tx = CMutableTransaction.from_tx(CTransaction.deserialize(channel.funding))
    tx.wit = CTxWitness([CTxInWitness(CScriptWitness([channel.rng.randbytes(64)]))])
    return Attempt(channel.payload(funding=tx.serialize()), codes(RefusalCode.FUNDING_NOT_PROVEN))


# --- replays and contradictions --------------------------------------------------------------------------------------


def old_replay(channel: Channel) -> Attempt | None:
    """A request that was signed before a newer one was."""
    if len(channel.history) < 2:
        return None
    payload = channel.rng.choice(channel.history[:-1])
    old, newest = SettleRequest.decode(payload), newest_parts(channel)
    if old.payment.change_value > newest.payment.change_value:
        return Attempt(payload, codes(RefusalCode.GIVES_PAYER_MORE))
    if old.fee < newest.fee:
        return Attempt(payload, channel.behind(old.payment.change_value, codes(RefusalCode.FEE_FALLS)))
    return Attempt(payload, ANY)


def gives_payer_more(channel: Channel) -> Attempt | None:
    low = max(min(channel.lowest, channel.noted) + 1, DUST)
    high = channel.terms.funding_value - 30_000
    if not (channel.versions or channel.noted < channel.terms.funding_value) or low > high:
        return None
    change_value = channel.rng.choice((low, high, channel.rng.randint(low, high)))
    return Attempt(channel.payload(channel.pay(change_value)), codes(RefusalCode.GIVES_PAYER_MORE))


def fee_falls(channel: Channel) -> Attempt | None:
    if not channel.versions or channel.fee == 0:
        return None
    fee = channel.rng.choice((0, channel.fee - 1, channel.rng.randrange(channel.fee)))
    newest = newest_parts(channel)
    expected = channel.behind(newest.payment.change_value, codes(RefusalCode.FEE_FALLS))
    return Attempt(dataclasses.replace(newest, fee=fee).encode(), expected)


def another_change_script(channel: Channel) -> Attempt | None:
    """The payer signs for another address: a new version, and never a second memory."""
    if channel.is_exhausted:
        return None
    terms = dataclasses.replace(channel.terms, change_script=address_script(channel.rng))
    payment = sign_payment(terms, channel.lower(), channel.client)
    return Attempt(channel.payload(payment, change_script=terms.change_script), unless_worn(channel))


def another_spelling(channel: Channel) -> Attempt | None:
    """The same channel under the same outpoint, opened at another time: not a new channel."""
    low, high = max(channel.lowest + 1, DUST), channel.terms.funding_value - 30_000
    if not channel.versions or low > high:
        return None
    payload = channel.payload(channel.pay(high), opened_at=channel.rng.randrange(2**64))
    return Attempt(payload, codes(RefusalCode.GIVES_PAYER_MORE))


# --- greed ------------------------------------------------------------------------------------------------------------


def fee_rate_too_high(channel: Channel) -> Attempt | None:
    payment = channel.pay(channel.rng.choice((0, DUST)))
    bound = channel.rules.fee_per_byte_max * (SIZE_MAX + INFLATION)
    if not channel.is_early:
        return None
    received = channel.terms.funding_value - payment.change_value
    if received < bound + 1 + DUST:
        return None
    fee = channel.rng.choice((bound + 1, received - DUST, channel.rng.randint(bound + 1, received - DUST)))
    return Attempt(channel.payload(payment, fee), codes(RefusalCode.FEE_TOO_HIGH))


def fee_rate_just_too_high(channel: Channel) -> Attempt | None:
    """The bound by the byte: 72 bytes for the signature that does not exist yet, and what a stranger can add."""
    if not channel.is_early:
        return None
    payment = channel.pay(channel.rng.choice((0, DUST)))
    outputs = 9 + DESTINATION_SIZE_MAX
    outputs += 0 if payment.exhausts else 9 + len(channel.terms.change_script)
    redeem = len(channel.terms.redeem_script)
    script_sig = 2 + len(payment.signature) + 1 + 72 + 1 + 2 + redeem
    size = 4 + 1 + 36 + (1 if script_sig < 253 else 3) + script_sig + 4 + 1 + outputs + 4
    fee = channel.rules.fee_per_byte_max * (size + INFLATION) + 1
    if (channel.terms.funding_value - payment.change_value) * channel.rules.share_at(10**10) < fee * 100:
        return None
    return Attempt(channel.payload(payment, fee), codes(RefusalCode.FEE_TOO_HIGH))


def fee_share_too_high(channel: Channel) -> Attempt | None:
    received, share = channel.rng.randint(2 * DUST, 40_000), channel.share()
    change_value = channel.terms.funding_value - received
    if share is None:
        return None
    fee = received * share // 100 + 1
    if change_value < DUST or received < fee + DUST or fee <= 2 * SIZE_MAX:
        return None
    return Attempt(channel.payload(channel.pay(change_value), fee), codes(RefusalCode.FEE_TOO_HIGH))


def uneconomic(channel: Channel) -> Attempt | None:
    received = channel.rng.randint(0, 20_000)
    change_value = channel.terms.funding_value - received
    if change_value < DUST:
        return None
    fee = max(0, channel.rng.choice((received - DUST + 1, received, received + 1, MAX_MONEY)))
    return Attempt(channel.payload(channel.pay(change_value), fee), codes(RefusalCode.UNECONOMIC))


def fee_that_wraps(channel: Channel) -> Attempt:
    fee = channel.rng.choice((MAX_MONEY + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - channel.rng.randint(1, 10**6)))
    return Attempt(channel.payload(fee=fee), codes(RefusalCode.MALFORMED))


def change_above_the_value(channel: Channel) -> Attempt:
    value = channel.terms.funding_value
    change_value = channel.rng.choice((value + 1, MAX_MONEY, MAX_MONEY + 1, 2**63, 2**64 - 1))
    return Attempt(channel.payload(channel.pay(change_value)), codes(RefusalCode.MALFORMED))


def destination_hint(channel: Channel) -> Attempt:
    """Nothing in a request names a destination; what looks like one is behind the funding transaction, or in its place."""
    hint = CTxOut(channel.lowest, CScript(address_script(channel.rng))).serialize()
    funding = channel.rng.choice((channel.funding + hint, channel.funding + b"\0", hint + channel.funding, hint))
    return Attempt(channel.payload(funding=funding), codes(RefusalCode.FUNDING_NOT_PROVEN))


def change_to_a_strange_script(channel: Channel) -> Attempt:
    script = channel.rng.choice((b"", b"\x51", b"\x6a\x04abcd", b"\x00\x14" + bytes(21), b"\x52\x20" + bytes(32), b"\xac" * 255))
    change_value = max(DUST, channel.lower())
    payment = Payment(change_value, channel.sign_freely(change_value, script, 0x83), 0x83)
    return Attempt(channel.payload(payment, change_script=script), codes(RefusalCode.MALFORMED))


# --- lies about the channel -------------------------------------------------------------------------------------------


def wrong_value(channel: Channel) -> Attempt:
    """A legacy signature does not cover the amount: with a wrong one, the difference would be burnt."""
    value, rng = channel.terms.funding_value, channel.rng
    claimed = rng.choice((value - 1, value + 1, rng.randint(0, MAX_MONEY), max(0, value - 100_000), MAX_MONEY))
    claimed = max(claimed, 40_000)
    if claimed == value:
        claimed += 1
    payload = channel.payload(channel.pay(min(channel.lower(), claimed - 30_000)), funding_value=claimed)
    return Attempt(payload, codes(RefusalCode.FUNDING_NOT_PROVEN))


def value_out_of_range(channel: Channel) -> Attempt:
    claimed = channel.rng.choice((MAX_MONEY + 1, 2**63, 2**64 - 1))
    return Attempt(channel.payload(funding_value=claimed), codes(RefusalCode.MALFORMED))


def wrong_vout(channel: Channel) -> Attempt:
    txid, vout = channel.terms.outpoint[:32], int.from_bytes(channel.terms.outpoint[32:], "little")
    others = [n for n in (*range(6), 2**31, 2**32 - 1) if n != vout]
    outpoint = make_outpoint(txid, channel.rng.choice(others))
    payment = channel.pay(channel.lower(), outpoint=outpoint)
    return Attempt(channel.payload(payment, outpoint=outpoint), codes(RefusalCode.FUNDING_NOT_PROVEN))


def wrong_txid(channel: Channel) -> Attempt:
    txid = bytearray(channel.terms.outpoint[:32])
    txid[channel.rng.randrange(32)] ^= 1 << channel.rng.randrange(8)
    outpoint = channel.rng.choice((bytes(txid), bytes(32), bytes(txid[::-1]))) + channel.terms.outpoint[32:]
    payment = channel.pay(channel.lower(), outpoint=outpoint)
    return Attempt(channel.payload(payment, outpoint=outpoint), codes(RefusalCode.FUNDING_NOT_PROVEN))


def funding_pays_another(channel: Channel) -> Attempt:
    rng, terms = channel.rng, channel.terms
    redeem = terms.redeem_script
    other = dataclasses.replace(terms, exp_time=500_000_000 + (terms.exp_time - 500_000_000 + 1) % (2**32 - 500_000_000))
    script = rng.choice((redeem, p2sh_script_pubkey(other.redeem_script), address_script(rng), b"\x00\x20" + bytes(32), b""))
    terms, funding = fund(rng, terms, script=script)
    payment = sign_payment(terms, channel.lower(), channel.client)
    return Attempt(SettleRequest(terms, payment, channel.spare(), funding).encode(), codes(RefusalCode.FUNDING_NOT_PROVEN))


def funding_broken(channel: Channel) -> Attempt:
    rng, funding = channel.rng, channel.funding
    broken = rng.choice((b"", funding[: rng.randrange(len(funding))], rng.randbytes(rng.randrange(400)), funding * 2))
    return Attempt(channel.payload(funding=broken), codes(RefusalCode.FUNDING_NOT_PROVEN))


def another_expiry(channel: Channel) -> Attempt:
    """In range, but not what was funded; out of range."""
    rng = channel.rng
    if rng.random() < 0.5:
        exp_time = rng.choice((0, 1, 499_999_999, 800_000))
        payload = struct_replace(channel.payload(), exp_time)
        return Attempt(payload, codes(RefusalCode.MALFORMED))
    exp_time = rng.choice([at for at in EXPIRIES if at != channel.terms.exp_time])
    payment = channel.pay(channel.lower(), exp_time=exp_time)
    return Attempt(channel.payload(payment, exp_time=exp_time), codes(RefusalCode.FUNDING_NOT_PROVEN))


def struct_replace(payload: bytes, exp_time: int) -> bytes:
    """Return the request with another expiry in its terms: the payer cannot sign for one that makes no script."""
    at = REQUEST_HEAD.size + 2
    return payload[:at] + exp_time.to_bytes(4, "little") + payload[at + 4 :]


def another_servers_channel(channel: Channel) -> Attempt:
    """All is as it should be, for somebody else's key."""
    key = PrivateKey(channel.rng.randbytes(32)).public_key.format()
    other = Channel(channel.rng, channel.rules, [channel.client], channel.now, server_pubkey=key)
    return Attempt(other.payload(), codes(RefusalCode.NOT_OUR_CHANNEL))


def server_key_swapped(channel: Channel) -> Attempt:
    """Our channel, told with another key: the redeem script would be another one."""
    key = PrivateKey(channel.rng.randbytes(32)).public_key.format()
    key = channel.rng.choice(
        (key, bytes(33), b"\x02" + b"\xff" * 32, bytes((channel.rules.pubkey[0] ^ 1,)) + channel.rules.pubkey[1:])
    )
    payment = channel.pay(channel.lower(), server_pubkey=key)
    return Attempt(channel.payload(payment, server_pubkey=key), codes(RefusalCode.NOT_OUR_CHANNEL))


def our_key_as_the_payers(channel: Channel) -> Attempt:
    terms, funding = fund(channel.rng, dataclasses.replace(channel.terms, client_pubkey=channel.rules.pubkey))
    payment = sign_payment(terms, channel.lower(), channel.client)
    return Attempt(SettleRequest(terms, payment, channel.spare(), funding).encode(), codes(RefusalCode.NOT_OUR_CHANNEL))


def funded_with_a_strange_key(channel: Channel) -> Attempt:
    """The payer's key is no point of the curve: no signature can be true."""
    key = channel.rng.choice((bytes(33), b"\x02" + b"\xff" * 32, b"\x04" + bytes(32), b"\x03" + GROUP_ORDER.to_bytes(32, "big")))
    terms, funding = fund(channel.rng, dataclasses.replace(channel.terms, client_pubkey=key))
    payment = sign_payment(terms, channel.lower(), channel.client)
    answer = SettleRequest(terms, payment, channel.spare(), funding).encode()
    return Attempt(answer, codes(RefusalCode.BAD_PAYMENT_SIGNATURE))


# --- payments that are none -------------------------------------------------------------------------------------------


def strangers_payment(channel: Channel) -> Attempt:
    stranger = PrivateKey(channel.rng.randbytes(32))
    payment = sign_payment(channel.terms, channel.lower(), stranger)
    return Attempt(channel.payload(payment), codes(RefusalCode.BAD_PAYMENT_SIGNATURE))


def altered_change_value(channel: Channel) -> Attempt | None:
    payment = channel.pay(channel.lower())
    if payment.exhausts:
        return None
    value = channel.terms.funding_value
    altered = channel.rng.choice((payment.change_value - 1, payment.change_value + 1, channel.rng.randint(DUST, value)))
    if altered < DUST or altered == payment.change_value:
        return None
    return Attempt(channel.payload(dataclasses.replace(payment, change_value=altered)), codes(RefusalCode.BAD_PAYMENT_SIGNATURE))


def high_s(channel: Channel) -> Attempt:
    payment = channel.pay(channel.lower())
    r, s = split_der(payment.signature)
    payment = dataclasses.replace(payment, signature=encode_der(r, GROUP_ORDER - s))
    return Attempt(channel.payload(payment), codes(RefusalCode.MALFORMED))


def made_up_signature(channel: Channel) -> Attempt:
    """Well-formed numbers that are no signature: zero, the group order and its neighbours, random."""
    rng = channel.rng
    numbers = (0, 1, GROUP_ORDER - 1, GROUP_ORDER, GROUP_ORDER // 2, 2**256 - 1, rng.randrange(2**256))
    r, s = rng.choice(numbers), rng.choice(numbers)
    payment = dataclasses.replace(channel.pay(channel.lower()), signature=encode_der(r, s))
    return Attempt(channel.payload(payment), codes(RefusalCode.BAD_PAYMENT_SIGNATURE, RefusalCode.MALFORMED))


def loose_der(channel: Channel) -> Attempt:
    payment = channel.pay(channel.lower())
    der = payment.signature
    loose = channel.rng.choice((der + b"\0", der[:-1], b"\x31" + der[1:], der[:1] + b"\x81" + der[1:], der[:3] + b"\0" + der[4:]))
    return Attempt(channel.payload(dataclasses.replace(payment, signature=loose)), codes(RefusalCode.MALFORMED))


def another_sighash_type(channel: Channel) -> Attempt:
    """Named: MALFORMED. Unnamed, that is signed for with one type and called another: no signature of this payment."""
    payment, rng = channel.pay(channel.lower()), channel.rng
    kind = rng.choice((0x01, 0x02, 0x03, 0x81, 0x00, 0xFF, 0x80))
    if rng.random() < 0.5:
        return Attempt(channel.payload(dataclasses.replace(payment, sighash_type=kind)), codes(RefusalCode.MALFORMED))
    change_value = -1 if payment.exhausts else payment.change_value
    signature = channel.sign_freely(change_value, channel.terms.change_script, kind)
    payment = dataclasses.replace(payment, signature=signature)
    return Attempt(channel.payload(payment), codes(RefusalCode.BAD_PAYMENT_SIGNATURE))


def none_with_value(channel: Channel) -> Attempt:
    """The original took these: everything, signed away, with an amount that nobody signed for."""
    change_value = channel.rng.choice((1, DUST, max(1, channel.lower()), channel.terms.funding_value, 2**64 - 1))
    payment = dataclasses.replace(channel.pay(0), change_value=change_value)
    return Attempt(channel.payload(payment), codes(RefusalCode.MALFORMED))


def none_called_single(channel: Channel) -> Attempt:
    payment = dataclasses.replace(channel.pay(0), change_value=max(DUST, channel.lower()), sighash_type=0x83)
    return Attempt(channel.payload(payment), codes(RefusalCode.BAD_PAYMENT_SIGNATURE))


def single_called_none(channel: Channel) -> Attempt:
    payment = dataclasses.replace(channel.pay(max(DUST, channel.lower())), change_value=0, sighash_type=0x82)
    return Attempt(channel.payload(payment), codes(RefusalCode.BAD_PAYMENT_SIGNATURE))


def dust_change(channel: Channel) -> Attempt:
    change_value = channel.rng.choice((0, 1, DUST - 1))
    signature = channel.sign_freely(change_value, channel.terms.change_script, 0x83)
    return Attempt(channel.payload(Payment(change_value, signature, 0x83)), codes(RefusalCode.MALFORMED))


def another_channels_payment(channel: Channel) -> Attempt:
    """Signed by the same payer, for another channel of its own."""
    other = Channel(channel.rng, channel.rules, [channel.client], channel.now)
    change_value = max(DUST, channel.lower())
    payment = sign_payment(other.terms, change_value, channel.client)
    return Attempt(channel.payload(payment), codes(RefusalCode.BAD_PAYMENT_SIGNATURE))


# --- notes ------------------------------------------------------------------------------------------------------------


def note(channel: Channel) -> Attempt:
    """A true payment, newer or older than what is known."""
    value = channel.terms.funding_value
    change_value = channel.rng.choice((channel.lower(), channel.lower(), channel.rng.randint(DUST, value)))
    if channel.rng.random() < 0.7:  # not so far down that the channel's life is over
        change_value = max(change_value, min(channel.lowest, channel.noted, value - 30_000) - 5_000, DUST)
    return Attempt(channel.payload(channel.pay(min(change_value, value)), 0), SIGN, is_note=True)


def note_with_a_fee(channel: Channel) -> Attempt:
    return Attempt(channel.payload(fee=channel.rng.choice((1, 9_000, MAX_MONEY))), codes(RefusalCode.MALFORMED), is_note=True)


def note_of_a_lie(channel: Channel) -> Attempt:
    """Any other lie, told to be noted instead of signed: it may not decide over what is signed later."""
    make = channel.rng.choice(LIES)
    attempt = make(channel)
    parts = bytearray(attempt.payload)
    parts[36:44] = bytes(8)  # without a fee
    return Attempt(bytes(parts), attempt.expected, is_note=True)


def note_by_a_thief(channel: Channel) -> Attempt:
    """Somebody's own channel on the same outpoint: that all of it was given up is noted, if the funding is not looked at."""
    thief = PrivateKey(channel.rng.randbytes(32))
    terms = dataclasses.replace(channel.terms, client_pubkey=thief.public_key.format())
    request = SettleRequest(terms, sign_payment(terms, 0, thief), 0, channel.funding)
    return Attempt(request.encode(), codes(RefusalCode.FUNDING_NOT_PROVEN), is_note=True)


# --- random changes ---------------------------------------------------------------------------------------------------


def flipped_bits(channel: Channel) -> Attempt:
    """One to three bits flipped in one field: outpoint, fee, lengths, terms, payment, funding transaction."""
    rng = channel.rng
    payload = bytearray(channel.newest or channel.payload())
    _, _, terms_size, payment_size = REQUEST_HEAD.unpack_from(payload)
    ends = (36, 44, REQUEST_HEAD.size, REQUEST_HEAD.size + terms_size, REQUEST_HEAD.size + terms_size + payment_size, len(payload))
    at = rng.randrange(6)
    start = 0 if at == 0 else ends[at - 1]
    for _ in range(rng.randint(1, 3)):
        payload[rng.randrange(start, ends[at])] ^= 1 << rng.randrange(8)
    return Attempt(bytes(payload), ANY)


def flipped_terms(channel: Channel) -> Attempt:
    """A bit flipped in the terms, the payment signed for what came out, if a script comes out of it."""
    rng = channel.rng
    record = bytearray(channel.terms.serialize())
    record[rng.randrange(2, len(record))] ^= 1 << rng.randrange(8)
    terms = ChannelTerms.parse(channel.terms.outpoint, bytes(record))
    try:
        payment = sign_payment(terms, channel.lower(), channel.client)
    except ValueError:  # an expiry or key that makes no script
        payment = channel.pay(channel.lower())
    return Attempt(SettleRequest(terms, payment, channel.spare(), channel.funding).encode(), ANY)


def spliced(channel: Channel) -> Attempt:
    """A piece taken out, put in, or doubled."""
    rng = channel.rng
    payload = channel.newest or channel.payload()
    a, b = sorted(rng.randrange(len(payload)) for _ in range(2))
    piece = rng.choice((b"", payload[a:b] * 2, rng.randbytes(b - a), rng.randbytes(rng.randrange(40)), bytes(b - a)))
    return Attempt(payload[:a] + piece + payload[b:], ANY)


def lengths_that_lie(channel: Channel) -> Attempt:
    payload, rng = channel.payload(), channel.rng
    sizes = struct.pack("<HH", *(rng.choice((0, 1, TERMS_HEAD.size, rng.randrange(2**16), 2**16 - 1)) for _ in range(2)))
    return Attempt(payload[:44] + sizes + payload[48:], codes(RefusalCode.MALFORMED))


def garbage(channel: Channel) -> Attempt:
    return Attempt(channel.rng.randbytes(channel.rng.randrange(400)), codes(RefusalCode.MALFORMED))


LIES = (wrong_value, wrong_vout, wrong_txid, funding_pays_another, funding_broken, another_expiry, another_servers_channel)
LIES += (server_key_swapped, our_key_as_the_payers, funded_with_a_strange_key, strangers_payment, high_s, made_up_signature)
LIES += (loose_der, another_sighash_type, none_called_single, dust_change, another_channels_payment, change_above_the_value)

GENERATORS: dict[str, tuple[int, Callable[[Channel], Attempt | None]]] = {
    made.__name__: (weight, made)
    for weight, group in (
        (3, (newer_payment, higher_fee, flipped_bits, flipped_terms)),
        (2, (replay, old_replay, gives_payer_more, fee_falls, spliced, another_change_script, at_the_bounds)),
        (2, (fee_rate_too_high, fee_rate_just_too_high, fee_share_too_high, uneconomic, wrong_value)),
        (1, (with_witness, another_spelling, fee_that_wraps, change_above_the_value, destination_hint)),
        (1, (change_to_a_strange_script, value_out_of_range, wrong_vout, wrong_txid, funding_pays_another, funding_broken)),
        (1, (another_expiry, another_servers_channel, server_key_swapped, our_key_as_the_payers, funded_with_a_strange_key)),
        (1, (strangers_payment, altered_change_value, high_s, made_up_signature, loose_der, another_sighash_type)),
        (1, (none_with_value, none_called_single, single_called_none, dust_change, another_channels_payment)),
        (1, (lengths_that_lie, garbage)),
        (1, (note, note_with_a_fee, note_of_a_lie, note_by_a_thief)),
    )
    for made in group
}
"""Each generator and its weight. One that has nothing to say about a channel as it is returns None."""
