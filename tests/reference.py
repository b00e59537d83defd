"""The slow judge: what a payment is, in plain Python with python-bitcoinlib and coincurve, told a second time.

It shares no code and no table with `paychan/_fast`; where both agree on everything, a slip would have to be made twice.
Written to be read, not to be fast. It follows spec sections 1, 2 and 4 and the order of checks that ARCHITECTURE.md states.
"""

import base64
import re
from dataclasses import dataclass, replace

from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import (
    OP_CHECKLOCKTIMEVERIFY,
    OP_CHECKSIG,
    OP_CHECKSIGVERIFY,
    OP_DROP,
    OP_ELSE,
    OP_ENDIF,
    OP_IF,
    CScript,
    SignatureHash,
)
from coincurve import PublicKey

GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DUST = 700
ALL_BITCOINS = 21_000_000 * 100_000_000
SINGLE_ANYONECANPAY = 0x83
NONE_ANYONECANPAY = 0x82


class Refused(Exception):
    """The request is refused; `code` is the public code."""

    def __init__(self, code: str, shortfall: int = 0) -> None:
        super().__init__(code)
        self.code, self.shortfall = code, shortfall


@dataclass(frozen=True)
class Paid:
    """The parts of a payment: what the payer keeps, its DER signature, the sighash type."""

    change_value: int
    signature: bytes
    sighash_type: int

    @property
    def raw(self) -> bytes:
        return self.change_value.to_bytes(8, "little") + self.signature + bytes([self.sighash_type])


@dataclass(frozen=True)
class Bought:
    """A purchase: what was asked for, what it still holds, which change of the channel's sales made it, or gave it to another, in
    which of the seller's attempts; `until`: when a reservation falls back, 0 once the amount is final."""

    key: bytes
    asked: int
    held: int
    change: int
    until: int
    attempt: int = 0

    @property
    def number(self) -> int:
        """What the seller is told, and names it by."""
        return self.attempt * 2**40 + self.change


