"""Aim: a satoshi that one memory has and another has not stops its shard, and that shard alone. Method: a real worker's half and a
real store's half over RocksDB; bits are flipped in the memory of both, updates lost, doubled and miscounted between them."""

import base64
import ctypes
import struct
from dataclasses import replace

import pytest

from paychan._fast.channel import ChannelTable, shard_of
from paychan._fast.commit import CommitQueue
from paychan._fast.group import KNOWN_OUTPOINT_AT, KNOWN_SIZE, StateCache
from paychan._fast.intake import FutureRequest, Intake
from paychan._fast.sale import FutureSale
from paychan.core.channel import ABSENT, ChannelState, Phase
from paychan.core.payment import Payment
from paychan.core.sales import Sales
from paychan.core.units import MAX_MONEY
from paychan.rpc.store_messages import ENTRIES_MAX, LEASE_COUNT, Entry, EntryStatus, encode_commit
from paychan.server.channels.payments import REFUSALS_BY_FORM
from paychan.server.protocol.replies import Reply
from store import sequencer as sequencer_module
from store.engines.rocksdb import RocksDB
from store.sequencer import Sequencer
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample

OK, STOPPED = EntryStatus.OK, EntryStatus.STOPPED
SELL, SETTLE = 1, 2
SAMPLES = [make_sample(f"accounts {number}") for number in range(2)]
VICTIM, BYSTANDER = SAMPLES
assert len({shard_of(sample.terms.outpoint, SHARD_COUNT) for sample in SAMPLES}) == 2
SHARD = shard_of(VICTIM.terms.outpoint, SHARD_COUNT)
CELL_SIZE, OUTPOINT_AT = KNOWN_SIZE, KNOWN_OUTPOINT_AT
SLOT_SIZE = CELL_SIZE + 48  # of Slot in group.pxd
SALES_AT = 376  # of the pointer in Channel
OBJECT_HEAD = 24  # of a compiled class: reference count, type, methods; then its attributes in order


def pointer(address):
    return ctypes.c_uint64.from_address(address).value


def flip(address, bit, size=8):
    """Flip one bit of a number in memory."""
    kind = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 8: ctypes.c_uint64}[size]
    kind.from_address(address).value ^= 1 << bit


class Answers(list):
    """Stands for the futures of all requests."""

    def done(self):
        return False

    set_result = list.append


class Rules:
    """The rules of a worker that is well. A channel that is not loaded is read from the store."""

    lost = moved = Reply(503, b"")

    def __init__(self, rig):
        self._rig = rig

    def look(self):
        return None, NOW

    def time(self):
        return NOW

    def paid(self, body):
        return Reply(200, body)

    def odd(self, request, status, outpoint):
        self._rig.load(outpoint)
        request.again()


