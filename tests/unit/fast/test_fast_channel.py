"""Aim: what the channel table does with payments, loading, owners and acknowledgements. Method: each promise of channel.pyx
alone, against hand-made payments; the index against a dict under 50 000 channels that come and go."""

import base64
import gc
import os
import random
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from paychan._fast.channel import ChannelTable, shard_of
from paychan._fast.status import Status
from paychan.core.channel import ChannelState, Phase
from paychan.core.payment import Payment
from paychan.rpc.store_messages import decode_commit, encode_commit
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all
from tests.reference import GROUP_ORDER, Paid, encode_der

BYTES_PER_CHANNEL_MAX = 600


def query_of(paid):
    return "payment=" + base64.urlsafe_b64encode(paid.raw).decode()


def pay(table, sample, paid, now=NOW):
    return Status(table.pay(sample.path, query_of(paid), now))


def state_of(table, sample):
    outpoint = sample.terms.outpoint
    return table.newest_payment(outpoint), table.phase(outpoint), table.is_durable(outpoint)


@pytest.fixture
def table():
    return own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))


@pytest.fixture
def sample(table):
    sample = make_sample("table")
    sample.load(table)
    return sample


# --- paying -----------------------------------------------------------------------------------------------------------


def test_payment_is_accepted_with_its_values(table, sample):
    assert pay(table, sample, sample.sign(9_999_000)) == Status.ACCEPTED
    assert (table.value_received, table.value_left) == (1000, 9_999_000)
    assert pay(table, sample, sample.sign(700)) == Status.ACCEPTED
    assert (table.value_received, table.value_left) == (9_998_300, 700)
    assert table.outpoint == sample.terms.outpoint
    assert table.shard == shard_of(sample.terms.outpoint, SHARD_COUNT)


def test_replayed_payment_pays_nothing_and_changes_nothing(table, sample):
    paid = sample.sign(9_000_000)
    assert pay(table, sample, paid) == Status.ACCEPTED
    before = state_of(table, sample)
    for _ in range(3):
        assert pay(table, sample, paid) == Status.REPLAYED
        assert (table.value_received, table.value_left) == (0, 9_000_000)
    assert state_of(table, sample) == before


def test_equal_value_with_another_valid_signature_is_a_replay_and_changes_nothing(table, sample):
    paid, twin = sample.sign(9_000_000), sample.sign(9_000_000, nonce=4711)
    assert paid.signature != twin.signature
    assert pay(table, sample, paid) == Status.ACCEPTED
    before = state_of(table, sample)
    assert pay(table, sample, twin) == Status.REPLAYED
    assert state_of(table, sample) == before
    assert table.newest_payment(sample.terms.outpoint) == paid.raw


def test_equal_value_with_a_false_signature_is_refused(table, sample):
    paid = sample.sign(9_000_000)
    assert pay(table, sample, paid) == Status.ACCEPTED
    assert pay(table, sample, Paid(9_000_000, sample.sign(8_000_000).signature, 0x83)) == Status.BAD_SIGNATURE


def test_rising_change_value_is_refused_with_its_shortfall(table, sample):
    assert pay(table, sample, sample.sign(9_000_000)) == Status.ACCEPTED
    before = state_of(table, sample)
    for value, shortfall in ((9_000_001, 1), (10_000_000, 1_000_000), (21 * 10**14, 21 * 10**14 - 9_000_000)):
        assert pay(table, sample, sample.sign(value)) == Status.OUT_OF_ORDER
        assert table.shortfall == shortfall
    assert state_of(table, sample) == before


def test_the_signature_is_judged_before_order_and_expiry_and_expiry_before_order(table, sample):
    false, rising = Paid(10_000_001, make_sample("other").sign(5000).signature, 0x83), sample.sign(10_000_001)
    assert pay(table, sample, false) == Status.BAD_SIGNATURE
    assert pay(table, sample, false, now=sample.terms.exp_time) == Status.BAD_SIGNATURE
    assert pay(table, sample, rising) == Status.OUT_OF_ORDER
    assert pay(table, sample, rising, now=sample.terms.exp_time) == Status.CHANNEL_EXPIRING


