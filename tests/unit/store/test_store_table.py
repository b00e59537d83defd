"""The conditional update never lets a channel go back or pay its payer more: every step tried, and random histories
compared with a model that is a plain dict."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paychan._fast.group import StateCache
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.outcome import Outcome
from paychan.core.payment import Payment
from paychan.core.sharding import shard_of
from paychan.rpc.store_messages import Entry, EntryStatus, encode_commit
from store import keys
from store.group import Group

OK, STALE_EPOCH, CONFLICT, FORBIDDEN, STOPPED = EntryStatus
SHARDS = 4
EPOCH = 7
VALUE = 50_000
OUTPOINT = bytes(range(36))
SHARD = shard_of(OUTPOINT, SHARDS)
PHASES = (ABSENT, *Phase)
LEGAL = {
    (ABSENT, Phase.OPEN),
    (ABSENT, Phase.CLOSING),
    (Phase.OPEN, Phase.OPEN),
    (Phase.OPEN, Phase.CLOSING),
    (Phase.CLOSING, Phase.SIGNED),
    (Phase.SIGNED, Phase.BROADCAST),
    (Phase.BROADCAST, Phase.SETTLED),
    # a settlement signed again, with a higher fee
    (Phase.SIGNED, Phase.SIGNED),
    (Phase.BROADCAST, Phase.BROADCAST),
    # the funding output was spent by another transaction
    (Phase.CLOSING, Phase.SETTLED),
    (Phase.SIGNED, Phase.SETTLED),
}
BRINGS_SETTLEMENT = {(Phase.CLOSING, Phase.SIGNED), (Phase.SIGNED, Phase.SIGNED), (Phase.BROADCAST, Phase.BROADCAST)}


def state(phase: int, value: int) -> bytes:
    txid = b"t" * 32 if phase >= Phase.SIGNED else b""
    return ChannelState(Phase(phase), Payment(value, b"s" * 71, 0x83), txid).serialize()


def terms(outpoint: bytes = OUTPOINT, value: int = VALUE) -> bytes:
    return ChannelTerms(outpoint, b"\2" * 33, b"\3" * 33, 1_900_000_000, value, b"script").serialize()


ENDING = Outcome(600, 5, 1000, 7, 2).serialize()
LOST_IN_PART = ENDING[:1] + b"\1" + ENDING[2:]


def extra_for(old: int, new: int) -> bytes:
    ending = ENDING if new == Phase.SETTLED else b""
    return terms() if old == ABSENT else b"tx" if (old, new) in BRINGS_SETTLEMENT else ending


def entry(old: int, new: int, new_value: int = VALUE, expected: int = VALUE, **changes) -> Entry:
    whole = Entry(SHARD, EPOCH, OUTPOINT, old, expected, state(new, new_value), extra_for(old, new))
    return dataclasses.replace(whole, **changes)


def stored(phase: int, value: int = VALUE) -> bytes | None:
    return None if phase == ABSENT else state(phase, value)


def commit_of(*entries: Entry) -> bytes:
    return encode_commit([item.encode() for item in entries])


def judge(item: Entry, current: bytes | None, epoch: int) -> EntryStatus:
    """What a group answers to one entry, when the channel's record is `current`."""
    reader = DictReader()
    if current is not None:
        reader.data |= {keys.STATE + item.outpoint: current, keys.TERMS + item.outpoint: terms(item.outpoint)}
    group = Group(reader, StateCache(0), [epoch] * SHARDS, SHARDS)
    (status,) = group.judge(commit_of(item))
    assert bool(group.writes) == (status == OK)
    return EntryStatus(status)


@pytest.mark.parametrize("new_value", [VALUE - 1, VALUE, VALUE + 1, 0, 1 << 63])
@pytest.mark.parametrize(("old", "new"), list(itertools.product(PHASES, Phase)))
def test_only_legal_steps_with_a_value_that_does_not_rise_pass(old, new, new_value):
    value_fits = new_value <= VALUE if old in (ABSENT, Phase.OPEN) else new_value == VALUE
    expected = OK if (old, new) in LEGAL and value_fits else FORBIDDEN
    assert judge(entry(old, new, new_value), stored(old), EPOCH) == expected


@pytest.mark.parametrize(("old", "new", "believed"), list(itertools.product(PHASES, Phase, PHASES)))
def test_a_wrong_expected_phase_is_a_conflict(old, new, believed):
    if believed != old:
        assert judge(entry(believed, new), stored(old), EPOCH) == CONFLICT


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("expected", [VALUE - 1, VALUE + 1, 0])
def test_a_wrong_expected_value_is_a_conflict(phase, expected):
    assert judge(entry(phase, Phase.CLOSING, expected=expected), stored(phase), EPOCH) == CONFLICT


