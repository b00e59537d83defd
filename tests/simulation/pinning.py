"""What attacks on settlements cost: `python -m tests.simulation.pinning --seeds N --first K`.

One seed is one channel with the live configuration's bounds, from its close on, often with an attacker at work: the payer pins each
version of the settlement with children that are too cheap to be mined, somebody overtakes each with an inflated copy, blocks become
dearer, mempools ask more, the node does not know what others have. After the expiry the payer takes its refund, and pays for it.

Demanded: a channel whose bid could win, by the table in docs/SETTLING.md, is mined before its expiry. Told: how many were, what the
fees took of what was received, and what was lost, and why.
"""

import argparse
import logging
import math
import random
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from bitcoin.core import CTransaction

from paychan.core.fees import LADDER
from paychan.core.refund import sign_refund
from paychan.core.units import DUST_LIMIT

from .attacks import Meddler, Pinner
from .auditor import INFLATED_SIZE, SETTLEMENT_SIZE
from .blockchain import BLOCK_SECONDS, Refused, payment_in
from .mempool import CORE_28, CORE_31
from .node import ESTIMATES, KINDS
from .payer import REFUND_SIZE
from .rig import EXPIRY, PERIOD, Rig

STEP_SECONDS = 60
POLICIES = {"28": CORE_28, "31": CORE_31}
REFUSALS_MAX = 7
"""Looks in a row that may end in a refusal: where nobody tells what is asked, each doubles the fee."""

BLOCKS_MIN = 3
"""So many blocks a fee must have had to be mined in, for a channel to count as one that could win."""


@dataclass(frozen=True)
class Scenario:
    """received: satoshi; early: seconds between the close and the settlement period; rate, rise, rises_at: the price of blocks,
    what it is multiplied by, and when (seconds after the close). pin: satoshi a byte, 0: none; luck: of the maker of copies.
    estimates: what the node says of fees; until `sensible_at` (seconds into the settlement period), but for "none" and "sparse"."""

    received: int
    early: int
    rate: float
    rise: float
    rises_at: int
    pin: float
    children: int
    pinner_waits: int
    luck: float
    own: str
    miners: str
    fullness: float
    kind: str
    minimum: float
    estimates: str
    sensible_at: int

    @property
    def is_seen(self) -> bool:
        """Whether our node's mempool takes the pin's children, too."""
        return self.own == self.miners or self.pin >= 1 or self.own == "31"