def test_a_loaded_channel_knows_its_redeem_script(table, sample):
    assert table.redeem_script(sample.terms.outpoint) == sample.terms.redeem_script


@pytest.mark.parametrize(
    "change",
    [
        {"outpoint": "vout"},
        {"outpoint": "txid"},
        {"exp_time": 1},
        {"change_script": b"\xa9\x14" + bytes(20) + b"\x87"},
        {"server_pubkey": make_sample("another").terms.server_pubkey},
        {"client_pubkey": make_sample("another").terms.client_pubkey},
    ],
    ids=lambda change: next(iter(change.items()))[1] if "outpoint" in change else next(iter(change)),
)
def test_payment_of_another_channel_is_refused(table, sample, change):
    terms = sample.terms
    if "outpoint" in change:
        at = 32 if change["outpoint"] == "vout" else 31
        outpoint = terms.outpoint[:at] + bytes([terms.outpoint[at] ^ 1]) + terms.outpoint[at + 1 :]
        change = {"outpoint": outpoint}
    if "exp_time" in change:
        change = {"exp_time": terms.exp_time + 1}
    stranger = replace(sample, terms=replace(terms, **change))
    before = state_of(table, sample)
    assert pay(table, sample, stranger.sign(9_000_000)) == Status.BAD_SIGNATURE
    assert state_of(table, sample) == before


def test_impossible_numbers_in_a_signature_are_bad_signatures(table, sample):
    r, s = 12345, GROUP_ORDER // 2
    for der in (
        encode_der(r, GROUP_ORDER),
        encode_der(GROUP_ORDER, s),
        encode_der(0, s),
        encode_der(r, 0),
        encode_der(0, 0),
        encode_der(2**519 - 1, 1),
    ):
        assert pay(table, sample, Paid(9_000_000, der, 0x83)) == Status.BAD_SIGNATURE


def test_high_s_twin_of_a_valid_signature_is_refused(table, sample):
    assert pay(table, sample, sample.sign(9_000_000, low_s=False)) == Status.HIGH_S


def test_exhausting_payment_closes(table, sample):
    assert pay(table, sample, sample.sign(0, 0x82)) == Status.EXHAUSTED
    assert (table.value_received, table.value_left) == (10_000_000, 0)
    assert table.phase(sample.terms.outpoint) == Phase.CLOSING
    assert not table.is_durable(sample.terms.outpoint)
    assert pay(table, sample, sample.sign(0, 0x82)) == Status.CHANNEL_CLOSING
    assert pay(table, sample, sample.sign(700)) == Status.CHANNEL_CLOSING


@pytest.mark.parametrize("phase", Phase)
def test_only_an_open_channel_is_paid(table, phase):
    sample = make_sample(phase.name)
    sample.load(table, phase)
    expected = {Phase.OPEN: Status.ACCEPTED, Phase.SETTLED: Status.NO_SUCH_PAYMENT}.get(phase, Status.CHANNEL_CLOSING)
    assert pay(table, sample, sample.sign(9_000_000)) == expected
    assert pay(table, sample, sample.sign(9_000_000), now=2**33) == (Status.CHANNEL_EXPIRING if phase == Phase.OPEN else expected)


@pytest.mark.parametrize("exp_time", [NOW + 10**6, 2**31 - 1, 2**31, 2**32 - 1])
def test_expiry_is_exact_to_the_second(table, exp_time):
    sample = make_sample("expiry", exp_time=exp_time)
    sample.load(table)
    last = exp_time - SETTLEMENT_PERIOD - 1
    for late in (last + 1, last + 2, exp_time, exp_time + 1, 2**32, 2**62):
        assert pay(table, sample, sample.sign(9_000_000), now=late) == Status.CHANNEL_EXPIRING
    assert pay(table, sample, sample.sign(9_000_000), now=last) == Status.ACCEPTED
    assert pay(table, sample, sample.sign(9_000_000), now=last + 1) == Status.CHANNEL_EXPIRING  # a replay too


def test_unknown_and_foreign_channels(table, sample):
    stranger = make_sample("not loaded")
    assert pay(table, stranger, stranger.opening) == Status.NOT_LOADED
    shard = shard_of(sample.terms.outpoint, SHARD_COUNT)
    table.own([int(number != shard) for number in range(SHARD_COUNT)])
    assert pay(table, sample, sample.opening) == Status.NOT_OWNED
    assert table.shard == shard
    assert table.outpoint == sample.terms.outpoint


