"""Aim: what is told is what became durable, once, in order, whatever happens in between. Method: random groups of honest,
repeated and refused updates on an engine in memory that dies before or after any write; a model that looks at durable states
alone says what must be in the stream."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paychan._fast.group import StateCache
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.outcome import Outcome
from paychan.core.outpoint import format_outpoint
from paychan.core.payment import SIGHASH_CHANGE, SIGHASH_NO_CHANGE, Payment
from paychan.core.sharding import shard_of
from paychan.events.endpoint import PREFIX, Endpoint
from paychan.events.event import Event, Type
from paychan.rpc.store_messages import Entry, EntryStatus, Unsettled, encode_commit
from paychan.settings.models import EventsConfig
from store import keys
from store.backup import newest_event, restored_records
from store.engines.at_once import AtOnce
from store.engines.interface import Kept
from store.engines.rocksdb import RocksDB
from store.events import Stamp, may_go
from store.group import Group
from store.retention import Retention

SHARDS, FUNDING, THRESHOLD, EXPIRY = 4, 1000, 600, 1_900_000_000
OUTPOINTS = [bytes([number]) * 32 + bytes(4) for number in range(3)]
ENDINGS = [Outcome(600, 7, 500, 9, 2), Outcome(600, 7, 500, missing=500, is_lost=True)]


class Died(Exception):
    pass


class Memory(AtOnce):
    """A disk. die: before or after the next write, or not."""

    def __init__(self):
        self.data, self.die = {}, ""

    def reopen(self):
        numbers = [keys.event_number(key) for key in self.data if key[:1] == keys.EVENT]
        self.newest_event = max(numbers, default=0)

    def commit(self, writes):
        if self.die == "before":
            raise Died
        for key, value in writes.items():
            if value is None:
                self.data.pop(key, None)
            else:
                self.data[key] = value
        if self.die == "after":
            raise Died

    def states(self, outpoints):
        return [self.data.get(keys.STATE + outpoint) for outpoint in outpoints]

    def terms(self, outpoints):
        return [self.data.get(keys.TERMS + outpoint) for outpoint in outpoints]

    def funding(self, txid):
        return self.data.get(keys.FUNDING + txid)

    def note_of(self, name):
        return self.data.get(keys.note_key(name))

    def notes(self, prefix):
        return {key[1:].decode(): value for key, value in self.data.items() if key.startswith(keys.note_key(prefix))}

    def stream(self, after, limit):
        found = sorted((keys.event_number(key), body) for key, body in self.data.items() if key[:1] == keys.EVENT)
        return Kept(found[0][0] if found else 0, self.newest_event, [row for row in found if row[0] > after][:limit])

    def told(self):
        return [(number, Event.parse(body)) for number, body in self.stream(0, 10**6).events]


def run(steps):
    return asyncio.run(steps)


def terms(outpoint):
    return ChannelTerms(outpoint, b"\2" * 33, b"\3" * 33, EXPIRY, FUNDING, b"sc", 7).serialize()


def state(phase, left):
    kind = SIGHASH_CHANGE if left else SIGHASH_NO_CHANGE
    return ChannelState(Phase(phase), Payment(left, b"s" * 70, kind), b"t" * 32 if phase >= Phase.SIGNED else b"").serialize()


def update(outpoint, before, left, phase, new_left, ending=ENDINGS[0]):
    signs = phase == Phase.SIGNED or before == phase == Phase.BROADCAST
    extra = terms(outpoint) if before == ABSENT else ending.serialize() if phase == Phase.SETTLED else b"tx" if signs else b""
    return Entry(shard_of(outpoint, SHARDS), 1, outpoint, before, left, state(phase, new_left), extra)


def expected(outpoint, before, after, ending):
    """What must be told of a channel that was `before` a group, and is `after` it; by the steps between. (phase, left) each."""
    kinds = []
    received = [FUNDING - left for _, left in (before, after)]
    if before[0] == ABSENT:
        kinds.append(Type.OPENED)
    if received[0] < THRESHOLD <= received[1]:
        kinds.append(Type.VALUE)
    if before[0] < Phase.CLOSING <= after[0]:
        kinds += [Type.EXHAUSTED] * (not after[1]) + [Type.CLOSING]
    if before[0] < Phase.BROADCAST <= after[0] and after[0] == Phase.BROADCAST:
        kinds.append(Type.BROADCAST)
    if before[0] < Phase.SETTLED == after[0]:
        kinds.append(Type.LOST if ending.is_lost else Type.SETTLED)
    return [(kind, format_outpoint(outpoint)) for kind in kinds]


STEP = st.tuples(
    st.sampled_from(OUTPOINTS), st.sampled_from(["pay", "much", "all", "on", "bump", "again", "lie"]), st.integers(0, 100)
)


def next_entry(known, outpoint, way, amount, ending):
    """An update by a worker that knows the channel, and what the channel is after it. None: there is no such step."""
    phase, left = known.get(outpoint, (ABSENT, FUNDING))
    if phase == Phase.SETTLED:
        return None
    if phase in (ABSENT, Phase.OPEN) and way in ("pay", "much", "all", "bump"):
        new_left = 0 if way == "all" else max(1, left - amount - (500 if way == "much" else 0))
        new = Phase.CLOSING if way == "all" else Phase.OPEN
    elif way == "bump" and phase in (Phase.SIGNED, Phase.BROADCAST):
        new, new_left = Phase(phase), left
    elif way == "on" and phase != ABSENT:
        new, new_left = Phase(phase + 1), left
    else:
        return None
    return update(outpoint, phase, left, new, new_left, ending), (new, new_left)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(STEP, max_size=5), st.sampled_from(["", "", "before", "after"]), st.sampled_from(ENDINGS))))
def test_the_stream_is_what_became_durable_whatever_dies_when(groups):
    engine, cache, durable, must = Memory(), StateCache(16), {}, []
    for steps, die, ending in groups:
        group = Group(engine, cache, [1] * (SHARDS + 2), SHARDS, Unsettled(10**6, 10**6))
        group.threshold = THRESHOLD
        known, told = dict(durable), []
        for outpoint, way, amount in steps:
            found = next_entry(known, outpoint, way, amount, ending)
            if found is None:  # one that is refused tells nothing
                wrong = update(outpoint, Phase.SIGNED, 5, Phase.BROADCAST, 5)
                assert list(group.judge(encode_commit([wrong.encode()]))) == [EntryStatus.CONFLICT]
                continue
            entry, after = found
            assert list(group.judge(encode_commit([entry.encode()]))) == [EntryStatus.OK]
            told += expected(outpoint, known.get(outpoint, (ABSENT, FUNDING)), after, ending)
            known[outpoint] = after
        engine.die = die
        try:
            run(engine.put(engine.take(group)))
            group.keep()
        except Died:
            engine.die, cache = "", StateCache(16)
            engine.reopen()
        if die != "before":
            durable, must = known, must + told
        found = engine.told()
        assert [number for number, _ in found] == list(range(1, len(must) + 1))
        assert sorted((event.type, event.outpoint) for _, event in found) == sorted(must)
        for outpoint in OUTPOINTS:
            name = format_outpoint(outpoint)
            mine = [event.type for _, event in found if event.outpoint == name]
            assert mine == [kind for kind, of in must if of == name]


def test_what_an_event_says():
    engine = Memory()
    outpoint, name = OUTPOINTS[1], format_outpoint(OUTPOINTS[1])
    lives = [(ABSENT, 1000, 1, 900), (1, 900, 2, 900), (2, 900, 3, 900), (3, 900, 4, 900), (4, 900, 5, 900)]
    for before, left, phase, new_left in lives:
        group = Group(engine, StateCache(0), [1] * (SHARDS + 2), SHARDS, Unsettled(10**6, 10**6))
        assert not any(group.judge(encode_commit([update(outpoint, before, left, phase, new_left).encode()])))
        run(engine.put(engine.take(group)))
    sums = {"funding_value_satoshi": 1000, "received_satoshi": 100}
    txid = (b"t" * 32).hex()
    assert [(event.type, event.data) for _, event in engine.told()] == [
        ("channel.opened", sums | {"expires_at": EXPIRY, "opened_at": 7}),
        ("channel.closing", sums | {"spent_satoshi": 0}),
        ("channel.settlement_broadcast", {"settlement_txid": txid}),
        ("channel.settled", sums | {"settlement_txid": txid, "fee_satoshi": 9, "missing_satoshi": 2}),
    ]
    assert {event.outpoint for _, event in engine.told()} == {name}


def test_a_payment_tells_nothing_and_makes_nothing_to_tell():
    engine = Memory()
    engine.data = {keys.TERMS + OUTPOINTS[0]: terms(OUTPOINTS[0]), keys.STATE + OUTPOINTS[0]: state(Phase.OPEN, 900)}
    group = Group(engine, StateCache(16), [1] * (SHARDS + 2), SHARDS, Unsettled(10**6))
    assert not any(group.judge(encode_commit([update(OUTPOINTS[0], 1, 900, 1, 899).encode()])))
    writes = engine.take(group)
    assert set(writes) == {keys.STATE + OUTPOINTS[0], keys.UNSETTLED}
    assert (group.is_told, group.crossed) == (False, None)


def test_a_note_is_replaced_by_who_knows_it_and_tells_once():
    engine, event = Memory(), Event(Type.CHAIN_TRUSTED)
    assert run(engine.note("a", None, b"1", [event])) == (True, b"1")
    assert run(engine.note("a", None, b"2", [event])) == (False, b"1")
    assert run(engine.note("a", b"0", b"2", [event])) == (False, b"1")
    engine.die = "before"
    with pytest.raises(Died):
        run(engine.note("a", b"1", b"2", [event]))
    engine.die = ""
    engine.reopen()
    assert engine.note_of("a") == b"1" and len(engine.told()) == 1
    assert run(engine.note("a", b"1", None, [])) == (True, None)
    assert engine.notes("a") == {} and len(engine.told()) == 1


DAY = 86400
CONFIG = EventsConfig(seconds=30 * DAY, count=10, undelivered_seconds=90 * DAY)


@pytest.mark.parametrize(
    ("age", "number", "heard", "goes"),
    [
        (31 * DAY, 50, 60, True),  # old
        (29 * DAY, 95, 100, False),
        (0, 90, 100, True),  # ten came after it
        (0, 91, 100, False),
        (31 * DAY, 50, 49, False),  # not delivered yet
        (0, 50, 49, False),
        (91 * DAY, 50, 49, True),  # for too long
        (91 * DAY, 100, 100, False),  # the newest one stays
    ],
)
def test_what_may_go(age, number, heard, goes):
    assert may_go(Event(Type.OPENED, at=1_000_000_000 - age), number, 100, heard, 1_000_000_000, CONFIG) is goes


def test_events_go_in_order_and_numbers_never_come_again():
    engine, now = Memory(), 2_000_000_000
    run(engine.tell_of([Event(Type.CHAIN_TRUSTED)] * 30))
    retention = Retention(engine, lambda _: None, lambda: True, CONFIG)
    endpoint = Endpoint("ep_1", "https://x", "", 0, cursor=5)
    run(engine.note(PREFIX + "ep_1", None, endpoint.encode(), []))
    run(retention.drop_some(int(engine.told()[0][1].at)))
    assert [number for number, _ in engine.told()] == list(range(6, 31))  # what was not delivered stays
    run(retention.drop_some(now))
    assert [number for number, _ in engine.told()] == [30]
    engine.reopen()
    run(engine.tell_of([Event(Type.CHAIN_TRUSTED)]))
    assert [number for number, _ in engine.told()] == [30, 31]


def test_a_restored_store_gives_no_number_out_again_and_says_so():
    pairs = [(keys.event_key(number), b"") for number in (3, 7)] + [(keys.STATE + OUTPOINTS[0], b"")]
    more = restored_records(5, newest_event(iter(pairs)))
    ((key, body),) = [pair for pair in more.items() if pair[0][:1] == keys.EVENT]
    assert keys.event_number(key) == 7 + 2**32 and Event.parse(body).type == Type.RESTORED


def test_the_real_engine_keeps_them(tmp_path):
    engine = RocksDB(tmp_path / "db")
    run(engine.tell_of([Event(Type.SHARD_STOPPED, {"shard": number}) for number in range(5)]))
    assert run(engine.note("told/a", None, b"1", [Event(Type.CHAIN_DOUBTFUL, {"why": "x"})])) == (True, b"1")
    run(engine.note("told/ab", None, b"2", []))
    run(engine.note("other", None, b"3", []))
    engine.close()
    engine = RocksDB(tmp_path / "db")
    assert engine.newest_event == 6
    kept = engine.stream(4, 10)
    assert (kept.oldest, kept.newest, [number for number, _ in kept.events]) == (1, 6, [5, 6])
    assert json.loads(kept.events[1][1])["data"] == {"why": "x"}
    assert engine.notes("told/") == {"told/a": b"1", "told/ab": b"2"}
    assert engine.notes("told/ab") == {"told/ab": b"2"}
    run(engine.drop(4))
    assert engine.stream(0, 10).oldest == 5
    run(engine.drop(100))
    assert [number for number, _ in engine.stream(0, 10).events] == [6]
    engine.close()


def test_the_stamp_says_when_and_where():
    (body,) = Stamp("b").encode([Event(Type.CHAIN_TRUSTED)])
    event = Event.parse(body)
    assert event.machine == "b" and event.at > 1_700_000_000
