"""What became of a channel, written once when it is settled: whoever adds up days and years needs nothing else of it.

The record is on disk and on the wire. Its layout cannot change; a new layout takes a new version byte.
"""

import struct
from dataclasses import dataclass

from .units import LOCKTIME_MAX, MAX_MONEY

VERSION = 1

_FORM = struct.Struct("<BBIIQQQ")
"""version | 1 if it was lost | settled at | opened at | received | fee | missing."""

SIZE = _FORM.size


@dataclass(frozen=True, slots=True)
class Outcome:
    """received: what the channel's newest payment was worth; fee: what the settlement that is buried paid; missing: by how much it
    fell short of that payment; all of it where the channel was lost, spent by a transaction that is no settlement. Satoshi. Times
    in unix seconds, by the clock of the worker that saw it buried."""

    settled_at: int
    opened_at: int
    received: int
    fee: int = 0
    missing: int = 0
    is_lost: bool = False

    def __post_init__(self) -> None:
        is_possible = self.received <= MAX_MONEY and 0 <= self.missing <= self.received and self.fee >= 0
        if not is_possible or self.fee > self.received - self.missing or (self.is_lost and self.missing != self.received):
            raise ValueError("an outcome's amounts do not add up")
        if not (0 <= self.settled_at <= LOCKTIME_MAX and 0 <= self.opened_at <= LOCKTIME_MAX):
            raise ValueError("an outcome's time is out of range")

    @property
    def paid_out(self) -> int:
        """Satoshi that arrived at the server's own address."""
        return self.received - self.missing - self.fee

    def serialize(self) -> bytes:
        """Return the record."""
        times = self.settled_at, self.opened_at
        return _FORM.pack(VERSION, self.is_lost, *times, self.received, self.fee, self.missing)

    @classmethod
    def parse(cls, record: bytes) -> "Outcome":
        """Raises ValueError for any other bytes than `serialize` makes."""
        if len(record) != SIZE:
            raise ValueError("an outcome record has a wrong length")
        version, is_lost, settled_at, opened_at, received, fee, missing = _FORM.unpack(record)
        if version != VERSION or is_lost > 1:
            raise ValueError("an outcome record has an unknown version")
        return cls(settled_at, opened_at, received, fee, missing, bool(is_lost))
