"""What a purse may spend: limits, and whether a payment fits below them. Pure; the sums come from the ledger."""

from dataclasses import dataclass, fields

from ..core.units import check_satoshi

HOUR, DAY = 3600, 86_400


@dataclass(frozen=True)
class Budget:
    """Satoshi; None: no limit. The windows end now, they do not begin at midnight.

    request: for one request. host: for one host in a day. hour, day: for all hosts. opening: what servers keep for opening channels
    (their open prices), in a day, and not counted above. deposit: what is locked up in one channel; it is not spent.
    """

    request: int | None = 1_000
    host: int | None = 20_000
    hour: int | None = 10_000
    day: int | None = 50_000
    opening: int | None = 100_000
    deposit: int | None = 1_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                check_satoshi(value, field.name)


NO_LIMITS = Budget(None, None, None, None, None, None)


@dataclass(frozen=True)
class Spent:
    """Satoshi that were signed away in the windows before now."""

    host: int = 0
    hour: int = 0
    day: int = 0
    opening: int = 0


@dataclass(frozen=True)
class Question:
    """A payment above a limit. amount: satoshi that it would add; limit: the name of the limit; most, spent: satoshi of it."""

    origin: str
    what: str
    amount: int
    limit: str
    most: int
    spent: int

    def __str__(self) -> str:
        names = {"request": "for one request", "host": "for this host in a day", "hour": "in an hour", "day": "in a day"}
        names |= {"opening": "for opening channels in a day", "deposit": "locked up in one channel"}
        before = f", spent are {self.spent}" if self.spent else ""
        return f"{self.origin} asks for {self.amount} satoshi; the budget is {self.most} {names[self.limit]}{before}"


@dataclass(frozen=True)
class Entry:
    """A payment that is about to be signed. amount, opening: satoshi that it adds; cumulative: what it signs away in all."""

    origin: str
    channel: str
    what: str
    amount: int
    opening: int
    cumulative: int


def exceeded(budget: Budget, spent: Spent, entry: Entry, already: int = 0) -> list[Question]:
    """Return a question for each limit that a payment would break. already: satoshi of the same request before."""
    sums = (
        ("request", budget.request, already, entry.amount),
        ("host", budget.host, spent.host, entry.amount),
        ("hour", budget.hour, spent.hour, entry.amount),
        ("day", budget.day, spent.day, entry.amount),
        ("opening", budget.opening, spent.opening, entry.opening),
    )
    return [
        Question(entry.origin, entry.what, added, name, most, before)
        for name, most, before, added in sums
        if most is not None and added > 0 and before + added > most
    ]