def draw(seed: str) -> Scenario:
    chance = random.Random(f"{seed}/scenario")
    rate = chance.choice((1.0, 2.0, 5.0, 10.0, 20.0, 40.0))
    own, miners = chance.choice((("28", "28"), ("31", "31"), ("31", "31"), ("28", "31")))
    return Scenario(
        received=round(math.exp(chance.uniform(math.log(83_240), math.log(2_000_000)))),
        early=chance.choice((0, 0, 0, chance.randint(0, 48 * 3600))),
        rate=rate,
        rise=chance.choice((1.0, 1.0, 1.5, 2.0, 4.0, 8.0)),
        rises_at=chance.randint(0, PERIOD // 2),
        pin=round(math.exp(chance.uniform(math.log(0.1), math.log(10))), 2) if chance.random() < 0.8 else 0.0,
        children=chance.choice((1, 2, 24, 63)),
        pinner_waits=chance.choice((0, 0, 60, 600)),
        luck=chance.choice((0.0, 1.0, 1.0)),
        own=own,
        miners=miners,
        fullness=chance.choice((1.0, 1.0, 0.5, 0.0)),
        kind=chance.choice(KINDS),
        minimum=chance.choice((0.0, 0.3, 0.3, 0.8, 1.3)),
        estimates=chance.choice(("", "", "", *ESTIMATES)),
        sensible_at=chance.randint(0, PERIOD // 2),
    )


@dataclass
class Outcome:
    """in_time: whether a settlement was mined before the refund could be; could: whether it should have been. In satoshi: fee, of
    what was mined; pinned, the most that hung on a version; needed, the least that would have done."""

    scenario: Scenario
    is_settled: bool = False
    in_time: bool = False
    could: bool = False
    fee: int = 0
    pinned: int = 0
    needed: int = 0
    refusals: int = 0
    """Looks in a row that ended in a refusal by a mempool in which nothing was in the way, and which asked for little."""
    codes: Counter[str] = field(default_factory=Counter)

    @property
    def lost_share(self) -> float:
        """Of what was received: what the miners or the payer have."""
        return self.fee / self.scenario.received if self.is_settled else 1.0

    def violation(self) -> str:
        """Return what was wrong, empty if nothing was."""
        if self.could and not self.in_time:
            return f"it could win and was not mined in time: {self}"
        if self.refusals > REFUSALS_MAX:
            return f"what full mempools ask could be paid, and was not in {self.refusals} looks: {self}"
        return ""

    def why(self) -> str:
        """Return why a channel that was not mined in time was not."""
        if self.needed > self.scenario.received * LADDER[-1].share_percent // 100:
            return "it would have cost more than 95 %"
        if not self.scenario.is_seen and self.pinned:
            return "a pin that our node does not see"
        return "it would have cost more than the share until it was too late"


class Fight:
    """One seed."""

    def __init__(self, seed: str) -> None:
        self.scenario = scenario = draw(seed)
        self.chance = random.Random(f"{seed}/fight")
        self.outcome, self._idle = Outcome(scenario), 0
        own, miners = POLICIES[scenario.own], POLICIES[scenario.miners]
        self.rig = Rig(
            scenario.received, scenario.rate, 95, own=own, miners=miners, fullness=scenario.fullness, kind=scenario.kind,
            bounds=(2, 500), fee_sum=5_000_000, chance=random.Random(f"{seed}/chain"),
        )  # fmt: skip
        self.rig.node.estimates = scenario.estimates
        self.rig.now = EXPIRY - PERIOD - scenario.early
        self.chain = self.rig.chain
        self.chain.meddle = Meddler(self.chain, random.Random(f"{seed}/meddler"), scenario.luck, ("inflated",))
        told = self._note_pin
        self.pinner = Pinner(self.chain, self.rig.terms.outpoint, scenario.pin, scenario.children, 100_000, told)

    def _note_pin(self, satoshi: int) -> None:
        self.outcome.pinned = max(self.outcome.pinned, satoshi)

    def _warm_up(self) -> None:
        """Let there have been blocks at the price of before, from which estimates come."""
        for _ in range(12):
            self.chain.find(self.rig.now)

    @property
    def _misled_until(self) -> int:
        """Unix seconds: from when on no estimate is absurd."""
        scenario = self.scenario
        return EXPIRY - PERIOD + scenario.sensible_at if scenario.estimates in ("tiny", "huge") else 0

    def _move_market(self, since: int) -> None:
        scenario, market = self.scenario, self.chain.market
        goal = scenario.rate * (scenario.rise if since >= scenario.rises_at else 1.0)
        market.rate = max(1.0, goal * math.exp(self.chance.gauss(0, 0.05)))
        self.chain.ask(scenario.minimum * market.rate)

    def run(self) -> Outcome:
        rig, chain, outpoint = self.rig, self.chain, self.rig.terms.outpoint
        self._warm_up()
        start, seen_at, blocks = rig.now, -1, list[tuple[int, float]]()
        while not self._is_over() and rig.now < EXPIRY + 12 * 3600:
            self._move_market(rig.now - start)
            if rig.now > self._misled_until > 0:
                rig.node.estimates = ""
            has_block = self.chance.random() < STEP_SECONDS / BLOCK_SECONDS
            if has_block:
                chain.find(rig.now)
                blocks.append((rig.now, chain.blocks[-1].threshold))
            if has_block or self.chance.random() < 0.2:
                self._settle()
            is_there = chain.miners.spender(outpoint) is not None
            seen_at = (rig.now if seen_at < 0 else seen_at) if is_there else -1
            if self.scenario.pin and is_there and rig.now - seen_at >= self.scenario.pinner_waits:
                self.pinner.rate = min(self.scenario.pin, 0.95 * chain.market.rate)
                self.pinner.strike()
            if chain.median_time_past > EXPIRY:
                self._refund()
            rig.now += STEP_SECONDS
        self._judge(blocks)
        return self.outcome

    def _settle(self) -> None:
        rig, outcome = self.rig, self.outcome
        code = rig.settle()
        outcome.codes[code] += 1
        is_idle = code == "settlement_refused" and rig.chain.spender(rig.terms.outpoint) is None
        asked = rig.chain.own_minimum * SETTLEMENT_SIZE
        self._idle = self._idle + 1 if is_idle and asked <= outcome.scenario.received / 4 else 0
        outcome.refusals = max(outcome.refusals, self._idle)

    def _is_over(self) -> bool:
        spender = self.chain.spender(self.rig.terms.outpoint, self.chain.miners)
        return spender is not None and self.chain.confirmations(spender.txid) >= 6

    def _refund(self) -> None:
        terms, chain = self.rig.terms, self.chain
        rival = chain.miners.spender(terms.outpoint)
        least = max(chain.market.rate, chain.minimum, rival.fee_rate if rival else 1) * 1.2 * REFUND_SIZE
        least = max(least, (chain.miners.fees_of(rival.txid) if rival else 0) + REFUND_SIZE)
        if rival is not None and rival.lock_time:
            return
        with suppress(Refused):
            chain.publish(sign_refund(terms, min(round(least), terms.funding_value - DUST_LIMIT), self.rig.key))

    def _judge(self, blocks: list[tuple[int, float]]) -> None:
        outcome, chain = self.outcome, self.chain
        spender = chain.spender(self.rig.terms.outpoint, chain.miners)
        if spender is not None and chain.confirmations(spender.txid) > 0:
            outcome.is_settled = payment_in(CTransaction.deserialize(spender.raw)) is not None
            outcome.fee = spender.fee
            height = chain.height - chain.confirmations(spender.txid) + 1
            outcome.in_time = outcome.is_settled and chain.median_time_at(height - 1) <= EXPIRY
        outcome.could, outcome.needed = self._could_win(blocks)

    def _could_win(self, blocks: list[tuple[int, float]]) -> tuple[bool, int]:
        """Return whether there was a rung on which what was needed could be paid, with some blocks to be mined in; and the least
        that was needed. What our node cannot see it finds out by raising what waits: there it must be able to pay much more."""
        scenario, size = self.scenario, INFLATED_SIZE if self.scenario.luck else SETTLEMENT_SIZE
        least = 0
        ends = (None, *(rung.period_percent for rung in LADDER[:-1]))
        for rung, begins in zip(LADDER, ends, strict=True):
            since = max(self._misled_until, EXPIRY - PERIOD * begins // 100 if begins is not None else 0)
            left = sorted(price for at, price in blocks if since <= at < EXPIRY - BLOCK_SECONDS)
            if len(left) < BLOCKS_MIN:
                continue
            price = left[-BLOCKS_MIN]  # that many blocks are cheaper or equal, but for the dearest
            needed = math.ceil(1.3 * left[-1] * size) + self.outcome.pinned + SETTLEMENT_SIZE
            least = min(least or needed, math.ceil(price * size) + self.outcome.pinned)
            affordable = min(scenario.received * rung.share_percent // 100, scenario.received - DUST_LIMIT)
            if needed <= affordable and (scenario.is_seen or rung is LADDER[-1] or 16 * needed <= affordable):
                return True, needed
        return False, least


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("paychan").setLevel(logging.ERROR)
    outcomes, failed = list[Outcome](), list[int]()
    for seed in range(options.first, options.first + options.seeds):
        outcomes.append(Fight(str(seed)).run())
        if violation := outcomes[-1].violation():
            failed.append(seed)
            print(f"VIOLATION seed {seed}: {violation}", flush=True)
    report(outcomes)
    return 1 if failed else 0


def report(outcomes: list[Outcome]) -> None:
    """Print what became of the channels, by what was done to them."""
    kinds = {
        "nobody at work": lambda one: not one.pin and not one.luck,
        "inflated": lambda one: not one.pin and one.luck,
        "pinned": lambda one: one.pin and not one.luck,
        "pinned and inflated": lambda one: one.pin and one.luck,
        "all": lambda one: True,
    }
    for name, fits in kinds.items():
        some = [outcome for outcome in outcomes if fits(outcome.scenario)]
        if not some:
            continue
        won, received = [one for one in some if one.in_time], sum(one.scenario.received for one in some)
        fees = sum(one.fee for one in won)
        lost = sum(one.scenario.received for one in some if not one.is_settled)
        late = sum(one.is_settled and not one.in_time for one in some)
        could, mined = (100 * count / len(some) for count in (sum(one.could for one in some), len(won)))
        print(f"{name}: {len(some)} channels, {mined:.1f} % mined before the expiry, {late} after it; {could:.1f} % could win;")
        print(f"    of the value {100 * fees / received:.2f} % went into fees, {100 * lost / received:.2f} % was lost")
    why = Counter(one.why() for one in outcomes if not one.in_time)
    for reason, count in why.most_common():
        some = [one for one in outcomes if not one.in_time and one.why() == reason]
        share = sum(one.scenario.received * one.lost_share for one in some) / sum(one.scenario.received for one in outcomes)
        print(f"  not in time, because {reason}: {count}, {100 * share:.2f} % of all value")


if __name__ == "__main__":
    sys.exit(main())
