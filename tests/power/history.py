"""A store's scripted life, run in a process of its own under the shim: real lock, engine, identity, groups and sequencer, and
a hand-turned event loop. It marks in the record what is about to be written ("G" and the group's writes) and that everything
marked before has been answered ("A").

    python -m tests.power.history DIRECTORY SHAPE SEED [crash | tail | nosync | nowal | early]
"""

import os
import pickle
import random
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import store.engines.rocksdb
import store.serving as command
from paychan._fast.group import StateCache
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Ending, Phase
from paychan.core.payment import Payment
from paychan.core.sharding import shard_of
from paychan.hangup import HangUp
from paychan.notify import Manager
from paychan.rpc.store_messages import Entry, encode_commit
from paychan.settings.load import load_store_config
from paychan.settings.models import StoreConfig
from store import peek, sequencer
from store.engines.rocksdb import RocksDB
from store.identity import Identity
from store.leases import Leases
from store.sequencer import Sequencer

from .shim import mark

SHARDS = 8
PUBKEY = b"\2" * 33
FUNDING = 1_000_000
CONFIG = """
network = "test"
state_dir = "{state}"
[store]
address = "unix:run/store.sock"
shard_count = 8
lease_ms = 60000
server_pubkey = "{pubkey}"
"""


def configure(directory: Path, state: Path | None = None) -> StoreConfig:
    """Write store.toml into `directory` and return it as read."""
    file = directory / "store.toml"
    file.write_text(CONFIG.format(state=state or directory / "state", pubkey=PUBKEY.hex()))
    return load_store_config(str(file))


@dataclass(frozen=True)
class Shape:
    """What happens in one life. `entries`: at most, in one group. steps: weight of a step towards settlement, against payments.

    buffer: RocksDB's memtable; small ones rotate logs, write tables and merge them during the record. size: of a settlement.
    """

    channels: int = 4
    groups: int = 150
    entries: int = 12
    steps: float = 0.05
    buffer: int = 1 << 16
    size: int = 400
    joins: float = 0.02
    reopen: float = 0.0
    reuse: int = 2
    opens: float = 0.1


SHAPES = {
    "hot": Shape(steps=0.0),
    "many": Shape(channels=300, entries=20, opens=0.6),
    "settling": Shape(channels=250, steps=0.4, size=2000, opens=0.3),
    "rotating": Shape(channels=300, groups=220, entries=20, size=6000, steps=0.15, reuse=4, opens=0.3),
    "owners": Shape(channels=10, entries=4, joins=0.5),
    "reopening": Shape(channels=60, groups=120, reopen=0.08, steps=0.05),
    "plain": Shape(channels=80, groups=150, steps=0.1, buffer=0, reuse=0),
    "big": Shape(channels=200, groups=60, entries=60, size=30_000, steps=0.3, reuse=2, opens=0.3),
}


def outpoint(number: int) -> bytes:
    return random.Random(number).randbytes(32) + (number % 3).to_bytes(4, "little")


