"""Scene: one worker, reached through granian and through its own port, beside servers whose answer is a constant, and beside a
store without sync. Rows 2, 3, 4, 5, 7, 8, and the throughput against connections.

granian twice: as the server is launched, and through granian's public interface, which is all there is where our own door in it
cannot be used.

In the record: "DOOR N" is N connections in a closed loop, "DOOR constant" H; "DOOR half" is the open loop at half of the peak with
the workers on a core of their own, "DOOR half, shared" the same with all processes on all cores.
"""

import functools
import itertools
import os
import statistics

from bench.load import constant
from bench.load.cores import Apart, waiting_seconds
from bench.load.failure import Failed, await_
from bench.load.measure import Lane
from bench.load.payers import Payer, Request
from bench.load.processes import Door, Instance, ask, spawn, stop_politely, worker_pids
from bench.load.provenance import granian_door
from bench.load.scene import Scene, Step
from tests.ports import free_port
from tests.system import make_config

GRANIAN, OWN_PORT = "granian", "own port"
PUBLIC = "granian's public interface"
DOORS = (GRANIAN, OWN_PORT)
HALF, HALF_SHARED = "half", "half, shared"
KINDS = ("unknown", "malformed", "replayed")
HALF_SECONDS_FACTOR = 2.5
"""The open loop's slices are longer: of a short one's latencies the 99th percentile is one or two answers."""


class Doors(Scene):
    """Every kind of request has channels of its own: each channel's payments come in order."""

    def start(self) -> None:
        self._seeds = itertools.count()
        self._lanes: dict[str, Lane] = {}
        self._synced = self._instance("synced")
        self._unsynced = self._instance("unsynced", synced=False)
        self._public = self._instance("public", server="bench.load.public_way")
        self._check_ways()
        for door in DOORS:
            self._add_payments(door)
            self._add_refused(door)
        self._add_batches()

    def _instance(self, name: str, synced: bool = True, server: str = "paychan.server") -> Instance:
        instance = Instance(self.directory / name, synced=synced, server=server)
        self.exits.callback(instance.stop)
        return instance.start()

    def _check_ways(self) -> None:
        """Note which way granian's requests come in as the server is launched. Raises Failed if the other one is not public."""
        self.record.granian_door = granian_door(self._synced.readyz())
        other = granian_door(self._public.readyz())
        if not other.startswith("public"):
            raise Failed(f"the server that is to use {PUBLIC} says that it uses another way: {other}")

    def _opened(self, instance: Instance, count: int, door: str) -> tuple[list[Payer], list[Door]]:
        """Return new payers whose channels are open, and where each is to connect."""
        seed = f"door {next(self._seeds)}"
        payers = [Payer(seed, number, instance.server_pubkey) for number in range(count)]
        locations = instance.open(payers)
        return payers, locations if door == OWN_PORT else [instance.door] * count

    def _add_payments(self, door: str) -> None:
        """Add the paying lanes of a door; what will be divided by each other comes one after the other."""
        main = self.size.main
        for connections in self.size.connections:
            if connections == main:
                self._add_constant(door)
            self._add_lane(f"{door} {connections}", self._synced, connections, door)
            if connections == main and door == GRANIAN:
                self._add_lane(f"{PUBLIC} {main}", self._public, main, GRANIAN)
            if connections == main:
                self._add_lane(f"{door} unsynced", self._unsynced, main, door)
        for half in (HALF, HALF_SHARED):
            self._add_lane(f"{door} {half}", self._synced, main, door)

    def _add_lane(self, name: str, instance: Instance, connections: int, door: str) -> None:
        payers, doors = self._opened(instance, connections, door)
        self._lanes[name] = Lane(name, doors, instance.pids(), lambda number, count: payers[number].pay(count))

    def _add_refused(self, door: str) -> None:
        payers, doors = self._opened(self._synced, self.size.main, door)
        numbers = itertools.count()
        makers = {
            "unknown": lambda number, count: [payers[number].to_unknown(next(numbers)) for _ in range(count)],
            "malformed": lambda number, count: [payers[number].malformed()] * count,
            "replayed": lambda number, count: [payers[number].replay()] * count,
        }
        needles = {"unknown": b"no_such_channel"}
        for kind in KINDS:
            name = f"{door} {kind}"
            self._lanes[name] = Lane(name, doors, self._synced.pids(), makers[kind], needles.get(kind, b""))

    def _add_constant(self, door: str) -> None:
        listens_at, pids = start_constant(self, door)
        requests = [
            (raw, False, [(200, constant.VALUE_LEFT, 1)]) for raw, _, _ in Payer("constant", 0, self._synced.server_pubkey).pay(100)
        ]

        def make(_: int, count: int) -> list[Request]:
            return list(itertools.islice(itertools.cycle(requests), count))

        self._lanes[f"{door} constant"] = Lane(f"{door} constant", [listens_at] * self.size.main, {"workers": pids}, make)

    def _add_batches(self) -> None:
        payers, doors = self._opened(self._synced, self.size.main, OWN_PORT)
        batch = self.size.batch

        def make(number: int, count: int) -> list[Request]:
            return [payers[number].batch(batch) for _ in range(count)]

        self._lanes["batch"] = Lane("batch", doors, self._synced.pids(), make)

    # --- in each round ---

    def steps(self) -> list[Step]:
        pairs = itertools.product(DOORS, (HALF, HALF_SHARED))
        halves = {f"{door} {half}": functools.partial(self._measure_half, door, half) for door, half in pairs}
        return [(name, halves.get(name) or functools.partial(self._measure, name)) for name in self._lanes]

    def _measure(self, name: str) -> None:
        self.record.add(name, self._lanes[name].measure(self.size.seconds, self.verify))

    def _measure_half(self, door: str, half: str) -> None:
        """The open loop at half of the peak: the closed loop's median rate so far, of the best number of connections."""
        rounds = [self.record.of(f"{door} {count}") for count in self.size.connections]
        peak = max(statistics.median(piece.rate for piece in slices) for slices in rounds if slices)
        name, pids = f"{door} {half}", self._synced.pids()
        processes = {"client": [os.getpid()], **pids}
        before = {who: waiting_seconds(members) for who, members in processes.items()}
        where = Apart(pids) if half == HALF else None
        piece = self._lanes[name].measure(HALF_SECONDS_FACTOR * self.size.seconds, self.verify, peak / 2, where)
        self.record.add(name, piece)
        self.record.lacks.update(dict.fromkeys(where.lacks if where else ()))
        for who, members in processes.items():
            self.record.add(f"{name}: {who} waiting", (waiting_seconds(members) - before[who]) / piece.seconds)


def start_constant(scene: Scene, door: str) -> tuple[Door, list[int]]:
    """Start the server with a constant answer that belongs to a door, for as long as the scene lives; return where it listens,
    and the processes that answer."""
    port = free_port()
    log = scene.directory / "constant.log"
    if door == OWN_PORT:
        process = spawn("bench.load.constant_direct", port, log=log)
    else:
        config = make_config(scene.directory / "constant", {"server.toml": {"port": f"port = {port}"}})
        process = spawn("bench.load.constant", config / "server.toml", log=log)
    scene.exits.callback(stop_politely, [process])
    await_(lambda: _answers(("127.0.0.1", port)), 30, "starting the constant server")
    pids = [process.pid] if door == OWN_PORT else worker_pids(process.pid)
    return ("127.0.0.1", port), pids


def _answers(door: Door) -> bool:
    try:
        return ask(door, "GET", "/")[0] == 200
    except OSError:
        return False
