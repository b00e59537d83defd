"""Frames of several workers become one synced write and are answered after it; a failing write ends the process. With
a real RocksDB and a hand-turned event loop."""

import asyncio
import subprocess
import sys

import pytest

from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.payment import Payment
from paychan.core.sharding import shard_of
from paychan.exits import EXIT_FAILED
from paychan.rpc.store_messages import Entry, EntryStatus, encode_commit
from store.engines.at_once import AtOnce
from store.engines.interface import Unread
from store.engines.rocksdb import RocksDB
from store.keys import STATE
from store.leases import NOT_HELD
from store.sequencer import QUEUE_BYTES_MAX, Sequencer

OK, STALE_EPOCH, CONFLICT, FORBIDDEN, STOPPED = EntryStatus
SHARDS = 4
OUTPOINT = bytes(range(36))
SHARD = shard_of(OUTPOINT, SHARDS)


class Turns:
    """What the event loop would do: run callbacks when told."""

    def __init__(self) -> None:
        self.waiting = []

    def __call__(self, callback) -> None:
        self.waiting.append(callback)

    def run(self) -> None:
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()


@pytest.fixture
def rig(tmp_path):
    engine, turns = RocksDB(tmp_path / "db"), Turns()
    yield Sequencer(engine, SHARDS, turns), turns, engine
    engine.close()


def entry(old: int, value: int, expected: int, epoch: int = 0) -> Entry:
    state = ChannelState(Phase.OPEN, Payment(value, b"s" * 70, 0x83)).serialize()
    terms = ChannelTerms(OUTPOINT, b"\2" * 33, b"\3" * 33, 600_000_000, 1000, b"").serialize()
    return Entry(SHARD, epoch, OUTPOINT, old, expected, state, terms if old == ABSENT else b"")


def commit_job(entries, answers):
    payload = encode_commit([entry.encode() for entry in entries])

    def job(group):
        statuses = list(group.judge(payload))
        return lambda: answers.append(statuses)

    return job


def test_two_frames_on_one_channel_in_one_group_are_judged_against_each_other(rig):
    sequencer, turns, engine = rig
    commits, commit = [], engine.commit
    engine.commit = lambda writes: (commits.append(writes), commit(writes))
    answers = []
    for frame in ([entry(ABSENT, 1000, 1000)], [entry(Phase.OPEN, 900, 1000)], [entry(Phase.OPEN, 800, 1000)]):
        sequencer.add(commit_job(frame, answers))
    assert answers == []
    turns.run()
    assert answers == [[OK], [OK], [CONFLICT]]
    assert len(commits) == 1
    assert engine.load([OUTPOINT])[0].state == entry(Phase.OPEN, 900, 1000).state


def test_answers_come_after_the_write(rig):
    sequencer, turns, engine = rig
    events, commit = [], engine.commit
    engine.commit = lambda writes: (commit(writes), events.append("written"))
    sequencer.add(
        lambda group: (group.judge(encode_commit([entry(ABSENT, 1000, 1000).encode()])), lambda: events.append("answered"))[1]
    )
    turns.run()
    assert events == ["written", "answered"]


def test_the_cache_hears_of_a_group_only_when_it_is_durable(rig):
    sequencer, turns, engine = rig
    seen, commit = [], engine.commit
    engine.commit = lambda writes: (seen.append(sequencer._cache.get(OUTPOINT)), commit(writes))
    for payment in (entry(ABSENT, 1000, 1000), entry(Phase.OPEN, 900, 1000)):
        sequencer.add(commit_job([payment], []))
        turns.run()
    assert seen == [None, (Phase.OPEN, 1000)]
    assert sequencer._cache.get(OUTPOINT) == (Phase.OPEN, 900)


def test_a_change_of_ownership_stands_in_the_line_and_is_durable_before_it_is_told(rig):
    sequencer, turns, engine = rig
    answers = []

    def raise_epoch(group):
        group.raise_epochs({SHARD: 1})
        return lambda: answers.append(engine.epochs(SHARDS)[SHARD])

    sequencer.add(commit_job([entry(ABSENT, 1000, 1000)], answers))
    sequencer.add(raise_epoch)
    sequencer.add(commit_job([entry(Phase.OPEN, 900, 1000)], answers))
    sequencer.add(commit_job([entry(Phase.OPEN, 900, 1000, epoch=1)], answers))
    turns.run()
    assert answers == [[OK], 1, [STALE_EPOCH], [OK]]


def test_a_group_of_refusals_writes_nothing(rig):
    sequencer, turns, engine = rig
    engine.commit = lambda writes: pytest.fail("nothing to write")
    answers = []
    sequencer.add(commit_job([entry(Phase.OPEN, 900, 1000)], answers))
    turns.run()
    assert answers == [[CONFLICT]]


