"""What goes wrong in a simulated world: each kind of fault in a plan is a method here, named as the kind."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from paychan.core.payment import Payment
from paychan.rpc.connection import FrameConnection
from paychan.rpc.signer_messages import PAYLOAD_MAX, SettleRequest, SignerMessage

from .attacks import Pinner
from .hosts import BASE_PORT, STATE_DIR
from .kernel import TURN_SECONDS, Process
from .people import Person
from .plan import ARMED_SECONDS, Event

if TYPE_CHECKING:
    from .world import World

SIGNER_PATH = f"{STATE_DIR}/run/signer.sock"


class Troubles:
    """All faults of one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._wall_error = world.plan.wall_error

    def strike(self, event: Event) -> None:
        """Have a fault happen, or begin."""
        getattr(self, "_" + event.kind.replace(" ", "_"))(*event.details)

    # --- processes and the disk ---

    def _kill(self, name: str, steps: int, rest: float) -> None:
        process = self._world.hosts[name]
        self._world.rest[name] = rest
        process.dies_at_step = process.steps + steps
        self._disarm(process)

    def _kill_at_write(self, name: str, count: int, how: str, rest: float) -> None:
        process = self._world.hosts[name]
        self._world.rest[name] = rest
        process.dies_at_write, process.dies_how = process.writes + count, how
        self._disarm(process)

    def _disk(self, name: str, count: int, how: str, rest: float) -> None:
        process = self._world.hosts[name]
        self._world.rest[name] = rest
        process.dies_at_disk_write, process.dies_how = process.disk_writes + count, how
        self._disarm(process)

    def _disarm(self, process: Process) -> None:
        """What has not come to pass by then, comes to pass no more: the plan says when all is calm."""

        def disarm() -> None:
            process.dies_at_step = process.dies_at_write = process.dies_at_disk_write = 0
            process.on_power_loss = None

        self._world.later(ARMED_SECONDS, disarm)

    def _power(self, rest: float) -> None:
        """Power is lost: every process ends, and of what was not synced the disk keeps what it likes."""
        for name in self._world.names():
            self._world.rest[name] = rest * (0.5 + self._world.node_chance.random())
            self._world.hosts[name].on_power_loss = None
            self._world.hosts[name].die()
        self._world.disk.lose_power()

    def _power_at_disk(self, name: str, count: int, how: str, rest: float) -> None:
        self._disk(name, count, how.replace("write error", "torn"), rest)
        self._world.hosts[name].on_power_loss = lambda: self._power(rest)

    def _stop(self, name: str, seconds: float, timers_first: bool) -> None:
        """Meanwhile others may own its channels; what was newest then comes to it again, and waits until it goes on."""
        self._world.hosts[name].stop_until(self._world.kernel.now + seconds, timers_first)
        if name.startswith("worker"):
            for person in self._world.people:
                if person.payments:
                    pause = seconds * (0.6 + 0.4 * self._world.node_chance.random())
                    self._world.later(pause, self._knock, person, person.payments[-1], BASE_PORT + int(name[6:]))

    def _knock(self, person: Person, payment: Payment, port: int) -> None:
        self._world.crowd.run(person.put(payment, 1, port, False))

    def _handover(self, comes: str, goes: str, seconds: float, rest: float) -> None:
        """One worker ends and comes back; while it takes shards over, their old owner cannot reach the store; payers pay."""
        self._world.rest[comes] = rest
        self._world.hosts[comes].die()
        self._world.later(max(0.0, rest - seconds * self._world.node_chance.random() / 4), self._hold, goes, "store", seconds)
        for person in self._world.people:
            self._world.later(rest, lambda person=person: self._world.crowd.run(person.spurt(seconds)))

    def _slow(self, name: str, seconds: float, turn: float) -> None:
        process = self._world.hosts[name]
        process.turn_seconds = turn

        def end() -> None:
            process.turn_seconds = TURN_SECONDS

        self._world.later(seconds, end)

    # --- the network ---

    def _hold(self, one: str, other: str, seconds: float) -> None:
        self._world.network.hold(one, other)
        self._world.later(seconds, self._world.network.release, one, other)

    def _cut(self, one: str, other: str, _: float) -> None:
        self._world.network.cut(one, other)

    def _lag(self, one: str, other: str, seconds: float, factor: float) -> None:
        self._world.network.delay(one, other, factor)
        self._world.later(seconds, self._world.network.delay, one, other, 1.0)

    def _disk_stall(self, seconds: float, factor: float) -> None:
        self._world.disk.stall_factor = factor

        def end() -> None:
            self._world.disk.stall_factor = 1.0

        self._world.later(seconds, end)

    # --- the chain, the clock, thieves ---

    def _node(self, seconds: float, is_silent: bool) -> None:
        self._world.node.is_up, self._world.node.is_silent = False, is_silent

        def end() -> None:
            self._world.node.is_up = True

        self._world.later(seconds, end)

    def _reorg(self, depth: int) -> None:
        self._world.chain.reorganise(depth, int(self._world.now()))

    def _double_spend(self, which: int) -> None:
        """A payer takes its coins back with the help of a miner: its funding transaction is gone for good."""
        person = self._world.people[which % len(self._world.people)]
        if self._world.chain.unmake(person.sender.terms.outpoint, int(self._world.now())):
            person.promise.is_void = True
            self._world.judge.auditor.accounts[person.sender.terms.outpoint].may_close = True

    def _fees(self, factor: float, seconds: float) -> None:
        self._world.market.rate = min(80.0, self._world.market.base * factor)
        self._world.chain.refresh_minimum()

        def end() -> None:
            self._world.market.rate = self._world.market.base
            self._world.chain.refresh_minimum()

        self._world.later(seconds, end)

    def _forget_own(self) -> None:
        self._world.chain.forget_own()

    def _estimates(self, kind: str, seconds: float) -> None:
        self._world.node.estimates = kind

        def end() -> None:
            self._world.node.estimates = ""

        self._world.later(seconds, end)

    def _minimum(self, share: float, seconds: float) -> None:
        """Mempools fill up: they ask for so much of what the next block does, and forget what pays less."""
        chain = self._world.chain
        chain.crowd = share
        chain.refresh_minimum()

        def end() -> None:
            chain.crowd = 0.0
            chain.refresh_minimum()

        self._world.later(seconds, end)

    def _copies(self, kind: str, luck: float) -> None:
        """From now on somebody makes such copies of settlements, and overtakes them with that much luck."""
        self._world.meddler.kinds, self._world.meddler.luck = (kind,), luck
        self._world.judge.auditor.has_copies = True

    def _pin(self, which: int, rate: float, count: int, size: int) -> None:
        """From now on a payer hangs what it can on each version of its channel's settlement, at a price below that of blocks."""
        person = self._world.people[which % len(self._world.people)]
        told = partial(self._world.judge.auditor.pinned, person.sender.terms.outpoint)
        pinner = Pinner(self._world.chain, person.sender.terms.outpoint, rate, count, size, told)

        def strike() -> None:
            pinner.rate = min(rate, max(0.1, 0.9 * self._world.market.rate))
            pinner.strike()
            self._world.later(1.0, strike)

        strike()

    def _evict(self) -> None:
        self._world.chain.forget_mempool()

    def _wall(self, error: float) -> None:
        self._wall_error = error
        self._world.wall_errors.append(error)

    def _leap(self, error: float, seconds: float) -> None:
        """The wall clock is wrong by more than anybody could miss, until its owner sets it right."""
        self._world.wall_errors.append(error)
        self._world.later(seconds, lambda: self._world.wall_errors.append(self._wall_error))

    def _hostile(self, which: int, fee_share: float, old: float) -> None:
        """A thief who has taken over a server asks the signer for what suits the payer."""
        self._world.judge.has_thief = True
        person = self._world.people[which % len(self._world.people)]
        state = self._world.state(person)
        known = [] if state is None else [pay for pay in person.payments if pay.change_value >= state.payment.change_value]
        if not known:
            return
        payment = known[min(int(old * len(known)), len(known) - 1)]
        received = person.sender.terms.funding_value - payment.change_value
        proof = person.funding if which % 5 else b""
        request = SettleRequest(person.sender.terms, payment, round(fee_share**3 * received), proof).encode()
        self._world.crowd.run(self._ask_signer(request))

    async def _ask_signer(self, request: bytes) -> None:
        def make() -> FrameConnection:
            return FrameConnection(PAYLOAD_MAX, lambda *_: None, lambda _: None)

        try:
            _, connection = await self._world.network.connect(self._world.crowd.process, make, SIGNER_PATH)
            await asyncio.wait_for(connection.call(SignerMessage.SETTLE, request), 3)
        except Exception:
            return  # refused, or away
