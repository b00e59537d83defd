"""What several stores decide from each other's rows: who is silent, who gives what to whom, whose worker serves a lease. Pure
parts, with rows made by hand and random ones; the clock is the test's."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paychan.rpc.store_messages import OwnerTable, Unsettled
from paychan.rpc.stores_messages import Life
from store.elsewhere import Elsewhere, theirs
from store.leases import NOBODY, NOT_HELD, WORKERS_MAX, Leases, share_out

sharing = pytest.importorskip("store.engines.postgres.sharing", reason="asyncpg is not installed")
engine = pytest.importorskip("store.engines.postgres.engine", reason="asyncpg is not installed")

SHARDS, LEASE_MS = 8, 1000
KINDS = range(SHARDS), range(SHARDS, SHARDS + 2)


def row(name, number, leases=(), fence=1, groups=0, owners=b""):
    return engine.Row(name, number, fence, groups, engine.Sums(0, 0, 0), owners, dict.fromkeys(leases, 5))


# --- who has how many ---


@example([0, 0, 0, 1], {1: 2, 2: 1, 3: 5})
@given(st.lists(st.integers(0, 4), max_size=40), st.dictionaries(st.integers(1, 4), st.integers(0, 5), min_size=1))
def test_shares_go_by_weight_and_as_few_as_possible_change_hands(owners, weights):
    owners = [owner if owner in weights else NOBODY for owner in owners]
    shared, total = share_out(owners, weights), sum(weights.values())
    if not total:
        assert shared == [NOBODY] * len(owners)
        return
    held, before = Counter(shared), Counter(owners)
    assert sum(held.values()) == len(owners)
    for owner, weight in weights.items():
        assert abs(held[owner] - len(owners) * weight / total) < 1
        kept = sum(a == b == owner for a, b in zip(owners, shared, strict=True))
        assert kept == min(before[owner], held[owner]), "it gives away only what it has too much"
    assert share_out(shared, weights) == shared


@given(st.lists(st.integers(1, 3), min_size=10, max_size=10), st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_stores_that_give_one_after_the_other_come_to_an_even_division_and_rest(holders, workers):
    """Whoever's turn it is looks at the rows as they are then. Who gets one more by rounding may change while they give."""
    names, weights = {1: "a", 2: "b", 3: "c"}, dict(zip((1, 2, 3), workers, strict=True))
    holders = list(holders)

    def given_by(number):
        rows = [row(name, n, [i for i, h in enumerate(holders) if h == n]) for n, name in names.items()]
        return sharing.excess(rows, weights, rows[number - 1], KINDS, list(rows[number - 1].leases))

    for number in (1, 2, 3) * 3:
        for name, leases in given_by(number).items():
            for lease in leases:
                assert holders[lease] == number
                holders[lease] = next(n for n, known in names.items() if known == name)
    assert not any(given_by(number) for number in (1, 2, 3))
    if sum(workers):
        assert {holder for holder in holders if not weights[holder]} == set()


def test_nothing_is_given_to_who_does_not_live_and_nothing_of_theirs_is_counted():
    rows = [row("a", 1, range(8)), row("b", 2, [8, 9])]
    assert sharing.excess(rows, {1: 1}, rows[0], KINDS, [*range(8)]) == {}
    given = sharing.excess(rows, {1: 1, 2: 1}, rows[0], KINDS, [*range(8)])
    assert {name: len(leases) for name, leases in given.items()} == {"b": 4}


@given(st.lists(st.integers(1, 3), min_size=2, max_size=3))
def test_whoever_gives_and_takes_each_worker_of_a_store_has_as_many_as_its_others(workers):
    """The first store had it all; then the others join, and the last one is lost, whose leases the first one takes over."""
    shards = 60
    kinds = range(shards), range(shards, shards + 2)
    stores = {}
    for number, count in enumerate(workers, 1):
        stores[number] = Leases(shards, [5 if number == 1 else NOT_HELD] * (shards + 2), number)
        for worker in range(count):
            stores[number].join(f"{number}-{worker}", 0)
            stores[number].rebalance()

    def held_by(number):
        return [lease for lease in range(shards + 2) if stores[number].holds(lease)]

    def share(living):
        for number in living * 2:
            rows = [row(str(n), n, held_by(n)) for n in stores]
            weights = {n: workers[n - 1] for n in living}
            given = sharing.excess(rows, weights, rows[number - 1], kinds, stores[number].in_turns())
            for name, leases in given.items():
                stores[number].let_go(leases)
                stores[int(name)].hold(dict.fromkeys(leases, 9))
                stores[int(name)].rebalance()

    def is_even(number):
        owners = Counter(owner for owner, _ in stores[number].table().owners[:shards] if owner)
        return len(owners) == workers[number - 1] and max(owners.values()) - min(owners.values()) <= 1

    living = list(stores)
    share(living)
    assert all(map(is_even, living))
    *living, lost = living
    taken = held_by(lost)
    stores[lost].let_go(taken)
    stores[1].hold(dict.fromkeys(taken, 11))
    stores[1].rebalance()
    share(living)
    assert all(map(is_even, living))