@pytest.mark.parametrize("phase", Phase)
def test_a_channel_is_created_once_and_a_tombstone_stays(phase):
    assert judge(entry(ABSENT, Phase.OPEN), stored(phase), EPOCH) == CONFLICT


@pytest.mark.parametrize("epoch", [EPOCH - 1, EPOCH + 1, 0])
def test_another_epoch_is_stale_before_all_else(epoch):
    assert judge(entry(Phase.OPEN, Phase.OPEN, epoch=epoch), stored(Phase.OPEN), EPOCH) == STALE_EPOCH
    assert judge(entry(Phase.OPEN, Phase.OPEN, epoch=epoch, state=b""), None, EPOCH) == STALE_EPOCH


@pytest.mark.parametrize("cut", [b"", b"\1", state(1, VALUE)[:-1], state(1, VALUE) + b"x", b"\2" + state(1, VALUE)[1:]])
@pytest.mark.parametrize("old", [ABSENT, Phase.OPEN])
def test_a_malformed_state_record_is_forbidden(old, cut):
    assert judge(entry(old, Phase.OPEN, state=cut), stored(old), EPOCH) == FORBIDDEN


@pytest.mark.parametrize("phase", [0, 6, 255])
def test_an_unknown_phase_is_forbidden(phase):
    record = bytearray(state(Phase.OPEN, VALUE) if phase < 3 else state(Phase.SETTLED, VALUE))
    record[1] = phase
    for old in PHASES:
        assert judge(entry(old, Phase.OPEN, state=bytes(record)), stored(old), EPOCH) == FORBIDDEN


@pytest.mark.parametrize("extra", [b"", b"\1", terms()[:-1], terms(value=VALUE + 1), terms(value=0)])
@pytest.mark.parametrize("new", [Phase.OPEN, Phase.CLOSING])
def test_a_channel_without_fitting_terms_is_not_created(new, extra):
    assert judge(entry(ABSENT, new, new_value=0, extra=extra), None, EPOCH) == FORBIDDEN


@pytest.mark.parametrize(("old", "new"), sorted(step for step in LEGAL if step[0] != ABSENT))
def test_a_step_brings_a_settlement_exactly_when_it_is_signed(old, new):
    wrong = b"" if (old, new) in BRINGS_SETTLEMENT else b"tx"
    assert judge(entry(old, new, extra=wrong), stored(old), EPOCH) == FORBIDDEN


@pytest.mark.parametrize(
    "ending", [b"", b"\0" + ENDING[1:], b"\2" + ENDING[1:], LOST_IN_PART, ENDING[:-1], ENDING + b"x", ENDING[:-16] + b"\xff" * 16]
)
def test_a_channel_ends_only_in_a_way_that_is_known(ending):
    assert judge(entry(Phase.BROADCAST, Phase.SETTLED, extra=ending), stored(Phase.BROADCAST), EPOCH) == FORBIDDEN


def test_a_payment_writes_its_state_and_nothing_else():
    payment = entry(Phase.OPEN, Phase.OPEN, VALUE - 1)
    reader = DictReader()
    reader.data |= {keys.STATE + OUTPOINT: state(Phase.OPEN, VALUE), keys.TERMS + OUTPOINT: terms()}
    group = Group(reader, StateCache(0), [EPOCH] * SHARDS, SHARDS)
    assert list(group.judge(commit_of(payment))) == [OK]
    assert group.writes == {keys.STATE + OUTPOINT: payment.state}


