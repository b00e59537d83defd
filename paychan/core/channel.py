"""A channel: its fixed terms, its state, and the table of transitions that code, tests and documents are made from.

The state is a join (design section 3): the phase only goes forward and the change value only goes down, so replayed,
reordered and duplicated updates converge and never lower the money held.

The records below are on disk and on the wire. Their layouts cannot change; a new layout takes a new version byte.
A channel on which nothing was sold has the shorter state record, so that whoever sells nothing here writes nothing for it.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from . import script
from .payment import SIGHASH_CHANGE, SIGHASH_NO_CHANGE, Payment
from .sales import NOTHING_SOLD, Sales

RECORD_VERSION = 1

TERMS_HEAD = struct.Struct("<BBIQQ33s33s")
"""version | length of the change script | exp_time | funding value | opened at | server key | client key; then the script."""

STATE_HEAD = struct.Struct("<BBBBQ")
"""version 1 | phase | sighash type | length of the signature | change value; then the signature; then the txid if signed.
The compiled twin is `seal` in `paychan/_fast/channel.pyx`."""

SOLD_VERSION = 2
"""Of the state record of a channel on which something was sold."""

SOLD_HEAD = struct.Struct("<BBBBQQQ")
"""version 2 | phase | channel type | length of the signature | change value | spent | revision of the sales; then the signature;
then the txid if signed; then the purchases (`sales.py`). The change value implies the sighash type."""

P2SH_V1 = 1
"""The channel type of protocol v1. Other types will come with the same record."""


class Phase(IntEnum):
    """How far a channel's life has come. The numbers are on disk; 0 means "no channel" in conditional updates."""

    OPEN = 1
    CLOSING = 2
    SIGNED = 3
    BROADCAST = 4
    SETTLED = 5


ABSENT = 0
"""The expected phase of a channel that must not exist yet."""


class Event(StrEnum):
    """What can happen to a channel."""

    OPEN = "open"
    PAY = "pay"
    EXHAUST = "exhaust"
    CLOSE = "close"
    SIGN = "sign"
    BUMP = "bump"
    BROADCAST = "broadcast"
    CONFIRM = "confirm"
    LOSE = "lose"


TRANSITIONS: dict[tuple[int, Event], Phase] = {
    (ABSENT, Event.OPEN): Phase.OPEN,
    (ABSENT, Event.EXHAUST): Phase.CLOSING,  # the opening payment already gives up everything
    (Phase.OPEN, Event.PAY): Phase.OPEN,
    (Phase.OPEN, Event.EXHAUST): Phase.CLOSING,
    (Phase.OPEN, Event.CLOSE): Phase.CLOSING,
    (Phase.CLOSING, Event.SIGN): Phase.SIGNED,
    (Phase.SIGNED, Event.BUMP): Phase.SIGNED,  # signed again, with a higher fee
    (Phase.SIGNED, Event.BROADCAST): Phase.BROADCAST,
    (Phase.BROADCAST, Event.BUMP): Phase.BROADCAST,
    # a settlement of ours is buried: whichever version, even one that is not written down here (a restored store)
    (Phase.CLOSING, Event.CONFIRM): Phase.SETTLED,
    (Phase.SIGNED, Event.CONFIRM): Phase.SETTLED,
    (Phase.BROADCAST, Event.CONFIRM): Phase.SETTLED,
    # the funding output was spent by another transaction, for good: the payer's refund
    (Phase.CLOSING, Event.LOSE): Phase.SETTLED,
    (Phase.SIGNED, Event.LOSE): Phase.SETTLED,
    (Phase.BROADCAST, Event.LOSE): Phase.SETTLED,
}
"""An absent entry *is* the refusal."""

_ALLOWED_STEPS = frozenset((before, after) for (before, _), after in TRANSITIONS.items())


def next_phase(phase: int, event: Event) -> Phase:
    """Return the phase after `event`. Raises ValueError if the table has no such transition."""
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise ValueError(f"a channel in phase {phase} cannot {event.value}") from None


def is_allowed_update(phase: int, change_value: int, new_phase: int, new_change_value: int) -> bool:
    """Return whether the table allows the step, and the money held does not fall.

    While open the change value may only go down; once the channel is closing the value is settled. `change_value` of an
    absent channel (phase 0) is its funding value. The store applies no update for which this is False.
    """
    if (phase, new_phase) not in _ALLOWED_STEPS:
        return False
    if phase in (ABSENT, Phase.OPEN):
        return 0 <= new_change_value <= change_value
    return new_change_value == change_value


