"""Whether receipts of one channel, by one key, are a chain (pure). Their signatures are somebody else's business."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .claims import Claims


@dataclass(frozen=True, slots=True)
class Link:
    """A receipt in its place. line: where it stands in its file, from 1. hash: as the next receipt names it."""

    line: int
    hash: str
    claims: Claims


@dataclass
class Chain:
    """What became of a channel's receipts. problems: what cannot be if they are true. gaps: where receipts are missing; an answer
    that was lost on its way may have been one's. remarks: what may be. amount: satoshi, the sum of what was bought."""

    channel_id: str
    key: str
    receipts: int = 0
    amount: int = 0
    is_whole: bool = True
    problems: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def judge(channel_id: str, key: str, links: Sequence[Link]) -> Chain:
    """Judge the receipts of a channel by one key, in the order in which they were given."""
    chain = Chain(channel_id, key, len(links), sum(link.claims.amount for link in links))
    if links[0].claims.previous:
        chain.is_whole = False
        chain.remarks.append(f"line {links[0].line}: receipts before it are not in the file")
    hashes = {link.hash: link.line for link in links}
    for before, link in zip(links, links[1:], strict=False):
        _judge_link(chain, before, link, hashes)
    _judge_numbers(chain, links)
    _judge_sums(chain, sorted(links, key=lambda link: link.claims.number))
    return chain


def _judge_link(chain: Chain, before: Link, link: Link, hashes: dict[str, int]) -> None:
    named = link.claims.previous
    if named == before.hash:
        if link.claims.time < before.claims.time:
            chain.problems.append(f"line {link.line}: it is older than the receipt before it")
    elif not named:
        chain.problems.append(f"line {link.line}: it begins the chain anew")
    elif named in hashes:
        chain.problems.append(f"line {link.line}: it follows line {hashes[named]}, not line {before.line}")
    else:
        chain.gaps.append(f"line {link.line}: the receipt before it is missing")


def _judge_numbers(chain: Chain, links: Sequence[Link]) -> None:
    seen: dict[int, int] = {}
    for link in links:
        first = seen.setdefault(link.claims.number, link.line)
        if first != link.line:
            chain.problems.append(f"line {link.line}: purchase {link.claims.number} has a receipt already, line {first}")


def _judge_sums(chain: Chain, ordered: Sequence[Link]) -> None:
    """In the order of the purchases: what was paid never falls; what was charged rises by what was bought."""
    for before, link in zip(ordered, ordered[1:], strict=False):
        old, new = before.claims, link.claims
        if new.accepted < old.accepted:
            chain.problems.append(f"line {link.line}: what was paid has fallen from {old.accepted} to {new.accepted} satoshi")
        change = new.spent - old.spent - new.amount
        if change > 0:
            chain.remarks.append(f"line {link.line}: {change} satoshi were charged before it without a receipt here")
        elif change < 0:
            chain.remarks.append(f"line {link.line}: {-change} satoshi were given back before it")