class Rig:
    """One worker, one store; `turn` is one group. epoch: of all shards."""

    def __init__(self, directory, buckets):
        sequencer_module.StateCache, self._kept = lambda: StateCache(buckets), sequencer_module.StateCache
        self.engine, self.turns, self.stopped = RocksDB(directory / "db"), [], {}
        self.sequencer = Sequencer(self.engine, SHARD_COUNT, self.turns.append, self.stopped.update)
        self.cache = self.sequencer._cache
        self.table = ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD)
        self.queue = CommitQueue(self.table, lambda: None, print, ENTRIES_MAX)
        self.intake = Intake(self.table, self.queue, Rules(self), REFUSALS_BY_FORM, MAX_MONEY)
        self.answers, self.epoch = Answers(), 0
        self.between, self.on_wire = lambda group: None, lambda payload: payload
        self.new_epoch()
        self.send(*[self.opening(sample) for sample in SAMPLES])
        self.values = dict.fromkeys(SAMPLES, 10_000_000)

    def close(self):
        sequencer_module.StateCache = self._kept
        self.engine.close()

    def new_epoch(self):
        self.epoch += 1
        raised = dict.fromkeys(range(SHARD_COUNT + LEASE_COUNT), self.epoch)
        self.sequencer.add(lambda group: (group.raise_epochs(raised), lambda: None)[1])
        self.run()
        self.table.own([self.epoch] * SHARD_COUNT)
        self.intake.look_again()

    def run(self):
        turns, self.turns[:] = list(self.turns), []
        for turn in turns:
            turn()

    def entry(self, sample, old, expected, new, value, extra=b"", credit=None):
        outpoint, txid = sample.terms.outpoint, b"t" * 32 if new >= Phase.SIGNED else b""
        state = ChannelState(new, Payment(value, b"s" * 70, 0x83), txid).serialize()
        return Entry(shard_of(outpoint, SHARD_COUNT), self.epoch, outpoint, old, expected, state, extra, credit)

    def opening(self, sample):
        return self.entry(sample, ABSENT, 10_000_000, Phase.OPEN, 10_000_000, sample.terms.serialize())

    def send(self, *entries):
        """Send updates past the worker; return their statuses."""
        return self._send(encode_commit([entry.encode() for entry in entries]))

    def _send(self, payload):
        statuses = []

        def job(group):
            judged = group.judge(payload)
            self.between(group)
            return lambda: statuses.append(judged)

        self.sequencer.add(job, len(payload))
        self.run()
        return list(statuses[0])

    def load(self, outpoint):
        (stored,) = self.engine.load([outpoint])
        (sample,) = [sample for sample in SAMPLES if sample.terms.outpoint == outpoint]
        self.table.load(sample.terms, ChannelState.parse(stored.state))
        self.table.mark_checked(outpoint, self.table.chain_generation)

    def pay(self, sample, value=1000):
        self.values[sample] -= value
        text = base64.urlsafe_b64encode(sample.sign(self.values[sample]).raw).decode()
        self.intake.submit(FutureRequest(self.intake, sample.path, f"payment={text}", self.answers))

    def sell(self, sample, key=b"k", amount=100, kind=SELL, number=0):
        """Charge on a channel, or settle a purchase, without a payment."""
        sale = struct.pack("<B36s16sQQII", kind, sample.terms.outpoint, key * 16, amount, number, 0, 0)
        self.intake.submit(FutureSale(self.intake, sale, self.answers))

    def sales(self, sample):
        return ChannelState.parse(self.engine.load([sample.terms.outpoint])[0].state).sales

    def turn(self, statuses=None):
        """Write what is queued; return how it was answered over HTTP."""
        group = self.queue.take()
        payload = self.on_wire(self.queue.seal(group))
        answered = self._send(payload)
        try:
            self.queue.complete(group, bytes(answered if statuses is None else statuses(answered)))
        except ValueError:
            self.queue.fail(group)
        answers, self.answers[:] = sorted(answer.status for answer in self.answers), []
        return answers

    # memory

    def cell(self, outpoint):
        """Return where the cache has a channel."""
        places = pointer(id(self.cache) + OBJECT_HEAD + 16)
        for at in range(places, places + CELL_SIZE * 4 * 16, CELL_SIZE):
            if ctypes.string_at(at + OUTPOINT_AT, 36) == outpoint:
                return at
        raise LookupError("not cached")

    def slot(self, outpoint):
        """Return where the worker's table has a channel."""
        chunk = pointer(pointer(id(self.table) + OBJECT_HEAD))
        at = chunk + ctypes.string_at(chunk, 4096).index(outpoint) - 84
        assert pointer(at) == 10_000_000
        return at


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path, 16)
    for sample in SAMPLES:
        made.pay(sample)
    assert made.turn() == [200, 200]
    yield made
    made.close()


CELL = {"left": 0, "funding": 8, "received": 16}


def test_nothing_is_stopped_while_all_is_well(rig):
    for _ in range(20):
        for sample in SAMPLES:
            rig.pay(sample, 0 if sample is BYSTANDER else 700)
            rig.pay(sample, 3)
        assert rig.turn() == [200] * 4
    rig.new_epoch()
    rig.pay(VICTIM)
    rig.pay(BYSTANDER)
    assert rig.turn() == [200, 200]
    assert rig.stopped == {}
    funding, received, left, spent, fallen, charged = rig.cache.accounts.of(SHARD)
    assert (funding, received, left) == (10_000_000, 10_000_000 - rig.values[VICTIM], rig.values[VICTIM])
    assert (spent, fallen, charged) == (0, 1000, 0)  # since the epoch began


