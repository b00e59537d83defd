"""Claim: the digest costs well below a hundredth of V with SHA instructions; python-bitcoinlib needs half a V and more."""

from bench.bench_samples import PAYMENTS, SAMPLE, report_each
from paychan._fast.sighash import payment_sighash
from tests.reference import sighash

TERMS = SAMPLE.terms
EXPECTED = [sighash(SAMPLE.account, paid.change_value, 0x83) for paid in PAYMENTS]


def test_sighash_compiled(benchmark):
    outpoint, redeem, change_script = TERMS.outpoint, TERMS.redeem_script, TERMS.change_script

    def run():
        return [payment_sighash(outpoint, redeem, change_script, paid.change_value, 0x83) for paid in PAYMENTS]

    assert benchmark.pedantic(run, rounds=50, warmup_rounds=2) == EXPECTED
    report_each(benchmark)


def test_sighash_judge(benchmark):
    account = SAMPLE.account

    def run():
        return [sighash(account, paid.change_value, 0x83) for paid in PAYMENTS]

    assert benchmark.pedantic(run, rounds=5, warmup_rounds=1) == EXPECTED
    report_each(benchmark)