class Channel:
    """One channel of the script. Its records are drawn from the script's own random numbers."""

    def __init__(self, number: int) -> None:
        self.outpoint = outpoint(number)
        self.phase, self.value, self.txid = ABSENT, FUNDING, b""
        self.shard = shard_of(self.outpoint, SHARDS)
        self.terms = ChannelTerms(self.outpoint, PUBKEY, b"\3" * 33, 1_800_000_000 + number, FUNDING, b"\xa9" * 23, 7)

    def next(self, rng: random.Random, shape: Shape, epoch: int) -> Entry:
        """Return an update that the store accepts, and take it as accepted."""
        old, value, extra = self.phase, self.value, b""
        if old == ABSENT:
            self.phase = Phase.OPEN if rng.random() < 0.95 else Phase.CLOSING
            self.value -= rng.randint(1, 1000) if self.phase == Phase.OPEN else FUNDING
            extra = self.terms.serialize()
        elif old == Phase.OPEN and rng.random() >= shape.steps:
            self.value -= rng.randint(0, min(1000, self.value))
        else:
            self.phase = Phase(old + 1)
            if self.phase == Phase.SIGNED:
                extra = rng.randbytes(rng.randint(shape.size // 2, shape.size))
                self.txid = sha256(sha256(extra).digest()).digest()
            elif self.phase == Phase.SETTLED:
                extra = Ending(False, 1, 0).serialize()
        state = ChannelState(self.phase, Payment(self.value, rng.randbytes(70), 0x83), self.txid).serialize()
        return Entry(self.shard, epoch, self.outpoint, old, value, state, extra)


class Script:
    """Drives a sequencer. One instance goes through all openings of one life: the channels remember where they are."""

    def __init__(self, shape: Shape, seed: str) -> None:
        self.shape, self.rng = shape, random.Random(seed)
        self.channels = [Channel(number) for number in range(shape.channels)]
        self.known = 0
        self.left = shape.groups

    def run(self, engine: RocksDB) -> None:
        """Write groups until all are written, or until this opening of the store is over."""
        shape, rng = self.shape, self.rng
        leases = Leases(SHARDS, engine.epochs(SHARDS))
        turns: list = []
        line = Sequencer(engine, SHARDS, turns.append)
        workers = []
        while self.left:
            self.left -= 1
            if not workers or rng.random() < shape.joins:
                workers.append(leases.join("w", 0))
                if len(workers) > 3:
                    leases.leave(workers.pop(0))
                raised = leases.rebalance()
                line.add(lambda group, raised=raised: (group.raise_epochs(raised), lambda: None)[1])
            epochs = [epoch for _, epoch in leases.table().owners]
            for _ in range(rng.randint(1, 3)):
                entries = self._entries(epochs, rng.randint(1, max(1, shape.entries // 2)))
                line.add(self._job(entries))
            for turn in turns:
                turn()
            turns.clear()
            mark(b"A")
            if rng.random() < shape.reopen:
                return

    def _entries(self, epochs: list[int], count: int) -> list[Entry]:
        entries = []
        for _ in range(count):
            if self.known < len(self.channels) and (not self.known or self.rng.random() < self.shape.opens):
                self.known += 1
                channel = self.channels[self.known - 1]
            else:
                channel = self.rng.choice(self.channels[: self.known])
            if channel.phase != Phase.SETTLED:
                entries.append(channel.next(self.rng, self.shape, epochs[channel.shard]))
        return entries

    @staticmethod
    def _job(entries: list[Entry]):
        payload = encode_commit([entry.encode() for entry in entries])

        def job(group):
            assert not any(group.judge(payload)), "the script sent what the store refuses"
            return lambda: None

        return job

    def resume(self, engine: RocksDB) -> None:
        """Take the channels as the store has them: the last group may or may not have been kept."""
        for number, stored in enumerate(engine.load([channel.outpoint for channel in self.channels])):
            channel = self.channels[number]
            if stored is None:
                self.channels[number] = Channel(number)
            else:
                state = ChannelState.parse(stored.state)
                channel.phase, channel.value, channel.txid = state.phase, state.payment.change_value, state.settlement_txid
                self.known = max(self.known, number + 1)


def small_options(shape: Shape, reuse: int) -> None:
    """Have the engine rotate its logs and merge its tables many times in a short life. What it does is the same."""
    real = store.engines.rocksdb._options

    def options():
        made = real()
        if shape.buffer:
            made.set_write_buffer_size(shape.buffer)
            made.set_level_zero_file_num_compaction_trigger(3)
            made.set_level_zero_slowdown_writes_trigger(20)
            made.set_level_zero_stop_writes_trigger(30)
            made.set_max_manifest_file_size(3000)
            made.set_target_file_size_base(1 << 17)
            made.set_max_bytes_for_level_base(1 << 18)
            made.set_recycle_log_file_num(reuse)
            made.set_max_write_buffer_number(3)
        return made

    store.engines.rocksdb._options = options


def break_it(how: str) -> None:
    """The negative controls: stores that lose what they acknowledged."""
    begin = RocksDB.__init__

    def careless(self, directory, sync=True):
        begin(self, directory, how == "early" and sync)
        if how == "nowal":
            self._write_options.disable_wal = True

    if how in ("nosync", "nowal"):
        RocksDB.__init__ = careless
    if how == "early":  # answers, then writes
        commit = RocksDB.commit

        def late(self, writes):
            mark(b"A")
            commit(self, writes)

        RocksDB.commit = late


def mark_groups() -> None:
    commit = RocksDB.commit

    def marked(self, writes):
        mark(b"G" + pickle.dumps(dict(writes)))
        commit(self, writes)

    RocksDB.commit = marked


def main() -> int:
    directory, shape_name, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    how = sys.argv[4] if len(sys.argv) > 4 else ""
    shape = SHAPES[shape_name]
    sequencer.StateCache = lambda: StateCache(1 << 8)
    store.engines.rocksdb.peek = peek.read_sequence  # in this process: the record knows no other
    break_it(how)
    mark_groups()
    small_options(shape, 0 if how == "nowal" else shape.reuse)  # RocksDB knows that the two do not go together
    config = configure(directory)
    script = Script(shape, seed)

    async def serve(_: StoreConfig, identity: Identity, engine: RocksDB, hang_up: HangUp, manager: Manager) -> None:
        mark(b"A")  # it would say "ready" here
        script.resume(engine)
        script.run(engine)
        if how in ("crash", "tail"):
            os._exit(0)

    command._serve = serve
    while script.left:
        command.run(config, HangUp(), Manager({}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