def stops(rig, why):
    """Pay on both channels: the victim's shard is stopped for this reason, the other is paid, in the same group."""
    before = rig.engine.load([VICTIM.terms.outpoint])[0]
    rig.pay(VICTIM)
    rig.pay(BYSTANDER)
    assert rig.turn() == [200, 503]
    assert list(rig.stopped) == [SHARD]
    assert rig.stopped[SHARD].startswith(why), rig.stopped
    assert rig.engine.load([VICTIM.terms.outpoint])[0] == before
    stays_stopped(rig)


def stays_stopped(rig):
    """The shard takes nothing but the way to a settlement, and that from what is durable; the other shard goes on."""
    rig.between, rig.on_wire = lambda group: None, lambda payload: payload
    state = ChannelState.parse(rig.engine.load([VICTIM.terms.outpoint])[0].state)
    value = state.payment.change_value
    assert rig.send(rig.entry(VICTIM, Phase.OPEN, value, Phase.OPEN, value - 1)) == [STOPPED]
    assert rig.send(rig.entry(VICTIM, Phase.OPEN, value, Phase.CLOSING, value - 1)) == [STOPPED]
    assert rig.send(rig.entry(VICTIM, ABSENT, 5, Phase.OPEN, 5, VICTIM.terms.serialize())) == [STOPPED]
    rig.table.stop(rig.stopped)
    rig.pay(VICTIM)
    assert [answer.status for answer in rig.answers] == [503] and b"shard_stopped" in rig.answers.pop().body
    way = (Phase.OPEN, Phase.CLOSING, b""), (Phase.CLOSING, Phase.SIGNED, b"tx"), (Phase.SIGNED, Phase.BROADCAST, b"")
    for old, new, extra in way:
        assert rig.send(rig.entry(VICTIM, old, value, new, value, extra)) == [OK]
    rig.pay(BYSTANDER)
    assert rig.turn() == [200]
    assert list(rig.stopped) == [SHARD]
    (there,) = rig.engine.load([BYSTANDER.terms.outpoint])
    assert ChannelState.parse(there.state).payment.change_value == rig.values[BYSTANDER]
    assert rig.sequencer.unsettled == rig.engine.unsettled() == (10_000_000 - rig.values[BYSTANDER], 10_000_000 - value)


# --- the store's memory ---


@pytest.mark.parametrize("bit", [0, 9, 23, 40, 63])
@pytest.mark.parametrize("name", CELL)
def test_a_flipped_bit_of_a_cached_sum(rig, name, bit):
    flip(rig.cell(VICTIM.terms.outpoint) + CELL[name], bit)
    stops(rig, "channel: ")


@pytest.mark.parametrize("bit", [1, 3, 7])
def test_a_flipped_bit_of_a_cached_phase(rig, bit):
    flip(rig.cell(VICTIM.terms.outpoint) + 42, bit, 1)
    stops(rig, "cache: ")


@pytest.mark.parametrize("bit", [0, 7, 8, 15])
def test_a_flipped_bit_of_a_cached_shard(rig, bit):
    flip(rig.cell(VICTIM.terms.outpoint) + 40, bit, 2)
    stops(rig, "channel: ")


def test_a_cached_state_that_missed_a_group(rig):
    cell = rig.cell(VICTIM.terms.outpoint)
    old = ctypes.string_at(cell, CELL_SIZE)
    rig.pay(VICTIM)
    assert rig.turn() == [200]
    ctypes.memmove(cell, old, CELL_SIZE)
    stops(rig, "cache: ")


def test_a_damaged_state_that_is_displaced_unseen(tmp_path):
    """With one bucket for all: nobody asks for the damaged state again, but its shard's sums know."""
    rig = Rig(tmp_path, 1)
    try:
        at = pointer(id(rig.cache) + OBJECT_HEAD + 16)
        assert VICTIM.terms.outpoint in ctypes.string_at(at, 4 * CELL_SIZE)
        flip(rig.cell(VICTIM.terms.outpoint), 5)
        others = [make_sample(f"other {number}") for number in range(8)]
        assert rig.send(*[rig.opening(sample) for sample in others]) == [OK] * 8
        assert list(rig.stopped) == [SHARD] and rig.stopped[SHARD].startswith("shard: ")
    finally:
        rig.close()


# --- between judging and writing ---


def slots(group):
    return pointer(id(group) + OBJECT_HEAD + 56)


