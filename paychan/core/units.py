"""Units of money and time, their ranges, and the checks at the border. All money is an `int` of satoshi."""

from typing import TypeGuard

COIN = 100_000_000
MAX_MONEY = 21_000_000 * COIN
"""Satoshi; no output and no sum of outputs may exceed it (Bitcoin consensus)."""

DUST_LIMIT = 700
"""Satoshi. A protocol constant of v1 (spec section 4): a change of 1..699 cannot be signed for, and the server makes no
such output either. It is above every relay dust limit for the script types we pay to (546 for P2PKH, the highest)."""

LOCKTIME_THRESHOLD = 500_000_000
"""Lock times below this are block heights (BIP 65), which v1 does not support as expiry."""

LOCKTIME_MAX = 0xFFFFFFFF

SECONDS_PER_HOUR = 3600


def is_satoshi(value: object) -> TypeGuard[int]:
    """Return whether `value` is an amount of money: a real int (no bool, no float), 0 to MAX_MONEY."""
    return type(value) is int and 0 <= value <= MAX_MONEY


def check_satoshi(value: int, name: str) -> int:
    """Return `value` if it is an amount of money, else raise ValueError naming `name`."""
    if not is_satoshi(value):
        raise ValueError(f"{name} must be an integer from 0 to {MAX_MONEY} satoshi")
    return value


def is_expiry(value: object) -> TypeGuard[int]:
    """Return whether `value` can be a channel's expiry: unix seconds that CHECKLOCKTIMEVERIFY reads as a time."""
    return type(value) is int and LOCKTIME_THRESHOLD <= value <= LOCKTIME_MAX
