"""Claim: V, one libsecp256k1 verification from C with nothing parsed in between, is the wall that payments run against; through
coincurve's Python API it costs 1.05 to 1.2 V, as that parses the signature and crosses cffi each time."""

from coincurve import PublicKey

from bench.one_payment import measure
from bench.samples import COUNT, DIGESTS, PAYMENTS, SAMPLE, verify_batch


def test_v_raw_verification(benchmark):
    assert measure(benchmark, "raw libsecp256k1 verification from C (V)", verify_batch(COUNT).run) == COUNT


def test_verification_through_coincurve(benchmark):
    key = PublicKey(SAMPLE.terms.client_pubkey)

    def run():
        return [key.verify(paid.signature, digest, None) for paid, digest in zip(PAYMENTS, DIGESTS, strict=True)]

    assert measure(benchmark, "the same through coincurve's Python call", run) == [True] * COUNT
