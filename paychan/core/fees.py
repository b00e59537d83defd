"""What a settlement pays for its confirmation: an estimate, bounded, on a ladder that steepens towards the channel's expiry.

After the expiry the payer may take everything back, so the fee may grow, in the end, to most of what would be lost. Pure.
"""

from dataclasses import dataclass

from .settlement import Uneconomic
from .units import DUST_LIMIT

BUMP_PERCENT_MIN = 25
"""A replacement pays at least so much more than what it replaces: each costs everybody's bandwidth, and relays ask for some."""

RELAY_FEE_PER_BYTE = 1
"""Satoshi; what nodes ask a replacement to pay on top for its own bytes (Bitcoin Core's incrementalrelayfee is at most this)."""


@dataclass(frozen=True)
class Rung:
    """From `period_percent` of the settlement period left on downwards: confirm within `blocks`, pay the estimate times
    `factor`, and at most `share_percent` of what the server receives."""

    period_percent: int
    blocks: int
    factor: int
    share_percent: int


LADDER = (Rung(75, 6, 1, 30), Rung(50, 3, 1, 50), Rung(25, 2, 2, 75), Rung(10, 1, 4, 90), Rung(0, 1, 8, 95))
"""Searched from the top; the last rung is also for channels past their expiry."""


@dataclass(frozen=True)
class FeeBounds:
    """Satoshi for each byte: below the floor nothing is relayed, above the ceiling somebody's estimate is broken."""

    floor: int
    ceiling: int


def rung_at(seconds_left: int, settlement_period: int) -> Rung:
    """Return the rung of a channel that expires in `seconds_left`; one closed long before is on the first."""
    percent = 100 * seconds_left // settlement_period
    return next((rung for rung in LADDER if percent >= rung.period_percent), LADDER[-1])


def settlement_fee(estimate: int, size: int, received: int, rung: Rung, bounds: FeeBounds) -> int:
    """Return the fee in satoshi of a settlement of `size` bytes in which the server receives `received` satoshi.

    estimate: satoshi for each byte, of the rung's `blocks`. Raises Uneconomic if even the floor is too much.
    """
    per_byte = min(max(estimate * rung.factor, bounds.floor), bounds.ceiling)
    cheapest = bounds.floor * size
    # A replacement adds a relay fee at least, so the share takes no smaller step up from the cheapest: a channel whose share ended
    # between the two would have signed a fee that may not do, and could not pay for the next one.
    share = max(received * rung.share_percent // 100, bump_fee_min(cheapest, size))
    fee = min(per_byte * size, share, received - DUST_LIMIT)
    if fee < cheapest:
        raise Uneconomic(f"{received} satoshi do not pay for {size} bytes at {bounds.floor} satoshi each")
    return fee


def bump_fee_min(fee: int, size: int) -> int:
    """Return the least fee in satoshi of a replacement of at most `size` bytes that would be relayed, and is worth it."""
    return max(fee + RELAY_FEE_PER_BYTE * size, -(-(100 + BUMP_PERCENT_MIN) * fee // 100))
