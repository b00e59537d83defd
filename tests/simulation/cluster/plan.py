"""What a seed means in a world of several machines: payers and the chain as in `../plan.py`, and troubles of its own.

A seed is written `postgresN/NUMBER`: N stores.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..disk import STEPS
from ..plan import ARMED_SECONDS, Event, Plan, draw_plan, end_of
from .database import NODES

KIND = "postgres"

ELSEWHERE_KINDS = (
    "node", "reorg", "fees", "evict", "wall", "hostile", "double spend", "copies", "pin", "estimates", "forget own", "leap",
    "minimum", "disk stall",
)  # fmt: skip
"""Troubles of one machine's world that mean the same here."""

CLUSTER_KINDS = (
    "kill", "kill", "kill", "kill at write", "kill at write", "disk", "stop", "stop", "slow", "hold", "hold", "cut", "lag",
    "isolate", "isolate", "machine", "primary", "primary", "switchover", "standbys", "cancel", "cancel", "names", "leave", "leave",
    "wrong", "wrong", "handover", "silence", "silence",
)  # fmt: skip


@dataclass
class ClusterPlan(Plan):
    """stores: how many machines. lease_of_stores: `postgres.lease_ms`. patience: seconds that a primary may be away. has_twin:
    whether the last machine's store has the name of the first."""

    stores: int = 2
    lease_of_stores: int = 6000
    patience: float = 1.0
    has_twin: bool = False

    @property
    def machines(self) -> list[str]:
        return [f"machine{number}" for number in range(self.stores)]

    def machine_of(self, name: str) -> str:
        """Return where a process runs; empty: on a machine of its own."""
        kind = name.rstrip("0123456789")
        return f"machine{int(name[len(kind) :]) % self.stores}" if kind in ("store", "worker") else ""


def draw(seed: str) -> ClusterPlan:
    """Return the plan of a seed."""
    kind, _, _ = seed.partition("/")
    base, chance = draw_plan(seed), random.Random(f"{seed}/cluster")
    stores = int(kind.removeprefix(KIND))
    plan = ClusterPlan(**base.__dict__)
    plan.stores, plan.workers = stores, stores + chance.choice((0, 0, 1, 2))
    plan.lease_of_stores = round(plan.lease_ms * chance.choice((2.2, 2.5, 3.0)))
    plan.patience = chance.choice((0.3, 1.0, 2.0))
    plan.has_twin = chance.random() < 0.08
    events: list[tuple[float, str, int, tuple[Any, ...]]] = [
        (event.at, event.kind, event.channel, event.details)
        for event in base.events
        if event.channel >= 0 or event.kind in ELSEWHERE_KINDS
    ]
    busy = [at for at, _, channel, _ in events if channel >= 0]
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8))):
        events.append(_draw_fault(chance, plan, chance.choice(busy), max(busy)))
    events.sort(key=lambda event: event[0])
    plan.events = [Event(number, *event) for number, event in enumerate(events)]
    plan.calm_at = max([max(busy), *(_end(event) for event in plan.events if event.channel < 0)]) + 0.5
    return plan


def _draw_fault(chance: random.Random, plan: ClusterPlan, near: float, last: float) -> tuple[float, str, int, tuple[Any, ...]]:
    kind = chance.choice(CLUSTER_KINDS)
    at = near + chance.expovariate(1 / 0.003) if chance.random() < 0.6 else chance.uniform(0.05, last + 2)
    return max(0.05, at), kind, -1, _draw_details(chance, plan, kind)


def _draw_link(chance: random.Random, plan: ClusterPlan) -> tuple[str, str]:
    """Return any two parts that speak to each other."""
    store = f"store{chance.randrange(plan.stores)}"
    workers = chance.sample(range(plan.workers), 2) if plan.workers > 1 else (0, 0)
    worker, other = (f"worker{number}" for number in workers)
    own = f"store{int(worker[6:]) % plan.stores}"
    nodes = chance.sample(NODES, 2)
    pairs = ((store, nodes[0]), (store, nodes[0]), (worker, own), (worker, other), (worker, other), (nodes[0], nodes[1]))
    return chance.choice((*pairs, (worker, "signer"), ("payers", worker)))


def _draw_details(chance: random.Random, plan: ClusterPlan, kind: str) -> tuple[Any, ...]:
    stores = [f"store{number}" for number in range(plan.stores)]
    workers = [f"worker{number}" for number in range(plan.workers)]
    victim = chance.choice([*stores, *stores, *workers, *NODES, *NODES, "signer"])
    soon = int(math.exp(chance.uniform(0, math.log(60))))
    few = int(math.exp(chance.uniform(0, math.log(8))))
    rest = round(chance.choice((0.05, 0.3, 1.0, 4.0)), 2)
    lasts = round(math.exp(chance.uniform(math.log(0.05), math.log(8))), 3)
    lease = plan.lease_of_stores / 1000
    beyond = round(lease * math.exp(chance.uniform(math.log(0.05), math.log(3))), 3)
    draws: dict[str, Callable[[], tuple[Any, ...]]] = {
        "kill": lambda: (victim, soon, rest),
        "kill at write": lambda: (victim, few, chance.choice(("before", "torn", "after")), rest),
        "disk": lambda: (chance.choice((*stores, "signer")), (few + 2) // 3, chance.choice(STEPS), rest),
        "stop": lambda: (victim, beyond, chance.random() < 0.5),
        "silence": lambda: (chance.choice(stores), round(lease * chance.uniform(0.9, 2.0), 3)),
        "slow": lambda: (victim, lasts, round(math.exp(chance.uniform(math.log(0.0005), math.log(0.05))), 5)),
        "hold": lambda: (*_draw_link(chance, plan), beyond),
        "cut": lambda: (*_draw_link(chance, plan), lasts),
        "lag": lambda: (*_draw_link(chance, plan), lasts, chance.choice((20, 200))),
        "isolate": lambda: (chance.choice([*plan.machines, *plan.machines, *NODES]), beyond),
        "machine": lambda: (chance.choice(plan.machines), rest),
        "primary": lambda: (soon, rest),
        "switchover": lambda: (),
        "standbys": lambda: (lasts,),
        "cancel": lambda: (round(chance.uniform(0.002, 0.4), 3), chance.random() < 0.5),
        "names": lambda: (lasts,),
        "leave": lambda: (chance.choice(stores),),
        "wrong": lambda: (round(chance.uniform(0.01, 1.0), 3), round(chance.uniform(1, 2 * lease + 2), 2)),
        "handover": lambda: (chance.choice(workers), chance.choice(workers), round(chance.uniform(0.02, 1), 3), rest),
    }
    return draws[kind]()


def _end(event: Event) -> float:
    """Return when a trouble is over for certain, with what follows from it at once."""
    if event.kind in ("machine", "primary"):
        return event.at + float(event.details[-1]) + ARMED_SECONDS
    if event.kind in ("isolate", "silence"):
        return event.at + float(event.details[1])
    if event.kind in ("standbys", "names"):
        return event.at + float(event.details[0]) + 1
    if event.kind in ("cancel", "wrong"):
        return event.at + sum(float(value) for value in event.details) + 2
    return end_of(event)
