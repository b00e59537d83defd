"""Aim: nothing is acknowledged before the store said so, and nothing that the store did not write is acknowledged at all.
Method: a real channel table and a store whose answers the test gives by hand, in every awkward order."""

import asyncio
import base64
import functools
import gc
import weakref

import pytest

from paychan._fast.channel import ChannelTable
from paychan._fast.status import Status
from paychan.core.channel import Phase
from paychan.rpc.connection import ConnectionGone, RemoteRefusal
from paychan.rpc.store_messages import ENTRIES_MAX, Entry, EntryStatus, decode_commit
from paychan.server.shards import committer as committer_module
from paychan.server.shards.committer import LOST, Committer
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all

OK, STALE, CONFLICT, FORBIDDEN, STOPPED = EntryStatus
TURNS = 10


class HandStore:
    """Keeps each group until the test answers it."""

    def __init__(self):
        self.groups = []
        self._answers = []

    async def commit(self, payload):
        self.groups.append(decode_commit(payload))
        self._answers.append(asyncio.get_running_loop().create_future())
        return await self._answers[-1]

    @property
    def in_flight(self):
        return sum(not answer.done() for answer in self._answers)

    async def answer(self, *statuses):
        """Answer the group in flight, OK for all if nothing is said, and let everybody take notice."""
        group = self.groups[-1]
        assert self.in_flight == 1
        self._answers[-1].set_result(bytes(statuses or [OK] * len(group)))
        await settle()

    async def fail(self, error):
        self._answers[-1].set_exception(error)
        await settle()


async def settle():
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Worker:
    """A table, a committer and a store to play with."""

    def __init__(self, count=3):
        self.table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
        self.store = HandStore()
        self.committer = Committer(self.table, self.store)
        self.samples = [make_sample(f"committer {number}") for number in range(count)]
        for sample in self.samples:
            sample.load(self.table)

    def pay(self, number, value, kind=0x83):
        """Pay on a channel, and queue its write; return the future."""
        sample = self.samples[number]
        text = base64.urlsafe_b64encode(sample.sign(value, kind).raw).decode()
        status = self.table.pay(sample.path, f"payment={text}", NOW)
        assert status in (Status.ACCEPTED, Status.EXHAUSTED)
        return self.committer.make_durable(sample.terms.outpoint)

    def outpoint(self, number):
        return self.samples[number].terms.outpoint

    def reload(self, number):
        """What happens when a shard goes and comes back: the channel is read from the store again."""
        self.table.drop(self.outpoint(number))
        self.samples[number].load(self.table)


def asynchronous(test):
    @functools.wraps(test)
    def run(*arguments, **options):
        asyncio.run(asyncio.wait_for(test(*arguments, **options), 20))

    return run


def written(group):
    """The change values in a group, by outpoint."""
    return {entry.outpoint: int.from_bytes(entry.state[4:12], "little") for entry in group}


# --- the order of write and acknowledgement ---------------------------------------------------------------------------


@asynchronous
async def test_nothing_is_acknowledged_before_the_commit_returned():
    worker = Worker()
    payment = worker.pay(0, 9_000_000)
    await settle()
    assert worker.store.in_flight == 1
    assert not payment.done()
    assert not worker.table.is_durable(worker.outpoint(0))
    await worker.store.answer()
    assert payment.result() == OK
    assert worker.table.is_durable(worker.outpoint(0))


@asynchronous
async def test_a_write_in_flight_is_kept_though_nobody_else_holds_it():
    """The event loop alone holds its tasks weakly, and a connection that was forgotten holds none."""
    worker, answers = Worker(), []

    async def commit(payload):
        answer = asyncio.get_running_loop().create_future()
        answers.append(weakref.ref(answer))
        return await answer

    worker.store.commit = commit
    payment = worker.pay(0, 9_000_000)
    await settle()
    gc.collect()
    answer = answers[0]()
    assert answer is not None
    answer.set_result(bytes([OK]))
    await settle()
    assert payment.result() == OK


@asynchronous
async def test_one_group_is_in_flight_and_the_rest_is_the_next():
    worker = Worker()
    first = worker.pay(0, 9_000_000)
    await settle()
    later = [worker.pay(0, 8_000_000), worker.pay(1, 9_000_000), worker.pay(0, 7_000_000), worker.pay(2, 9_000_000)]
    await settle()
    assert len(worker.store.groups) == 1
    await worker.store.answer()
    assert first.done() and not any(future.done() for future in later)
    assert len(worker.store.groups) == 2 and worker.store.in_flight == 1
    assert written(worker.store.groups[1]) == {
        worker.outpoint(0): 7_000_000,  # only the newest state of a channel
        worker.outpoint(1): 9_000_000,
        worker.outpoint(2): 9_000_000,
    }
    await worker.store.answer()
    assert [future.result() for future in later] == [OK] * 4
    await settle()
    assert len(worker.store.groups) == 2


