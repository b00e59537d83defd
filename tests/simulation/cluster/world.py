"""A world of several machines: `python -m tests.simulation.world --engine postgres --stores N`.

Each machine has a store and workers of its own, in production code down to the calls of the schema's functions; one signer serves
all. PostgreSQL's processes are a model (`database.py`), and so is who promotes (`manager.py`). What is safe is what two of its
machines have in their logs.
"""

import asyncio
import dataclasses
import signal
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg

from paychan.core.channel import ChannelState
from paychan.core.errors import ConfigError
from paychan.hangup import HangUp
from paychan.notify import Manager as ServiceManager
from paychan.rpc.connection import Address
from paychan.rpc.peer_tls import CertificateFiles
from paychan.rpc.store_messages import Unsettled
from paychan.settings.models import ClusterConfig, PostgresConfig, ServerConfig, StoreConfig
from store import keys, serving
from store.engines.postgres import engine, opening

from ..disk import Disk
from ..hosts import BASE_PORT, SERVER_PUBKEY, STATE_DIR, _worker_config, run_worker, store_config
from ..kernel import Process
from ..troubles import Troubles
from ..world import RECOVERY_SECONDS, World
from .database import NODES, Entry, Place, Server
from .manager import Manager
from .plan import ClusterPlan
from .stage import PEER_PORT
from .tables import ShardRow, StateRow, Tables

ENDS = (
    "TimeoutError: the database",
    "ConnectionError: the database",
    "RuntimeError: the database warns",
    "RuntimeError: the database has lost",
)
"""What a store may say when it ends: its database is away, or not what it should be."""

UNKNOWN = tuple(error.__name__ for error in (asyncpg.InterfaceError, asyncpg.ConnectionDoesNotExistError))
FENCED = "is not at fence"
UNREPLICATED = "does not replicate synchronously"
STEP_LIMIT = 6_000_000
NEVER = 1 << 40


@cache
def _store_config(lease_ms: int, machine: str, name: str, lease_of_stores: int) -> StoreConfig:
    config = store_config(lease_ms)
    place = Path(STATE_DIR) / machine
    postgres = PostgresConfig(
        tuple((node, 5432) for node in NODES), "paychan", "paychan_store", None, None, None, name, lease_of_stores
    )
    common = dataclasses.replace(config.common, state_dir=place)
    return dataclasses.replace(config, common=common, address=Address(path=f"{place}/run/store.sock"), postgres=postgres)


@cache
def _server_config(machine: str, port: int, *limits: int) -> ServerConfig:
    config = _worker_config(port, *limits)
    place = Path(STATE_DIR) / machine
    nothing = Path("/dev/null")
    cluster = ClusterConfig(machine, machine, PEER_PORT, "0.0.0.0", CertificateFiles(nothing, nothing, nothing), NEVER)
    common = dataclasses.replace(config.common, state_dir=place)
    return dataclasses.replace(config, common=common, store=Address(path=f"{place}/run/store.sock"), cluster=cluster)


