"""Aim: this worker answers for exactly the shards that the newest owner table gives it. Method: owner tables by hand, a real
channel table underneath."""

import asyncio

import pytest

from paychan._fast.channel import ChannelTable, shard_of
from paychan.rpc.store_messages import LEASE_COUNT, Lease, OwnerTable, Welcome
from paychan.server.shards.ownership import Ownership
from tests.differential.channels import SETTLEMENT_PERIOD, make_sample

SHARDS = 8
LONG = 60.0
ME, OTHER = 5, 6
WORKERS = {ME: "unix:/me", OTHER: "unix:/other"}
LEASES = [(ME, 1), (OTHER, 1)]
SAMPLES = [make_sample(f"ownership {number}") for number in range(64)]


def welcome(shard_count=SHARDS):
    return Welcome(ME, shard_count, 3000)


def table_of(owners, version=1, leases=None):
    return OwnerTable(version, WORKERS, owners + (LEASES if leases is None else leases))


@pytest.fixture
def channels():
    return ChannelTable(SHARDS, SETTLEMENT_PERIOD)


@pytest.fixture
def changes():
    return []


@pytest.fixture
def ownership(channels, changes):
    return Ownership(channels, SHARDS, lambda: changes.append(1))


HALF = [(ME if shard % 2 else OTHER, 10 + shard) for shard in range(SHARDS)]


def test_at_first_nothing_is_owned(ownership, channels):
    assert not any(channels.owns(sample.terms.outpoint) for sample in SAMPLES)
    assert ownership.peer_of(SAMPLES[0].terms.outpoint) == ""
    assert not ownership.is_complete and ownership.worker_count == 0
    assert not any(ownership.holds(lease) for lease in Lease)


def test_shards_are_owned_under_their_epochs(ownership, channels, changes):
    ownership.update(welcome(), table_of(HALF))
    assert [channels.epoch_of(shard) for shard in range(SHARDS)] == [0, 11, 0, 13, 0, 15, 0, 17]
    for sample in SAMPLES:
        mine = shard_of(sample.terms.outpoint, SHARDS) % 2 == 1
        assert channels.owns(sample.terms.outpoint) == mine
        assert ownership.peer_of(sample.terms.outpoint) == ("" if mine else "unix:/other")
    assert ownership.is_complete and ownership.worker_count == 2
    assert changes == [1]


def test_a_shard_of_nobody_has_no_peer_and_is_not_ours(ownership, channels):
    ownership.update(welcome(), table_of([(0, 3)] * SHARDS))
    assert not any(channels.owns(sample.terms.outpoint) for sample in SAMPLES)
    assert ownership.peer_of(SAMPLES[0].terms.outpoint) == ""
    assert not ownership.is_complete


def test_an_owner_whose_address_is_unknown_is_no_peer(ownership):
    ownership.update(welcome(), table_of([(99, 3)] * SHARDS))
    assert ownership.peer_of(SAMPLES[0].terms.outpoint) == ""


def test_leases_are_held_by_one(ownership):
    ownership.update(welcome(), table_of(HALF))
    assert ownership.holds(Lease.SETTLER) and not ownership.holds(Lease.CHAIN_WATCHER)
    ownership.update(welcome(), table_of(HALF, leases=[(OTHER, 2), (ME, 2)]))
    assert not ownership.holds(Lease.SETTLER) and ownership.holds(Lease.CHAIN_WATCHER)


def test_what_changed_hands_is_forgotten(ownership, channels):
    ownership.update(welcome(), table_of([(ME, 1)] * SHARDS))
    for sample in SAMPLES:
        sample.load(channels)
    moved = [(OTHER, 2), (ME, 2)] + [(ME, 1)] * (SHARDS - 2)  # shard 1 went away and came back between two tables
    ownership.update(welcome(), table_of(moved))
    for sample in SAMPLES:
        assert channels.is_loaded(sample.terms.outpoint) == (shard_of(sample.terms.outpoint, SHARDS) > 1)


def test_losing_the_store_ends_every_right(ownership, channels, changes):
    ownership.update(welcome(), table_of([(ME, 1)] * SHARDS))
    SAMPLES[0].load(channels)
    ownership.lose()
    assert len(channels) == 0
    assert not channels.owns(SAMPLES[0].terms.outpoint)
    assert not any(ownership.holds(lease) for lease in Lease)
    assert not ownership.is_complete
    assert len(changes) == 2


@pytest.mark.parametrize(
    ("shard_count", "owners"),
    [(SHARDS + 1, SHARDS), (SHARDS, SHARDS - 1), (SHARDS, SHARDS + 1), (SHARDS * 2, SHARDS * 2), (SHARDS, 0)],
)
def test_a_store_with_other_shards_gives_nothing_and_takes_all(ownership, channels, shard_count, owners):
    ownership.update(welcome(), table_of([(ME, 1)] * SHARDS))
    SAMPLES[0].load(channels)
    ownership.update(welcome(shard_count), table_of([(ME, 1)] * owners))
    assert len(channels) == 0
    assert not channels.owns(SAMPLES[0].terms.outpoint)


def test_waiting_for_a_change_ends_with_it_for_all(ownership):
    async def play():
        waiting = [asyncio.ensure_future(ownership.wait_for_change(LONG)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(future.done() for future in waiting)
        ownership.update(welcome(), table_of(HALF))
        await asyncio.wait_for(asyncio.gather(*waiting), LONG / 2)
        again = asyncio.ensure_future(ownership.wait_for_change(LONG))
        await asyncio.sleep(0.01)
        assert not again.done()  # the next change, not the last one
        ownership.lose()
        await asyncio.wait_for(again, LONG / 2)

    asyncio.run(play())


def test_waiting_for_a_change_gives_up(ownership):
    asyncio.run(asyncio.wait_for(ownership.wait_for_change(0.01), LONG))
    ownership.lose()  # nobody waits any more, and nothing breaks


def test_there_is_one_owner_entry_for_each_lease():
    assert len(Lease) == LEASE_COUNT == len(LEASES)