@asynchronous
async def test_a_payment_after_sealing_is_not_acknowledged_by_the_group_before_it():
    worker = Worker()
    worker.pay(0, 9_000_000)
    await settle()
    late = worker.pay(0, 8_000_000)
    await worker.store.answer()
    assert not late.done()
    assert not worker.table.is_durable(worker.outpoint(0))
    (entry,) = worker.store.groups[1]
    assert (entry.expected_phase, entry.expected_change_value) == (Phase.OPEN, 9_000_000)
    await worker.store.answer()
    assert late.result() == OK


@asynchronous
async def test_requests_of_one_turn_share_a_group():
    worker = Worker()
    futures = [worker.pay(number, 9_000_000) for number in range(3)]
    await settle()
    assert len(worker.store.groups) == 1 and len(worker.store.groups[0]) == 3
    await worker.store.answer()
    assert [future.result() for future in futures] == [OK] * 3


@asynchronous
async def test_waiting_for_a_write_ends_with_it():
    worker = Worker()
    assert (await worker.committer.wait_for(worker.outpoint(0))) == OK  # nothing to wait for
    worker.pay(0, 9_000_000)
    queued = worker.committer.wait_for(worker.outpoint(0))
    await settle()
    flying = worker.committer.wait_for(worker.outpoint(0))
    assert not queued.done() and not flying.done()
    await worker.store.answer(CONFLICT)
    assert (queued.result(), flying.result()) == (CONFLICT, CONFLICT)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [STALE, CONFLICT, FORBIDDEN])
@asynchronous
async def test_a_refused_write_drops_the_channel_and_fails_its_followers(status):
    worker = Worker()
    first, other = worker.pay(0, 9_000_000), worker.pay(1, 9_000_000)
    await settle()
    followers = [worker.pay(0, 8_000_000), worker.pay(0, 7_000_000)]
    bystander = worker.pay(2, 9_000_000)
    assert [entry.outpoint for entry in worker.store.groups[0]] == [worker.outpoint(0), worker.outpoint(1)]
    await worker.store.answer(status, OK)
    assert first.result() == status and other.result() == OK
    assert [future.result() for future in followers] == [status] * 2
    assert not worker.table.is_loaded(worker.outpoint(0))
    assert worker.table.is_durable(worker.outpoint(1))
    assert list(written(worker.store.groups[1])) == [worker.outpoint(2)]
    await worker.store.answer()
    assert bystander.result() == OK


@pytest.mark.parametrize("error", [ConnectionGone(), RemoteRefusal(b"no")], ids=["gone", "refused"])
@asynchronous
async def test_a_lost_store_fails_all_and_forgets_all(error):
    worker = Worker()
    entry = Entry(0, 1, bytes(36), 0, 1000, b"state", b"terms")
    futures = [worker.pay(0, 9_000_000), worker.pay(1, 9_000_000), worker.committer.write(entry)]
    await settle()
    follower = worker.pay(0, 8_000_000)
    await worker.store.fail(error)
    assert [future.result() for future in futures] == [LOST] * 3
    assert follower.result() == LOST
    assert not worker.table.is_loaded(worker.outpoint(0)) and not worker.table.is_loaded(worker.outpoint(1))
    assert worker.table.is_loaded(worker.outpoint(2))
    again = worker.pay(2, 9_000_000)  # the committer lives on
    await settle()
    await worker.store.answer()
    assert again.result() == OK


@pytest.mark.parametrize("answer", [[], [OK], [OK] * 3], ids=["empty", "short", "long"])
@asynchronous
async def test_an_answer_of_another_length_counts_as_none(answer):
    worker = Worker()
    futures = [worker.pay(0, 9_000_000), worker.pay(1, 9_000_000)]
    await settle()
    worker.store._answers[-1].set_result(bytes(answer))
    await settle()
    assert [future.result() for future in futures] == [LOST] * 2
    assert not worker.table.is_loaded(worker.outpoint(0)) and not worker.table.is_loaded(worker.outpoint(1))


# --- channels that are forgotten and read again meanwhile: the serial rule --------------------------------------------


@asynchronous
async def test_a_channel_reloaded_while_its_write_is_queued_is_not_acknowledged():
    """What was loaded afresh does not hold the queued payment: writing and acknowledging it would lose that payment."""
    worker = Worker()
    worker.pay(1, 9_000_000)
    await settle()  # this group is in flight
    payment = worker.pay(0, 9_000_000)
    worker.reload(0)
    await worker.store.answer()
    for _ in range(worker.store.in_flight):
        await worker.store.answer()
    assert payment.done() and payment.result() != OK
    assert not any(worker.outpoint(0) in written(group) for group in worker.store.groups)


@asynchronous
async def test_a_payment_on_the_reloaded_channel_does_not_acknowledge_one_from_before():
    worker = Worker()
    worker.pay(1, 9_000_000)
    await settle()
    before = worker.pay(0, 5_000_000)
    worker.reload(0)
    after = worker.pay(0, 9_000_000)  # leaves the payer more than `before`: that one is not in it
    await worker.store.answer()
    assert before.done() and before.result() != OK
    assert written(worker.store.groups[1]) == {worker.outpoint(0): 9_000_000}
    await worker.store.answer()
    assert after.result() == OK


