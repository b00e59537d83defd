"""Claim: a whole payment, text in, state updated, is one compiled call of less than 1.1 V; in plain Python (the judge) it takes
about three V. Every signature is another one."""

from bench.one_payment import measure
from bench.samples import COUNT, PAYMENTS, QUERIES, SAMPLE, loaded_table
from paychan._fast.status import Status
from tests.differential.channels import NOW, SETTLEMENT_PERIOD
from tests.reference import Judge


def pay_all(table):
    return [table.pay(SAMPLE.path, query, NOW) for query in QUERIES], table


def test_whole_payment(benchmark):
    what = "**whole payment: parse, sighash, verify, apply**"
    statuses, table = measure(benchmark, what, pay_all, setup=lambda: (loaded_table(),))
    assert statuses == [Status.ACCEPTED] * COUNT
    assert table.newest_payment(SAMPLE.terms.outpoint) == PAYMENTS[-1].raw


def test_whole_payment_in_plain_python(benchmark):
    def setup():
        judge = Judge(SETTLEMENT_PERIOD)
        judge.add(SAMPLE.account)
        return (judge,)

    what = "whole payment in plain Python (python-bitcoinlib, coincurve)"
    verdicts, judge = measure(benchmark, what, pay_all, setup, rounds=5)
    assert [verdict.code for verdict in verdicts] == ["accepted"] * COUNT
    assert judge.accounts[SAMPLE.terms.outpoint].newest == PAYMENTS[-1]