@pytest.mark.parametrize("now", [-1, 2**64, "now", None])
def test_time_that_is_none_raises(table, sample, now):
    with pytest.raises((TypeError, OverflowError)):
        table.pay(sample.path, query_of(sample.opening), now)


# --- loading and dropping ---------------------------------------------------------------------------------------------


def test_loading_again_replaces_and_has_a_new_serial(table, sample):
    outpoint = sample.terms.outpoint
    first = table.serial(outpoint)
    assert pay(table, sample, sample.sign(9_000_000)) == Status.ACCEPTED
    assert table.serial(outpoint) == first
    sample.load(table)
    assert table.newest_payment(outpoint) == sample.opening.raw
    assert table.serial(outpoint) not in (first, 0)
    assert len(table) == 1


def test_serials_never_repeat(table):
    samples = [make_sample(number) for number in range(3)]
    seen = set()
    for _ in range(20):
        for sample in samples:
            sample.load(table)
            seen.add(table.serial(sample.terms.outpoint))
        table.drop(samples[0].terms.outpoint)
    assert len(seen) == 60


def test_dropping_forgets(table, sample):
    table.drop(sample.terms.outpoint)
    assert not table.is_loaded(sample.terms.outpoint)
    assert table.serial(sample.terms.outpoint) == 0
    assert len(table) == 0
    table.drop(sample.terms.outpoint)
    table.drop(b"short")
    assert pay(table, sample, sample.opening) == Status.NOT_LOADED


@pytest.mark.parametrize(
    "call",
    ["is_durable", "phase", "newest_payment", "begin_closing", "seal", "acknowledge"],
)
@pytest.mark.parametrize("outpoint", [bytes(36), b"", bytes(35), bytes(37)])
def test_unknown_channels_raise_key_error(table, sample, call, outpoint):
    with pytest.raises(KeyError):
        getattr(table, call)(outpoint)


@pytest.mark.parametrize("call", ["drop", "is_loaded", "serial", "is_durable", "phase", "seal", "owns"])
@pytest.mark.parametrize("bad", [None, "text", 5])
def test_wrong_types_raise(table, call, bad):
    with pytest.raises(TypeError):
        getattr(table, call)(bad)


SAMPLE = make_sample("records")
GOOD = Payment(SAMPLE.opening.change_value, SAMPLE.opening.signature, 0x83)


@pytest.mark.parametrize(
    ("terms", "state"),
    [
        ({"outpoint": bytes(35)}, {}),
        ({"outpoint": bytes(37)}, {}),
        ({"change_script": bytes(35)}, {}),
        ({"client_pubkey": b""}, {}),
        ({"client_pubkey": SAMPLE.terms.client_pubkey[:32]}, {}),
        ({"client_pubkey": SAMPLE.terms.client_pubkey + b"\0"}, {}),
        ({"client_pubkey": b"\x02" + b"\xff" * 32}, {}),
        ({"client_pubkey": b"\x04" + SAMPLE.terms.client_pubkey[1:]}, {}),
        ({"client_pubkey": b"\x06" + SAMPLE.terms.client_pubkey[1:]}, {}),
        ({"exp_time": 499_999_999}, {}),
        ({"exp_time": 2**32}, {}),
        ({"exp_time": True}, {}),
        ({"funding_value": -1}, {}),
        ({"funding_value": GOOD.change_value - 1}, {}),
        ({"funding_value": 21 * 10**14 + 1}, {}),
        ({"funding_value": 2**64}, {}),
        ({}, {"payment": replace(GOOD, change_value=-1)}),
        ({}, {"payment": replace(GOOD, change_value=GOOD.change_value + 1)}),
        ({}, {"payment": replace(GOOD, change_value=2**64)}),
        ({}, {"payment": replace(GOOD, signature=bytes(73))}),
        ({}, {"payment": replace(GOOD, sighash_type=0x81)}),
        ({}, {"payment": replace(GOOD, sighash_type=0x183)}),
        ({}, {"phase": 0}),
        ({}, {"phase": 6}),
        ({}, {"phase": 257}),
    ],
)
def test_records_that_cannot_be_are_refused_and_change_nothing(table, terms, state):
    SAMPLE.load(table)
    before, serial = state_of(table, SAMPLE), table.serial(SAMPLE.terms.outpoint)
    with pytest.raises(ValueError):
        table.load(replace(SAMPLE.terms, **terms), replace(ChannelState(Phase.OPEN, GOOD), **state))
    assert state_of(table, SAMPLE) == before
    assert table.serial(SAMPLE.terms.outpoint) == serial
    assert len(table) == 1


