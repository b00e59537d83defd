"""What one seed means: the size of the world, what its payers do, and what goes wrong, as a numbered list of events.

The list is drawn before anything runs, so that an event can be left out and the rest stays as it is: that is how a failing
seed is made smaller. Each world draws which kinds of trouble it has at all: a few kinds, often, find more than all kinds, seldom.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paychan.core.units import MAX_MONEY

from .disk import STEPS
from .node import ESTIMATES

SCALE = 120
"""Seconds of the chain's and the clocks' time in each simulated second: a settlement period of an hour is half a minute."""

PERIOD_SECONDS = 3600 / SCALE
BLOCK_SECONDS = 600 / SCALE

YEAR = 365 * 24 * 3600

FUNDING_SIZE_MAX = 1_000_000
"""Bytes without witness: a block's weight of 4 000 000, of which each of these bytes takes four."""

START = 0.0
"""When a clock that is wrong is so from the start."""

ARMED_SECONDS = 2.0
"""Simulated; so long a fault waits for the step, or the write, in which it is to happen."""

SIDE_KINDS = ("replay", "junk", "twin", "fork", "reopen", "close old", "batch", "hang up", "half", "flood")
"""What a payer does beside its honest payments, without waiting for them."""

FAULT_KINDS = (
    "kill", "kill", "kill at write", "kill at write", "disk", "disk", "power", "power at disk", "stop", "stop", "slow", "hold",
    "hold", "cut", "cut", "lag", "disk stall", "node", "reorg", "reorg", "fees", "evict", "wall", "hostile", "hostile",
    "double spend", "handover", "handover", "handover", "copies", "copies", "pin", "pin", "estimates", "forget own",
    "leap", "minimum",
)  # fmt: skip
ATTACKS = ("copies", "pin", "pin", "estimates", "minimum")
"""Of them one is often drawn where channels are settled: nothing else comes of them."""

POLICIES = (("28", "28"), ("31", "31"), ("28", "31"), ("31", "28"))
"""Whose rules our node's and the miners' mempools have."""

LINKS = (("worker", "store"), ("worker", "store"), ("worker", "worker"), ("worker", "signer"), ("payers", "worker"))


@dataclass(frozen=True)
class Event:
    """Something that happens at a time (simulated seconds). channel: whose payer does it; -1: a fault."""

    number: int
    at: float
    kind: str
    channel: int
    details: tuple[Any, ...] = ()

    def __str__(self) -> str:
        whose = f"payer {self.channel} " if self.channel >= 0 else ""
        return f"{self.number:3d} {self.at:9.4f} s  {whose}{self.kind} {' '.join(map(str, self.details))}".rstrip()


@dataclass(frozen=True)
class ChannelPlan:
    """value: satoshi; funding_size: bytes of the transaction that pays it, 0: as few as can be. In simulated seconds: when its
    funding is mined, when its settlement period begins."""

    value: int
    funding_size: int
    mined_at: float
    period_at: float


@dataclass
class Plan:
    seed: str
    workers: int
    lease_ms: int
    network_delay: float
    tear: float
    disk_stall: float
    wall_error: float
    fee_base: float
    channel_exposure_max: int
    total_exposure_max: int
    settles: bool
    is_late: bool
    """Whether trouble may go on until a settlement can come too late."""
    policies: tuple[str, str]
    fullness: float
    node_kind: int
    channels: list[ChannelPlan] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    calm_at: float = 0.0
    """From here on nothing goes wrong any more."""

    def without(self, numbers: set[int]) -> "Plan":
        """Return the same plan with some events left out."""
        plan = type(self)(**self.__dict__)
        plan.events = [event for event in self.events if event.number not in numbers]
        return plan


