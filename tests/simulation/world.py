"""Whole-system simulation: `python -m tests.simulation.world --count N --first K [--processes P] [--engine postgres --stores M]`.

One seed is one small world: the production store server, workers, signer, settler and watcher with their own doors, frames and
links, in one process under a simulated clock, network and disk; a chain with a mempool; payers, some of them thieves. The seed
draws who does what, and what goes wrong, as a numbered list of events (`plan.py`). The judge (`judge.py`) knows the right balances.
A failing seed is shrunk: events are left out while it still fails; `--seed K --without 3,7` replays what is left, exactly. With
`--engine postgres` a world has several machines, each with a store, on a model of PostgreSQL (`cluster/`).

Production code is everything in `paychan`, `store` and `signer` but RocksDB, SQLite's files, sockets, clocks, the HTTP of the
chain sources, granian's own half and the supervisor's child processes. Their stand-ins are `disk.py`, `network.py`, `kernel.py`,
`node.py` over `blockchain.py`, and `hosts.py`, which starts what dies. Each process is an event loop of its own: it is killed
between any two callbacks, at any write to a connection, before, in, and after any write to the disk; stopped for longer than its
lease; slowed down; cut off. After the last fault everything must come right by itself: honest payers pay again, and channels are
settled before their expiry.
"""

import argparse
import asyncio
import gc
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from paychan.core.channel import ChannelState, Phase
from paychan.core.units import MAX_MONEY
from store import keys

from .attacks import Meddler
from .blockchain import GENESIS, BlockChain, Market
from .disk import Disk
from .hosts import BASE_PORT, Stage, staged, start_signer, start_store, start_worker
from .judge import Judge
from .kernel import Kernel, Process
from .mempool import CORE_28, CORE_31
from .network import Network
from .node import KINDS, Node
from .people import Crowd, Person
from .plan import BLOCK_SECONDS, PERIOD_SECONDS, SCALE, Plan, draw_plan
from .troubles import Troubles

RULES = {rules.name: rules for rules in (CORE_28, CORE_31)}

RECOVERY_SECONDS = 40.0
"""Simulated; so long after the last fault an honest payment may take. Timeouts of 12 s, and pauses, add up."""

CLUSTER = "postgres"
"""What a seed begins with whose world has several machines."""

SETTLED_SECONDS = 45.0
"""Simulated; after the expiry: until then a refund may have taken what was not settled."""

NOTICED_SECONDS = 16.0
"""Simulated; so long after the last fault every worker has seen the newest block: a silent node is asked again after 10 s."""


STAMP_AHEAD_MAX = 7200
"""Seconds of the chain's time; miners' stamps are ahead by less."""

TIP_AGE_MAX = 10_800
"""The server's `tip_age_minutes_max`, in seconds."""


class WatchedChain(BlockChain):
    """The chain, with somebody who looks at what is published."""

    judge: Judge

    def submit(self, raw: bytes) -> None:
        self.judge.see_published(raw)
        super().submit(raw)