@pytest.mark.parametrize("key", [b"", b"\x02", SAMPLE.terms.client_pubkey[:32], SAMPLE.terms.client_pubkey + b"\0"], ids=len)
def test_a_key_of_another_length_is_never_read(table, key):
    """`ChannelTerms` refuses to make a script of it; whoever hands over something else must not make C read on."""
    terms = SimpleNamespace(
        outpoint=bytes(36),
        redeem_script=SAMPLE.terms.redeem_script,
        change_script=b"",
        client_pubkey=key,
        exp_time=NOW,
        funding_value=10_000_000,
    )
    with pytest.raises(ValueError):
        table.load(terms, ChannelState(Phase.OPEN, GOOD))
    assert len(table) == 0


@pytest.mark.parametrize(("shard_count", "period"), [(0, 0), (4097, 0), (2**32 - 1, 0)])
def test_shard_counts_out_of_range_are_refused(shard_count, period):
    with pytest.raises(ValueError):
        ChannelTable(shard_count, period)


# --- owners -----------------------------------------------------------------------------------------------------------


def test_a_new_owner_table_drops_exactly_the_changed_shards(table):
    samples = [make_sample(f"own {number}") for number in range(300)]
    for sample in samples:
        sample.load(table)
    epochs = [1] * SHARD_COUNT
    table.own(epochs)
    assert len(table) == 300
    epochs[3:100:2] = [0] * len(epochs[3:100:2])  # lost
    epochs[4:100:4] = [9] * len(epochs[4:100:4])  # lost and taken again
    table.own(epochs)
    for sample in samples:
        shard = shard_of(sample.terms.outpoint, SHARD_COUNT)
        assert table.is_loaded(sample.terms.outpoint) == (epochs[shard] == 1)
        assert table.owns(sample.terms.outpoint) == (epochs[shard] != 0)
        assert table.epoch_of(shard) == epochs[shard]
    assert 0 < len(table) < 300


def test_losing_everything_drops_everything(table, sample):
    table.own([0] * SHARD_COUNT)
    assert len(table) == 0
    assert not table.owns(sample.terms.outpoint)


@pytest.mark.parametrize("count", [0, SHARD_COUNT - 1, SHARD_COUNT + 1])
def test_owner_tables_of_another_size_are_refused(table, sample, count):
    with pytest.raises(ValueError):
        table.own([1] * count)
    assert len(table) == 1


@pytest.mark.parametrize("bad", [-1, 2**64, None, "1"])
def test_an_owner_table_with_nonsense_changes_nothing(table, sample, bad):
    with pytest.raises((TypeError, OverflowError)):
        table.own([2] * (SHARD_COUNT - 1) + [bad])
    assert [table.epoch_of(shard) for shard in range(SHARD_COUNT)] == [1] * SHARD_COUNT
    assert table.is_loaded(sample.terms.outpoint)


def test_epoch_of_an_unknown_shard_raises(table):
    with pytest.raises(ValueError):
        table.epoch_of(SHARD_COUNT)


# --- the index --------------------------------------------------------------------------------------------------------


def outpoint_number(number):
    return number.to_bytes(4, "little") + bytes(28) + (number % 7).to_bytes(4, "little")


