"""Who judges the sales campaign: the seller's records, the buyers' notebooks and the server's books must tell the same story.

A *purchase* is a request (its id), a channel and a payment on it. By what was written down, each is one of three:

- *charged*: it was answered 2xx, or 409 as served before and a handler has served it, or the handler's record alone says that;
- *free*: it was answered last that it was refused for want of credit; or whenever it was tried, that its handler failed. After a
  failure the charge is given back, unless the process that owed it was killed meanwhile, or the server could not be told;
- *unknown*: whatever else was never answered. It may be charged once, whether its handler ran or not: who presents the same payment
  with the same request gets what was paid for, and no other charge; a buyer that never does has paid for nothing. That is the
  promise (docs/PAYMENT_SCHEME.md section 2.5).

`judge` demands of each channel, when everything has come to rest and each buyer has bought once more:

1. what a 2xx answer brings is the good of the request that asked, and its handler has served it;
2. what a handler served is charged or unknown: nothing is served free. A POST is served once a purchase, a GET may be served again;
3. no request is charged on two payments;
4. spent = open price + the charged + *some* of the unknown, each of these once or not at all, and nothing else. The same from each
   receipt to the next: what a purchase added beyond its own price is explained by what was presented in between, or given back
   late. Prices are powers of a hundred, so that a sum hardly fits by chance;
5. received = signed = acknowledged = entered in the purse's ledger, and nothing holds the purse;
6. at no time was more signed than what the server was known to have, the dearest purchase, and the open price if it was not open.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign.shop import PRICES, UNITS

Line = dict[str, Any]

GUESS_SECONDS = 0.5
"""Clocks of lines and kills are read at different moments."""

SERVER, RETURN_SECONDS = ("server", "worker", "store", "signer", "machine", "primary", "standby"), 5.0
"""Who must be there for a charge to be given back, and how long one takes to return."""

LATE_GAPS = 3
"""What was presented and not answered may be given back until so many purchases later: its handler may be slow, its buyer gone."""


@dataclass
class Kills:
    """Whom, and when (unix seconds). away: how long one of the server's takes to return."""

    moments: list[tuple[float, str]]
    away: float = RETURN_SECONDS

    def hit(self, who: tuple[str, ...], begin: float, end: float) -> bool:
        return any(victim in who and begin < at < end for at, victim in self.moments)