# --- who is silent ---


def test_silence_is_a_lease_of_our_own_clock_without_any_change():
    watch, a, b = sharing.Watch("a", LEASE_MS), row("a", 1), row("b", 2)
    watch.see([a, b], 0, 10)
    assert not watch.lives(b) and not watch.is_silent(b), "nobody knows yet"
    watch.see([a, b], 1010, 1020)
    assert not watch.is_silent(b), "it may have written after the first answer, and at the end of the lease"
    watch.see([a, b], 1011, 1020)
    assert watch.is_silent(b) and not watch.is_silent(a)
    assert watch.lives(a), "whatever the clock says, we live"
    moved = b._replace(groups=1)
    watch.see([a, moved], 1500, 1510)
    assert watch.lives(moved)
    fenced = moved._replace(fence=2)
    watch.see([a, fenced], 2400, 2410)
    watch.see([a, fenced], 2600, 2610)
    assert watch.lives(fenced)


def test_a_store_that_appears_lives():
    watch, a, b = sharing.Watch("a", LEASE_MS), row("a", 1), row("b", 2)
    watch.see([a], 0, 1)
    watch.see([a, b], 100, 101)
    assert watch.lives(b)


def test_who_operates_is_told_of_what_a_store_writes_and_not_of_what_others_write_to_its_row():
    watch, a, b = sharing.Watch("a", LEASE_MS), row("a", 1), row("b", 2)
    watch.see([a, b], 0, 10)
    assert watch.sign_of(b) == (Life.UNKNOWN, 0)
    moved = b._replace(groups=1)
    watch.see([a, moved], 400, 410)
    watch.see([a, moved], 700, 710)
    assert watch.sign_of(moved) == (Life.ALIVE, 290)
    taken_over = moved._replace(fence=2)
    watch.see([a, taken_over], 1500, 1510)
    assert watch.sign_of(taken_over) == (Life.SILENT, 1090), "the fence was raised by who took it over"
    assert watch.sign_of(a) == (Life.ALIVE, 1490)


# --- whose worker serves what ---


def test_a_worker_serves_a_lease_of_another_store_only_under_the_epoch_that_its_row_has():
    table = OwnerTable(1, {131073: "b1"}, [(131073, 5), (131073, 6), (0, 0)])
    assert theirs({0: 5, 1: 7, 2: 3}, table) == {0: (131073, 5), 1: (NOBODY, 7), 2: (NOBODY, 3)}
    assert theirs({0: 5}, None) == {0: (NOBODY, 5)}


def test_what_went_elsewhere_is_elsewhere_whatever_our_last_table_said():
    own = OwnerTable(3, {65537: "a1"}, [(65537, 4), (65537, 4), (0, 0)], {0: "uneven", 1: "uneven"})
    elsewhere = Elsewhere({1: (131073, 5), 2: (131073, 9)}, {131073: "b1"}, {2: "odd"}, Unsettled(-3, 8))
    table = elsewhere.joined(own, 7)
    assert (table.version, table.owners) == (7, [(65537, 4), (131073, 5), (131073, 9)])
    assert table.workers == {65537: "a1", 131073: "b1"}
    assert table.stopped == {0: "uneven", 2: "odd"}
    assert elsewhere.total(Unsettled(10, 1)) == Unsettled(7, 9)
    assert elsewhere.total(Unsettled(2, 0)) == Unsettled(0, 8), "between two looks a sum may lag"


def test_a_store_shares_out_what_it_holds_and_numbers_its_workers_by_its_own_number():
    leases = Leases(SHARDS, [1, 1, *[NOT_HELD] * 6, 1, NOT_HELD], store=3)
    number = leases.join("x", 0)
    assert number == (3 << 16) + 1
    assert leases.rebalance() == {0: 2, 1: 2, 8: 2}
    assert leases.table().owners == [(number, 2)] * 2 + [(NOBODY, 0)] * 6 + [(number, 2), (NOBODY, 0)]
    leases.hold({5: 40})
    raised = leases.rebalance()
    assert raised == {5: 41} == leases.still(raised)
    leases.let_go([5])
    assert leases.still(raised) == {} and not leases.holds(5)
    leases.hold({5: 43})
    assert leases.still(raised) == {} and leases.rebalance() == {5: 44}


def test_numbers_of_workers_stay_within_their_store_and_none_is_given_twice_at_a_time():
    leases = Leases(SHARDS, [0] * (SHARDS + 2), store=1)
    stays = leases.join("stays", 0)
    for _ in range(WORKERS_MAX + 5):
        number = leases.join("goes", 0)
        assert number >> 16 == 1 and number & 0xFFFF and number != stays
        leases.leave(number)