class ClusterWorld(World):
    """Everything of one seed."""

    plan: ClusterPlan

    def __init__(self, plan: ClusterPlan) -> None:
        super().__init__(plan)
        self.kernel.step_limit = STEP_LIMIT
        self.recovery_seconds = RECOVERY_SECONDS + 4 * plan.lease_of_stores / 1000
        self.chance = self._chance("cluster")
        self._disks = {machine: Disk(self._chance(machine), plan.disk_stall) for machine in plan.machines}
        self.entries, self.is_replicated = 0, True
        self.confirmed: set[int] = set()
        """Numbers of the transactions whose answer was sent."""
        self.answered: dict[str, int] = {}
        self.shown: dict[str, int] = {}
        """Groups of each store that everybody saw because a wait was cancelled: other stores may miss them later."""
        self._safe: list[Entry] = []
        self._given_up: set[str] = set()
        self.manager = Manager(self, plan.patience)
        self.judge.on_acknowledged = self.acknowledged_at

    # --- processes ---

    def names(self) -> list[str]:
        stores = [f"store{number}" for number in range(self.plan.stores)]
        return [*NODES, *stores, "signer", *(f"worker{number}" for number in range(self.plan.workers))]

    def _work(self, name: str, process: Process) -> Coroutine[Any, Any, None]:
        machine, plan = self.plan.machine_of(name), self.plan
        if name in NODES:
            return self._serve_node(name, process)
        if name.startswith("store"):
            process.tap = self._tap_store
            config = _store_config(plan.lease_ms, machine, self._label(name), plan.lease_of_stores)
            database = config.common.state_dir / "store" / "db"
            return serving._serve_postgres(config, database, SERVER_PUBKEY, HangUp(), ServiceManager({}))
        if name.startswith("worker"):
            limits = plan.channel_exposure_max, plan.total_exposure_max
            return run_worker(process, _server_config(machine, BASE_PORT + int(name[6:]), *limits))
        return super()._work(name, process)

    def _label(self, name: str) -> str:
        """Return what a store calls itself."""
        number = int(name[5:])
        return "abcdefgh"[0 if self.plan.has_twin and number == self.plan.stores - 1 else number]

    def _tap_store(self, end: Any, data: bytes, is_out: bool) -> None:
        if end.peer.process.name not in NODES:
            self.judge.tap_store(end, data, is_out)

    async def _serve_node(self, name: str, process: Process) -> None:
        self.manager.servers[name] = Server(self, self.manager.places[name], process)
        self.manager.servers[name].start()
        await process.create_future()

    def _ended(self, name: str, process: Process, task: "asyncio.Task[None]") -> None:
        if process.is_alive and not task.cancelled() and isinstance(task.exception(), ConfigError):
            self._refused(name, str(task.exception()))
            self.rest[name] = 1.0
            process.die()
        elif name.startswith("store") and process.is_alive and not task.cancelled() and task.exception() is None:
            process.die()
        else:
            super()._ended(name, process, task)

    def _refused(self, name: str, why: str) -> None:
        """A store does not start: only where it is right."""
        if "has lost what was answered" in why:
            self.judge.seen["databases refused that had lost something"] += 1
            self._given_up.add(name)
            missed = {label for label in self._lacks(self.shown) if f"of store {label}" in why} - {self._label(name)}
            if not self.lost_groups() and not missed:
                self.judge.breach(f"{name}: refused a database that has lost nothing: {why}")
        elif "uses the name" in why and self.plan.has_twin:
            self.judge.seen["names refused"] += 1
        else:
            self.judge.breach(f"{name}: did not start: {why}")

    def _died(self, name: str) -> None:
        self.judge.seen["processes killed"] += 1
        self.kernel.at(self.kernel.now + self.rest.pop(name, 0.3), self._start_again, name)

    def _start_again(self, name: str) -> None:
        """What gave up is left alone, as a service manager does, until somebody has put the database right."""
        if name in self._given_up and self.manager.is_wrong:
            self.later(0.5, self._start_again, name)
            return
        self._given_up.discard(name)
        self._start(name)

    def disk_of(self, name: str) -> Disk:
        return self._disks.get(self.plan.machine_of(name), self.disk)

    def may_end(self, text: str) -> bool:
        _, is_end, why = text.partition("the store ends: ")
        if FENCED in why:
            self.judge.seen["stores fenced off"] += 1
        return bool(is_end) and (super().may_end(text) or why.startswith((*ENDS, *UNKNOWN)) or FENCED in why or UNREPLICATED in why)

    def sync_seconds(self) -> float:
        """Return how long a database's disk takes now."""
        return self.plan.disk_stall * self.disk.stall_factor * (0.3 + 1.4 * self.chance.random())

    def _troubles(self) -> Troubles:
        self.later(0.0, self.manager.look)
        return ClusterTroubles(self)

    # --- what the database has ---

    def on_answer(self, process: str, statement: str, arguments: tuple[Any, ...], rows: list[Any]) -> None:
        """A store has read an answer of its database's."""
        if statement in (engine.PUT_GROUP, engine.GIVE) or (statement == engine.TAKE_OVER and rows[0][0]):
            self.answered[arguments[0]] = max(arguments[2], self.answered.get(arguments[0], 0))
        elif statement == opening.BEGIN:
            self.judge.seen["store starts"] += 1
            self.answered[arguments[0]] = max(rows[0][1], self.answered.get(arguments[0], 0))
        if statement == engine.TAKE_OVER and rows[0][0]:
            self.judge.seen["stores taken over"] += 1
        elif statement == engine.GIVE:
            self.judge.seen["leases given"] += len(arguments[6])

    def show(self, entry: Entry) -> None:
        """A transaction is seen although no standby has it."""
        for (table, key), row in entry.changes.items():
            if table == "store":
                self.shown[key] = max(row.groups, self.shown.get(key, 0))

    def is_on_its_way(self, entry: Entry) -> bool:
        """Return whether the answer to a transaction was sent, and is not read: nobody can know yet that it must not be lost."""
        groups = {key: row.groups for (table, key), row in entry.changes.items() if table == "store"}
        return entry.number in self.confirmed and any(number > self.answered.get(name, 0) for name, number in groups.items())

    def lost_groups(self) -> dict[str, int]:
        """Return how many groups the primary lacks that a store was answered, by the stores' names."""
        return self._lacks(self.answered)

    def _lacks(self, groups: dict[str, int]) -> dict[str, int]:
        stores = self.manager.tables().rows["store"]
        known = {name: stores[name].groups if name in stores else 0 for name in groups}
        return {name: number - known[name] for name, number in groups.items() if number > known[name]}

    def on_second_disk(self, place: Place) -> None:
        """A standby has written: what it and its primary have is safe."""
        if place.is_behind(self.manager.primary):
            for entry in place.log[len(self._safe) :]:
                self._safe.append(entry)
                self.judge.see_commit(_pairs(entry.changes))

    def on_promotion(self, place: Place) -> None:
        """From now on this one's log is the truth."""
        self.judge.forget_epochs()
        safe = len(self._safe)
        if len(place.log) >= safe and (not safe or place.log[safe - 1].number == self._safe[-1].number):
            self.on_second_disk(place)
            return
        self.judge.seen["promotions of what lacks something"] += 1
        self._safe = list(place.log)
        tables = Tables()
        for entry in self._safe:
            tables.apply(entry.changes)
        pairs = {pair: value for pair, value in _pairs(_all(tables)).items() if value is not None}
        self.judge.set_back(pairs)

    def acknowledged_at(self, sent_at: float) -> None:
        """A payer was answered to what it had sent then: not out of a database that lacks what others were answered."""
        if self.manager.is_wrong and sent_at > self.manager.wrong_since and (lost := self.lost_groups()):
            self.judge.breach(f"a payment is acknowledged while the database lacks groups: {lost}")

    def _judge(self) -> None:
        tables = Tables()
        for entry in self._safe:
            tables.apply(entry.changes)
        rows = tables.rows["store"].values()
        opened, begun = sum(row.open_value for row in rows), sum(row.begun_value for row in rows)
        if opened < 0 or begun < 0 or sum(row.open_spent for row in rows):
            self.judge.breach(f"the stores' sums are {opened} and {begun}")
        else:
            self.judge.safe[keys.UNSETTLED] = keys.encode_unsettled(Unsettled(opened, begun))
        for outpoint, row in tables.rows["state"].items():
            state = ChannelState.parse(row.record)
            if (row.phase, row.value, row.revision) != (state.phase, state.payment.change_value, state.sales.revision):
                self.judge.breach(f"{outpoint[:4].hex()}: its columns say something else than its record")
        super()._judge()


