"""Aim: the simulated mempool is no kinder than Bitcoin Core's. Method: each rule at its edge, as Core's documents have it."""

import itertools
import random

import pytest

from .mempool import CORE_25, CORE_28, CORE_31, Mempool, Refused, Tx, chunks_of, improves

NAMES = itertools.count(1)
FUNDING = b"\x01" * 36
RULES = pytest.mark.parametrize("rules", [CORE_28, CORE_31], ids=lambda rules: rules.name)


def make(fee: int, size: int, parent: Tx | None = None, lock_time: int = 0) -> Tx:
    """Return a spend of the funding output, or a child."""
    txid = next(NAMES).to_bytes(32, "big")
    return Tx(txid, b"", None if parent else FUNDING, fee, lock_time, parent.txid if parent else None, size)


def refused(pool: Mempool, tx: Tx) -> str:
    before = list(pool.entries)
    with pytest.raises(Refused) as caught:
        pool.add(tx)
    assert list(pool.entries) == before
    return str(caught.value)


def pinned(rules, fee: int = 3_480, size: int = 348, pin: int = 100_000, bytes_hung: int = 100_000) -> tuple[Mempool, Tx]:
    pool, parent = Mempool(rules), make(fee, size)
    pool.add(parent)
    pool.add(make(pin, bytes_hung, parent))
    return pool, parent


@RULES
def test_a_replacement_pays_for_all_that_is_evicted_and_for_its_own_bytes(rules):
    pool, _ = pinned(rules)
    least = 103_480 + rules.increment_per_kb * 348 // 1000 + (1 if rules.increment_per_kb * 348 % 1000 else 0)
    assert refused(pool, make(least - 1, 348)) == "insufficient fee"
    better = make(least, 348)
    pool.add(better)
    assert list(pool.entries) == [better.txid] and pool.replacements == 1
    assert pool.spender(FUNDING) is better


def test_without_full_rbf_nothing_of_ours_is_replaced():
    pool = Mempool(CORE_25)
    pool.add(make(348, 348))
    assert refused(pool, make(1_000_000, 348)) == "txn-mempool-conflict"


def test_before_31_a_replacement_has_a_higher_rate_than_what_it_conflicts_with():
    pool = Mempool(CORE_28)
    pool.add(make(3_480, 348))
    assert refused(pool, make(8_720, 872)) == "insufficient fee"  # the same rate
    pool.add(make(8_723, 872))


def test_since_31_a_replacement_betters_the_diagram():
    pool, parent = Mempool(CORE_31), make(34_800, 348)
    pool.add(parent)
    pool.add(make(100, 1_000, parent))
    assert refused(pool, make(34_987 + 100, 872)) == "replacement-failed"  # more in all, and less for the first 348 bytes
    pool.add(make(87_200 + 1, 872))


@RULES
def test_an_inflated_copy_that_came_first_keeps_the_original_out(rules):
    pool = Mempool(rules)
    pool.add(make(3_480, 872))
    assert refused(pool, make(3_480, 348)) == "insufficient fee"
    pool.add(make(3_480 + 348, 348))


def test_what_hangs_together_is_bounded():
    for rules, count, reason in ((CORE_28, 25, "too-long-mempool-chain"), (CORE_31, 64, "too-large-cluster")):
        pool, parent = Mempool(rules), make(3_480, 348)
        pool.add(parent)
        for _ in range(count - 1):
            pool.add(make(1_000, 1_000, parent))
        assert refused(pool, make(1_000, 1_000, parent)) == reason
        pool, parent = Mempool(rules), make(3_480, 348)
        pool.add(parent)
        child = make(200_000, 100_652, parent)
        pool.add(child)
        assert refused(pool, make(1, 1, child)) == reason


def test_what_pays_too_little_is_not_relayed():
    assert refused(Mempool(CORE_28), make(347, 348)) == "min relay fee not met"
    Mempool(CORE_31).add(make(35, 348))
    assert refused(Mempool(CORE_31), make(34, 348)) == "min relay fee not met"
    assert refused(Mempool(CORE_31, minimum=2.0), make(695, 348)) == "mempool min fee not met"


def test_a_full_mempool_forgets_the_worst_with_what_needs_it():
    pool, parent = pinned(CORE_31, pin=10_000)
    pool.minimum = 1.0
    pool.trim()
    assert list(pool.entries) == [parent.txid]
    pool.minimum = 10.1
    pool.trim()
    assert not pool.entries and pool.evictions == 2 and pool.spender(FUNDING) is None


def test_a_child_that_pays_well_keeps_its_parent_and_brings_it_into_a_block():
    pool, parent = pinned(CORE_31, fee=348, pin=50_000, bytes_hung=200)
    pool.minimum = 20.0
    pool.trim()
    assert len(pool.entries) == 2
    assert [tx.size for tx in pool.best(50.0, 0)] == [348, 200]
    assert pool.best(92.0, 0) == []


def test_a_pin_below_the_price_of_a_block_does_not_bring_its_parent_in():
    pool, parent = pinned(CORE_31)
    assert pool.best(10.0, 0) == [parent]
    assert pool.best(10.1, 0) == []


def test_lock_times_are_held_against_the_median_time_past():
    pool = Mempool(CORE_31)
    pool.add(make(10_000, 238, lock_time=1000))
    assert pool.best(1.0, 1000) == []
    assert len(pool.best(1.0, 1001)) == 1


def test_a_block_ends_what_conflicts_with_it_and_keeps_what_hangs_on_it():
    pool, parent = pinned(CORE_31)
    pool.mined([parent])
    assert [tx.parent for tx in pool.entries.values()] == [parent.txid]
    assert pool.best(1.0, 0) != []
    pool, _ = pinned(CORE_31)
    pool.mined([make(1, 348)])
    assert not pool.entries and pool.spender(FUNDING) is None


def test_chunks_can_be_mined_in_order_and_the_first_pays_best():
    """Of small trees: no transaction, with all that it needs, pays better than the first chunk."""
    rng = random.Random(7)
    for _ in range(200):
        cluster = [make(rng.randint(0, 1000), rng.randint(1, 100))]
        for _ in range(rng.randint(0, 6)):
            cluster.append(make(rng.randint(0, 1000), rng.randint(1, 100), rng.choice(cluster)))
        chunks, by_id = chunks_of(cluster), {tx.txid: tx for tx in cluster}
        assert sorted(tx.txid for _, _, chunk in chunks for tx in chunk) == sorted(by_id)
        rates = [fee / size for fee, size, _ in chunks]
        assert rates == sorted(rates, reverse=True)
        seen: set[bytes | None] = {None}
        for tx in (tx for _, _, chunk in chunks for tx in chunk):
            assert tx.parent in seen
            seen.add(tx.txid)
        for tx in cluster:
            fee, size, at = tx.fee, tx.size, tx
            while at.parent is not None:
                at = by_id[at.parent]
                fee, size = fee + at.fee, size + at.size
            assert fee / size <= rates[0] + 1e-9


def test_diagrams_are_compared_everywhere():
    assert improves([(11, 10)], [(10, 10)])
    assert not improves([(10, 10)], [(10, 10)])
    assert not improves([(15, 20)], [(10, 10)])  # lower for the first ten bytes
    assert improves([(30, 20)], [(10, 10), (5, 20)])
    assert not improves([(14, 10)], [(10, 10), (5, 20)])  # less in all
    assert improves([(12, 5)], [(10, 10)])
