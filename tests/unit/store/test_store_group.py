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
MOST = 21 * 10**14  # satoshi that there can be
OUTPOINTS = [bytes([txid]) * 32 + bytes([vout, 0, 0, 0]) for txid, vout in ((0, 0), (0, 1), (1, 0), (2, 2), (3, 1))]
ENTRY = struct.Struct("<HHQ36sBBHQQ")
ENDING = struct.pack("<BBIIQQQ", 1, 0, 600, 5, 1000, 5, 3)  # settled, with a fee of 5, and 3 are missing
KEYS = [bytes([number]) * 16 for number in range(6)]


def record(phase, value, signature=b"s" * 9, version=1):
    return struct.pack("<BBBBQ", version, phase, 0x83, len(signature), value) + signature + (b"t" * 32 if phase >= SIGNED else b"")


def sold(phase, value, spent, revision, purchases=(), signature=b"s" * 9, kind=1):
    """The record of a channel with sales. purchases: (key, asked, held, number, until)."""
    head = struct.pack("<BBBBQQQ", 2, phase, kind, len(signature), value, spent, revision) + signature
    return head + (b"t" * 32 if phase >= SIGNED else b"") + b"".join(struct.pack("<16sQQQI", *row) for row in purchases)


def brings(old, new):
    return b"tx" if (old, new) in SIGNING else ENDING if new == SETTLED else b""


def terms(value):
    return struct.pack("<BBIQQ33s33s", 1, 2, EXPIRY, value, 7, b"\2" * 33, b"\3" * 33) + b"sc"


