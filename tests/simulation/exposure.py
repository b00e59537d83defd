"""What is unsettled in a simulated world, by the states on disk, and whether channels are settled early for a reason.

A channel whose payer did not ask may be settled early only while more is open than may be, and only if no larger one stays open
instead. Money may be taken only while no more is unsettled than may be, as the last heartbeat knew it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from paychan.core.channel import Phase

DECIDED_SECONDS = 60.0
"""So long before a channel's closing is on disk it may have been decided upon. The settler sweeps every 15 s here."""

SWEEP_SECONDS = 10.0
"""Less than between two sweeps: what is settled early in so short a time was chosen together, the largest first."""

LARGER_SECONDS = 600.0
"""So long a larger channel, which is settled in the same sweep, may take to be closed: its worker may be another."""

HEARTBEAT_SECONDS = 10.0
"""So old a worker's knowledge may be when it answers: a heartbeat, the write, and the way back."""


@dataclass
class Exposure:
    """total_max, unsettled_max: satoshi, for the open channels and for all. `now()`: seconds."""

    total_max: int
    unsettled_max: int
    now: Callable[[], float]
    open: dict[bytes, int] = field(default_factory=dict)
    begun: dict[bytes, int] = field(default_factory=dict)
    most_open: int = 0
    most_unsettled: int = 0

    def __post_init__(self) -> None:
        self._sums: list[tuple[float, int]] = [(0.0, 0)]
        self._over_since: float | None = None
        self._histories: dict[bytes, list[tuple[float, int]]] = {}
        self._closed_at: dict[bytes, float] = {}
        self.early: list[tuple[float, bytes, int]] = []

    def see(self, outpoint: bytes, phase: Phase, received: int) -> None:
        """A channel's state is on disk."""
        self.open.pop(outpoint, None)
        self.begun.pop(outpoint, None)
        if phase == Phase.OPEN:
            self.open[outpoint] = received
            self._histories.setdefault(outpoint, []).append((self.now(), received))
        else:
            self._closed_at.setdefault(outpoint, self.now())
            if phase != Phase.SETTLED:
                self.begun[outpoint] = received
        opened = sum(self.open.values())
        unsettled = opened + sum(self.begun.values())
        self._sums.append((self.now(), opened))
        self.most_open, self.most_unsettled = max(self.most_open, opened), max(self.most_unsettled, unsettled)
        if unsettled <= self.unsettled_max:
            self._over_since = None
        elif self._over_since is None:
            self._over_since = self.now()

    def settled_early(self, outpoint: bytes, received: int) -> None:
        """Nobody has asked for this channel's closing, which is on disk now. Call it before `see`."""
        self.early.append((self.now(), outpoint, received))

    @property
    def may_take(self) -> bool:
        """Whether a worker may not know yet that too much is unsettled."""
        return self._over_since is None or self.now() < self._over_since + HEARTBEAT_SECONDS

    def breaches(self) -> Iterator[tuple[bytes, str]]:
        """Yield what was settled early without a reason."""
        for at, outpoint, received in self.early:
            most = self._most_open(at - DECIDED_SECONDS, at)
            beside = sum(value for when, _, value in self.early if value > received and abs(when - at) < SWEEP_SECONDS / 2)
            if most - beside <= self.total_max:
                yield outpoint, f"was settled early with {received} satoshi: {most} were open, and {beside} were settled beside it"
            larger = [other for other in self._histories if other != outpoint and self._stays_larger(other, at, received)]
            if larger:
                yield outpoint, f"was settled early with {received} satoshi, and {len(larger)} that held more were not"

    def _most_open(self, start: float, end: float) -> int:
        """Return the most that was open at any time between: also what was so when it began."""
        before = [value for at, value in self._sums if at < start][-1:]
        return max(before + [value for at, value in self._sums if start <= at <= end])

    def _stays_larger(self, outpoint: bytes, at: float, received: int) -> bool:
        """Whether a channel held more when another was chosen, and was not chosen itself."""
        held = [value for changed_at, value in self._histories[outpoint] if changed_at < at - DECIDED_SECONDS][-1:]
        closed_at = self._closed_at.get(outpoint, float("inf"))
        return bool(held) and held[0] > received and closed_at > at + LARGER_SECONDS
