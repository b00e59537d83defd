"""Aim: the compiled judging of a COMMIT's bytes is the rule, whatever bytes come. Method: a slow model that is written from the
rule and shares no code with it; Hypothesis drives both through groups of honest, stale, repeated and damaged entries, with caches
of several sizes, and compares answers, writes, open value and the cache."""

import struct

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from paychan._fast.group import StateCache
from paychan.core.sharding import shard_of
from paychan.rpc.store_messages import ENTRIES_MAX, EntryStatus, MessageError, Unsettled, check_commit
from store.group import Group

OK, STALE_EPOCH, CONFLICT, FORBIDDEN, STOPPED = EntryStatus
ABSENT, OPEN, CLOSING, SIGNED, BROADCAST, SETTLED = range(6)
STEPS = {(0, 1), (0, 2), (1, 1), (1, 2), (2, 3), (3, 3), (3, 4), (4, 4), (4, 5), (2, 5), (3, 5)}
SIGNING = {(2, 3), (3, 3), (4, 4)}
SHARDS = 4
EXPIRY = 1_900_000_000
HUGE = 2**64 - 1
OUTPOINTS = [bytes([txid]) * 32 + bytes([vout, 0, 0, 0]) for txid, vout in ((0, 0), (0, 1), (1, 0), (2, 2), (3, 1))]
ENTRY = struct.Struct("<HHQ36sBBHQQ")


def record(phase, value, signature=b"s" * 9, version=1):
    return struct.pack("<BBBBQ", version, phase, 0x83, len(signature), value) + signature + (b"t" * 32 if phase >= SIGNED else b"")


def terms(value):
    return struct.pack("<BBIQQ33s33s", 1, 2, EXPIRY, value, 7, b"\2" * 33, b"\3" * 33) + b"sc"


def entry(outpoint, old, expected, state, extra=b"", epoch=1, shard=None, credit=None):
    """credit: what the payer is told; None: the truth."""
    if credit is None:
        credit = max(0, expected - int.from_bytes(state[4:12], "little"))
    shard = shard_of(outpoint, SHARDS) if shard is None else shard
    return ENTRY.pack(len(state), shard, epoch, outpoint, old, 0, len(extra), expected, credit) + state + extra


def commit(*entries, claims=()):
    packed = [struct.pack("<HQQ", *claim) for claim in claims]
    return struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<H", len(packed)) + b"".join(packed)


class Model:
    """The store as a dict of keys, and one entry at a time."""

    def __init__(self):
        self.data = {}
        self.epochs = [1] * SHARDS
        self.stopped = set()

    @staticmethod
    def split(payload):
        """Return the entries, or None for what is no COMMIT."""
        entries, rest = [], payload[2:]
        for _ in range(int.from_bytes(payload[:2], "little")):
            if len(rest) < ENTRY.size:
                return None
            size, *head, extra_size, expected, credit = ENTRY.unpack_from(rest)
            rest = rest[ENTRY.size :]
            if len(rest) < size + extra_size:
                return None
            entries.append((*head, expected, rest[:size], rest[size : size + extra_size], credit))
            rest = rest[size + extra_size :]
        return None if len(rest) < 2 or len(rest) != 2 + 18 * int.from_bytes(rest[:2], "little") else entries

    @staticmethod
    def read(state):
        """Return (phase, value) of a state record, or None for what is none."""
        if len(state) < 12 or state[0] != 1 or len(state) != 12 + state[3] + (32 if state[1] >= SIGNED else 0):
            return None
        return state[1], int.from_bytes(state[4:12], "little")

    def judge(self, shard, epoch, outpoint, old, _zero, expected, state, extra, credit):
        if shard >= SHARDS:
            return FORBIDDEN
        if epoch != self.epochs[shard]:
            return STALE_EPOCH
        settles = old != ABSENT and credit == 0 and (self.read(state) or (OPEN,))[0] != OPEN and self.read(state)[1] == expected
        if shard in self.stopped and not settles:
            return STOPPED
        current = self.data.get(b"S" + outpoint)
        if (old, expected) != (self.read(current) if current else (ABSENT, expected)):
            return CONFLICT
        new = self.read(state)
        if shard != shard_of(outpoint, SHARDS) or new is None or (old, new[0]) not in STEPS:
            return FORBIDDEN
        if new[1] > expected or (old >= CLOSING and new[1] != expected):
            return FORBIDDEN
        if old == ABSENT:
            if len(extra) < 88 or extra[0] != 1 or len(extra) != 88 + extra[1] or extra[6:14] != struct.pack("<Q", expected):
                return FORBIDDEN
        elif bool(extra) != ((old, new[0]) in SIGNING):
            return FORBIDDEN
        if credit != expected - new[1]:
            self.stopped.add(shard)
            return STOPPED
        self.write(outpoint, old, new[0], state, extra)
        return OK

    def write(self, outpoint, old, new, state, extra):
        self.data[b"S" + outpoint] = state
        if extra:
            self.data[(b"T" if old == ABSENT else b"X") + outpoint] = extra
        index = b"O" + self.data[b"T" + outpoint][2:6][::-1] + outpoint
        self.data.pop(index, None)
        self.data.pop(b"U" + outpoint, None)
        if new == OPEN:
            self.data[index] = b""
        elif new != SETTLED:
            self.data[b"U" + outpoint] = bytes([new])

    @property
    def unsettled(self):
        states = {key[1:]: self.read(value) for key, value in self.data.items() if key[:1] == b"S"}
        funding = {outpoint: int.from_bytes(self.data[b"T" + outpoint][6:14], "little") for outpoint in states}
        received = {OPEN: 0, SETTLED: 0, "begun": 0}
        for outpoint, (phase, value) in states.items():
            received[phase if phase in received else "begun"] += funding[outpoint] - value
        return received[OPEN], received["begun"]