def entry(outpoint, old, expected, state, extra=b"", epoch=1, shard=None, credit=None, sales=None):
    """credit: what the payer is told; None: the truth. sales: (expected revision, what the seller is told), if any."""
    if credit is None:
        credit = max(0, expected - int.from_bytes(state[4:12], "little"))
    shard = shard_of(outpoint, SHARDS) if shard is None else shard
    told = b"" if sales is None else struct.pack("<QQ", sales[0], sales[1] % 2**64)
    return ENTRY.pack(len(state), shard, epoch, outpoint, old, len(told), len(extra), expected, credit) + told + state + extra


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
            size, *head, told, extra_size, expected, credit = ENTRY.unpack_from(rest)
            rest = rest[ENTRY.size :]
            if told not in (0, 16) or len(rest) < told + size + extra_size:
                return None
            sales = struct.unpack("<QQ", rest[:16]) if told else (0, 0)
            rest = rest[told:]
            entries.append((*head, expected, rest[:size], rest[size : size + extra_size], credit, *sales))
            rest = rest[size + extra_size :]
        return None if len(rest) < 2 or len(rest) != 2 + 18 * int.from_bytes(rest[:2], "little") else entries

    @staticmethod
    def read(state):
        """Return (phase, value) of a state record, or None for what is none."""
        if state[:1] == b"\2":
            return state[1:2] and Model.read_sold(state) and (state[1], int.from_bytes(state[4:12], "little"))
        if len(state) < 12 or state[0] != 1 or len(state) != 12 + state[3] + (32 if state[1] >= SIGNED else 0):
            return None
        return state[1], int.from_bytes(state[4:12], "little")

    @staticmethod
    def read_sold(state):
        """Return (spent, revision) of the record of a channel with sales, or None for what is none."""
        at = 28 + (state[3] + (32 if state[1] >= SIGNED else 0) if len(state) >= 28 else 0)
        if len(state) < at or state[2] != 1 or (len(state) - at) % 44 or len(state) - at > 4 * 44:
            return None
        rows = list(struct.iter_unpack("<16sQQQI", state[at:]))
        spent, revision = struct.unpack("<QQ", state[12:28])
        if not revision or sum(row[2] for row in rows) > spent or any(row[2] > row[1] for row in rows):
            return None
        return spent, revision

    @classmethod
    def sales(cls, state):
        return cls.read_sold(state) if state and state[0] == 2 else (0, 0)

    def judge(self, shard, epoch, outpoint, old, expected, state, extra, credit, revision, charge):
        if shard >= SHARDS:
            return FORBIDDEN
        if epoch != self.epochs[shard]:
            return STALE_EPOCH
        read = self.read(state) or (OPEN, 0)
        settles = old != ABSENT and credit == charge == 0 and read[0] != OPEN and read[1] == expected
        if shard in self.stopped and not settles:
            return STOPPED
        current = self.data.get(b"S" + outpoint)
        if (old, expected) != (self.read(current) if current else (ABSENT, expected)):
            return CONFLICT
        spent, known = self.sales(current)
        if revision != known:
            return CONFLICT
        new = self.read(state)
        if shard != shard_of(outpoint, SHARDS) or not new or (old, new[0]) not in STEPS:
            return FORBIDDEN
        new_spent, new_revision = self.sales(state)
        if (new_spent != spent) if new_revision == known else (old != OPEN or new_revision < known):
            return FORBIDDEN
        if new[1] > expected or (old >= CLOSING and new[1] != expected):
            return FORBIDDEN
        if old == ABSENT:
            if len(extra) < 88 or extra[0] != 1 or len(extra) != 88 + extra[1] or extra[6:14] != struct.pack("<Q", expected):
                return FORBIDDEN
            if expected > MOST:
                return FORBIDDEN
        elif new[0] == SETTLED:
            if len(extra) != 34 or extra[0] != 1 or extra[1] > 1:
                return FORBIDDEN
            had, fee, missing = struct.unpack("<QQQ", extra[10:])
            if not missing + fee <= had <= MOST or (extra[1] and missing != had):
                return FORBIDDEN
        elif bool(extra) != ((old, new[0]) in SIGNING):
            return FORBIDDEN
        received = self.received(outpoint, extra) - new[1] if old == OPEN else new_spent
        if credit != expected - new[1] or charge != (new_spent - spent) % 2**64 or new_spent > received:
            self.stopped.add(shard)
            return STOPPED
        self.write(outpoint, old, new[0], state, extra)
        return OK

    def received(self, outpoint, extra):
        """Return the funding value of a channel, or of one that is opened."""
        return int.from_bytes(self.data.get(b"T" + outpoint, extra)[6:14], "little")

    def write(self, outpoint, old, new, state, extra):
        self.data[b"S" + outpoint] = state
        if new == SETTLED:
            self.data[b"D" + extra[2:6][::-1] + outpoint] = extra
        elif extra:
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

    @property
    def open_spent(self):
        return sum(self.sales(value)[0] for key, value in self.data.items() if key[:1] == b"S" and value[1] == OPEN)


class Store:
    """The group under test over a dict, with a cache that lives as long as it."""

    def __init__(self, buckets):
        self.data, self.epochs, self.cache, self.reads = {}, [1] * SHARDS, StateCache(buckets), []
        self.unsettled, self.open_spent = Unsettled(), 0
        self.begin()

    def states(self, outpoints):
        self.reads += outpoints
        return [self.data.get(b"S" + outpoint) for outpoint in outpoints]

    def terms(self, outpoints):
        return [self.data.get(b"T" + outpoint) for outpoint in outpoints]

    def begin(self):
        self.group = Group(self, self.cache, self.epochs, SHARDS, self.unsettled, self.open_spent)

    def finish(self):
        for key, value in self.group.writes.items():
            if value is None:
                self.data.pop(key, None)
            else:
                self.data[key] = value
        self.group.keep()
        self.unsettled, self.open_spent = self.group.unsettled, self.group.open_spent
        self.begin()


VALUES = st.integers(0, 3) | st.sampled_from([MOST - 1, MOST, MOST + 1, HUGE])