class DictReader:
    """Durable data of the model: what the groups wrote."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}

    def states(self, outpoints):
        return [self.data.get(keys.STATE + outpoint) for outpoint in outpoints]

    def terms(self, outpoints):
        return [self.data.get(keys.TERMS + outpoint) for outpoint in outpoints]

    def apply(self, writes):
        for key, value in writes.items():
            if value is None:
                self.data.pop(key, None)
            else:
                self.data[key] = value


OUTPOINTS = [bytes([number]) * 36 for number in range(3)]
VALUES = st.integers(0, 4)
ENTRIES = st.builds(
    lambda outpoint, old, expected, new, value, epoch: Entry(
        shard_of(outpoint, SHARDS),
        epoch,
        outpoint,
        old,
        expected,
        state(new, value),
        terms(outpoint, 4) if old == ABSENT else b"tx" if (old, new) in BRINGS_SETTLEMENT else b"",
    ),
    st.sampled_from(OUTPOINTS),
    st.sampled_from(PHASES),
    VALUES,
    st.sampled_from(list(Phase)),
    VALUES,
    st.sampled_from([1, 1, 1, 0, 2]),
)


def model_step(model: dict[bytes, tuple[int, int]], item: Entry, epoch: int) -> EntryStatus:
    new_phase, new_value = item.state[1], int.from_bytes(item.state[4:12], "little")
    if item.epoch != epoch:
        return STALE_EPOCH
    phase, value = model.get(item.outpoint, (ABSENT, item.expected_change_value))
    if (phase, value) != (item.expected_phase, item.expected_change_value):
        return CONFLICT
    if phase == ABSENT and value != 4:
        return FORBIDDEN
    fits = new_value <= value if phase <= Phase.OPEN else new_value == value
    if (phase, new_phase) not in LEGAL or not fits:
        return FORBIDDEN
    if new_phase == Phase.SETTLED and item.extra != ENDING:
        return FORBIDDEN
    if phase != ABSENT and new_phase < Phase.SETTLED and bool(item.extra) != ((phase, new_phase) in BRINGS_SETTLEMENT):
        return FORBIDDEN
    model[item.outpoint] = (new_phase, new_value)
    return OK


def believe(item: Entry, known: tuple[int, int] | None) -> Entry:
    """The same update by a worker that knows the channel: so that histories get far."""
    old, expected = known or (ABSENT, 4)
    new = item.state[1]
    extra = terms(item.outpoint, 4) if old == ABSENT else extra_for(old, new)
    return Entry(item.shard, item.epoch, item.outpoint, old, expected, item.state, extra)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(ENTRIES, st.sampled_from(["blind", "knowing", "again", "flush", "bump"])), max_size=60),
    st.sampled_from([0, 1, 1024]),
)
def test_any_history_matches_the_model_and_never_goes_back(history, buckets):
    reader, epochs, model, epoch = DictReader(), [1] * (SHARDS + 2), {}, 1
    cache = StateCache(buckets)
    group, sent = Group(reader, cache, epochs, SHARDS), []
    for item, way in history:
        if way == "flush":
            reader.apply(group.writes)
            group.keep()
            group = Group(reader, cache, epochs, SHARDS, group.unsettled)
        elif way == "bump":
            epoch += 1
            group.raise_epochs(dict.fromkeys(range(SHARDS), epoch))
        elif way == "knowing":
            item = believe(item, model.get(item.outpoint))
        elif way == "again" and sent:
            item = sent[item.epoch % len(sent)]
        sent.append(item)
        before = dict(model)
        assert list(group.judge(commit_of(item))) == [model_step(model, item, epoch)]
        for outpoint, (phase, value) in before.items():
            assert model[outpoint][0] >= phase
            assert model[outpoint][1] <= value
    begun = sum(4 - value for phase, value in model.values() if Phase.OPEN < phase < Phase.SETTLED)
    assert group.unsettled == (sum(4 - value for phase, value in model.values() if phase == Phase.OPEN), begun)
    reader.apply(group.writes)
    check_indexes(reader.data, model)


def check_indexes(data: dict[bytes, bytes], model: dict[bytes, tuple[int, int]]) -> None:
    expected = {}
    for outpoint, (phase, value) in model.items():
        expected |= {keys.TERMS + outpoint: terms(outpoint, 4), keys.STATE + outpoint: state(phase, value)}
        if phase in (Phase.SIGNED, Phase.BROADCAST) or keys.SETTLEMENT + outpoint in data and phase == Phase.SETTLED:
            expected[keys.SETTLEMENT + outpoint] = b"tx"
        if phase == Phase.SETTLED:
            expected[keys.done_key(600, outpoint)] = ENDING
        if phase == Phase.OPEN:
            expected[keys.expiring_key(1_900_000_000, outpoint)] = b""
        elif phase != Phase.SETTLED:
            expected[keys.UNFINISHED + outpoint] = bytes((phase,))
    assert {key: value for key, value in data.items() if key[:1] != keys.EPOCH} == expected


def test_two_updates_of_one_channel_in_one_frame_are_judged_in_order():
    group = Group(DictReader(), StateCache(0), [EPOCH] * (SHARDS + 2), SHARDS)
    frame = [entry(ABSENT, Phase.OPEN), entry(Phase.OPEN, Phase.OPEN, 9), entry(Phase.OPEN, Phase.OPEN, 8)]
    assert list(group.judge(commit_of(*frame))) == [OK, OK, CONFLICT]


@pytest.mark.parametrize("shard", [*({0, 1, 2, 3} - {SHARD}), 4, 5, 65535])
def test_an_entry_under_another_shard_is_forbidden(shard):
    group = Group(DictReader(), StateCache(0), [EPOCH] * (SHARDS + 2), SHARDS)
    assert list(group.judge(commit_of(entry(ABSENT, Phase.OPEN, shard=shard)))) == [FORBIDDEN]
    assert group.writes == {}


def test_an_epoch_cannot_go_backwards():
    group = Group(DictReader(), StateCache(0), [EPOCH] * (SHARDS + 2), SHARDS)
    with pytest.raises(ValueError, match="backwards"):
        group.raise_epochs({0: EPOCH})