def find_slot(group, outpoint):
    at = slots(group)
    while ctypes.string_at(at + OUTPOINT_AT, 36) != outpoint:
        at += SLOT_SIZE
    return at


@pytest.mark.parametrize("bit", [0, 12, 33])
def test_a_record_that_changes_after_it_was_judged(rig, bit):
    def damage(group):
        record = pointer(find_slot(group, VICTIM.terms.outpoint) + CELL_SIZE)
        if record:
            flip(record + 4, bit)

    rig.between = damage
    stops(rig, "record: ")


def test_an_accepted_update_that_would_not_be_written(rig):
    def lose(group):
        ctypes.c_uint64.from_address(find_slot(group, VICTIM.terms.outpoint) + CELL_SIZE).value = 0

    rig.between = lose
    stops(rig, "lost: ")


def test_a_write_that_the_database_does_not_count(rig):
    class Losing:
        def __init__(self, database):
            self._database = database

        def write(self, batch, options):
            del batch  # nothing is written

        def __getattr__(self, name):
            return getattr(self._database, name)

    whole, rig.engine._db = rig.engine._db, Losing(rig.engine._db)
    with pytest.raises(RuntimeError, match="of 2 writes the database counts 0"):
        rig.engine.commit({b"Sx": b"1", b"Sy": b"2"})  # the sequencer ends the process at this
    rig.engine._db = whole


# --- the worker's memory ---


@pytest.mark.parametrize("bit", [4, 11, 19, 23])
def test_a_change_value_that_falls_while_it_waits_to_be_written(rig, bit):
    """The payer has not signed it: written, the channel could not be settled."""
    rig.pay(VICTIM)
    rig.pay(BYSTANDER)
    before = rig.engine.load([VICTIM.terms.outpoint])
    address = rig.slot(VICTIM.terms.outpoint) + 8
    assert pointer(address) >> bit & 1
    flip(address, bit)
    assert rig.turn() == [200, 503]
    assert list(rig.stopped) == [SHARD] and rig.stopped[SHARD].startswith("credit: ")
    assert rig.engine.load([VICTIM.terms.outpoint]) == before


@pytest.mark.parametrize("bit", [22, 50])
def test_a_change_value_that_rises_while_it_waits_to_be_written(rig, bit):
    """No update may do that: it is refused, the channel read again, and the payment judged on what is durable."""
    rig.pay(VICTIM)
    rig.pay(BYSTANDER)
    flip(rig.slot(VICTIM.terms.outpoint) + 8, bit)
    assert rig.turn() == [200] and rig.turn() == [200]
    assert rig.stopped == {}
    stored = ChannelState.parse(rig.engine.load([VICTIM.terms.outpoint])[0].state)
    assert stored.payment.change_value == rig.values[VICTIM]


@pytest.mark.parametrize("bit", [8, 22, 40])
def test_a_change_value_that_rises_at_rest(rig, bit):
    """The next payment is credited from the wrong value."""
    address = rig.slot(VICTIM.terms.outpoint) + 8
    assert not pointer(address) >> bit & 1
    flip(address, bit)
    stops(rig, "credit: ")


@pytest.mark.parametrize("credit", [0, 999, 1001, 2000, 1 << 60])
def test_a_credit_that_is_not_what_the_change_value_fell_by(rig, credit):
    """Lost, doubled or wrong."""

    def tell(payload):
        at = payload.index(VICTIM.terms.outpoint) - 12
        return payload[: at + 60] + struct.pack("<Q", credit) + payload[at + 68 :]

    rig.on_wire = tell
    stops(rig, "credit: ")


def test_a_payment_that_is_credited_twice(rig):
    """One waiter's payment is counted twice into its write."""
    rig.pay(VICTIM)
    rig.pay(BYSTANDER)
    group = rig.queue.take()
    write = pointer(id(group) + OBJECT_HEAD + 16)
    credit = ctypes.c_uint64.from_address(write + 16)
    assert credit.value == 1000
    credit.value *= 2
    answered = rig._send(rig.queue.seal(group))
    assert sorted(answered) == [OK, STOPPED]
    assert rig.stopped[SHARD].startswith("credit: ")
    rig.queue.complete(group, bytes(answered))
    assert sorted(answer.status for answer in rig.answers) == [200, 503]


