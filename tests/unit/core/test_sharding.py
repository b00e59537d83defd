"""Aim: both implementations of shard_of agree, never change, and spread evenly. Method: Hypothesis, frozen values, counting."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan._fast import channel as compiled
from paychan.core.sharding import SHARD_COUNT_DEFAULT, SHARD_COUNT_MAX, shard_of

EXTREMES = [b"\x00" * 36, b"\xff" * 36, b"\xff" * 8 + b"\0" * 28, b"\0" * 32 + b"\xff" * 4, bytes(range(36))]


@given(st.binary(min_size=36, max_size=36) | st.sampled_from(EXTREMES), st.integers(1, SHARD_COUNT_MAX))
def test_compiled_and_python_agree(outpoint, shard_count):
    shard = shard_of(outpoint, shard_count)
    assert compiled.shard_of(outpoint, shard_count) == shard
    assert 0 <= shard < shard_count


def test_shards_of_stores_in_use_never_change():
    """Frozen values: another result would look for a channel where it is not."""
    frozen = {(0, 256): 0, (1, 256): 181, (2, 256): 255, (3, 256): 181, (4, 256): 26}
    for (number, count), shard in frozen.items():
        assert shard_of(EXTREMES[number], count) == compiled.shard_of(EXTREMES[number], count) == shard


@pytest.mark.parametrize("shard_count", [2, 3, 7, 256, 1000])
@pytest.mark.parametrize("kind", ["random txids", "one txid, many outputs", "txids that start alike"])
def test_shards_are_used_evenly(shard_count, kind):
    """Chi-squared, far in the tail: a bound that chance passes once in a million runs, and a constant shard never."""
    rng, per_shard = random.Random(kind), 50
    count = shard_count * per_shard
    if kind == "random txids":
        outpoints = (rng.randbytes(32) + bytes(4) for _ in range(count))
    elif kind == "one txid, many outputs":
        txid = rng.randbytes(32)
        outpoints = (txid + number.to_bytes(4, "little") for number in range(count))
    else:
        outpoints = (bytes(2) + rng.randbytes(30) + bytes(4) for _ in range(count))
    used = Counter(shard_of(outpoint, shard_count) for outpoint in outpoints)
    chi_squared = sum((used[shard] - per_shard) ** 2 / per_shard for shard in range(shard_count))
    assert chi_squared < shard_count + 5 * (2 * shard_count) ** 0.5 + 25


@pytest.mark.parametrize(("outpoint", "count"), [(bytes(35), 256), (bytes(37), 256), (b"", 1), (bytes(36), 0)])
def test_compiled_refuses_what_is_no_outpoint(outpoint, count):
    with pytest.raises(ValueError):
        compiled.shard_of(outpoint, count)


def test_defaults_fit_the_table():
    assert 1 <= SHARD_COUNT_DEFAULT <= SHARD_COUNT_MAX
    compiled.ChannelTable(SHARD_COUNT_MAX, 0)


def test_the_default_is_the_documented_one():
    assert (SHARD_COUNT_DEFAULT, SHARD_COUNT_MAX) == (256, 4096)
