"""No bench: what the benches work on: one channel and payments with distinct signatures, made before the clock starts."""

import base64

from paychan._fast.channel import ChannelTable
from tests.differential.channels import SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all

COUNT = 500
"""Payments in one round: enough that one repeated signature cannot flatter, few enough for the test suite."""

SAMPLE = make_sample("bench")
PAYMENTS = [SAMPLE.sign(9_000_000 - step) for step in range(COUNT)]
QUERIES = ["payment=" + base64.urlsafe_b64encode(paid.raw).decode() for paid in PAYMENTS]


def loaded_table() -> ChannelTable:
    """A table with the channel as it was opened."""
    table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
    SAMPLE.load(table)
    return table


def report_each(benchmark) -> None:
    """Add microseconds for each payment, from the fastest and the median round, to the bench's report."""
    if benchmark.stats:
        stats = benchmark.stats.stats
        benchmark.extra_info["us_each_best"] = round(stats.min / COUNT * 1e6, 3)
        benchmark.extra_info["us_each_median"] = round(stats.median / COUNT * 1e6, 3)
