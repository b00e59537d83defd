"""Claim: V, one libsecp256k1 verification from C with nothing parsed in between, is the wall that payments run against; through
coincurve's Python API it costs 1.05 to 1.2 V, as that parses the signature and crosses cffi each time."""

from coincurve import PublicKey

from bench.bench_samples import COUNT, PAYMENTS, SAMPLE, report_each
from paychan._fast.meter import VerifyBatch
from tests.reference import sighash

DIGESTS = [sighash(SAMPLE.account, paid.change_value, 0x83) for paid in PAYMENTS]
KEY = SAMPLE.terms.client_pubkey


def test_verify_raw(benchmark):
    batch = VerifyBatch([(paid.signature, digest, KEY) for paid, digest in zip(PAYMENTS, DIGESTS, strict=True)])
    assert benchmark.pedantic(batch.run, rounds=20, warmup_rounds=1) == COUNT
    report_each(benchmark)


def test_verify_coincurve(benchmark):
    key = PublicKey(KEY)

    def run():
        return [key.verify(paid.signature, digest, None) for paid, digest in zip(PAYMENTS, DIGESTS, strict=True)]

    assert benchmark.pedantic(run, rounds=20, warmup_rounds=1) == [True] * COUNT
    report_each(benchmark)