@dataclass(frozen=True, slots=True)
class ChannelTerms:
    """What is fixed when a channel opens. Values in satoshi, times in unix seconds, keys of 33 bytes."""

    outpoint: bytes
    server_pubkey: bytes
    client_pubkey: bytes
    exp_time: int
    funding_value: int
    change_script: bytes
    opened_at: int = 0

    @property
    def redeem_script(self) -> bytes:
        """The script of the funding output."""
        return script.redeem_script(self.server_pubkey, self.client_pubkey, self.exp_time)

    def serialize(self) -> bytes:
        """Return the terms record, without the outpoint, which is the record's key."""
        head = TERMS_HEAD.pack(
            RECORD_VERSION,
            len(self.change_script),
            self.exp_time,
            self.funding_value,
            self.opened_at,
            self.server_pubkey,
            self.client_pubkey,
        )
        return head + self.change_script

    @classmethod
    def parse(cls, outpoint: bytes, record: bytes) -> "ChannelTerms":
        """Return the terms in `record`. Raises ValueError for any other bytes than `serialize` makes."""
        size = TERMS_HEAD.size
        if len(record) < size:
            raise ValueError("a terms record is too short")
        version, script_size, exp_time, value, opened_at, server, client = TERMS_HEAD.unpack_from(record)
        if version != RECORD_VERSION or len(record) != size + script_size:
            raise ValueError("a terms record has an unknown version or a wrong length")
        return cls(outpoint, server, client, exp_time, value, record[size:], opened_at)


@dataclass(frozen=True, slots=True)
class ChannelState:
    """What changes: the phase, the newest payment, from `signed` on the settlement's txid (internal order), and what was sold."""

    phase: Phase
    payment: Payment
    settlement_txid: bytes = b""
    sales: Sales = NOTHING_SOLD

    def serialize(self) -> bytes:
        """Return the state record."""
        payment, sales = self.payment, self.sales
        rest = payment.signature + self.settlement_txid
        if not sales.revision:
            sizes = payment.sighash_type, len(payment.signature), payment.change_value
            return STATE_HEAD.pack(RECORD_VERSION, self.phase, *sizes) + rest
        if payment.sighash_type != _implied_type(payment.change_value):
            raise ValueError("a payment is of another sighash type than its change value implies")
        form = SOLD_VERSION, self.phase, P2SH_V1, len(payment.signature), payment.change_value
        return SOLD_HEAD.pack(*form, sales.spent, sales.revision) + rest + sales.serialize()

    @classmethod
    def parse(cls, record: bytes) -> "ChannelState":
        """Return the state in `record`. Raises ValueError for any other bytes than `serialize` makes."""
        if record[:1] == bytes((SOLD_VERSION,)):
            return cls._parse_sold(record)
        size = STATE_HEAD.size
        if len(record) < size:
            raise ValueError("a state record is too short")
        version, phase, sighash_type, signature_size, change_value = STATE_HEAD.unpack_from(record)
        end = size + signature_size
        txid = record[end:]
        if version != RECORD_VERSION or len(record) < end or len(txid) != _txid_size(phase):
            raise ValueError("a state record has an unknown version or a wrong length")
        return cls(Phase(phase), Payment(change_value, record[size:end], sighash_type), txid)

    @classmethod
    def _parse_sold(cls, record: bytes) -> "ChannelState":
        size = SOLD_HEAD.size
        if len(record) < size:
            raise ValueError("a state record is too short")
        _, phase, kind, signature_size, change_value, spent, revision = SOLD_HEAD.unpack_from(record)
        txid_at = size + signature_size
        purchases_at = txid_at + _txid_size(phase)
        if kind != P2SH_V1 or not revision or len(record) < purchases_at:
            raise ValueError("a state record has an unknown type or a wrong length")
        payment = Payment(change_value, record[size:txid_at], _implied_type(change_value))
        sales = Sales.parse(spent, revision, record[purchases_at:])
        return cls(Phase(phase), payment, record[txid_at:purchases_at], sales)


ENDING = struct.Struct("<BQQ")
"""u8 1: settled, 2: lost | u64 fee | u64 missing."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a channel ended: what a step to `settled` brings beside the state. Satoshi. fee: of the settlement that was buried;
    missing: by how much that one paid us less than the newest payment says. is_lost: the payer has it all back."""

    is_lost: bool
    fee: int = 0
    missing: int = 0

    def serialize(self) -> bytes:
        """Return the record."""
        return ENDING.pack(2 if self.is_lost else 1, self.fee, self.missing)

    @classmethod
    def parse(cls, record: bytes) -> "Ending":
        """Raises ValueError for any other bytes than `serialize` makes."""
        if len(record) != ENDING.size or record[0] not in (1, 2):
            raise ValueError("an ending has an unknown form")
        kind, fee, missing = ENDING.unpack(record)
        if kind == 2 and (fee or missing):
            raise ValueError("a lost channel pays no fee")
        return cls(kind == 2, fee, missing)


def _implied_type(change_value: int) -> int:
    """Return the sighash type of a payment that leaves so many satoshi: there are no others."""
    return SIGHASH_CHANGE if change_value else SIGHASH_NO_CHANGE


def _txid_size(phase: int) -> int:
    """Return how many bytes of a state record in this phase are the settlement's txid."""
    return 32 if phase >= Phase.SIGNED else 0