class World:
    """Everything of one seed."""

    recovery_seconds = RECOVERY_SECONDS

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.kernel = Kernel()
        self.network = Network(self.kernel, self._chance("network"), plan.network_delay, plan.tear)
        self.disk = Disk(self._chance("disk"), plan.disk_stall)
        self.market = Market(self._chance("market"), plan.fee_base, 80.0, 1.0, plan.fee_base)
        own, miners = (RULES[name] for name in plan.policies)
        self.chain = WatchedChain(self._chance("chain"), self.market, 0.0, own, miners, plan.fullness)
        self.meddler = self.chain.meddle = Meddler(self.chain, self._chance("meddler"))
        self.node, self.node_chance = Node(self.chain, KINDS[plan.node_kind]), self._chance("node")
        self.judge = self.chain.judge = Judge(
            self.chain,
            plan.lease_ms / 1000,
            lambda: self.kernel.now,
            lambda: int(self.now() + max(self.wall_errors)),
            lambda: len(self.wall_errors) == 1,
            self.believed,
            plan.total_exposure_max < MAX_MONEY,
        )
        self.wall_errors = [plan.wall_error]
        self.hosts: dict[str, Process] = {}
        self.rest: dict[str, float] = {}
        self._is_over = False
        self.crowd = Crowd(self)
        self.people: list[Person] = []

    def _chance(self, name: str) -> random.Random:
        """Return randomness of its own for a part, so that one part's use does not shift another's."""
        return random.Random(f"{self.plan.seed}/{name}")

    def now(self) -> float:
        """True unix seconds."""
        return GENESIS + SCALE * self.kernel.now

    def wall(self) -> int:
        """What the machine's clock says."""
        return int(self.now() + self.wall_errors[-1])

    def believed(self) -> int:
        """The latest time that anybody may act upon: what is further from the best block, whose stamp may be ahead, is in doubt."""
        most = max(self.wall_errors)
        return int(self.now() + max(STAMP_AHEAD_MAX, min(most, STAMP_AHEAD_MAX + TIP_AGE_MAX)))

    # --- hosts: what dies is started again ---

    def _start(self, name: str) -> None:
        process = Process(self.kernel, name, self.network)
        self.hosts[name] = process
        process.at_death.append(lambda: self._died(name))
        work = self._work(name, process)
        process.call_soon(lambda: process.create_task(work).add_done_callback(lambda done: self._ended(name, process, done)))

    def _work(self, name: str, process: Process) -> Coroutine[Any, Any, None]:
        """Return what a process does."""
        if name == "store":
            process.tap = self.judge.tap_store
            return start_store(self, process)
        if name == "signer":
            process.tap = self.judge.tap_signer
            return start_signer(self, process)
        return start_worker(self, process, BASE_PORT + int(name[6:]))

    def disk_of(self, name: str) -> Disk:
        """Return the disk of the machine that a process runs on."""
        return self.disk

    def may_end(self, text: str) -> bool:
        """Return whether a process may log this and end: what it could not help has happened."""
        return "the store ends: OSError" in text

    def _ended(self, name: str, process: Process, task: "asyncio.Task[None]") -> None:
        if process.is_alive and not task.cancelled() and task.exception() is not None:
            if not isinstance(task.exception(), OSError):
                self.judge.breach(f"{name} ended with {task.exception()!r}")
            process.die()

    def _died(self, name: str) -> None:
        self.judge.seen["processes killed"] += 1
        if name == "store":
            self.judge.forget_store()
        self.kernel.at(self.kernel.now + self.rest.pop(name, 0.3), self._start, name)

    def names(self) -> list[str]:
        return ["store", "signer", *(f"worker{number}" for number in range(self.plan.workers))]

    def later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have something done after so many simulated seconds."""
        self.kernel.at(self.kernel.now + seconds, call, *arguments)

    # --- the chain ---

    def _mine(self) -> None:
        self.chain.mine(int(self.now()))
        pause = min(2.5 * BLOCK_SECONDS, max(1.0, self.node_chance.gauss(BLOCK_SECONDS, BLOCK_SECONDS / 3)))
        self.later(pause, self._mine)

    def _fund(self) -> None:
        """Have most channels' funding outputs in a block before anything begins, the others' a little later."""
        for person in self.people:
            if not person.plan.mined_at:
                self.chain.fund(person.sender.terms, person.funding)
        self.chain.find(int(self.now()))
        for person in self.people:
            if person.plan.mined_at:
                self.chain.fund(person.sender.terms, person.funding)
                self.kernel.at(person.plan.mined_at, self.chain.find, int(self.now() + SCALE * person.plan.mined_at))

    # --- the whole ---

    async def _live(self) -> None:
        """Let the payers do what is planned; then, when all is calm, let them show that the system has come right."""
        plan, loop = self.plan, asyncio.get_running_loop()
        lives = [
            loop.create_task(person.live([event for event in plan.events if event.channel == person.number]))
            for person in self.people
        ]
        for life in lives:
            await life
        await asyncio.sleep(max(0.0, plan.calm_at - self.kernel.now))
        for person in self.people:
            await self._recover(person, self.kernel.now + self.recovery_seconds)
        if plan.settles:
            await self._settle()
        self._is_over = True

    async def _recover(self, person: Person, deadline: float) -> None:
        """An honest payer pays once more, and repeats that until it is taken."""
        if self.plan.settles or person.has_ended or person.opening is None:
            return
        where = f"payer {person.number}"
        if person.promise.is_void:
            await self._try_in_vain(person)
            return
        while self.kernel.now < deadline:
            state = self.state(person)
            if person.has_ended or (state is not None and state.phase != Phase.OPEN) or person.sender.change_value < 2_000:
                return
            if not person.is_open:
                await person.open_with(person.opening, 1)
            elif await person.put(self._one_more(person), 1):
                return
            await asyncio.sleep(0.4)
        state = self.state(person)
        phase = state.phase.name if state else "absent"
        self.judge.breach(f"{where}: nothing was acknowledged within {self.recovery_seconds:g} s after the last fault ({phase})")

    async def _try_in_vain(self, person: Person) -> None:
        """Pay on a channel that has no coins any more, once everybody has had the time to notice."""
        await asyncio.sleep(NOTICED_SECONDS)
        state = self.state(person)
        if state is None or state.phase != Phase.OPEN or person.sender.change_value < 2_000:
            return
        for _ in range(3):
            if await person.put(self._one_more(person), 1, is_good=False):
                self.judge.breach(f"payer {person.number}: paid with coins that are not there any more")

    def _one_more(self, person: Person) -> Any:
        """Return the payment to repeat: the newest if it may not have arrived, else a new one."""
        newest = min(person.payments, key=lambda payment: payment.change_value)
        if newest.change_value < person.promise.lowest:
            return newest
        person.payments.append(person.sender.pay(1))
        return person.payments[-1]

    def state(self, person: Person) -> ChannelState | None:
        record = self.judge.safe.get(keys.STATE + person.sender.terms.outpoint)
        return ChannelState.parse(record) if record is not None else None

    async def _settle(self) -> None:
        """Wait until every channel is settled, or its expiry is long past; payers take their refunds as soon as they can."""
        last = max(person.plan.period_at for person in self.people) + PERIOD_SECONDS + SETTLED_SECONDS
        refunds = [asyncio.get_running_loop().create_task(person.take_refund()) for person in self.people]
        while self.kernel.now < last and not all(self._is_settled(person) for person in self.people):
            await asyncio.sleep(1.0)
        for refund in refunds:
            refund.cancel()

    def _is_settled(self, person: Person) -> bool:
        state = self.state(person)
        return state is None or state.phase == Phase.SETTLED or person.promise.is_void

    def run(self) -> "World":
        """Simulate and judge; `judge.violations` says what was wrong."""
        Stage.world = self
        self.people = [Person(self, number) for number in range(len(self.plan.channels))]
        self._fund()
        for name in self.names():
            self._start(name)
        troubles = self._troubles()
        for event in self.plan.events:
            if event.channel < 0:
                self.kernel.at(event.at, troubles.strike, event)
        self.later(BLOCK_SECONDS / 2, self._mine)
        self.crowd.run(self._live())
        try:
            self.kernel.run(lambda: self._is_over, 100_000 / SCALE)
            self._judge()
        except Exception as error:
            self.judge.breach(f"the simulation itself failed: {error!r}")
        finally:
            self.kernel.bury()
        return self

    def _troubles(self) -> Troubles:
        return Troubles(self)

    def _judge(self) -> None:
        self.judge.violations += self.kernel.errors
        if not self._is_over and not self.kernel.errors:
            self.judge.breach("the world did not end")
        self.judge.judge(self.plan.settles, self.plan.is_late, min(self.wall_errors))
        self._count()
        self.kernel.note(repr(sorted(self.judge.safe.items())).encode())

    def _count(self) -> None:
        seen = self.judge.seen
        seen["worlds"], seen["simulated seconds"], seen["callbacks"] = 1, round(self.kernel.now), self.kernel.steps
        seen["reorganisations"] = self.chain.reorgs
        seen["settlements overtaken by copies"] = self.meddler.overtaken
        seen["settlements pinned"] = sum(account.pinned > 0 for account in self.judge.auditor.accounts.values())
        seen["channels settled"] = sum(account.phase == Phase.SETTLED for account in self.judge.auditor.accounts.values())
        for promise in self.judge.promises.values():
            seen["answers lost"] += sum(operation.lost > 0 for operation in promise.operations)


# --- one seed ---


def run_seed(seed: str, without: Iterable[int] = ()) -> World:
    """Simulate one seed; the same seed, with the same events left out, gives the same trace. The stand-ins must be `staged()`."""
    plan = plan_of(seed).without(set(without))
    if not seed.startswith(CLUSTER):
        return World(plan).run()
    from .cluster.world import ClusterWorld  # which is one of these

    return ClusterWorld(plan).run()  # type: ignore[arg-type]


def plan_of(seed: str) -> Plan:
    """Return what a seed means: a number is one machine's world, `postgresN/NUMBER` one of N machines."""
    if not seed.startswith(CLUSTER):
        return draw_plan(seed)
    from .cluster.plan import draw

    return draw(seed)