def read_lines(path: Path, offset: int = 0) -> list[Line]:
    """Return a record's lines from a byte on; those that a kill cut off are none."""
    found = []
    for text in path.read_bytes()[offset:].split(b"\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found.append(line)
    return found


@dataclass
class Purchase:
    """What was written down of one. first: when it was presented first, unix seconds. ended: if the newest try was answered."""

    ident: str
    channel: str
    change: int
    way: str
    cost: int
    is_metered: bool
    first: float
    tries: int = 0
    answers: list[Line] = field(default_factory=list)
    ended: bool = False
    was_served: bool = False

    @property
    def costs(self) -> tuple[int, ...]:
        """What it may cost where it is not known: a metered request may have been settled, or hold all its units."""
        return (self.cost, UNITS) if self.is_metered else (self.cost,)

    @property
    def late(self) -> tuple[int, ...]:
        """What may be given back of it after its buyer has gone on: all, or what a metered request held and did not use. One that
        used nothing is as if it had not been (_fast/purchase.pyx): the process that it was hung up on at may hold it again, after
        it was answered, and give it back."""
        if self.is_delivered:
            return (-UNITS, UNITS) if self.is_metered and not self.cost and self.tries > len(self.answers) else ()
        return (*self.costs, UNITS - self.cost) if self.is_metered else self.costs

    @property
    def is_answered(self) -> bool:
        """Whether it is over, by what its buyer was told. A 409 alone says that another process has charged for it and
        may be serving it: if that one's handler fails, later, it is given back, and what a killed handler holds falls back."""
        return self.is_delivered or (self.was_served and any(answer["status"] == 409 for answer in self.answers))

    @property
    def is_delivered(self) -> bool:
        return any(200 <= answer["status"] < 300 for answer in self.answers)

    def is_free(self, killed: Kills) -> bool:
        """Whether it can cost nothing any more; see above."""
        if self.is_answered or not self.ended:
            return False
        last = self.answers[-1]
        if last["status"] == 402:
            return last["name"] == "session/insufficient-balance" or self.tries == 1
        if last["status"] not in (500, 502) or self.tries > len(self.answers):
            return False
        until = last["at"] + GUESS_SECONDS  # what a handler failed to serve is given back before that is answered
        if killed.hit((self.way,), self.first - GUESS_SECONDS, until):
            return False
        return not killed.hit(SERVER, self.first - killed.away, last["at"])


@dataclass
class Verdict:
    """Sums over channels. unknown: purchases whose outcome nobody was told; charged_unanswered: satoshi that some of them cost."""

    channels: int = 0
    answered: int = 0
    charged: int = 0
    unknown: int = 0
    free: int = 0
    retried: int = 0
    served: int = 0
    satoshi: int = 0
    charged_unanswered: int = 0
    problems: list[str] = field(default_factory=list)

    def merge(self, other: "Verdict") -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def judge(
    notes: Iterable[list[Line]], records: dict[str, list[Line]], books: dict[str, Line], open_price: int, killed: Kills
) -> Verdict:
    """Judge what buyers' notebooks say, sellers' records by way, and the server's books by channel."""
    verdict = Verdict()
    lines_of_all = [line for lines in records.values() for line in lines if line["what"] == "served"]
    served = [(line["id"], line["channel"], line["method"]) for line in lines_of_all]
    verdict.served = len(served)
    for lines in notes:
        _judge_buyer(verdict, lines, served, books, open_price, killed)
    return verdict


def _judge_buyer(
    verdict: Verdict, lines: list[Line], served: list[tuple[str, str, str]], books: dict[str, Line], open_price: int, killed: Kills
) -> None:
    say = verdict.problems.append
    purchases = _purchases(lines)
    known = {purchase.ident for purchase in purchases}
    mine = [one for one in served if one[0] in known]
    runs = Counter((ident, channel) for ident, channel, _ in mine)
    posts = {ident for ident, _, method in mine if method == "POST"}
    by_request: dict[tuple[str, str], list[Purchase]] = {}
    for purchase in purchases:
        by_request.setdefault((purchase.ident, purchase.channel), []).append(purchase)
    for request, count in runs.items():
        bought = [purchase for purchase in by_request.get(request, ()) if not purchase.is_free(killed)]
        if not bought:
            say(f"SERVED FREE: {request[0]}, {count} times, and nothing was paid for it")
        elif request[0] in posts and count > len(bought):
            say(f"SERVED TWICE: {request[0]} is a POST, was bought {len(bought)} times and served {count} times")
        if len(bought) == 1:
            bought[0].was_served = True
    for purchase in purchases:
        _judge_goods(verdict, purchase, runs)
    for ident, count in Counter(p.ident for p in purchases if p.is_answered).items():
        if count > 1:
            say(f"CHARGED TWICE: {ident} was answered on {count} payments")
    verdict.problems += [f"{line['id']}: the purse says {line['error']}" for line in lines if line["what"] == "problem"]
    for channel in {purchase.channel for purchase in purchases}:
        verdict.problems += _ahead(channel, lines, books, open_price)
    owned = [line for line in lines if line["what"] == "books"]
    if not owned:
        say(f"the buyer that began with {lines[0]['id'] if lines else 'nothing'} never told what its purse has")
    for line in owned:
        verdict.channels += 1
        paid_by_it = [purchase for purchase in purchases if purchase.channel == line["channel"]]
        _judge_channel(verdict, line, books.get(line["channel"]), paid_by_it, open_price, killed)
        verdict.problems += _between_receipts(line["channel"], lines, paid_by_it, open_price)


def _purchases(lines: list[Line]) -> list[Purchase]:
    asked = {line["id"]: line for line in lines if line["what"] == "ask"}
    found: dict[tuple[str, str, int], Purchase] = {}
    for line in lines:
        if line["what"] not in ("try", "answer"):
            continue
        key = (line["id"], line["channel"], line["change"])
        if line["what"] == "try":
            ask = asked[line["id"]]
            made = Purchase(*key, ask["way"], ask["cost"], ask["target"].startswith("/metered"), line["at"])
            made = found.setdefault(key, made)
            made.tries += 1
        else:
            found[key].answers.append(line)
        found[key].ended = line["what"] == "answer"
    return list(found.values())


def _judge_goods(verdict: Verdict, purchase: Purchase, runs: Counter[tuple[str, str]]) -> None:
    for answer in purchase.answers:
        if not 200 <= answer["status"] < 300:
            continue
        if answer["good"] != json.dumps(f"the good of {purchase.ident}"):
            verdict.problems.append(f"WRONG GOOD: {purchase.ident} was answered {answer['good'][:100]}")
        if not runs[purchase.ident, purchase.channel]:
            verdict.problems.append(f"NEVER SERVED: {purchase.ident} was answered, and no handler has served it")
    verdict.retried += purchase.tries > 1


def _judge_channel(
    verdict: Verdict, purse: Line, book: Line | None, purchases: list[Purchase], open_price: int, killed: Kills
) -> None:
    name = purse["channel"]
    if book is None:
        verdict.problems.append(f"{name}: the server does not know the channel")
        return
    sums = {word: purse[word] for word in ("signed", "acknowledged", "entered")}
    if set(sums.values()) != {book["received"]} or purse["hold"]:
        verdict.problems.append(f"{name}: PAID IS NOT RECEIVED: {book['received']} received; {sums}, {purse['hold'] or 'no'} hold")
    charged = [p for p in purchases if p.is_answered or (p.was_served and not p.is_metered)]
    open_ones = [p for p in purchases if p not in charged and not p.is_free(killed)]
    spent, sure = book["spent"] - book["reserved"], open_price + sum(p.cost for p in charged)
    if spent < sure:
        verdict.problems.append(f"{name}: SERVED FREE: {spent} spent, though goods and the opening cost {sure}")
    elif spent - sure not in sums_of([p.costs for p in open_ones]):
        what = ", ".join(f"{p.ident} for {p.cost}" for p in open_ones) or "nothing else"
        verdict.problems.append(f"{name}: CHARGED TWICE: {spent} spent, {sure} explained; {spent - sure} more may be for {what}")
    verdict.charged += len(charged)
    verdict.answered += sum(p.is_delivered for p in purchases)
    verdict.unknown += len(open_ones)
    verdict.free += len(purchases) - len(charged) - len(open_ones)
    verdict.satoshi += sum(p.cost for p in charged)
    verdict.charged_unanswered += max(spent - sure, 0)


def sums_of(costs: Iterable[tuple[int, ...]]) -> set[int]:
    """Return all sums of some of these, each taken once or not, at one of its costs."""
    sums = {0}
    for choices in costs:
        sums |= {before + cost for before in sums for cost in choices}
    return sums


def _between_receipts(name: str, lines: list[Line], purchases: list[Purchase], open_price: int) -> list[str]:
    """Return where a channel's spending grew from one receipt to the next by what nothing explains."""
    of_line = {(p.ident, p.change): p for p in purchases}
    spent, receipts, problems = 0, set(), []
    gaps: list[list[Purchase]] = [[]]
    for line in lines:
        if line.get("channel") != name or line["what"] not in ("try", "answer"):
            continue
        purchase = of_line[line["id"], line["change"]]
        if line["what"] == "try":
            if purchase not in gaps[-1]:
                gaps[-1].append(purchase)
            continue
        if not 200 <= line["status"] < 300 or purchase.ident in receipts:
            continue
        receipts.add(purchase.ident)
        others = [p for p in gaps[-1] if p is not purchase]
        before = [p for gap in gaps[-LATE_GAPS - 1 : -1] for p in gap if p is not purchase]
        more = line["spent"] - spent - purchase.cost - (0 if spent else open_price)
        if not any(more + late in sums_of([p.costs for p in others]) for late in sums_of([p.late for p in before])):
            word = "CHARGED TWICE" if more > 0 else "SERVED FREE"
            problems.append(f"{name}: {word}: {purchase.ident} for {purchase.cost} came with {more} more, which nothing explains")
        spent = line["spent"]
        gaps.append([])
    return problems


def _ahead(name: str, lines: list[Line], books: dict[str, Line], open_price: int) -> list[str]:
    """Return where a buyer signed more than one purchase beyond what it knew the server to have."""
    if name not in books:
        return []
    accepted, problems = 0, []
    for line in lines:
        if line.get("channel") != name or line["what"] not in ("try", "answer"):
            continue
        if line["what"] == "answer":
            accepted = max(accepted, line["accepted"])
            continue
        ahead = books[name]["funding_value"] - line["change"] - accepted
        if ahead > max(PRICES) + (0 if accepted else open_price):
            problems.append(f"{name}: SIGNED AHEAD: {ahead} satoshi beyond {accepted}, for {line['id']}")
    return problems
