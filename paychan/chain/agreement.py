"""What is believed of what several servers say. Pure: from each server's answer, by its name, to one; all raise Contradiction.

What fewer than `agree` of them say is not believed, so the trust is: fewer than `agree` servers lie, or are wrong, together.

- *Confirmations*: as many as `agree` servers attest at least. With just `agree` answers that is the minimum.
- *Spent or not*: `agree` servers must say the same. A spender is named, and its depth told, only if `agree` name it; else it is
  "spent", with no confirmation, which ends nothing. Our own settlement, seen by too few, counts as not there: it is published
  again. A lone "spent" or "unspent" changes nothing, for a liar must be able neither to have a spent output taken for
  money, nor to hold up a settlement until it is too late.
- *The best block* is the highest one of which `agree` servers tell the same height, hash, time and median time. The clock trusts
  the median time (it never goes back), so it is never taken from fewer. A server may be a few blocks ahead.
- *Fees*: the median, of an even number the lower of the middle ones: of two servers of which one lies, too little can be made up
  for later, too much is gone. An estimate for a longer time than was asked for is none, and so are fewer than `agree` of them.
  That a transaction pays too little is believed of `agree` servers.
- *A broadcast* that `agree` servers refuse is refused, if fewer than that say that they took it: one of those who refuse is honest,
  and whoever lies may say that he took what he did not pass on. Else one that takes it is enough.
- If two answers that exclude each other both have, or both lack, enough support: Unavailable, "contradict each other".
"""

import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .base import FUNDING_OUTPUTS_MAX, UNKNOWN, FundingStatus, Tip


class Contradiction(Exception):
    """The answers that there are do not decide the question; further ones might. `str()` says how they differ."""


@dataclass(frozen=True)
class Sighting:
    """What one server says of a funding output. confirmations: of its transaction, or UNKNOWN. spender: txid (internal
    order) of what spends it, None if nothing does."""

    confirmations: int
    spender: bytes | None = None
    spender_confirmations: int = 0


@dataclass(frozen=True)
class Listed:
    """What one server says of an unspent output. value: satoshi."""

    value: int
    confirmations: int


def attested(levels: Collection[int], agree: int) -> int:
    """Return the highest number of confirmations that `agree` servers attest at least, UNKNOWN if too few answered."""
    return sorted(levels, reverse=True)[agree - 1] if len(levels) >= agree else UNKNOWN


def agreed_tip(chains: Mapping[str, Sequence[Tip]], agree: int) -> Tip:
    """Return the highest block that `agree` servers have among their newest, told alike in every respect."""
    votes = Counter(block for chain in chains.values() for block in set(chain))
    agreed = [block for block, count in votes.items() if count >= agree]
    heights = ", ".join(f"{name} is at height {chain[0].height}" for name, chain in sorted(chains.items()))
    if not agreed:
        raise Contradiction(f"no recent block is the same for {agree} of them: {heights}")
    best = max(block.height for block in agreed)
    if sum(block.height == best for block in agreed) > 1:
        raise Contradiction(f"they are on different chains: {heights}")
    return next(block for block in agreed if block.height == best)


def agreed_status(sightings: Mapping[str, Sighting], agree: int, settlement_txid: bytes = b"") -> FundingStatus:
    """Return what became of a funding output. settlement_txid: our own spender, if any."""
    spent = {name: seen for name, seen in sightings.items() if seen.spender is not None}
    if len(spent) < agree:
        spent = {name: seen for name, seen in spent.items() if seen.spender != settlement_txid}
    unspent = len(sightings) - len(spent)
    if (len(spent) >= agree) == (unspent >= agree):
        others = _names(sightings.keys() - spent.keys())
        raise Contradiction(f"{_names(spent)} say that a funding output is spent, {others} that it is not")
    if unspent >= agree:  # one that does not know the transaction says nothing against its being spent, nor for it
        return FundingStatus(attested([seen.confirmations for name, seen in sightings.items() if name not in spent], agree))
    confirmations = attested([seen.confirmations for seen in spent.values()], agree)
    votes = Counter(seen.spender for seen in spent.values())
    named = [spender for spender, count in votes.items() if spender is not None and count >= agree]
    if len(named) != 1:
        return FundingStatus(confirmations, is_spent=True)
    depths = [seen.spender_confirmations for seen in spent.values() if seen.spender == named[0]]
    return FundingStatus(confirmations, True, named[0], attested(depths, agree))


def agreed_unspent(sightings: Mapping[str, Sighting], agree: int) -> int:
    """Return the confirmations of an output that is there and unspent, else UNKNOWN."""
    status = agreed_status(sightings, agree)
    knowing = {name for name, seen in sightings.items() if seen.confirmations != UNKNOWN}
    if status.confirmations == UNKNOWN and knowing and len(sightings) - len(knowing) < agree:
        raise Contradiction(f"{_names(knowing)} know a funding transaction, {_names(sightings.keys() - knowing)} do not")
    return UNKNOWN if status.is_spent else status.confirmations


def agreed_listing(listings: Mapping[str, Mapping[bytes, Listed]], agree: int) -> dict[bytes, Listed]:
    """Return the outputs that `agree` servers list with the same value, those of most value first, FUNDING_OUTPUTS_MAX at
    most: who would crowd out a payer's output must pay more than the payer."""
    found: dict[bytes, Listed] = {}
    disputed: set[str] = set()
    for outpoint in {outpoint for listing in listings.values() for outpoint in listing}:
        holders = {name: listing[outpoint] for name, listing in listings.items() if outpoint in listing}
        value, count = Counter(listed.value for listed in holders.values()).most_common(1)[0]
        if count >= agree > len(listings) - count:
            levels = [listed.confirmations for listed in holders.values() if listed.value == value]
            found[outpoint] = Listed(value, attested(levels, agree))
        elif count >= agree or len(listings) - len(holders) < agree:
            disputed |= holders.keys()
    if disputed and not found:
        raise Contradiction(f"{_names(disputed)} list a funding output, others do not, or not alike")
    ranked = sorted(found, key=lambda outpoint: (-found[outpoint].value, outpoint))
    return {outpoint: found[outpoint] for outpoint in ranked[:FUNDING_OUTPUTS_MAX]}


def is_refused(refusals: int, taken: int, agree: int) -> bool:
    """Return whether the network refuses a transaction that so many servers refuse, and so many say that they have."""
    return refusals > 0 and (taken == 0 or taken < agree <= refusals)


def _names(names: Collection[str]) -> str:
    return " and ".join(sorted(names))


def agreed_fee(said: Collection[Mapping[int, float]], blocks: int, agree: int) -> int | None:
    """Return satoshi for each byte, rounded up, with which a transaction should confirm within `blocks`; None: too few say."""
    fees = [fee for fee in (fee_for(estimates, blocks) for estimates in said) if fee is not None]
    return statistics.median_low(fees) if len(fees) >= agree else None


def fee_for(estimates: Mapping[int, float], blocks: int) -> int | None:
    """Return satoshi for each byte, rounded up: the estimate for the nearest target at or below `blocks`, None without one."""
    reached = [target for target in estimates if target <= blocks]
    return max(1, math.ceil(estimates[max(reached)])) if reached else None
