"""Leases are shared out evenly, few change hands, and every new owner has a higher epoch than any before: examples,
then random joins and leaves."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from paychan.rpc.store_messages import LEASE_COUNT
from store.leases import NOBODY, Leases, share_out

SHARDS = 16
COUNT = SHARDS + LEASE_COUNT


def make(epochs=None) -> Leases:
    return Leases(SHARDS, epochs or [0] * COUNT)


def owners(leases: Leases) -> list[int]:
    return [owner for owner, _ in leases.table().owners]


def test_the_first_worker_gets_everything_under_a_new_epoch():
    leases = make([5] * COUNT)
    assert leases.join("a", 0) == 1
    assert leases.rebalance() == dict.fromkeys(range(COUNT), 6)
    assert leases.table().owners == [(1, 6)] * COUNT
    assert leases.table().workers == {1: "a"}


def test_the_second_worker_takes_half_and_the_rest_stays():
    leases = make()
    leases.join("a", 0)
    leases.rebalance()
    leases.join("b", 0)
    raised = leases.rebalance()
    assert Counter(owners(leases)[:SHARDS]) == {1: 8, 2: 8}
    assert set(owners(leases)[SHARDS:]) == {1, 2}
    assert sorted(raised) == [lease for lease, owner in enumerate(owners(leases)) if owner == 2]


def test_a_leaving_worker_leaves_its_leases_to_the_others():
    leases = make()
    for name in "abc":
        leases.join(name, 0)
        leases.rebalance()
    before = owners(leases)
    leases.leave(2)
    raised = leases.rebalance()
    assert sorted(raised) == [lease for lease, owner in enumerate(before) if owner == 2]
    assert Counter(owners(leases)[:SHARDS]) == {1: 8, 3: 8}


def test_without_workers_nobody_owns_and_the_epochs_stay():
    leases = make()
    leases.join("a", 0)
    leases.rebalance()
    leases.leave(1)
    assert leases.rebalance() == {}
    assert leases.table().owners == [(NOBODY, 1)] * COUNT
    assert leases.join("b", 0) == 2
    assert set(leases.rebalance().values()) == {2}


def test_silence_longer_than_the_lease_is_noticed_and_any_sign_of_life_counts():
    leases = make()
    first, second = leases.join("a", 0), leases.join("b", 0)
    leases.saw(second, 600)
    assert leases.silent(1000, 1000) == []
    assert leases.silent(1001, 1000) == [first]
    leases.forgive_silence(1700)
    assert leases.silent(2000, 1000) == []


def test_the_version_goes_up_with_each_change():
    leases = make()
    versions = []
    for name in "abc":
        leases.join(name, 0)
        leases.rebalance()
        versions.append(leases.table().version)
    assert versions == sorted(set(versions))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30))
def test_any_joins_and_leaves_stay_balanced_move_few_and_raise_epochs(steps):
    """Step 0 joins; step n lets the n-th worker leave, if there is one."""
    leases, workers = make(), []
    for step in steps:
        before = leases.table().owners
        if step == 0 or step > len(workers):
            workers.append(leases.join("x", 0))
        else:
            leases.leave(workers.pop(step - 1))
        raised = leases.rebalance()
        after = leases.table().owners
        for lease, ((old, old_epoch), (new, new_epoch)) in enumerate(zip(before, after, strict=True)):
            moved = new != NOBODY and new != old
            assert new_epoch == old_epoch + moved
            assert (lease in raised) == moved
        check_balance([owner for owner, _ in after], workers)
        check_few_moves([owner for owner, _ in before][:SHARDS], [owner for owner, _ in after][:SHARDS], workers)


def check_balance(now: list[int], workers: list[int]) -> None:
    if not workers:
        assert set(now) == {NOBODY}
        return
    for part in (now[:SHARDS], now[SHARDS:]):
        counts = [part.count(worker) for worker in workers]
        assert sum(counts) == len(part)
        assert max(counts) - min(counts) <= 1


def check_few_moves(before: list[int], now: list[int], workers: list[int]) -> None:
    """At most the orphans plus what exceeds an even share have to move."""
    if not workers:
        return
    orphans = sum(owner not in workers for owner in before)
    counts = sorted((before.count(worker) for worker in workers), reverse=True)
    each, over = divmod(SHARDS, len(workers))
    surplus = sum(max(0, count - each - (place < over)) for place, count in enumerate(counts))
    assert sum(old != new for old, new in zip(before, now, strict=True)) <= orphans + surplus


def test_more_workers_than_leases_leave_some_without():
    assert share_out([1, 1], {1: 1, 2: 1, 3: 1}) == [1, 2]


def test_versions_and_numbers_begin_where_they_say_and_go_up_by_one():
    leases = make()
    assert leases.table().version == 0
    assert [leases.join(name, 0) for name in "ab"] == [1, 2]
    leases.leave(2)
    assert leases.join("c", 0) == 3
    leases.rebalance()
    assert leases.table().version == 1
