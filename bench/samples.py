"""What the benches work on: one channel and payments with distinct signatures, made before the clock starts."""

import base64

from paychan._fast.channel import ChannelTable
from paychan._fast.meter import VerifyBatch
from tests.differential.channels import SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all
from tests.reference import sighash

COUNT = 500
"""Payments in one round: enough that one repeated signature cannot flatter, few enough for the test suite."""

SAMPLE = make_sample("bench")
PAYMENTS = [SAMPLE.sign(9_000_000 - step) for step in range(COUNT)]
QUERIES = ["payment=" + base64.urlsafe_b64encode(paid.raw).decode() for paid in PAYMENTS]
DIGESTS = [sighash(SAMPLE.account, paid.change_value, paid.sighash_type) for paid in PAYMENTS]


def loaded_table() -> ChannelTable:
    """A table with the channel as it was opened."""
    table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
    SAMPLE.load(table)
    return table


def verify_batch(count: int) -> VerifyBatch:
    """The first `count` payments' signatures, parsed, so that its `run` does nothing but verify."""
    pairs = zip(PAYMENTS[:count], DIGESTS[:count], strict=True)
    return VerifyBatch([(paid.signature, digest, SAMPLE.terms.client_pubkey) for paid, digest in pairs])