class Store:
    """The group under test over a dict, with a cache that lives as long as it."""

    def __init__(self, buckets):
        self.data, self.epochs, self.cache, self.reads = {}, [1] * SHARDS, StateCache(buckets), []
        self.unsettled = Unsettled()
        self.begin()

    def states(self, outpoints):
        self.reads += outpoints
        return [self.data.get(b"S" + outpoint) for outpoint in outpoints]

    def terms(self, outpoints):
        return [self.data.get(b"T" + outpoint) for outpoint in outpoints]

    def begin(self):
        self.group = Group(self, self.cache, self.epochs, SHARDS, self.unsettled)

    def finish(self):
        for key, value in self.group.writes.items():
            if value is None:
                self.data.pop(key, None)
            else:
                self.data[key] = value
        self.group.keep()
        self.unsettled = self.group.unsettled
        self.begin()


VALUES = st.integers(0, 3) | st.sampled_from([HUGE - 1, HUGE])


@st.composite
def entries(draw, model):
    """An entry by a worker that knows the channel, or thinks it does."""
    outpoint = draw(st.sampled_from(OUTPOINTS))
    current = model.data.get(b"S" + outpoint)
    old, expected = Model.read(current) if current else (ABSENT, draw(VALUES))
    new = draw(st.sampled_from([after for before, after in sorted(STEPS) if before == old] or [SETTLED]))
    value = draw(st.integers(0, expected)) if old <= OPEN else expected
    signature = draw(st.binary(max_size=3))
    extra = terms(expected) if old == ABSENT else b"tx" if (old, new) in SIGNING else b""
    epoch, shard = model.epochs[0], shard_of(outpoint, SHARDS)
    match draw(st.sampled_from(["true"] * 6 + ["phase", "expected", "new", "value", "extra", "epoch", "shard", "record"])):
        case "phase":
            old = draw(st.integers(0, 6))
        case "expected":
            expected = draw(VALUES)
        case "new":
            new = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 255]))
        case "value":
            value = draw(VALUES)
        case "extra":
            extra = draw(st.sampled_from([b"", b"x", terms(expected)[:-1], terms(0)]))
        case "epoch":
            epoch += draw(st.sampled_from([-1, 1]))
        case "shard":
            shard = draw(st.integers(0, SHARDS + 1) | st.just(0xFFFF))
        case "record":
            return entry(outpoint, old, expected, draw(st.binary(max_size=14)), extra, epoch, shard)
    return entry(outpoint, old, expected, record(new, value, signature), extra, epoch, shard)


@st.composite
def damaged(draw, payload):
    at = draw(st.integers(0, len(payload)))
    junk = draw(st.binary(max_size=6))
    return draw(st.sampled_from([payload[:at], payload[:at] + junk + payload[at + len(junk) :], payload + junk, junk]))


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from([0, 1, 1024]))
def test_any_bytes_are_judged_as_the_rule_says(data, buckets):
    model, store = Model(), Store(buckets)
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["commit"] * 8 + ["damaged", "flush", "flush", "epoch"]))
        if what == "flush":
            store.finish()
            assert store.data == model.data
            for outpoint in OUTPOINTS:
                known = store.cache.get(outpoint)
                assert known is None or known == Model.read(model.data[b"S" + outpoint])
        elif what == "epoch":
            model.epochs = [epoch + 1 for epoch in model.epochs]
            store.epochs[:] = model.epochs
        else:
            payload = commit(*[data.draw(entries(model)) for _ in range(data.draw(st.integers(0, 4)))])
            judge(model, store, data.draw(damaged(payload)) if what == "damaged" else payload)
            assert set(store.cache.accounts.stopped) == model.stopped
            if model.stopped:
                return  # the sequencer throws such a group away
        assert store.group.unsettled == model.unsettled


def judge(model, store, payload):
    split = Model.split(payload)
    if split is None:
        with pytest.raises(MessageError):
            check_commit(payload)
        with pytest.raises(ValueError):
            store.group.judge(payload)
        return
    check_commit(payload)
    answers = [model.judge(*fields) for fields in split]
    for answer in answers:
        event(answer.name)
    assert list(store.group.judge(payload)) == answers


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_judged(payload):
    judge(Model(), Store(1), payload)


