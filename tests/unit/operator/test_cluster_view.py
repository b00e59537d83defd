"""Aim: an operator is told of every store what this machine's store saw, and nothing that it did not. Method: what a store answers,
written out."""

from hypothesis import given
from hypothesis import strategies as st

from paychan.operator.views.cluster import ranges, stores
from paychan.rpc.stores_messages import Life, StoreSeen, StoresSeen

NOW = 1_800_000_000
A1, B1 = 65_537, 131_073
SEEN = [
    StoreSeen(
        "a", 1, True, Life.ALIVE, 40, 3, 700, 1200, 5, {A1: "tls:10.0.0.1:7000 m0 /run/w.sock"}, {0: A1, 1: A1, 3: A1, 4: A1}
    ),
    StoreSeen("b", 2, False, Life.SILENT, 31_500, 9, 80, -200, 0, {B1: "tls:10.0.0.2:7000 m1 /run/w.sock"}, {2: 0, 5: B1}),
]


def test_every_store_is_told_with_whose_workers_serve_what():
    told = stores(StoresSeen(1500, 4, SEEN), NOW)
    assert told["looked_at"] == NOW - 1.5
    here, there = told["stores"]
    assert (here["shards"], here["unserved_shards"], here["leases"]) == (3, 0, ["settler"])
    assert here["workers"] == [{"number": A1, "machine": "m0", "shards": [[0, 1], [3, 3]]}]
    assert (there["life"], there["unmoved_seconds"], there["open_value_satoshi"]) == ("silent", 31.5, -200)
    assert (there["shards"], there["unserved_shards"], there["leases"]) == (1, 1, ["chain_watcher"])
    assert there["workers"] == [{"number": B1, "machine": "m1", "shards": []}]
    assert [row["is_this"] for row in told["stores"]] == [True, False]


def test_before_the_first_look_nothing_is_told():
    assert stores(StoresSeen(0, 4, []), NOW) == {"looked_at": None, "stores": []}


@given(st.sets(st.integers(0, 40)))
def test_ranges_hold_what_there_is_and_none_touches_the_next(numbers):
    found = ranges(sorted(numbers))
    assert [number for first, last in found for number in range(first, last + 1)] == sorted(numbers)
    assert all(before[1] + 1 < after[0] for before, after in zip(found, found[1:], strict=False))
