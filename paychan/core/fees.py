"""What a settlement pays for its confirmation. The rules, with the table and the reasons: docs/SETTLING.md. Pure.

After the expiry the payer may take everything back, so the fee may grow, in the end, to most of what would be lost. Money in
satoshi, sizes in bytes, times in seconds.
"""

from dataclasses import dataclass

from .settlement import Uneconomic
from .units import DUST_LIMIT

BUMP_PERCENT_MIN = 25
"""What replaces a version that is on its way pays at least so much more: each costs everybody's bandwidth, and a signature."""

RELAY_FEE_PER_BYTE = 1
"""What nodes ask a replacement to pay on top for its own bytes (Bitcoin Core's incrementalrelayfee is at most this)."""

STAKE_PERCENT = 2
STAKE_FACTOR = 2
"""A settlement pays at once for twice the estimate, for the bytes of its largest copy, as far as that is no more than 2 % of what
the server receives: what is in the next block can be neither pinned nor inflated."""

BLIND_FACTOR = 2
"""What was refused for its fee, by a source that does not tell what would do, is offered again with so many times as much."""

BLOCK_SECONDS = 600


@dataclass(frozen=True)
class Rung:
    """From `period_percent` of the settlement period left on downwards: confirm within `blocks`, pay the estimate times `factor`,
    and at most `share_percent` of what the server receives.

    is_late: the estimate is paid for the bytes of the largest copy that anybody can make. patience: blocks that a version may wait;
    then it is late too, and raised by `growth_percent` at least.
    """

    period_percent: int
    blocks: int
    factor: int
    share_percent: int
    is_late: bool
    patience: int
    growth_percent: int


LADDER = (
    Rung(75, 6, 1, 30, False, 12, 0),
    Rung(50, 3, 1, 50, True, 6, 25),
    Rung(25, 2, 2, 75, True, 4, 50),
    Rung(10, 1, 4, 90, True, 2, 100),
    Rung(0, 1, 8, 95, True, 1, 100),
)
"""Searched from the top; the last rung is also for channels past their expiry."""


@dataclass(frozen=True)
class FeeBounds:
    """Satoshi for each byte: below the floor nothing is relayed, above the ceiling somebody's estimate is broken."""

    floor: int
    ceiling: int


@dataclass(frozen=True)
class Stake:
    """One settlement. received: what the server receives before the fee; size: of what is signed; size_inflated: of the largest
    copy of it that nodes relay (`core/settlement.py`)."""

    received: int
    size: int
    size_inflated: int


@dataclass(frozen=True)
class Rival:
    """What spends the funding output in a mempool now, be it a version of the settlement.

    fee, size: its own, 0 if not known. evicted: what it and all that descends from it pay, None if nobody tells.
    """

    fee: int
    size: int
    evicted: int | None = None


def rung_at(seconds_left: int, settlement_period: int) -> Rung:
    """Return the rung of a channel that expires in `seconds_left`; one closed long before is on the first."""
    percent = 100 * seconds_left // settlement_period
    return next((rung for rung in LADDER if percent >= rung.period_percent), LADDER[-1])


def fee_limit(stake: Stake, rung: Rung, bounds: FeeBounds) -> int:
    """Return the most that a settlement may pay on a rung, whatever it has to beat. Raises Uneconomic: the floor is too much."""
    cheapest = bounds.floor * stake.size
    # A replacement adds a relay fee at least, so the share takes no smaller step up from the cheapest: a channel whose share ended
    # between the two would have signed a fee that may not do, and could not pay for the next one.
    share = max(stake.received * rung.share_percent // 100, bump_fee_min(cheapest, stake.size))
    limit = min(share, stake.received - DUST_LIMIT)
    if limit < cheapest:
        raise Uneconomic(f"{stake.received} satoshi do not pay for {stake.size} bytes at {bounds.floor} satoshi each")
    return limit


def wanted_fee(stake: Stake, rung: Rung, estimate: int, bounds: FeeBounds, *, seen: int = 0, overdue: int = 0) -> int:
    """Return what a settlement should pay now by itself, whatever it has to beat.

    estimate: satoshi for each byte, of the rung's `blocks`. seen: bytes of the copy that the network has, if it has another form
    than ours. overdue: the fee of a version that has waited longer than the rung's patience. Raises Uneconomic.
    """
    is_late = rung.is_late or overdue > 0
    size = stake.size_inflated if is_late else min(max(stake.size, seen), stake.size_inflated)
    by_estimate = _rate(rung, estimate, bounds) * size
    by_stake = min(stake.received * STAKE_PERCENT // 100, min(estimate * STAKE_FACTOR, bounds.ceiling) * stake.size_inflated)
    by_waiting = -(-overdue * (100 + rung.growth_percent) // 100)
    return min(max(by_estimate, by_stake, by_waiting), fee_limit(stake, rung, bounds))


def _rate(rung: Rung, estimate: int, bounds: FeeBounds) -> int:
    return min(max(estimate * rung.factor, bounds.floor), bounds.ceiling)


def settlement_price(estimate: int, bounds: FeeBounds, size: int) -> int:
    """Return what must be received on a channel so that its settlement of `size` bytes pays for itself at today's estimate: the
    first rung's fee, as far as the last rung lets it be paid, and an output above dust."""
    fee = _rate(LADDER[0], estimate, bounds) * size
    return max(fee + DUST_LIMIT, -(-100 * fee // LADDER[-1].share_percent), least_price(bounds, size))


def least_price(bounds: FeeBounds, size: int) -> int:
    """Return what must be received so that a settlement of at most `size` bytes is signed at any time: the first rung's share of it
    pays for the floor, and an output above dust is left."""
    fee = bounds.floor * size
    return max(fee + DUST_LIMIT, -(-100 * fee // LADDER[0].share_percent))


def bump_fee_min(fee: int, size: int) -> int:
    """Return the least fee of a replacement of at most `size` bytes that would be relayed, and is worth it, where nothing else
    hangs on what it replaces."""
    return max(fee + RELAY_FEE_PER_BYTE * size, -(-(100 + BUMP_PERCENT_MIN) * fee // 100))


def replacement_fee(rival: Rival, size: int) -> int:
    """Return the least fee with which `size` bytes replace a rival, as far as is known: more if something unknown hangs on it.

    Nodes ask for the fees of all that is evicted and for the replacement's own bytes, and for a higher rate than the rival's:
    before Bitcoin Core 31 as a rule of its own, since then in comparing diagrams, where a child may help a rival that is smaller.
    """
    evicted = rival.fee if rival.evicted is None else max(rival.evicted, rival.fee)
    by_rate = (evicted if rival.size < size else rival.fee) * size // rival.size + 1 if rival.size else 0
    return max(evicted + RELAY_FEE_PER_BYTE * size, by_rate)


def asked_fee(per_kb: int, size: int) -> int:
    """Return the least fee of `size` bytes in a mempool that asks for `per_kb` satoshi for 1000 bytes."""
    return -(-per_kb * size // 1000)
