"""Claim: a whole payment, text in, state updated, is one compiled call of less than 1.1 V; in plain Python (the judge) it takes
about three V. Every signature is another one."""

from bench.bench_samples import COUNT, PAYMENTS, QUERIES, SAMPLE, loaded_table, report_each
from paychan._fast.status import Status
from tests.differential.channels import NOW, SETTLEMENT_PERIOD
from tests.reference import Judge


def pay_all(table):
    return [table.pay(SAMPLE.path, query, NOW) for query in QUERIES], table


def test_payment_compiled(benchmark):
    statuses, table = benchmark.pedantic(pay_all, setup=lambda: ((loaded_table(),), {}), rounds=20, warmup_rounds=1)
    assert statuses == [Status.ACCEPTED] * COUNT
    assert table.newest_payment(SAMPLE.terms.outpoint) == PAYMENTS[-1].raw
    report_each(benchmark)


def test_payment_judge(benchmark):
    def setup():
        judge = Judge(SETTLEMENT_PERIOD)
        judge.add(SAMPLE.account)
        return (judge,), {}

    verdicts, judge = benchmark.pedantic(pay_all, setup=setup, rounds=5, warmup_rounds=1)
    assert [verdict.code for verdict in verdicts] == ["accepted"] * COUNT
    assert judge.accounts[SAMPLE.terms.outpoint].newest == PAYMENTS[-1]
    report_each(benchmark)