def _all(tables: Tables) -> dict[tuple[str, Any], Any]:
    return {(table, key): row for table, rows in tables.rows.items() for key, row in rows.items()}


def _pairs(changes: dict[tuple[str, Any], Any]) -> dict[bytes, bytes | None]:
    """Return what a transaction changes as an embedded store would have it."""
    pairs: dict[bytes, bytes | None] = {}
    for (table, key), row in changes.items():
        if isinstance(row, StateRow):
            pairs[keys.STATE + key] = row.record
        elif isinstance(row, ShardRow):
            pairs[keys.epoch_key(key)] = keys.encode_epoch(row.epoch)
        elif table == "record":
            pairs[key] = row
    return pairs


class ClusterTroubles(Troubles):
    """What goes wrong among several machines."""

    _world: ClusterWorld

    def _members(self, what: str) -> list[str]:
        """Return the processes of a machine, or the one of that name."""
        plan = self._world.plan
        return [name for name in self._world.names() if plan.machine_of(name) == what] or [what]

    def _isolate(self, what: str, seconds: float) -> None:
        """Nothing comes from a machine, or to it: but its own processes speak to each other."""
        inside = self._members(what)
        for name in inside:
            for other in ("payers", "node", *self._world.names()):
                if other not in inside:
                    self._hold(name, other, seconds)

    def _machine(self, what: str, rest: float) -> None:
        """A machine loses power."""
        for name in self._members(what):
            self._world.rest[name] = rest * (0.5 + self._world.chance.random())
            self._world.hosts[name].die()
        self._world.disk_of(self._members(what)[0]).lose_power()

    def _primary(self, steps: int, rest: float) -> None:
        self._kill(self._world.manager.primary.name, steps, rest)

    def _switchover(self) -> None:
        """The primary is stopped in order, and the standby that has most goes on."""
        manager = self._world.manager
        standbys = [place for place in manager.places.values() if not place.is_primary]
        if len(standbys) == 2 and not manager.is_wrong and not any(manager.is_away(place.name) for place in standbys):
            manager.promote(max(standbys, key=lambda place: len(place.log)))

    def _standbys(self, seconds: float) -> None:
        """Both standbys are away: nothing is confirmed."""
        for place in self._world.manager.places.values():
            if not place.is_primary:
                self._world.rest[place.name] = seconds
                self._world.hosts[place.name].die()

    def _cancel(self, seconds: float, is_lost: bool) -> None:
        """Nothing is confirmed for a while; then somebody cancels the waits, and maybe the primary is lost with what they wrote."""
        manager = self._world.manager
        primary = manager.primary
        for name in NODES:
            if name != primary.name:
                self._hold(primary.name, name, seconds + 0.5)

        def cancel() -> None:
            if manager.primary is primary and self._world.hosts[primary.name].is_alive:
                self._world.judge.seen["waits cancelled"] += manager.servers[primary.name].cancel_waits()
                if is_lost:
                    self._world.later(0.1, self._lose, primary)

        self._world.later(seconds, cancel)

    def _lose(self, primary: Place) -> None:
        if self._world.manager.primary is primary:
            self._world.rest[primary.name] = 1.0
            self._world.hosts[primary.name].die()
            self._switchover()

    def _names(self, seconds: float) -> None:
        """`synchronous_standby_names` is emptied, at a moment when no commit waits."""
        server = self._world.manager.servers.get(self._world.manager.primary.name)
        if server is not None and server.waiting:
            self._world.later(0.001, self._names, seconds)
            return
        self._world.is_replicated = False
        self._world.later(seconds, lambda: setattr(self._world, "is_replicated", True))

    def _leave(self, name: str) -> None:
        """A store is stopped in order (SIGTERM)."""
        process = self._world.hosts[name]
        if process.is_alive and signal.SIGTERM in process.signals:
            self._world.rest[name] = 0.5
            process.call_soon(process.signals[signal.SIGTERM])

    def _silence(self, name: str, seconds: float) -> None:
        """A store hears nothing of its database, and the database nothing of it; payers pay on, and it may wake with a group."""
        for node in NODES:
            self._hold(name, node, seconds)
        for person in self._world.people:
            self._world.later(seconds * 0.9, lambda person=person: self._world.crowd.run(person.spurt(seconds * 0.2)))

    def _wrong(self, lag: float, patience: float) -> None:
        """One standby lags; the primary is lost, and that standby is promoted."""
        manager = self._world.manager
        names = [place.name for place in manager.places.values() if not place.is_primary]
        self._hold(manager.primary.name, names[0], lag)
        self._world.later(lag * 0.9, manager.promote_wrongly, patience)

    def _handover(self, comes: str, goes: str, seconds: float, rest: float) -> None:
        if comes == goes:
            return
        self._world.rest[comes] = rest
        self._world.hosts[comes].die()
        store = f"store{int(goes[6:]) % self._world.plan.stores}"
        self._world.later(max(0.0, rest - seconds * self._world.node_chance.random() / 4), self._hold, goes, store, seconds)
        for person in self._world.people:
            self._world.later(rest, lambda person=person: self._world.crowd.run(person.spurt(seconds)))