def test_the_queue_is_bounded_and_emptied(rig):
    sequencer, turns, _ = rig
    sequencer.add(commit_job([], []), QUEUE_BYTES_MAX)
    assert not sequencer.has_room(1)
    turns.run()
    assert sequencer.has_room(QUEUE_BYTES_MAX)


def test_what_arrives_while_answers_go_out_forms_the_next_group(rig):
    sequencer, turns, _ = rig
    answers = []
    again = commit_job([entry(Phase.OPEN, 900, 1000)], answers)
    sequencer.add(lambda group: (group.judge(encode_commit([entry(ABSENT, 1000, 1000).encode()])), lambda: sequencer.add(again))[1])
    turns.run()
    assert answers == []
    turns.run()
    assert answers == [[OK]]


FAILING = """
import sys
from pathlib import Path
from store.engines.rocksdb import RocksDB
from store.keys import STATE
from store.leases import NOT_HELD
from store.sequencer import Sequencer
engine = RocksDB(Path(sys.argv[1]))
def fail(writes):
    raise Exception("IO error: injected")
engine.commit = fail
sequencer = Sequencer(engine, 4, lambda callback: None)
def job(group):
    group.raise_epochs({0: 1})
    return lambda: print("answered")
sequencer.add(job)
try:
    sequencer.finish_group()
finally:
    print("went on")
"""


def test_a_failing_write_ends_the_process_without_an_answer(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FAILING, str(tmp_path / "db")], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == EXIT_FAILED, done.stderr
    assert done.stdout == ""
    assert "injected" in done.stderr


def test_after_a_failing_write_this_process_does_nothing_more(rig, monkeypatch):
    class Ended(BaseException):
        pass

    def end(status):
        raise Ended(status)

    def fail(writes):
        raise OSError("injected")

    sequencer, turns, engine = rig
    answers = []
    engine.commit = fail
    monkeypatch.setattr("os._exit", end)
    sequencer.add(commit_job([entry(ABSENT, 1000, 1000)], answers))
    with pytest.raises(Ended, match=str(EXIT_FAILED)):
        turns.run()
    assert answers == []


def test_the_queue_counts_what_it_holds_and_nothing_else(rig):
    sequencer, turns, _ = rig
    assert QUEUE_BYTES_MAX == 16 * 1024 * 1024
    assert sequencer.has_room(QUEUE_BYTES_MAX) and not sequencer.has_room(QUEUE_BYTES_MAX + 1)
    sequencer.add(commit_job([], []))
    assert sequencer.has_room(QUEUE_BYTES_MAX)
    sequencer.add(commit_job([], []), 100)
    assert sequencer.has_room(QUEUE_BYTES_MAX - 100) and not sequencer.has_room(QUEUE_BYTES_MAX - 99)
    turns.run()


# --- an engine that answers later ---


class Later(AtOnce):
    """The real engine, as one would behave that is asked over a network: it reads before a group is judged, and each call is done
    when `let_go` says so."""

    def __init__(self, database) -> None:
        self.database, self.waiting, self.asked = database, [], []
        self.epochs, self.unsettled, self.open_spent = database.epochs, database.unsettled, database.open_spent

    def run(self, steps):
        self._steps = asyncio.get_running_loop().create_task(steps)

    async def _turn(self):
        done = asyncio.get_running_loop().create_future()
        self.waiting.append(done)
        await done

    async def prepare(self, missing):
        outpoints = missing()
        self.asked.append(outpoints)
        if outpoints:
            await self._turn()
        pairs = zip(self.database.states(outpoints), self.database.terms(outpoints), strict=True)
        return Known(dict(zip(outpoints, pairs, strict=True)))

    async def put(self, writes):
        await self._turn()
        self.database.commit(writes)

    async def let_go(self):
        self.waiting.pop(0).set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)


class Known:
    def __init__(self, records) -> None:
        self.records = records

    def states(self, outpoints):
        return [self._of(outpoint)[0] for outpoint in outpoints]

    def terms(self, outpoints):
        return [self._of(outpoint)[1] for outpoint in outpoints]

    def _of(self, outpoint):
        if outpoint not in self.records:
            raise Unread
        return self.records[outpoint]


def later(scenario):
    """Run a test on an event loop, with a `Later` and its sequencer."""

    def run(tmp_path):
        async def main():
            database = RocksDB(tmp_path / "db")
            engine = Later(database)
            try:
                await scenario(engine, Sequencer(engine, SHARDS, asyncio.get_running_loop().call_soon))
            finally:
                database.close()

        asyncio.run(main())

    run.__name__ = scenario.__name__
    return run


def send(sequencer, answers, *entries):
    payload = encode_commit([entry.encode() for entry in entries])
    sequencer.add(commit_job(entries, answers), len(payload), payload)