@st.composite
def entries(draw, model):
    """An entry by a worker that knows the channel, or thinks it does."""
    outpoint = draw(st.sampled_from(OUTPOINTS))
    current = model.data.get(b"S" + outpoint)
    old, expected = Model.read(current) if current else (ABSENT, draw(VALUES))
    new = draw(st.sampled_from([after for before, after in sorted(STEPS) if before == old] or [SETTLED]))
    value = draw(st.integers(0, expected)) if old <= OPEN else expected
    signature = draw(st.binary(max_size=3))
    extra = terms(expected) if old == ABSENT else brings(old, new)
    epoch, shard = model.epochs[0], shard_of(outpoint, SHARDS)
    if current and draw(st.booleans()):
        return draw(sold_entries(model, outpoint, old, expected, new, extra))
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
            odd_endings = [ENDING, ENDING[:-1], b"\2" + ENDING[1:], ENDING[:1] + b"\1" + ENDING[2:], ENDING[:-16] + b"\xff" * 16]
            extra = draw(st.sampled_from([b"", b"x", *odd_endings, terms(expected)[:-1], terms(0)]))
        case "epoch":
            epoch += draw(st.sampled_from([-1, 1]))
        case "shard":
            shard = draw(st.integers(0, SHARDS + 1) | st.just(0xFFFF))
        case "record":
            return entry(outpoint, old, expected, draw(st.binary(max_size=14)), extra, epoch, shard)
    return entry(outpoint, old, expected, record(new, value, signature), extra, epoch, shard)


@st.composite
def sold_entries(draw, model, outpoint, old, expected, new, extra):
    """An update that sells, or carries sales along, or does so wrongly."""
    spent, revision = model.sales(model.data[b"S" + outpoint])
    value = draw(st.integers(max(0, expected - 2), expected)) if old == OPEN else expected
    credit = expected - value
    after, told = spent, revision + 1 if old == OPEN else revision
    if old == OPEN:
        after = max(0, min(spent + draw(st.integers(-3, 3)), model.received(outpoint, b"") - value))
    change = after - spent
    held = draw(st.integers(0, min(after, 3)))
    rows = [(draw(st.sampled_from(KEYS)), held + draw(st.integers(0, 1)), held, told, draw(st.integers(0, 9)))] if held else []
    kind = 1
    match draw(st.sampled_from(["true"] * 6 + ["revision", "told", "spent", "change", "kind", "many", "held", "cut"])):
        case "revision":
            revision += draw(st.sampled_from([-1, 1]))
        case "told":
            told += draw(st.sampled_from([-1, 1, -2]))
        case "spent":
            after += draw(st.sampled_from([1, 5, -1]))
        case "change":
            change += draw(st.sampled_from([1, -1]))
        case "kind":
            kind = draw(st.integers(0, 3))
        case "many":
            rows = [(key, 0, 0, 1, 0) for key in KEYS[: draw(st.integers(4, 5))]]
        case "held":
            rows = [(KEYS[0], 2, draw(st.sampled_from([3, after + 1, HUGE])), 1, 0)]
    state = sold(new, value, max(0, after) % 2**64, max(0, told), rows, kind=kind)
    state = state[:-1] if draw(st.integers(0, 19)) == 0 else state
    return entry(outpoint, old, expected, state, extra, model.epochs[0], None, credit, (max(0, revision), change))


@st.composite
def damaged(draw, payload):
    at = draw(st.integers(0, len(payload)))
    junk = draw(st.binary(max_size=6))
    return draw(st.sampled_from([payload[:at], payload[:at] + junk + payload[at + len(junk) :], payload + junk, junk]))


@settings(max_examples=200, deadline=None)
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
        assert store.group.open_spent == model.open_spent


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
        step = commit(entry(key, old, 1000, record(new, 1000), brings(old, new)))
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


def test_the_open_value_is_the_sum_also_of_the_largest_channels():
    store = opened(value=MOST)
    assert list(store.group.judge(commit(*[entry(key, OPEN, MOST, record(OPEN, 0)) for key in OUTPOINTS]))) == [OK] * 5
    assert store.group.open_value == 5 * MOST


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


# --- what was sold ---


