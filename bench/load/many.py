"""Scene: very many open channels. Rows 9 and 10: what a payment costs with them and with few, what memory a loaded channel takes,
and how soon a server serves that is started on them.

Every channel that is measured has been visited by one payment before, which loads it; then by the one that counts.
"""

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterable

from bench.load.measure import Lane
from bench.load.payers import Payer, Request
from bench.load.populate import opened_payer, populate
from bench.load.processes import Door, Instance, ask
from bench.load.scene import Scene, Step
from tests.system import ROOT, resident_bytes

WATCH_SECONDS = 4.0
"""How long after a start the server is asked again and again."""

MANY, FEW = "many channels", "few channels"


class ManyChannels(Scene):
    """Two systems that differ in nothing but the number of their channels."""

    def start(self) -> None:
        self._many = self._populated("many", self.size.many)
        self._few = self._populated("few", self.size.few)
        key = self._few.server_pubkey
        self._few_payers = [opened_payer(number, key) for number in range(self.size.few)]
        self._few_lane = self._lane(FEW, self._few)
        numbers = random.Random(1).sample(range(self.size.many), self.size.visited * self.size.rounds + self.size.loaded)
        self._unvisited = iter(numbers)
        self._many_lane = self._lane(MANY, self._many)

    def _populated(self, name: str, channels: int) -> Instance:
        instance = Instance(self.directory / name)
        self.exits.callback(instance.stop)
        instance.start_store()
        begun = time.monotonic()
        populate(instance.store_address, instance.server_pubkey, channels)
        self.record.facts[f"seconds to make {name} channels"] = time.monotonic() - begun
        instance.start_server()
        self.record.facts[f"seconds until rest after a start on {name} channels"] = instance.wait_for_rest()
        return instance

    def _lane(self, name: str, instance: Instance) -> Lane:
        """Return connections without requests of their own: each slice gives them its own."""
        return Lane(name, [self._door(instance)] * self.size.main, instance.pids(), lambda number, count: [])

    def _door(self, instance: Instance) -> Door:
        """Return the one worker's own port. A channel that is opened for this tells it."""
        return instance.open([Payer("door", 0, instance.server_pubkey)])[0]

    def _dealt(self, requests: Iterable[list[Request]]) -> list[list[Request]]:
        """Deal the channels' requests to the connections in turn."""
        hands: list[list[Request]] = [[] for _ in range(self.size.main)]
        for place, part in enumerate(requests):
            hands[place % self.size.main] += part
        return hands

    # --- in each round ---

    def steps(self) -> list[Step]:
        return [(FEW, self._measure_few), (MANY, self._measure_many)]

    def _measure_few(self) -> None:
        rounds = -(-self.size.visited // self.size.few)
        payers = (self._few_payers * rounds)[: self.size.visited]
        self._few_lane.visit_all(self._dealt(payer.pay(1) for payer in self._few_payers))
        self.record.add(FEW, self._few_lane.measure_given(self._dealt(payer.pay(1) for payer in payers), self.verify))

    def _measure_many(self) -> None:
        payers = self._visit(self.size.visited)
        self.record.add(MANY, self._many_lane.measure_given(self._dealt(payer.pay(1) for payer in payers), self.verify))

    def _visit(self, count: int) -> list[Payer]:
        """Pay once on channels that nobody paid on before; return their payers."""
        key = self._many.server_pubkey
        payers = [opened_payer(next(self._unvisited), key) for _ in range(count)]
        self._many_lane.visit_all(self._dealt(payer.pay(1) for payer in payers))
        return payers

    # --- once ---

    def finish(self) -> None:
        """Measure memory, now that the worker has all that it needs without channels; then start again."""
        facts = self.record.facts
        before = self._resident()
        self._visit(self.size.loaded)
        facts["bytes for each channel"] = (self._resident() - before) / self.size.loaded
        facts["channels loaded"] = self.size.loaded
        facts["bytes for each channel, table alone"] = table_bytes(self.size.loaded)
        facts["seconds from start to first payment"] = self._restart()

    def _resident(self) -> int:
        return sum(map(resident_bytes, self._many.worker_pids()))

    def _restart(self) -> float:
        """Stop everything, start it on the same state, and pay once; return the seconds from the start to that answer."""
        payer = opened_payer(self.size.many // 2, self._many.server_pubkey)
        payer.left -= 2  # if it was visited: then this is its third payment, else it pays three at once
        self._many.stop()
        begun = time.monotonic()
        self._many.start()
        raw, _, _ = payer.pay(1)[0]
        target = raw.split(b" ")[1].decode()
        while self._status(target) != 200:
            time.sleep(0.01)
        served = time.monotonic()
        self.record.facts["longest wait for an answer in the seconds after it"] = self._longest_wait(target)
        return served - begun

    def _status(self, target: str) -> int:
        """Return the status of a payment's answer, 0 if none comes."""
        with contextlib.suppress(OSError):
            return ask(self._many.door, "PUT", target)[0]
        return 0

    def _longest_wait(self, target: str) -> float:
        """Return the seconds that the slowest of many repeated payments took."""
        longest, end = 0.0, time.monotonic() + (WATCH_SECONDS if self.size.rounds > 1 else 0)
        while time.monotonic() < end:
            asked = time.monotonic()
            self._status(target)
            longest = max(longest, time.monotonic() - asked)
        return longest


TABLE_PROGRAM = """
import sys
from bench.load.populate import opened_payer
from tests.system import resident_bytes
from paychan._fast.channel import ChannelTable
from paychan.core.channel import ChannelState, Phase
from paychan.core.payment import SIGHASH_CHANGE, Payment
count, pid = int(sys.argv[1]), __import__("os").getpid()
table = ChannelTable(256, 3600)
table.own([1] * 256)
def load(first, last):
    for number in range(first, last):
        payer = opened_payer(number, bytes([2]) + bytes(31) + bytes([1]))
        table.load(payer.terms, ChannelState(Phase.OPEN, Payment(payer.left, bytes(71), SIGHASH_CHANGE)))
load(0, 1000)
before = resident_bytes(pid)
load(1000, 1000 + count)
print((resident_bytes(pid) - before) / count)
"""


def table_bytes(channels: int) -> float:
    """Return the bytes that a channel holds in a `ChannelTable`, by the growth of a process that does nothing else."""
    argv = [sys.executable, "-c", TABLE_PROGRAM, str(channels)]
    return float(subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