@later
async def test_what_comes_while_a_group_is_in_flight_is_the_next_and_nothing_is_answered_before(engine, sequencer):
    answers = []
    send(sequencer, answers, entry(ABSENT, 1000, 1000))
    await asyncio.sleep(0.01)
    assert engine.asked == [[OUTPOINT]]
    await engine.let_go()  # it was read
    send(sequencer, answers, entry(Phase.OPEN, 900, 1000))
    send(sequencer, answers, entry(Phase.OPEN, 800, 900))
    await asyncio.sleep(0.01)
    assert (answers, len(engine.waiting), engine.database.states([OUTPOINT])) == ([], 1, [None])
    await engine.let_go()  # it is durable
    assert answers == [[OK]] and not sequencer.is_idle
    assert engine.asked == [[OUTPOINT], []]  # the cache has learned it
    await engine.let_go()
    assert answers == [[OK]] * 3 and sequencer.is_idle
    assert engine.database.load([OUTPOINT])[0].state == entry(Phase.OPEN, 800, 900).state


@later
async def test_what_was_not_read_is_read_with_all_that_the_group_names_and_judged_again(engine, sequencer):
    """A contradicted cache is held against what is durable, which nobody knew before. Epochs that the group raised are put back."""
    answers = []
    send(sequencer, answers, entry(ABSENT, 1000, 1000))
    await asyncio.sleep(0.01)
    await engine.let_go()
    await engine.let_go()

    def raise_epoch(group):
        group.raise_epochs({SHARD: 1})
        return lambda: answers.append("raised")

    sequencer.add(raise_epoch)
    send(sequencer, answers, entry(Phase.OPEN, 5, 7, epoch=1), entry(Phase.OPEN, 900, 1000, epoch=1))
    await asyncio.sleep(0.01)
    assert engine.asked == [[OUTPOINT], [], [OUTPOINT]]
    await engine.let_go()
    await engine.let_go()
    assert answers == [[OK], "raised", [CONFLICT, OK]]
    assert engine.database.epochs(SHARDS)[SHARD] == 1


@later
async def test_a_group_that_asks_for_what_nobody_names_ends_the_process(engine, sequencer):
    class Ended(BaseException):
        pass

    def end(status):
        raise Ended(status)

    def ask(group):
        group.read([bytes(36)])

    sequencer.add(ask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os._exit", end)
        await asyncio.sleep(0.01)
        with pytest.raises(Ended, match=str(EXIT_FAILED)):
            await engine._steps


# --- steps: what several stores do with leases ---


def alone(sequencer, turns, act):
    """Have `act()` done as a step, between groups."""

    async def step():
        act()

    sequencer.run_alone(step)
    turns.run()


def test_a_step_runs_when_nothing_is_in_flight_and_before_the_group_that_waits(rig):
    sequencer, turns, _ = rig
    events = []

    def job(_):
        events.append("judged")
        return lambda: events.append("answered")

    sequencer.add(job)
    alone(sequencer, turns, lambda: events.append("step"))
    assert events == ["step", "judged", "answered"] and sequencer.is_idle


def test_a_lease_that_was_let_go_is_refused_and_read_anew_when_it_is_back(rig):
    """Meanwhile another store has written the channel: neither the cache nor the shard's account may know it as it was."""
    sequencer, turns, engine = rig
    answers = []

    def send(update):
        answers.clear()
        sequencer.add(commit_job([update], answers))
        turns.run()
        return answers[0]

    assert send(entry(ABSENT, 1000, 1000)) == send(entry(Phase.OPEN, 900, 1000)) == [OK]
    alone(sequencer, turns, lambda: sequencer.let_go([SHARD, SHARDS]))
    for epoch in (0, 1, NOT_HELD):
        assert send(entry(Phase.OPEN, 800, 900, epoch)) == [STALE_EPOCH]
    engine.commit({STATE + OUTPOINT: entry(Phase.OPEN, 700, 900).state})
    alone(sequencer, turns, lambda: sequencer.hold({SHARD: 7, SHARDS: 7}))
    assert send(entry(Phase.OPEN, 600, 700, 6)) == [STALE_EPOCH]
    assert send(entry(Phase.OPEN, 600, 700, 7)) == [OK]
    assert sequencer._cache.get(OUTPOINT) == (Phase.OPEN, 600)
    assert sequencer._cache.accounts.of(SHARD) == (1000, 400, 600, 0, 100, 0), "of one channel, under the new epoch"
    assert not sequencer._cache.accounts.stopped


def test_only_what_belongs_to_a_lease_is_forgotten(rig):
    sequencer, turns, _ = rig
    answers = []
    sequencer.add(commit_job([entry(ABSENT, 1000, 1000)], answers))
    turns.run()
    alone(sequencer, turns, lambda: sequencer.hold({shard: 3 for shard in range(SHARDS) if shard != SHARD}))
    assert sequencer._cache.get(OUTPOINT) == (Phase.OPEN, 1000)
    alone(sequencer, turns, lambda: sequencer.hold({SHARD: 3}))
    assert sequencer._cache.get(OUTPOINT) is None