def draw_plan(seed: str) -> Plan:
    chance = random.Random(f"{seed}/plan")
    settles = chance.random() < 0.25
    has_limits = chance.random() < 0.1
    plan = Plan(
        seed=seed,
        workers=chance.choice((1, 2, 2, 2, 3)),
        lease_ms=chance.choice((1500, 3000, 5000)),
        network_delay=chance.choice((0.00005, 0.0003, 0.002)),
        tear=chance.choice((0.0, 0.02, 0.2)),
        disk_stall=chance.choice((0.0001, 0.001, 0.01)),
        wall_error=chance.choice((0.0, 0.0, 0.0, -7200.0, -600.0, 600.0, -chance.uniform(1, 53) * YEAR)),
        fee_base=chance.choice((1.5, 4.0, 10.0)),
        channel_exposure_max=chance.choice((20_000, 200_000)) if has_limits else MAX_MONEY,
        total_exposure_max=chance.choice((50_000, 500_000)) if has_limits else MAX_MONEY,
        settles=settles,
        is_late=settles and chance.random() < 0.15,
        policies=chance.choice(POLICIES),
        fullness=chance.choice((1.0, 1.0, 0.5, 0.0)),
        node_kind=chance.choice((0, 0, 1, 2)),
    )
    count = chance.choice((1, 1, 1, 2, 2, 2, 3, 4))
    is_long = chance.random() < 0.03
    events: list[tuple[float, str, int, tuple[Any, ...]]] = []
    for number in range(count):
        ends = _draw_channel(chance, plan, number, events, is_long)
        period_at = ends + chance.uniform(0, 8) if settles else 100_000 / SCALE
        mined_at = chance.uniform(0.5, 2) if chance.random() < 0.1 else 0.0
        value = round(math.exp(chance.uniform(math.log(8_000), math.log(20_000_000))))
        plan.channels.append(ChannelPlan(value, draw_funding_size(chance), mined_at, period_at))
    busy = [at for at, *_ in events]
    for _ in range(_draw_count(chance) * (4 if is_long else 1)):
        events.append(_draw_fault(chance, plan, chance.choice(busy), max(busy)))
    if settles and chance.random() < 0.6:
        kind = chance.choice(ATTACKS)
        events.append((chance.uniform(0.05, max(busy)), kind, -1, _draw_details(chance, plan, kind)))
    events.sort(key=lambda event: event[0])
    plan.events = [Event(number, *event) for number, event in enumerate(events)]
    plan.calm_at = max([max(busy), *(end_of(event) for event in plan.events if event.channel < 0)]) + 0.5
    return plan


def _draw_count(chance: random.Random) -> int:
    return chance.choice((0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10))


# --- payers ---


def _draw_channel(chance: random.Random, plan: Plan, number: int, events: list[Any], is_long: bool) -> float:
    """Draw what one payer does; return when it is done."""
    at = chance.uniform(0.1, 1.0)
    events.append((at, "open", number, (chance.random() ** 3, chance.random() < 0.1, chance.random() < 0.15)))
    side = chance.sample(SIDE_KINDS, chance.choice((0, 1, 1, 2, 3)))
    is_quick = chance.random() < 0.3
    for _ in range(chance.randint(20, 60) if is_long else chance.randint(2, 10)):
        at += chance.expovariate(1 / 0.004) if is_quick and chance.random() < 0.7 else chance.expovariate(1 / 0.7)
        if side and chance.random() < 0.4:
            events.append((at, chance.choice(side), number, (chance.random(), chance.random())))
        else:
            events.append((at, "pay", number, (chance.random() ** 4, chance.random() < 0.8)))
    if chance.random() < (0.5 if plan.settles else 0.25):
        at += chance.expovariate(1 / 0.5)
        events.append((at, chance.choice(("close", "close", "exhaust")), number, ()))
        if chance.random() < 0.4:
            events.append((at + chance.expovariate(1 / 0.3), "pay", number, (chance.random() ** 4, False)))
    return at


# --- faults ---


def _draw_fault(chance: random.Random, plan: Plan, near: float, last: float) -> tuple[float, str, int, tuple[Any, ...]]:
    kind = chance.choice(FAULT_KINDS)
    at = near + chance.expovariate(1 / 0.003) if chance.random() < 0.6 else chance.uniform(0.05, last + 2)
    if kind == "leap" and chance.random() < 0.5:
        return START, kind, -1, _draw_details(chance, plan, kind)
    if plan.settles and chance.random() < 0.4:
        at = chance.uniform(last, last + (PERIOD_SECONDS if plan.is_late else 9))
    return max(0.05, at), kind, -1, _draw_details(chance, plan, kind)