@asynchronous
async def test_a_channel_dropped_while_its_write_is_queued_fails_alone():
    worker = Worker()
    worker.pay(1, 9_000_000)
    await settle()
    dropped, other = worker.pay(0, 9_000_000), worker.pay(2, 9_000_000)
    worker.table.drop(worker.outpoint(0))
    await worker.store.answer()
    assert dropped.result() == STALE
    await worker.store.answer()
    assert other.result() == OK


@asynchronous
async def test_a_channel_reloaded_while_its_write_is_in_flight_is_not_marked_durable_by_it():
    worker = Worker()
    first = worker.pay(0, 9_000_000)
    await settle()
    worker.reload(0)
    second = worker.pay(0, 8_000_000)
    await worker.store.answer()
    assert first.result() == OK  # it was written
    assert not worker.table.is_durable(worker.outpoint(0))
    assert not second.done()
    await worker.store.answer(CONFLICT)  # the store has 9 000 000, this loading expected the opening value
    assert second.result() == CONFLICT


@asynchronous
async def test_a_channel_dropped_while_its_write_is_in_flight_disturbs_nobody():
    worker = Worker()
    dropped, other = worker.pay(0, 9_000_000), worker.pay(1, 9_000_000)
    await settle()
    worker.table.drop(worker.outpoint(0))
    await worker.store.answer()
    assert (dropped.result(), other.result()) == (OK, OK)  # both were written
    assert not worker.table.is_loaded(worker.outpoint(0)) and worker.table.is_durable(worker.outpoint(1))


@asynchronous
async def test_losing_every_shard_fails_what_is_queued():
    worker = Worker()
    first = worker.pay(1, 9_000_000)
    await settle()
    queued = [worker.pay(0, 9_000_000), worker.pay(2, 9_000_000)]
    worker.table.own([0] * SHARD_COUNT)
    await worker.store.answer()
    assert first.result() == OK
    for _ in range(worker.store.in_flight):
        await worker.store.answer()
    assert [future.result() for future in queued] == [STALE] * 2


# --- entries, limits, order -------------------------------------------------------------------------------------------


@asynchronous
async def test_entries_come_after_the_group_and_get_their_own_status():
    worker = Worker()
    entries = [Entry(0, 1, bytes([number]) * 36, 0, 1000, b"state", b"terms", 0) for number in range(3)]
    payment = worker.pay(0, 9_000_000)
    futures = [worker.committer.write(entry) for entry in entries]
    await settle()
    assert worker.store.groups[0][1:] == entries
    await worker.store.answer(OK, OK, CONFLICT, FORBIDDEN)
    assert payment.result() == OK
    assert [future.result() for future in futures] == [OK, CONFLICT, FORBIDDEN]


@asynchronous
async def test_a_group_has_at_most_the_stores_limit(monkeypatch):
    monkeypatch.setattr(committer_module, "ENTRIES_MAX", 4)
    worker = Worker(6)
    payments = [worker.pay(number, 9_000_000) for number in range(6)]
    futures = [worker.committer.write(Entry(0, 1, bytes([n]) * 36, 0, 1000, b"s")) for n in range(3)]
    sizes = []
    await settle()
    while worker.store.in_flight:
        sizes.append(len(worker.store.groups[-1]))
        await worker.store.answer()
    assert sizes == [4, 4, 1]
    assert [future.result() for future in payments + futures] == [OK] * 9


@asynchronous
async def test_exhausting_and_closing_are_written():
    worker = Worker()
    exhausted = worker.pay(0, 0, 0x82)
    worker.table.begin_closing(worker.outpoint(1))
    closing = worker.committer.make_durable(worker.outpoint(1))
    await settle()
    assert [entry.state[1] for entry in worker.store.groups[0]] == [Phase.CLOSING] * 2
    await worker.store.answer()
    assert (exhausted.result(), closing.result()) == (OK, OK)


@asynchronous
async def test_a_waiter_that_gives_up_disturbs_nobody():
    worker = Worker()
    impatient, patient = worker.pay(0, 9_000_000), worker.pay(0, 8_000_000)
    await settle()
    impatient.cancel()
    await worker.store.answer()
    assert impatient.cancelled() and patient.result() == OK
    assert worker.table.is_durable(worker.outpoint(0))


@asynchronous
async def test_full_counts_everybody_who_waits(monkeypatch):
    monkeypatch.setattr(committer_module, "WAITING_MAX", 3)
    worker = Worker()
    worker.pay(0, 9_000_000)
    worker.committer.wait_for(worker.outpoint(0))
    assert not worker.committer.is_full
    worker.committer.write(Entry(0, 1, bytes(36), 0, 1000, b"s"))
    assert worker.committer.is_full
    await settle()
    assert worker.committer.is_full
    await worker.store.answer()
    assert not worker.committer.is_full


def test_limits_fit_together():
    assert committer_module.ENTRIES_MAX == ENTRIES_MAX
    assert committer_module.WAITING_MAX > ENTRIES_MAX
    assert LOST not in list(EntryStatus)
