"""The store's keys and the small values beside them.

The layout is on disk and cannot change; a new one takes a new `identity.FORMAT_VERSION`.

    key                                       value
    "I"                                       identity record (identity.py)
    "E" | u16 lease, big-endian               u64 epoch, little-endian
    "T" | 36 outpoint                         terms record (paychan.core.channel)
    "S" | 36 outpoint                         state record (paychan.core.channel); once settled, the tombstone, kept for ever
    "X" | 36 outpoint                         settlement transaction, from phase signed on
    "F" | 32 txid                             funding transaction without its witness: the proof of its channels, kept for ever
    "O" | u32 expiry, big-endian | outpoint   empty: index of open channels, soonest expiry first
    "U" | 36 outpoint                         u8 phase: index of settlements that have begun and are not settled
    "D" | u32 time, big-endian | outpoint     outcome record (paychan.core.outcome): index of settled channels, by when they were
    "V"                                       u64 | u64, little-endian: satoshi received on open channels, and on those whose
                                              settlement has begun and is not settled. 8 bytes: the first alone, as it was
    "G"                                       u64, little-endian: satoshi spent on open channels
    "L" | u64 number, big-endian              an event (paychan/events/event.py); the newest one is never removed
    "N" | name                                a note (paychan/rpc/event_messages.py): what was told of, webhooks' endpoints
    "R"                                       only in a store that was restored from a backup: when (restored.py)

Terms and state are apart so that a payment rewrites some 90 bytes. Big-endian numbers sort as they count.
"""

import struct

from paychan.rpc.store_messages import Unsettled

IDENTITY = b"I"
EPOCH = b"E"
TERMS = b"T"
STATE = b"S"
SETTLEMENT = b"X"
FUNDING = b"F"
EXPIRING = b"O"
UNFINISHED = b"U"
DONE = b"D"
UNSETTLED = b"V"
OPEN_SPENT = b"G"
EVENT = b"L"
NEXT_TO_EVENT = b"M"
"""Above every event's key, and no key itself."""

NOTE = b"N"
RESTORED = b"R"
SINGLE = (IDENTITY, UNSETTLED, OPEN_SPENT, RESTORED)
MANY = (EPOCH, TERMS, STATE, SETTLEMENT, FUNDING, EXPIRING, UNFINISHED, DONE, EVENT, NOTE)

_UNSETTLED = struct.Struct("<QQ")
OPEN_ALONE_SIZE = 8
"""Of the value under UNSETTLED in a store that did not sum up what is being settled: the engine does, at the next start."""


def epoch_key(lease: int) -> bytes:
    """Return the key of a lease's epoch. lease: u16, shards first, then `Lease`."""
    return EPOCH + lease.to_bytes(2, "big")


def encode_epoch(epoch: int) -> bytes:
    """Return the value under `epoch_key`."""
    return epoch.to_bytes(8, "little")


def decode_epoch(value: bytes | None) -> int:
    """Return the epoch in a value; a lease that never had an owner has epoch 0."""
    return int.from_bytes(value, "little") if value else 0


def encode_spent(satoshi: int) -> bytes:
    """Return the value under OPEN_SPENT."""
    return satoshi.to_bytes(8, "little")


def decode_spent(value: bytes | None) -> int:
    """Return the satoshi in a value; a store that sold nothing has none. Raises ValueError if it is no value."""
    if value is not None and len(value) != 8:
        raise ValueError("the record of the spent value is damaged")
    return int.from_bytes(value or b"", "little")


def encode_unsettled(unsettled: Unsettled) -> bytes:
    """Return the value under UNSETTLED."""
    return _UNSETTLED.pack(*unsettled)


def decode_unsettled(value: bytes | None) -> Unsettled:
    """Return the sums in a value; a new store has received nothing. Raises ValueError if it is none."""
    if value is None:
        return Unsettled()
    if len(value) == OPEN_ALONE_SIZE:
        return Unsettled(int.from_bytes(value, "little"))
    if len(value) != _UNSETTLED.size:
        raise ValueError("the record of what is unsettled is damaged")
    return Unsettled(*_UNSETTLED.unpack(value))


def event_key(number: int) -> bytes:
    """Return an event's key."""
    return EVENT + number.to_bytes(8, "big")


def event_number(key: bytes) -> int:
    """Return the number in an event's key."""
    return int.from_bytes(key[1:], "big")


def note_key(name: str) -> bytes:
    """Return a note's key; of a beginning of names, where those begin."""
    return NOTE + name.encode()


def expiring_key(expiry: int, outpoint: bytes = b"") -> bytes:
    """Return an open channel's key in the expiry index; without outpoint, where that second (u32) begins."""
    return EXPIRING + expiry.to_bytes(4, "big") + outpoint


def done_key(settled_at: int, outpoint: bytes = b"") -> bytes:
    """Return a settled channel's key in the index of outcomes; without outpoint, where that second (u32) begins."""
    return DONE + settled_at.to_bytes(4, "big") + outpoint


def split_timed_key(key: bytes) -> tuple[int, bytes]:
    """Return (expiry, or time of the settlement, and outpoint)."""
    return int.from_bytes(key[1:5], "big"), key[5:]