def loaded(sample, outpoint):
    return replace(sample, terms=replace(sample.terms, outpoint=outpoint))


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_index_of_50_000_channels_that_come_and_go(table):
    rng = random.Random(50_000)
    sample = make_sample("index")
    model = {}
    for number in range(50_000):
        outpoint = outpoint_number(number)
        loaded(sample, outpoint).load(table)
        model[outpoint] = table.serial(outpoint)
        if number % 3 == 0:
            victim = outpoint_number(rng.randrange(number + 1))
            table.drop(victim)
            model.pop(victim, None)
    assert len(table) == len(model)
    for number in range(50_000):
        outpoint = outpoint_number(number)
        assert table.serial(outpoint) == model.get(outpoint, 0)
    for outpoint in list(model):
        table.drop(outpoint)
    assert len(table) == 0
    assert not any(table.is_loaded(outpoint) for outpoint in model)


def test_index_survives_more_removals_than_it_has_places(table):
    """Removed places are kept as tombstones; an index full of them would be searched for ever."""
    sample = make_sample("tombstones")
    kept = loaded(sample, outpoint_number(99_999))
    kept.load(table)
    for number in range(20_000):
        outpoint = outpoint_number(number)
        loaded(sample, outpoint).load(table)
        table.drop(outpoint)
    assert len(table) == 1
    assert table.serial(kept.terms.outpoint) == 1
    assert not table.is_loaded(outpoint_number(5))


def test_outpoints_that_differ_in_one_bit_are_different_channels(table):
    sample = make_sample("bits")
    base = sample.terms.outpoint
    outpoints = [base] + [(int.from_bytes(base, "little") ^ 1 << bit).to_bytes(36, "little") for bit in range(36 * 8)]
    for outpoint in outpoints:
        loaded(sample, outpoint).load(table)
    assert len(table) == len({table.serial(outpoint) for outpoint in outpoints}) == 289


def bytes_per_loaded_channel(count=50_000):
    sample = make_sample("memory")
    table = ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD)
    state = ChannelState(Phase.OPEN, GOOD)
    gc.collect()
    before = resident_bytes()
    for number in range(count):
        table.load(replace(sample.terms, outpoint=outpoint_number(number)), state)
    gc.collect()
    return (resident_bytes() - before) / len(table)


def test_memory_of_a_loaded_channel():
    # In a process of its own: in this one the allocator may hand out what earlier tests have freed.
    code = f"import {__name__} as tests; print(tests.bytes_per_loaded_channel())"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True)
    used = float(result.stdout)
    assert 100 < used < BYTES_PER_CHANNEL_MAX


def test_removed_slots_are_used_again():
    sample = make_sample("reuse")
    table = ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD)
    for number in range(1000):
        loaded(sample, outpoint_number(number)).load(table)
    gc.collect()
    before = resident_bytes()
    for number in range(1000, 41_000):
        table.drop(outpoint_number(number - 1000))
        loaded(sample, outpoint_number(number)).load(table)
    gc.collect()
    assert len(table) == 1000
    assert resident_bytes() - before < 4 << 20


# --- sealing and acknowledging ----------------------------------------------------------------------------------------


def sealed(table, sample):
    (entry,) = decode_commit(encode_commit([table.seal(sample.terms.outpoint, 77)]))
    return entry


def test_sealed_entry_is_what_the_store_reads(table, sample):
    table.own([5] * SHARD_COUNT)
    sample.load(table)
    paid = sample.sign(9_000_000)
    assert pay(table, sample, paid) == Status.ACCEPTED
    entry = sealed(table, sample)
    assert entry.outpoint == sample.terms.outpoint
    assert (entry.shard, entry.epoch) == (shard_of(sample.terms.outpoint, SHARD_COUNT), 5)
    assert (entry.expected_phase, entry.expected_change_value) == (Phase.OPEN, sample.opening.change_value)
    assert entry.extra == b""
    state = ChannelState(Phase.OPEN, Payment(paid.change_value, paid.signature, paid.sighash_type))
    assert entry.state == state.serialize()
    assert entry.credit == 77
    assert entry.encode() == encode_commit([entry.encode()])[2:-2]


def test_each_seal_expects_what_the_last_one_wrote(table, sample):
    expected = sample.opening.change_value
    for value in (9_000_000, 8_000_000, 700):
        assert pay(table, sample, sample.sign(value)) == Status.ACCEPTED
        entry = sealed(table, sample)
        assert (entry.expected_phase, entry.expected_change_value) == (Phase.OPEN, expected)
        expected = value
    assert pay(table, sample, sample.sign(0, 0x82)) == Status.EXHAUSTED
    entry = sealed(table, sample)
    assert (entry.expected_phase, entry.expected_change_value) == (Phase.OPEN, 700)
    assert ChannelState.parse(entry.state).phase == Phase.CLOSING
    assert (sealed(table, sample).expected_phase, sealed(table, sample).expected_change_value) == (Phase.CLOSING, 0)


