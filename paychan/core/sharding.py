"""Which shard a channel belongs to. The shard count S is fixed when a store is created and is a parameter here.

The compiled twin is `shard_of` in `paychan/_fast/channel.pyx`; `tests/unit/core/test_sharding.py` holds them together.
"""

SHARD_COUNT_DEFAULT = 256
SHARD_COUNT_MAX = 4096

_VOUT_MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads the outputs of one transaction over the shards
_MASK = (1 << 64) - 1


def shard_of(outpoint: bytes, shard_count: int) -> int:
    """Return the shard, 0 to shard_count - 1, of a 36-byte outpoint. Cannot change once stores exist."""
    head = int.from_bytes(outpoint[:8], "little")
    vout = int.from_bytes(outpoint[32:36], "little")
    return ((head + vout * _VOUT_MULTIPLIER & _MASK) >> 16) % shard_count