def test_a_group_that_is_sent_twice(rig):
    """The second changes nothing. But whoever sends it has lost count."""
    rig.pay(VICTIM)
    group = rig.queue.take()
    payload = rig.queue.seal(group)
    assert rig._send(payload) == [OK]
    assert rig._send(payload) == [STOPPED]
    assert list(rig.stopped) == [SHARD] and rig.stopped[SHARD].startswith("shard: 2000 satoshi")
    assert rig.sequencer.unsettled == (3000, 0)


# --- the way back: what the worker thinks was stored ---


def test_an_acknowledgement_that_the_store_did_not_give(rig):
    """The victim's update was refused, and its payer was told that it was received: known with the worker's next group."""
    rig.table.load(VICTIM.terms, ChannelState(Phase.OPEN, Payment(9_500_000, b"s" * 70, 0x83)))  # not what is stored
    rig.table.mark_checked(VICTIM.terms.outpoint, rig.table.chain_generation)
    rig.values[VICTIM] = 9_500_000
    rig.pay(VICTIM)
    rig.pay(BYSTANDER)
    assert rig.turn(lambda statuses: [OK] * len(statuses)) == [200, 200]
    assert rig.stopped == {}
    rig.pay(BYSTANDER)
    assert rig.turn() == [200]
    assert list(rig.stopped) == [SHARD]
    assert rig.stopped[SHARD] == "shard: 1000 satoshi were stored as received under epoch 1, and its worker credited 2000"


def test_an_acknowledgement_that_got_lost(rig):
    """A group's answer of a wrong length: the payer is told nothing, and the money is stored."""
    rig.pay(VICTIM)
    assert rig.turn(lambda statuses: statuses + [OK]) == [503]
    rig.pay(VICTIM)
    rig.pay(BYSTANDER)
    assert rig.turn() == [200, 200]
    rig.pay(BYSTANDER)
    rig.turn()
    assert list(rig.stopped) == [SHARD] and rig.stopped[SHARD].startswith("shard: 3000 satoshi")


# --- the database ---


def test_terms_that_do_not_bear_the_state_out(rig):
    terms = bytearray(rig.engine.terms([VICTIM.terms.outpoint])[0])
    terms[6:14] = struct.pack("<Q", 9_000)
    rig.engine.commit({b"T" + VICTIM.terms.outpoint: bytes(terms)})
    rig.cache = rig.sequencer._cache = StateCache(16)  # as after a start
    rig.new_epoch()
    rig.pay(VICTIM)
    rig.pay(BYSTANDER)
    assert rig.turn() == [200, 503]
    assert list(rig.stopped) == [SHARD] and rig.stopped[SHARD].startswith("record: ")


# --- what was sold ---


def sales_stop(rig, why):
    """Sell on both channels: the victim's shard is stopped for this reason, the other sells, in the same group."""
    before = rig.engine.load([VICTIM.terms.outpoint])[0]
    rig.sell(VICTIM, b"v")
    rig.sell(BYSTANDER, b"v")
    assert rig.turn() == [200, 503]
    assert list(rig.stopped) == [SHARD]
    assert rig.stopped[SHARD].startswith(why), rig.stopped
    assert rig.engine.load([VICTIM.terms.outpoint])[0] == before
    assert rig.sales(BYSTANDER).spent == 100


def test_sales_are_counted_twice_and_even(rig):
    for number in range(1, 6):
        rig.pay(VICTIM, 150)
        rig.sell(VICTIM, bytes([number]), 100)
        rig.sell(BYSTANDER, bytes([number]), number)
        assert rig.turn() == [200] * 3
    rig.sell(VICTIM, bytes([5]), 40, SETTLE, 5)
    rig.sell(VICTIM, bytes([4]), 0, SETTLE, 4)
    assert rig.turn() == [200, 200]
    rig.new_epoch()
    rig.sell(VICTIM, bytes([5]), 30, SETTLE, 5)
    rig.sell(BYSTANDER, bytes([9]), 7)
    assert rig.turn() == [200, 200]
    rig.pay(VICTIM)
    rig.pay(BYSTANDER)
    assert rig.turn() == [200, 200] and rig.stopped == {}
    funding, received, left, spent, fallen, charged = rig.cache.accounts.of(SHARD)
    assert (funding, received, left) == (10_000_000, 10_000_000 - rig.values[VICTIM], rig.values[VICTIM])
    assert (spent, fallen, charged) == (330, 1000, 2**64 - 10)  # since the epoch began
    assert (rig.sales(VICTIM).spent, rig.sales(BYSTANDER).spent) == (330, 22)
    assert rig.engine.open_spent() == 352