def _draw_details(chance: random.Random, plan: Plan, kind: str) -> tuple[Any, ...]:
    victim = chance.choice(["store", "store", "signer", *(f"worker{number}" for number in range(plan.workers))])
    soon = int(math.exp(chance.uniform(0, math.log(60))))
    few = int(math.exp(chance.uniform(0, math.log(8))))
    rest = round(chance.choice((0.05, 0.3, 1.0, 4.0)), 2)
    lasts = round(math.exp(chance.uniform(math.log(0.05), math.log(8))), 3)
    lease = plan.lease_ms / 1000
    links = chance.choice(LINKS)
    link = tuple(name if name in ("store", "signer", "payers") else f"worker{chance.randrange(plan.workers)}" for name in links)
    draws: dict[str, Callable[[], tuple[Any, ...]]] = {
        "kill": lambda: (victim, soon, rest),
        "kill at write": lambda: (victim, few, chance.choice(("before", "torn", "after")), rest),
        "disk": lambda: (chance.choice(("store", "store", "store", "signer")), (few + 2) // 3, chance.choice(STEPS), rest),
        "power": lambda: (rest,),
        "stop": lambda: (victim, round(lease * math.exp(chance.uniform(math.log(0.05), math.log(6))), 3), chance.random() < 0.5),
        "slow": lambda: (victim, lasts, round(math.exp(chance.uniform(math.log(0.0005), math.log(0.1))), 5)),
        "hold": lambda: (*link, lasts),
        "cut": lambda: (*link, lasts),
        "lag": lambda: (*link, lasts, chance.choice((20, 200))),
        "disk stall": lambda: (lasts, round(chance.choice((0.05, 0.4, 2.5)) / plan.disk_stall)),
        "node": lambda: (lasts, chance.random() < 0.5),
        "reorg": lambda: (chance.choice((1, 1, 2)),),
        "fees": lambda: (round(math.exp(chance.uniform(math.log(3), math.log(40))), 1), round(chance.uniform(2, 25), 1)),
        "wall": lambda: (round(chance.uniform(-9000, 900)),),
        "handover": lambda: _draw_handover(chance, plan, rest),
        "double spend": lambda: (chance.randrange(1 << 16),),
        "hostile": lambda: (chance.randrange(1 << 16), round(chance.random(), 4), round(chance.random(), 4)),
        "evict": lambda: (),
        "forget own": lambda: (),
        "estimates": lambda: (chance.choice(ESTIMATES), round(chance.uniform(5, 60), 1)),
        "minimum": lambda: (round(chance.uniform(0.3, 1.2), 2), round(chance.uniform(2, 25), 1)),
        "leap": lambda: (_draw_leap(chance), lasts),
        "copies": lambda: (chance.choice(("inflated", "inflated", "renamed")), round(chance.choice((0.5, 1.0, 1.0)), 1)),
        "pin": lambda: (
            chance.randrange(1 << 16),
            round(math.exp(chance.uniform(math.log(0.1), math.log(10))), 2),
            chance.choice((1, 2, 24, 63)),
            chance.choice((100_000, 100_000, chance.randint(1_000, 100_000))),
        ),
    }
    return draws["disk" if kind == "power at disk" else kind]()


def _draw_leap(chance: random.Random) -> int:
    """Return a wall clock's error (seconds) that nobody could miss: decades, or some hours more than is believed."""
    if chance.random() < 0.5:
        return round(chance.choice((-1, 1, 1)) * chance.uniform(1, 53) * YEAR)
    return round(chance.uniform(4, 200) * 3600)


def draw_funding_size(chance: random.Random) -> int:
    """Mostly as small as can be; else anything up to what consensus allows in a block, where many outputs share one."""
    if chance.random() < 0.96:
        return 0
    return chance.choice((FUNDING_SIZE_MAX, round(math.exp(chance.uniform(math.log(1000), math.log(FUNDING_SIZE_MAX))))))


def _draw_handover(chance: random.Random, plan: Plan, rest: float) -> tuple[Any, ...]:
    number = chance.randrange(plan.workers)
    held = round(math.exp(chance.uniform(math.log(0.02), 0)), 3)
    return f"worker{number}", f"worker{(number + 1) % plan.workers}", held, rest


def end_of(event: Event) -> float:
    """Return when a fault is over for certain, with what follows from it at once."""
    if event.kind in ("kill", "kill at write", "disk", "power at disk", "power", "handover"):
        return event.at + float(event.details[-1]) + ARMED_SECONDS
    if event.kind in ("stop", "slow"):
        return event.at + float(event.details[1])
    if event.kind in ("hold", "cut", "lag"):
        return event.at + float(event.details[2])
    if event.kind in ("disk stall", "node"):
        return event.at + float(event.details[0])
    if event.kind == "leap":
        return event.at + float(event.details[1])
    return event.at