@pytest.mark.parametrize("value", [700, 2**31, 2**32 + 5, 21 * 10**14 - 1])
@pytest.mark.parametrize("nonce", [None, (GROUP_ORDER + 1) // 2, 3])
def test_sealed_entries_of_all_sizes(table, value, nonce):
    sample = make_sample("sizes", funding_value=21 * 10**14, outpoint=b"\xab" * 32 + b"\xff" * 4, exp_time=2**32 - 1)
    sample.load(table)
    paid = sample.sign(value, nonce=nonce)
    assert pay(table, sample, paid) == Status.ACCEPTED
    entry = sealed(table, sample)
    assert ChannelState.parse(entry.state).payment == Payment(value, paid.signature, 0x83)
    assert (entry.outpoint, entry.expected_change_value) == (sample.terms.outpoint, 21 * 10**14)


def test_durable_is_what_was_acknowledged(table, sample):
    outpoint = sample.terms.outpoint
    assert table.is_durable(outpoint)
    assert pay(table, sample, sample.sign(9_000_000)) == Status.ACCEPTED
    assert not table.is_durable(outpoint)
    table.seal(outpoint)
    assert not table.is_durable(outpoint)
    assert pay(table, sample, sample.sign(8_000_000)) == Status.ACCEPTED
    table.acknowledge(outpoint)
    assert not table.is_durable(outpoint)  # the second payment was not in that group
    table.seal(outpoint)
    table.acknowledge(outpoint)
    assert table.is_durable(outpoint)


def test_a_refused_payment_leaves_the_channel_durable(table, sample):
    assert pay(table, sample, make_sample("other").sign(9_000_000)) == Status.BAD_SIGNATURE
    assert pay(table, sample, sample.opening) == Status.REPLAYED
    assert table.is_durable(sample.terms.outpoint)


def test_closing_is_a_change_to_be_made_durable(table, sample):
    outpoint = sample.terms.outpoint
    table.begin_closing(outpoint)
    assert (table.phase(outpoint), table.is_durable(outpoint)) == (Phase.CLOSING, False)
    with pytest.raises(ValueError):
        table.begin_closing(outpoint)
    entry = sealed(table, sample)
    assert (entry.expected_phase, ChannelState.parse(entry.state).phase) == (Phase.OPEN, Phase.CLOSING)
    assert ChannelState.parse(entry.state).payment.serialize() == sample.opening.raw
    table.acknowledge(outpoint)
    assert table.is_durable(outpoint)


def test_reloading_forgets_what_was_not_acknowledged(table, sample):
    outpoint = sample.terms.outpoint
    assert pay(table, sample, sample.sign(9_000_000)) == Status.ACCEPTED
    table.seal(outpoint)
    sample.load(table)
    assert table.is_durable(outpoint)
    assert sealed(table, sample).expected_change_value == sample.opening.change_value


def test_a_payment_waits_until_the_funding_output_was_found_well_under_the_newest_tip(table):
    sample = make_sample("unchecked")
    table.load(sample.terms, ChannelState(Phase.OPEN, Payment(sample.opening.change_value, sample.opening.signature, 0x83)))
    query = "payment=" + base64.urlsafe_b64encode(sample.sign(sample.opening.change_value - 1).raw).decode()
    assert table.pay(sample.path, query, NOW) == Status.UNCHECKED
    assert table.newest_payment(sample.terms.outpoint) == sample.opening.raw
    table.mark_checked(sample.terms.outpoint, table.chain_generation)
    assert table.pay(sample.path, query, NOW) == Status.ACCEPTED
    table.chain_generation += 1
    assert table.pay(sample.path, query, NOW) == Status.UNCHECKED  # a replay too: nothing is said on a channel in doubt
    with pytest.raises(KeyError):
        table.mark_checked(bytes(36), 1)