def test_many_sales_on_a_channel_are_one_write(rig):
    for number in range(9):
        rig.sell(VICTIM, bytes([number]))
    group = rig.queue.take()
    assert group.size == 1
    payload = rig.queue.seal(group)
    rig.queue.complete(group, bytes(rig._send(payload)))
    assert [answer.status for answer in rig.answers] == [200] * 9
    assert (rig.sales(VICTIM).spent, rig.sales(VICTIM).revision) == (900, 9)


@pytest.mark.parametrize("bit", [0, 5, 9, 23, 40, 63])
@pytest.mark.parametrize("at", [24, 32], ids=["spent", "revision"])
def test_a_flipped_bit_of_cached_sales(rig, at, bit):
    flip(rig.cell(VICTIM.terms.outpoint) + at, bit)
    sales_stop(rig, ("channel: ", "cache: ", "charge: "))


@pytest.mark.parametrize("charge", [0, 99, 101, 200, 2**64 - 100])
def test_a_charge_that_is_not_what_the_record_says(rig, charge):
    """Lost, doubled, wrong or given back."""

    def tell(payload):
        at = payload.index(VICTIM.terms.outpoint) - 12 + 68 + 8
        return payload[:at] + struct.pack("<Q", charge) + payload[at + 8 :]

    rig.on_wire = tell
    sales_stop(rig, "charge: ")


@pytest.mark.parametrize("bit", [2, 5, 8, 30])
def test_what_was_spent_changes_while_it_waits_to_be_written(rig, bit):
    rig.sell(VICTIM, b"v")
    rig.sell(BYSTANDER, b"v")
    sales = pointer(rig.slot(VICTIM.terms.outpoint) + SALES_AT)
    assert pointer(sales) == 100
    flip(sales, bit)
    assert rig.turn() in ([200, 503], [200])  # what holds less than its purchases is no record: it is judged again
    if rig.stopped:
        assert rig.stopped[SHARD].startswith("charge: ")
    assert rig.sales(VICTIM).spent == 0


def test_a_record_whose_sales_change_after_they_were_judged(rig):
    def damage(group):
        record = pointer(find_slot(group, VICTIM.terms.outpoint) + CELL_SIZE)
        if record:
            flip(record + 12, 20)

    rig.between = damage
    sales_stop(rig, "record: ")


def test_more_spent_than_received_is_not_stored_even_if_both_counts_say_so(rig):
    """A worker whose rules are broken."""
    state = ChannelState.parse(rig.engine.load([VICTIM.terms.outpoint])[0].state)
    for spent, answer in ((1000, OK), (1001, STOPPED)):
        sold = replace(state, sales=Sales(spent, spent))
        revision, before = (0, 0) if spent == 1000 else (1000, 1000)
        value = state.payment.change_value
        entry = rig.entry(VICTIM, Phase.OPEN, value, Phase.OPEN, value, credit=0)
        assert rig.send(replace(entry, state=sold.serialize(), expected_revision=revision, charge=spent - before)) == [answer]
    assert rig.stopped[SHARD].startswith("spent: ")
    assert rig.sales(VICTIM).spent == 1000


def test_a_charge_that_was_acknowledged_and_not_stored(rig):
    """Known with the worker's next group."""
    rig.sell(VICTIM, b"v")
    rig.sell(BYSTANDER, b"v")
    group = rig.queue.take()
    rig._send(encode_commit([]))
    payload = rig.queue.seal(group)
    other = payload.index(BYSTANDER.terms.outpoint) - 12
    size = int.from_bytes(payload[other : other + 2], "little") + 68 + 16
    kept = b"\1\0" + payload[other : other + size] + b"\0\0"
    rig._send(kept)
    rig.queue.complete(group, bytes([OK, OK]))
    assert rig.stopped == {}
    rig.pay(BYSTANDER)
    rig.turn()
    assert list(rig.stopped) == [SHARD]
    assert rig.stopped[SHARD] == "shard: 0 satoshi were stored as spent under epoch 1, and its worker charged 100"