def test_a_sale_that_was_judged_on_older_sales_is_a_conflict():
    """Two of one worker's requests, or two workers: the second does not know of the first."""
    store, key = opened(), OUTPOINTS[0]
    paid = entry(key, OPEN, 1000, record(OPEN, 900))
    first = entry(key, OPEN, 900, sold(OPEN, 900, 60, 1), sales=(0, 60))
    assert list(store.group.judge(commit(paid, first))) == [OK, OK]
    store.finish()
    assert list(store.group.judge(commit(entry(key, OPEN, 900, sold(OPEN, 900, 50, 1), sales=(0, 50))))) == [CONFLICT]
    assert list(store.group.judge(commit(entry(key, OPEN, 900, record(OPEN, 890))))) == [CONFLICT]  # it would forget the sales
    assert list(store.group.judge(commit(entry(key, OPEN, 900, sold(OPEN, 890, 60, 1), sales=(1, 0))))) == [OK]
    store.finish()
    assert Model.sales(store.data[b"S" + key]) == (60, 1) and store.open_spent == 60


def test_only_an_open_channel_sells():
    store, key = opened(), OUTPOINTS[0]
    steps = [
        entry(key, OPEN, 1000, sold(CLOSING, 900, 60, 1), sales=(0, 60)),
        entry(key, CLOSING, 900, sold(SIGNED, 900, 60, 1), b"tx", sales=(1, 0)),
    ]
    more = entry(key, CLOSING, 900, sold(SIGNED, 900, 70, 2), b"tx", sales=(1, 10))
    less = entry(key, CLOSING, 900, record(SIGNED, 900), b"tx", sales=(1, (-60) % 2**64))
    assert list(store.group.judge(commit(steps[0], more, less, steps[1]))) == [OK, FORBIDDEN, FORBIDDEN, OK]
    store.finish()
    assert Model.sales(store.data[b"S" + key]) == (60, 1) and store.open_spent == 0


# --- for an engine that reads before and writes columns ---


def test_the_columns_say_what_the_pairs_do_and_what_was_there_before():
    store, (paid, left, new) = opened(), OUTPOINTS[:3]
    store.group.judge(commit(entry(paid, OPEN, 1000, record(OPEN, 900)), entry(left, OPEN, 1000, record(OPEN, 800))))
    store.finish()
    store.data.pop(b"S" + new), store.data.pop(b"T" + new)
    store.cache = StateCache(0)
    store.begin()
    payments = [entry(paid, OPEN, 900, record(OPEN, 850)), entry(paid, OPEN, 850, sold(OPEN, 840, 60, 1), sales=(0, 60))]
    others = [entry(left, OPEN, 800, record(CLOSING, 800)), entry(new, ABSENT, 7, record(OPEN, 5), terms(7))]
    assert list(store.group.judge(commit(*payments, *others))) == [OK] * 4
    assert store.group.put_columns() == (
        [paid, left, new],
        [OPEN, OPEN, ABSENT],
        [900, 800, 7],
        [0, 0, 0],
        [OPEN, CLOSING, OPEN],
        [840, 800, 5],
        [1, 0, 0],
        [store.group.writes[b"S" + outpoint] for outpoint in (paid, left, new)],
    )


def test_what_must_be_read_first_is_what_is_not_cached_and_what_takes_a_step():
    store = opened()
    cached, step, unknown = OUTPOINTS[0], OUTPOINTS[1], b"?" * 36
    payload = commit(
        entry(cached, OPEN, 1000, record(OPEN, 900)),
        entry(step, OPEN, 1000, record(CLOSING, 1000)),
        entry(unknown, ABSENT, 7, record(OPEN, 5), terms(7)),
        entry(unknown, OPEN, 5, record(OPEN, 4)),
    )
    for is_all, expected in ((False, [step, unknown]), (True, [cached, step, unknown])):
        missing = {}
        store.cache.add_missing(missing, payload, is_all)
        assert list(missing) == expected
    asked = []
    store.group.read = lambda outpoints: asked.extend(outpoints) or [(None, None)] * len(outpoints)
    store.group.judge(payload)
    assert set(asked) <= {step, unknown}
