"""Claim: everything in a payment but sighash and verification costs about a microsecond.

The newest payment, sent again, takes that way: parse, owner, lookup, phase, expiry, order, comparison with what is held.
"""

from bench.bench_samples import COUNT, PAYMENTS, QUERIES, SAMPLE, loaded_table, report_each
from paychan._fast.status import Status
from tests.differential.channels import NOW


def test_replay(benchmark):
    table = loaded_table()
    query = QUERIES[0]
    assert table.pay(SAMPLE.path, query, NOW) == Status.ACCEPTED

    def run():
        return [table.pay(SAMPLE.path, query, NOW) for _ in range(COUNT)]

    assert benchmark.pedantic(run, rounds=50, warmup_rounds=2) == [Status.REPLAYED] * COUNT
    report_each(benchmark)


def test_out_of_order_is_refused_unverified(benchmark):
    """What an attacker's old payments cost us."""
    table = loaded_table()
    assert table.pay(SAMPLE.path, QUERIES[-1], NOW) == Status.ACCEPTED

    def run():
        return [table.pay(SAMPLE.path, query, NOW) for query in QUERIES[:-1]]

    assert benchmark.pedantic(run, rounds=50, warmup_rounds=2) == [Status.OUT_OF_ORDER] * (COUNT - 1)
    report_each(benchmark)


def test_seal_and_acknowledge(benchmark):
    table = loaded_table()
    outpoint = SAMPLE.terms.outpoint
    assert table.pay(SAMPLE.path, QUERIES[0], NOW) == Status.ACCEPTED

    def run():
        for _ in range(COUNT):
            entry = table.seal(outpoint)
            table.acknowledge(outpoint)
        return entry

    assert benchmark.pedantic(run, rounds=50, warmup_rounds=2).endswith(PAYMENTS[0].signature)
    assert table.is_durable(outpoint)
    report_each(benchmark)