def shrink(seed: str, without: Iterable[int] = (), runs_max: int = 400) -> list[int]:
    """Return which events of a failing seed can be left out so that it still fails: halves first, then one by one."""
    gone = set(without)
    runs = 0

    def fails(numbers: set[int]) -> bool:
        nonlocal runs
        runs += 1
        return bool(run_seed(seed, numbers).judge.violations)

    size = max(1, len(plan_of(seed).events) // 2)
    while runs < runs_max:
        left = [event.number for event in plan_of(seed).without(gone).events]
        before = len(gone)
        for at in range(0, len(left), size):
            attempt = gone | set(left[at : at + size])
            if runs < runs_max and attempt != gone and fails(attempt):
                gone = attempt
        if size == 1 and len(gone) == before:
            break
        size = max(1, size // 2)
    return sorted(gone)


def describe(seed: str, without: Iterable[int] = (), command: str = "tests.simulation.world") -> str:
    """Return what a failing seed does and how to replay it."""
    gone = list(without)
    world = run_seed(seed, gone)
    plan = world.plan
    lines = [f"seed {seed}: {len(world.judge.violations)} violations, trace {world.kernel.trace:08x}"]
    lines += [f"  VIOLATION {violation}" for violation in world.judge.violations[:8]]
    lines.append(
        f"  {plan.workers} workers, {len(plan.channels)} channels, lease {plan.lease_ms} ms"
        f"{', settles' if plan.settles else ''}; what happens (left out: {len(gone)}):"
    )
    lines += [f"    {event}" for event in plan.events]
    kind, _, number = seed.rpartition("/")
    flags = f" --engine {CLUSTER} --stores {kind.removeprefix(CLUSTER)}" if kind else ""
    flags += f" --without {','.join(map(str, gone))}" if gone else ""
    lines.append(f"  replay: python -m {command} --seed {number}{flags}")
    return "\n".join(lines)


# --- many ---


def _run_many(seeds: list[str]) -> tuple[list[str], Counter[str]]:
    """Run seeds in this process; return those that failed, and what happened in all of them."""
    failed: list[str] = []
    seen: Counter[str] = Counter()
    gc.disable()
    with staged():
        for count, seed in enumerate(seeds):
            world = run_seed(seed)
            if world.judge.violations:
                failed.append(seed)
            seen += world.judge.seen
            if count % 25 == 24:
                gc.collect()
    return failed, seen


def _in_parts(first: int, count: int, size: int, kind: str) -> Iterator[list[str]]:
    for start in range(first, first + count, size):
        yield [f"{kind}{number}" for number in range(start, min(start + size, first + count))]


def campaign(first: int, count: int, processes: int, kind: str = "") -> list[str]:
    """Run many seeds, with progress; return those that failed. kind: what their names begin with."""
    failed: list[str] = []
    seen: Counter[str] = Counter()
    began = time.monotonic()
    size = max(1, min(100, count // processes))
    gc.freeze()
    with multiprocessing.Pool(processes) as pool:
        parts = _in_parts(first, count, size, kind)
        for bad, some in pool.imap_unordered(_run_many, parts):
            seen += some
            failed += bad
            for seed in bad:
                print(f"\rseed {seed} failed", flush=True)
            spent, done = time.monotonic() - began, seen["worlds"]
            print(
                f"\r{done}/{count} seeds, {len(failed)} failed, {spent:.0f} s, {1000 * spent * processes / done:.1f} ms each ",
                end="",
                flush=True,
            )
    print("\n" + ", ".join(f"{what} {count:,}" for what, count in seen.items()))
    return sorted(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", "--seeds", type=int, default=1000, help="how many seeds")
    parser.add_argument("--engine", choices=["rocksdb", CLUSTER], default="rocksdb", help="what keeps the stores' data")
    parser.add_argument("--stores", type=int, choices=range(1, 9), default=2, help="machines with a store, on PostgreSQL")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", help="replay this one, and tell what happens in it")
    parser.add_argument("--without", default="", help="numbers of events that are left out of it")
    options = parser.parse_args()
    kind = f"{CLUSTER}{options.stores}/" if options.engine == CLUSTER else ""
    if options.seed is not None:
        with staged():
            gone = [int(number) for number in options.without.split(",") if number]
            print(describe(kind + options.seed, gone))
            return 1 if run_seed(kind + options.seed, gone).judge.violations else 0
    print(f"seeds {options.first} to {options.first + options.count - 1}", flush=True)
    failed = campaign(options.first, options.count, options.processes, kind)
    with staged():
        for seed in failed[:10]:
            print(describe(seed, shrink(seed)), flush=True)
    print(f"{options.count} seeds, {len(failed)} failed{': ' + ', '.join(failed[:100]) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