def opened(buckets=1024, value=1000):
    store = Store(buckets)
    openings = [entry(key, ABSENT, value, record(OPEN, value), terms(value)) for key in OUTPOINTS]
    assert list(store.group.judge(commit(*openings))) == [OK] * 5
    store.finish()
    return store


def test_the_cache_learns_from_durable_groups_only():
    store = opened()
    assert list(store.group.judge(commit(entry(OUTPOINTS[0], OPEN, 1000, record(OPEN, 900))))) == [OK]
    assert store.cache.get(OUTPOINTS[0]) == (OPEN, 1000)
    store.finish()
    assert store.cache.get(OUTPOINTS[0]) == (OPEN, 900)
    assert store.cache.get(OUTPOINTS[1]) == (OPEN, 1000)
    assert store.cache.get(b"\xff" * 36) is None


def test_every_step_of_a_life_is_judged_on_what_the_cache_learned_from_the_step_before():
    store, key = opened(), OUTPOINTS[1]
    store.reads.clear()
    for old, new in ((OPEN, OPEN), (OPEN, CLOSING), (CLOSING, SIGNED), (SIGNED, SIGNED), (SIGNED, BROADCAST), (BROADCAST, SETTLED)):
        step = commit(entry(key, old, 1000, record(new, 1000), b"tx" if (old, new) in SIGNING else b""))
        assert list(store.group.judge(step)) == [OK]
        store.finish()
        assert store.cache.get(key) == (new, 1000)
        assert list(store.group.judge(commit(entry(key, OPEN, 1000, record(OPEN, 1))))) == [OK if new == OPEN else CONFLICT]
        store.begin()  # what was judged last is not written
    assert store.reads == [key] * 5  # each contradiction is looked up, and the cache was right
    assert store.cache.accounts.stopped == {}


def test_what_a_full_bucket_displaces_is_read_again():
    store = opened(buckets=1)
    kept = [key for key in OUTPOINTS if store.cache.get(key)]
    assert len(kept) == 4
    store.reads.clear()
    assert list(store.group.judge(commit(*[entry(key, OPEN, 1000, record(OPEN, 999)) for key in OUTPOINTS]))) == [OK] * 5
    assert store.reads == [key for key in OUTPOINTS if key not in kept]


def test_one_read_fetches_each_unknown_channel_of_a_frame_once():
    store = Store(0)
    pay = [entry(key, OPEN, 1000, record(OPEN, 999)) for key in OUTPOINTS]
    assert list(store.group.judge(commit(*pay, *pay))) == [CONFLICT] * 10
    assert list(store.group.judge(commit(*pay))) == [CONFLICT] * 5
    assert store.reads == OUTPOINTS


def test_a_group_of_thousands_of_channels_is_judged_whole():
    """The group's own table grows many times; of two frames each second payment is judged on the first."""
    store = Store(1)
    keys = [number.to_bytes(36, "little") for number in range(ENTRIES_MAX)]
    assert set(store.group.judge(commit(*[entry(key, ABSENT, 9, record(OPEN, 9), terms(9)) for key in keys]))) == {OK}
    for value in (8, 7):
        payload = commit(*[entry(key, OPEN, value + 1, record(OPEN, value)) for key in keys])
        assert set(store.group.judge(payload)) == {OK}
        assert set(store.group.judge(payload)) == {CONFLICT}
    store.finish()
    assert {store.data[b"S" + key] for key in keys} == {record(OPEN, 7)}
    assert store.unsettled == (2 * ENTRIES_MAX, 0)


def test_the_open_value_is_exact_beyond_64_bits():
    store = opened(value=HUGE)
    assert list(store.group.judge(commit(*[entry(key, OPEN, HUGE, record(OPEN, 0)) for key in OUTPOINTS]))) == [OK] * 5
    assert store.group.open_value == 5 * HUGE


@pytest.mark.parametrize("damage", [b"", b"\1", record(OPEN, 5)[:-1], record(OPEN, 5, version=2), record(ABSENT, 5)])
def test_a_damaged_record_in_the_database_stops_its_shard(damage):
    store, key = Store(0), OUTPOINTS[0]
    store.data[b"S" + key] = damage
    store.data[b"T" + key] = terms(5)
    store.group.judge(commit(entry(key, OPEN, 5, record(OPEN, 4))))
    assert list(store.cache.accounts.take_found()) == [shard_of(key, SHARDS)]
    store.begin()
    steps = [entry(key, old, 5, record(new, 5)) for old in (ABSENT, OPEN, 255) for new in (OPEN, CLOSING)]
    assert OK not in store.group.judge(commit(*steps))
    assert store.group.writes == {}


def test_a_cache_has_a_power_of_two_of_buckets():
    for buckets in (3, 6, 1000):
        with pytest.raises(ValueError, match="power of two"):
            StateCache(buckets)
