"""Claim: everything in a payment but sighash and verification costs about a microsecond.

The newest payment, sent again, takes that way: parse, owner, lookup, phase, expiry, order, comparison with what is held.
"""

from bench.one_payment import measure
from bench.samples import COUNT, PAYMENTS, QUERIES, SAMPLE, loaded_table
from paychan._fast.status import Status
from tests.differential.channels import NOW


def test_replayed_payment(benchmark):
    table = loaded_table()
    query = QUERIES[0]
    assert table.pay(SAMPLE.path, query, NOW) == Status.ACCEPTED

    def run():
        return [table.pay(SAMPLE.path, query, NOW) for _ in range(COUNT)]

    assert measure(benchmark, "a replayed payment (no verification)", run) == [Status.REPLAYED] * COUNT


def test_out_of_order_payment(benchmark):
    """What an attacker's old payments cost us: they are refused unverified."""
    table = loaded_table()
    assert table.pay(SAMPLE.path, QUERIES[-1], NOW) == Status.ACCEPTED
    old = QUERIES[:-1]

    def run():
        return [table.pay(SAMPLE.path, query, NOW) for query in old]

    results = measure(benchmark, "an old payment (refused, no verification)", run, count=len(old))
    assert results == [Status.OUT_OF_ORDER] * len(old)


def test_seal_and_acknowledge(benchmark):
    table = loaded_table()
    outpoint = SAMPLE.terms.outpoint
    assert table.pay(SAMPLE.path, QUERIES[0], NOW) == Status.ACCEPTED

    def run():
        for _ in range(COUNT):
            entry = table.seal(outpoint)
            table.acknowledge(outpoint)
        return entry

    assert measure(benchmark, "the channel's entry for the store, and its answer", run).endswith(PAYMENTS[0].signature)
    assert table.is_durable(outpoint)
