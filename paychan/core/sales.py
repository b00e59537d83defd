"""What was sold on a channel: how much of what was received is spent, and on which purchases, of which the latest are remembered.

Received less spent is the payer's *credit*. A purchase holds a part of what was spent: all of it was asked for at once, and what
was not used goes back to the credit. A *reservation* is a purchase whose amount is not final yet; what it holds falls back to the
credit by itself at a time that was named when it was made.

A purchase is known by a key that the seller makes up, so that who asks again is answered again, and charged once. PURCHASES_MAX of
them are remembered for each channel, in the channel's own record: a channel is one sequence of payments, each of which buys
something, and a payment that is not the newest buys nothing any more; so no more need be known than may be under way at once. And
what stood beside the record could be on disk without the charge, or the charge without it. Open reservations are never forgotten.

The records are on disk and on the wire. The compiled twin is `paychan/_fast/purchase.pyx`.
"""

import hashlib
import struct
from dataclasses import dataclass

PURCHASES_MAX = 4
"""Purchases of one channel that are remembered, and reservations that may be open at once: 176 bytes in each of its records."""

KEY_SIZE = 16
"""Bytes of a purchase key's hash. Two keys with one hash would be one purchase: to find two takes 2^64 trials."""

KEY_TEXT_MAX = 128
"""Characters of a purchase key."""

RESERVATION_SECONDS_MAX = 24 * 3600
"""So far ahead a reservation may fall back at most."""

ATTEMPT_MAX, REVISION_BITS = 2**23 - 1, 40
"""A purchase's number: the attempt that made it or took it over, 0 if it was not told, above so many bits of a revision."""

ATTEMPTS_MAX = 16
"""Attempts at one purchase that an x402 middleware names at once."""

PURCHASE = struct.Struct("<16sQQQI")
"""key's hash | satoshi asked | satoshi held | number | unix seconds at which a reservation falls back, 0: the amount is final"""


def hash_key(text: str) -> bytes:
    """Return what is remembered of a purchase key."""
    return hashlib.sha256(text.encode()).digest()[:KEY_SIZE]


def attempt_of(number: int) -> int:
    """Return whose a purchase is: what the seller has called the attempt that made it, or took it over last; 0: nothing."""
    return number >> REVISION_BITS


def revision_of(number: int) -> int:
    """Return the revision of the channel's sales that a purchase's number has: it rises with time, and is exact in JavaScript."""
    return number & ((1 << REVISION_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Purchase:
    """`asked`, `held`: satoshi, at first the same. `number`: see ATTEMPT_MAX. `until`: unix seconds at which a reservation falls
    back; 0 once the amount is final."""

    key: bytes
    asked: int
    held: int
    number: int
    until: int = 0

    def __post_init__(self) -> None:
        if len(self.key) != KEY_SIZE or not self.held <= self.asked:
            raise ValueError("a purchase is malformed")


@dataclass(frozen=True, slots=True)
class Sales:
    """`spent`: satoshi, with what reservations hold. `revision`: rises with each change of the sales; 0: there was none."""

    spent: int = 0
    revision: int = 0
    purchases: tuple[Purchase, ...] = ()

    def __post_init__(self) -> None:
        if len(self.purchases) > PURCHASES_MAX or sum(purchase.held for purchase in self.purchases) > self.spent:
            raise ValueError("more is held by purchases than was spent, or there are too many")

    def reserved_at(self, now: int) -> int:
        """Return the satoshi that open reservations hold. now: unix seconds."""
        return sum(purchase.held for purchase in self.purchases if purchase.until > now)

    def spent_at(self, now: int, received: int, open_price: int) -> int:
        """Return the satoshi that are spent, with what open reservations hold. Before the first sale that is the open price, as far
        as it was received: it pays for the settlement."""
        if not self.revision:
            return min(open_price, received)
        return self.spent - sum(purchase.held for purchase in self.purchases if 0 < purchase.until <= now)

    def serialize(self) -> bytes:
        """Return the records of the purchases."""
        return b"".join(PURCHASE.pack(row.key, row.asked, row.held, row.number, row.until) for row in self.purchases)

    @classmethod
    def parse(cls, spent: int, revision: int, records: bytes) -> "Sales":
        """Raises ValueError for any other bytes than `serialize` makes."""
        if len(records) % PURCHASE.size:
            raise ValueError("the records of purchases have a wrong length")
        return cls(spent, revision, tuple(Purchase(*fields) for fields in PURCHASE.iter_unpack(records)))


NOTHING_SOLD = Sales()
