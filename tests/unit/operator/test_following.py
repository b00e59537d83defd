"""Aim: the books become what the store has, with a bounded number of small questions, and are the same in a process that begins
anew. Method: a real database with channels of all phases, read as the store reads it."""

import asyncio

import pytest

from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.outcome import Outcome
from paychan.operator import following as module
from paychan.operator.books import UNSETTLED, Books
from paychan.operator.following import INDEXED_AT_ONCE, LOADED_AT_ONCE, Following
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.store_messages import SETTLED_MAX
from store import keys
from tests.operator_store import FilledStore

NOW = 1_800_000_000
COUNT, SETTLED = 700, 90


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REST_FACTOR", 0)
    monkeypatch.setattr(module, "FIRST_REST_FACTOR", 0)
    filled = FilledStore(tmp_path / "db", NOW)
    filled.fill(COUNT, SETTLED)
    yield filled
    filled.engine.close()


def swept(store, times=1):
    follows = Following(store, Books(), lambda: NOW)

    async def sweep():
        for _ in range(times):
            await follows.sweep()

    asyncio.run(sweep())
    return follows


def test_a_sweep_finds_every_channel_with_few_questions(store):
    books = swept(store).books
    assert (books.total(UNSETTLED), books.total((Phase.SETTLED,))) == (COUNT, SETTLED)
    loads = COUNT / LOADED_AT_ONCE + SETTLED / LOADED_AT_ONCE
    scans = COUNT / INDEXED_AT_ONCE + SETTLED / SETTLED_MAX
    assert store.questions <= loads + scans + 8
    found = {row.name: row for phase in Phase for row in books.page((phase,), "expiry", COUNT)[0]}
    assert len(found) == COUNT + SETTLED
    for row in found.values():
        (stored,) = store.engine.load([row.outpoint])
        terms, state = ChannelTerms.parse(row.outpoint, stored.terms), ChannelState.parse(stored.state)
        assert (row.phase, row.funding - state.payment.change_value) == (state.phase, row.received)
        assert (row.expires_at, row.opened_at) == (terms.exp_time, terms.opened_at)


def test_sums_of_days_are_the_same_in_a_process_that_begins_anew_and_in_one_that_looks_again(store):
    first, again, thrice = swept(store), swept(store), swept(store, 3)
    assert first.books.days() == again.books.days() == thrice.books.days()
    assert sum(day.settled for day in first.books.days().values()) == SETTLED
    assert sum(day.opened for day in first.books.days().values()) == COUNT + SETTLED


def test_what_is_paid_and_settled_meanwhile_is_seen_with_the_next_sweep(store):
    follows = Following(store, Books(), lambda: NOW)
    asyncio.run(follows.sweep())
    before, open_before = follows.books.days(), follows.books.counts()[Phase.OPEN]
    paid, settled = follows.books.page((Phase.OPEN,), "expiry", 2)[0]
    writes = {}
    for row, phase, more in ((paid, Phase.OPEN, 5), (settled, Phase.SETTLED, 0)):
        (stored,) = store.engine.load([row.outpoint])
        state = bytearray(stored.state)
        state[1] = phase
        left = int.from_bytes(state[4:12], "little") - more
        state[4:12] = left.to_bytes(8, "little")
        writes[keys.STATE + row.outpoint] = bytes(state) + (b"t" * 32 if phase == Phase.SETTLED else b"")
    outcome = Outcome(NOW, settled.opened_at, settled.received, 7)
    writes[keys.expiring_key(settled.expires_at, settled.outpoint)] = None
    writes[keys.done_key(NOW, settled.outpoint)] = outcome.serialize()
    store.engine.commit(writes)
    asyncio.run(follows.sweep())
    assert follows.books.get(paid.outpoint).received == paid.received + 5
    row = follows.books.get(settled.outpoint)
    assert (row.phase, row.settled_at, row.fee, row.is_lost) == (Phase.SETTLED, NOW, 7, False)
    assert follows.books.counts()[Phase.OPEN] == (open_before[0] - 1, open_before[1] - settled.received + 5)
    after = follows.books.days()
    assert sum(day.settled for day in after.values()) == sum(day.settled for day in before.values()) + 1
    assert sum(day.opened for day in after.values()) == sum(day.opened for day in before.values())


def test_a_store_that_goes_away_leaves_what_was_seen(store):
    follows = swept(store)

    async def gone(_):
        raise ConnectionGone()

    store.load_many = gone
    with pytest.raises(ConnectionGone):
        asyncio.run(follows.sweep())
    assert follows.books.total(UNSETTLED) == COUNT and follows.is_complete


def test_a_rest_follows_each_answer_that_is_many_times_as_long(store, monkeypatch):
    monkeypatch.setattr(module, "FIRST_REST_FACTOR", 9)
    rested = []

    async def sleep(seconds):
        rested.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    follows = swept(store)
    assert len(rested) >= store.questions
    assert sum(rested) == pytest.approx(9 * follows.asked_seconds)