@dataclass(frozen=True)
class Account:
    """One channel as the judge keeps it. `phase` is "open", "closing" or "settled". `spent`: None while nothing was sold."""

    txid: bytes
    vout: int
    server_pubkey: bytes
    client_pubkey: bytes
    exp_time: int
    change_script: bytes
    newest: Paid
    phase: str = "open"
    funding_value: int = 0
    spent: int | None = None
    changes: int = 0
    bought: tuple[Bought, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What is answered. `received` and `left` belong to the three good outcomes, `shortfall` to out_of_order."""

    code: str
    received: int = 0
    left: int = 0
    shortfall: int = 0


# --- the request ------------------------------------------------------------------------------------------------------


def read_path(path: bytes) -> tuple[bytes, int]:
    """Return (txid in internal order, output index) of /v1/channels/TXID/VOUT."""
    if len(path) > 1024:
        raise Refused("request_too_large")
    prefix = b"/v1/channels/"
    segments = path[len(prefix) :].split(b"/")
    if not path.startswith(prefix) or path == prefix or len(segments) < 2 or segments[1] == b"":
        raise Refused("no_such_route")
    txid_hex, vout = segments[0], segments[1]  # whatever follows is tolerated, as in v1
    if not re.fullmatch(rb"[0-9a-fA-F]{64}", txid_hex):
        raise Refused("invalid_txid")
    if not re.fullmatch(rb"0|[1-9][0-9]*", vout) or int(vout) >= 2**32:
        raise Refused("invalid_vout")
    return bytes.fromhex(txid_hex.decode())[::-1], int(vout)


def read_query(query: bytes) -> tuple[bytes, bool]:
    """Return (the payment parameter as it stands, whether there is a change_address)."""
    if len(query) > 2048:
        raise Refused("request_too_large")
    values: dict[bytes, list[bytes]] = {b"payment": [], b"change_address": []}
    for part in re.split(rb"[&;]", query):
        name, equals, value = part.partition(b"=")
        if equals and name in values:
            values[name].append(value)
    if any(len(given) > 1 for given in values.values()):
        raise Refused("repeated_parameter")
    if not values[b"payment"]:
        raise Refused("missing_parameter")
    return values[b"payment"][0], bool(values[b"change_address"])


def unescape(value: bytes) -> bytes:
    """Resolve %-escapes and `+`. No payment has more than 108 characters: the text is not read beyond."""
    symbols = re.findall(rb"%[0-9a-fA-F]{2}|[\x00-\xff]", value)
    if b"%" in symbols[:108]:
        raise Refused("invalid_base64")
    if len(symbols) > 108:
        raise Refused("invalid_payment")
    plain = {b"+": b" "}
    return b"".join(plain.get(s, s) if len(s) == 1 else bytes([int(s[1:], 16)]) for s in symbols)


def decode_base64url(text: bytes) -> bytes:
    """Return the bytes of a base64url text: padded fully or not at all, and the one text that encodes these bytes."""
    if len(text) > 108:
        raise Refused("invalid_payment")
    bare = text
    if len(text) % 4 == 0:
        bare = re.sub(rb"={1,2}\Z", b"", text)
    if not re.fullmatch(rb"[A-Za-z0-9_-]*", bare) or len(bare) % 4 == 1:
        raise Refused("invalid_base64")
    data = base64.urlsafe_b64decode(bare + b"=" * (-len(bare) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != bare:
        raise Refused("invalid_base64")  # unused bits were set
    return data


# --- the payment ------------------------------------------------------------------------------------------------------


def der_integer(number: int) -> bytes:
    """Return a non-negative integer as DER has it: 02, length, and as few bytes as keep the top bit clear."""
    body = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return bytes([0x02, len(body)]) + body


def encode_der(r: int, s: int) -> bytes:
    """Return the one strict DER form of a signature."""
    body = der_integer(r) + der_integer(s)
    return bytes([0x30, len(body)]) + body


def split_der(der: bytes) -> tuple[int, int]:
    """Return (r, s) of a strict DER signature (BIP 66): one that comes out the same when it is encoded again."""
    if not 8 <= len(der) <= 72:
        raise Refused("invalid_der")
    try:
        r_end = 4 + der[3]
        s_end = r_end + 2 + der[r_end + 1]
    except IndexError:
        raise Refused("invalid_der") from None
    r, s = int.from_bytes(der[4:r_end], "big"), int.from_bytes(der[r_end + 2 : s_end], "big")
    if encode_der(r, s) != der:
        raise Refused("invalid_der")
    return r, s


def read_payment(raw: bytes) -> Paid:
    """Return the payment in its binary form, checked for everything but whether its signature is true."""
    if not 8 + 8 + 1 <= len(raw) <= 8 + 72 + 1:
        raise Refused("invalid_payment")
    paid = Paid(int.from_bytes(raw[:8], "little"), raw[8:-1], raw[-1])
    _, s = split_der(paid.signature)
    if GROUP_ORDER // 2 < s < GROUP_ORDER:
        raise Refused("high_s")  # an s beyond the group order is no number of it at all: that fails as a signature, below
    if paid.sighash_type == NONE_ANYONECANPAY:
        if paid.change_value != 0:
            raise Refused("change_value_not_zero")
    elif paid.sighash_type == SINGLE_ANYONECANPAY:
        if paid.change_value < DUST:
            raise Refused("dust_change")
        if paid.change_value > ALL_BITCOINS:
            raise Refused("change_value_range")
    else:
        raise Refused("invalid_sighash_type")
    return paid


def redeem_script(server_pubkey: bytes, client_pubkey: bytes, exp_time: int) -> CScript:
    """Return the script of the funding output."""
    return CScript(
        [OP_IF, server_pubkey, OP_CHECKSIGVERIFY]
        + [OP_ELSE, exp_time, OP_CHECKLOCKTIMEVERIFY, OP_DROP, OP_ENDIF]
        + [client_pubkey, OP_CHECKSIG]
    )


def sighash(account: Account, change_value: int, sighash_type: int) -> bytes:
    """Return what the payer signs: Bitcoin's own legacy hash over a transaction that pays it its change."""
    outputs = [] if sighash_type & 0x1F == 2 else [CTxOut(change_value, CScript(account.change_script))]
    tx = CTransaction([CTxIn(COutPoint(account.txid, account.vout))], outputs)
    script = redeem_script(account.server_pubkey, account.client_pubkey, account.exp_time)
    return SignatureHash(script, tx, 0, sighash_type)


def is_signed(account: Account, paid: Paid) -> bool:
    """Return whether the payer signed this payment on this channel."""
    digest = sighash(account, paid.change_value, paid.sighash_type)
    try:
        return PublicKey(account.client_pubkey).verify(paid.signature, digest, hasher=None)
    except ValueError:
        return False


# --- the verdict ------------------------------------------------------------------------------------------------------


def judge_payment(account: Account, paid: Paid, now: int, settlement_period: int) -> tuple[Verdict, Account]:
    """Return the verdict on a well-formed payment, and the channel as it is afterwards. Raises Refused."""
    if paid != account.newest and not is_signed(account, paid):
        raise Refused("bad_signature")  # before all that tells of the channel
    if account.phase != "open":
        raise Refused("no_such_payment" if account.phase == "settled" else "channel_closing")
    if account.exp_time - now <= settlement_period:
        raise Refused("channel_expiring")
    received = account.newest.change_value - paid.change_value
    if received < 0:
        raise Refused("out_of_order", shortfall=-received)
    if received == 0:
        return Verdict("replayed", 0, paid.change_value), account
    if paid.sighash_type == NONE_ANYONECANPAY:
        return Verdict("exhausted", received), replace(account, newest=paid, phase="closing")
    return Verdict("accepted", received, paid.change_value), replace(account, newest=paid)


# --- selling ----------------------------------------------------------------------------------------------------------

REMEMBERED = 4
LONGEST_RESERVATION = 24 * 3600


def fall_back(account: Account, time: int) -> Account:
    """Give back what reservations held whose time is over."""
    late = [one for one in account.bought if one.until and one.until <= time]
    kept = tuple(replace(one, held=0, until=0) if one in late else one for one in account.bought)
    return replace(account, bought=kept, spent=account.spent - sum(one.held for one in late))


def sell(
    account: Account, key: bytes, amount: int, until: int, time: int, again: int | None, stands_still: bool, attempt: int
) -> tuple[Account, Bought, bool]:
    """Charge or reserve; return the account, the purchase and whether that is new. again: the number of one that was made before:
    it gets a new one, and an open reservation the later of two ends; nothing if the channel stands still. Raises Refused."""
    if not 1 <= amount <= ALL_BITCOINS or (until and (until <= time or until > time + LONGEST_RESERVATION)):
        raise Refused("invalid_sale")
    known = {one.key: one for one in account.bought}
    if key in known and known[key].asked != amount:
        raise Refused("purchase_differs")
    if key in known and (known[key].held or known[key].until):
        if again is not None and known[key].number != again:
            raise Refused("no_such_purchase")
        if again is None or stands_still:
            return account, known[key], False
        ends = max(until, known[key].until) if known[key].until else 0
        new = known[key] = replace(known[key], change=account.changes + 1, attempt=attempt, until=ends)
        return replace(account, bought=tuple(known.values()), changes=new.change), new, False
    received = account.funding_value - account.newest.change_value
    if received - account.spent < amount:
        raise Refused("insufficient_credit", shortfall=amount - (received - account.spent))
    known.pop(key, None)
    if len(known) == REMEMBERED:
        final = [one for one in known.values() if not one.until]
        if not final:
            raise Refused("too_many_reservations")
        del known[min(final, key=lambda one: one.change).key]
    new = Bought(key, amount, amount, account.changes + 1, until, attempt)
    known[key] = new
    return replace(account, bought=tuple(known.values()), spent=account.spent + amount, changes=new.change), new, True


def settle_purchase(account: Account, key: bytes, number: int, amount: int) -> tuple[Account, Bought, bool]:
    """Make a purchase's amount final. Returns and raises as `sell`."""
    found = [one for one in account.bought if (one.key, one.number) == (key, number)]
    if not found:
        raise Refused("no_such_purchase")
    if amount > found[0].held:
        raise Refused("more_than_held")
    if amount == found[0].held and found[0].until == 0:
        return account, found[0], False
    new = replace(found[0], held=amount, until=0)
    kept = tuple(new if one == found[0] else one for one in account.bought)
    spent = account.spent - (found[0].held - amount)
    return replace(account, bought=kept, spent=spent, changes=account.changes + 1), new, True


@dataclass(frozen=True)
class SaleVerdict:
    """What a seller is answered. `charged`: by how much what was spent changed; `spent` and `bought`: after it."""

    code: str
    charged: int = 0
    spent: int = 0
    bought: Bought | None = None


def judge_sale(account, what, key, amount, number, until, attempt, paid, now, time, settlement_period, open_price):
    """Return the verdict on what a seller asks (`what`: "sell", "again", "settle" or "prove"), maybe with a payment, and the
    channel afterwards: payment and sale are both taken, or nothing is."""
    paid_as, refusal, after = "", None, account
    try:
        if paid is not None:
            verdict, after = judge_payment(account, paid, now, settlement_period)
            paid_as = verdict.code
        elif account.phase != "open":
            raise Refused("no_such_payment" if account.phase == "settled" else "channel_closing")
        elif account.exp_time - now <= settlement_period:
            raise Refused("channel_expiring")
    except Refused as refused:
        refusal = refused
        if refused.code == "bad_signature":
            return SaleVerdict("bad_signature"), account
    if what == "prove" or paid_as not in ("accepted", "exhausted"):
        paid_as, after = "", account
    if after.spent is None:
        after = replace(after, spent=min(open_price, after.funding_value - after.newest.change_value))
    before, after = account.spent or 0, fall_back(after, time)
    stands_still = refusal is not None and refusal.code != "out_of_order"
    sold_refusal, bought, is_new, shown = None, None, False, after
    try:
        if what in ("sell", "again"):
            again = number if what == "again" else None
            after, bought, is_new = sell(after, key, amount, until, time, again, stands_still, attempt)
        elif what == "settle":
            after, bought, is_new = settle_purchase(after, key, number, amount)
    except Refused as refused:
        sold_refusal = refused
    is_taken_over = sold_refusal is None and not is_new and after.changes != shown.changes
    if is_taken_over:
        return SaleVerdict(paid_as or "accepted", after.spent - before, after.spent, bought), after
    if sold_refusal is None and not is_new and not paid_as:
        return SaleVerdict("replayed", 0, shown.spent, bought), account
    if what == "again" and not stands_still and sold_refusal is not None and sold_refusal.code == "no_such_purchase":
        refusal = None
    for refused in (refusal, sold_refusal):
        if refused is not None:
            return SaleVerdict(refused.code), account
    if not is_new:  # a better payment, and a purchase that was made before
        kept = replace(after, spent=account.spent, changes=account.changes, bought=account.bought)
        return SaleVerdict(paid_as, 0, shown.spent, bought), kept
    return SaleVerdict(paid_as or "accepted", after.spent - before, after.spent, bought), after


class Judge:
    """The channels of one worker. `trouble` tells of an outpoint why its shard takes no payment here, "" if it does."""

    def __init__(self, settlement_period: int, trouble=lambda outpoint: "") -> None:
        self.accounts: dict[bytes, Account] = {}
        self._settlement_period, self._trouble = settlement_period, trouble

    def add(self, account: Account) -> None:
        self.accounts[account.txid + account.vout.to_bytes(4, "little")] = account

    def pay(self, path: str, query: str, now: int, ignore_change_address: bool = False) -> Verdict:
        """Answer one request; change the account only if the payment is accepted."""
        try:
            txid, vout = read_path(path.encode())
            parameter, has_change_address = read_query(query.encode())
            paid = read_payment(decode_base64url(unescape(parameter)))
            if has_change_address and not ignore_change_address:
                return Verdict("has_change_address")
            outpoint = txid + vout.to_bytes(4, "little")
            if self._trouble(outpoint):
                return Verdict(self._trouble(outpoint))
            if outpoint not in self.accounts:
                return Verdict("not_loaded")
            verdict, after = judge_payment(self.accounts[outpoint], paid, now, self._settlement_period)
        except Refused as refused:
            return Verdict(refused.code, shortfall=refused.shortfall)
        self.accounts[outpoint] = after
        return verdict
