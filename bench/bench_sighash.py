"""Claim: the digest costs well below a hundredth of V with SHA instructions; python-bitcoinlib needs half a V and more."""

from bench.one_payment import measure
from bench.samples import DIGESTS, PAYMENTS, SAMPLE
from paychan._fast.sighash import payment_sighash
from tests.reference import sighash

TERMS = SAMPLE.terms


def test_sighash(benchmark):
    outpoint, redeem, change_script = TERMS.outpoint, TERMS.redeem_script, TERMS.change_script

    def run():
        return [payment_sighash(outpoint, redeem, change_script, paid.change_value, 0x83) for paid in PAYMENTS]

    assert measure(benchmark, "sighash", run) == DIGESTS


def test_sighash_in_plain_python(benchmark):
    account = SAMPLE.account

    def run():
        return [sighash(account, paid.change_value, 0x83) for paid in PAYMENTS]

    assert measure(benchmark, "sighash in plain Python (python-bitcoinlib)", run, rounds=5) == DIGESTS
