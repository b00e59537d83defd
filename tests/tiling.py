"""The tiling check: judges from what payers saw alone whether money was lost or counted twice. Pure; no sockets, no clock.

A payment is cumulative: it says what the payer keeps (`left`). An acknowledgement of it with `received` > 0 claims the interval
(left, left + received] of the channel's money. Rules for one channel, each of them a line in `check`:

1. An acknowledgement names the change value of the payment that it answers, and never a negative value.
2. Claimed intervals are disjoint (nothing is counted twice) and lie within (final left, funding value].
3. Nothing acknowledged is missing in the end: the final left is at most every acknowledged one; the settlement gives back that.
4. Together the intervals tile (final left, funding value]. A gap (a, b] is allowed in one case only: the answer that claimed it
   was *really lost*. That is, some operation on a payment with left == a had an attempt without a conclusive answer (connection
   broken, or 503), and no operation on that payment was answered with received > 0. A gap whose lower end has no such operation
   is a credit that the server made disappear. (Lost answers one above the other make one gap: its lower end is explained.)
5. A retry after a lost answer is answered 200 with received == 0 and the payment's own change value. received == 0 is allowed
   only there, or where another operation on the same payment claimed the interval.
6. `out_of_order` is the truth: a payment that leaves less was acknowledged, or may have been.
7. The final left is the change value of a payment that was acknowledged or may have been; else the funding value.
"""

from dataclasses import dataclass, field
from enum import Enum


class Outcome(Enum):
    """What the payer knows about a payment after its last attempt."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Operation:
    """One payer's dealing with one payment, all its attempts together. Values in satoshi.

    left: what the payment leaves the payer. received, answered_left: as the acknowledgement said. lost: attempts without a
    conclusive answer (no answer, or 503), after each of which the payment may have taken effect. code: of a refusal.
    """

    left: int
    outcome: Outcome
    received: int = 0
    answered_left: int = -1
    lost: int = 0
    code: str = ""

    @property
    def may_have_taken_effect_unseen(self) -> bool:
        """Whether an answer to this payment was lost, and none that came claimed the value."""
        return self.received <= 0 and (self.lost > 0 or self.outcome is Outcome.UNKNOWN)


@dataclass
class History:
    """What happened to one channel. final_left: in the server's last word (its answer to the close)."""

    name: str
    funding_value: int
    operations: list[Operation] = field(default_factory=list)
    final_left: int = -1
    settlement_change: int | None = None


@dataclass(frozen=True)
class Verdict:
    """`problems`: one line each, empty if all is well. Counts: claimed intervals, gaps that a lost answer explains."""

    problems: list[str]
    claimed: int
    gaps: int


def check(history: History) -> Verdict:
    """Judge one channel's history."""
    problems: list[str] = []
    operations, final, funding = history.operations, history.final_left, history.funding_value

    def complain(text: str) -> None:
        problems.append(f"{history.name}: {text}")

    acknowledged = [operation for operation in operations if operation.outcome is Outcome.ACKNOWLEDGED]
    claims: dict[int, int] = {}
    intervals = sorted((o.left, o.left + o.received) for o in acknowledged if o.received > 0)
    unseen = {o.left for o in operations if o.may_have_taken_effect_unseen}

    for operation in acknowledged:  # rules 1, 3
        if operation.answered_left != operation.left or operation.received < 0:
            complain(f"payment of left {operation.left} was answered {operation.received}, {operation.answered_left}")
        if final > operation.left:
            complain(f"LOST: acknowledged down to {operation.left}, but in the end {final} are left")
    if history.settlement_change is not None and history.settlement_change != final:
        complain(f"the settlement gives {history.settlement_change}, the final left is {final}")

    place = final  # rules 2, 4
    for low, high in intervals:
        claims[low] = claims.get(low, 0) + 1
        if low < place:
            complain(f"COUNTED TWICE: ({low}, {min(high, place)}] is claimed again, or lies below the final left")
        if high > funding:
            complain(f"({low}, {high}] exceeds the funding value {funding}")
    edges = [(final, final), *intervals, (funding, funding)]
    gaps, covered = 0, final
    for low, high in edges:
        if low < covered:
            if high > low and low >= final:
                complain(f"COUNTED TWICE: ({low}, {min(high, covered)}]")
        elif low > covered:
            gaps += 1
            if covered not in unseen or claims.get(covered):
                complain(f"MISSING: nobody was given ({covered}, {low}], and no answer to it was lost")
        covered = max(covered, high)

    for operation in acknowledged:  # rule 5
        if operation.received == 0 and not claims.get(operation.left) and operation.left not in unseen:
            complain(f"payment of left {operation.left} was answered with value 0, but nobody was given its value")
    for operation in operations:  # rule 6
        if operation.outcome is Outcome.REFUSED and operation.code == "out_of_order":
            lower = (o for o in operations if o.left < operation.left)
            if not any(o.outcome is Outcome.ACKNOWLEDGED or o.may_have_taken_effect_unseen for o in lower):
                complain(f"payment of left {operation.left} was called out of order, but none below was accepted")
    reached = {o.left for o in acknowledged} | unseen | {funding}
    if final not in reached:  # rule 7
        complain(f"the final left {final} belongs to no payment that can have been accepted")
    return Verdict(list(dict.fromkeys(problems)), len(intervals), gaps)


def check_all(histories: list[History]) -> Verdict:
    """Judge many channels together."""
    verdicts = [check(history) for history in histories]
    return Verdict(
        [problem for verdict in verdicts for problem in verdict.problems],
        sum(verdict.claimed for verdict in verdicts),
        sum(verdict.gaps for verdict in verdicts),
    )
