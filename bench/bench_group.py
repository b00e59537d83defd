"""Claim: a payment costs the store a fraction of a microsecond besides the write: judged, held against its shard's accounts,
entered into what is written, and kept. In groups of 64 and 256, of channels whose states are cached; no disk."""

import pytest

from bench.one_payment import measure
from paychan._fast.group import StateCache
from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.payment import Payment
from paychan.core.sharding import shard_of
from paychan.rpc.store_messages import LEASE_COUNT, Entry, encode_commit
from store.group import NOTHING, Group

SHARDS = 256
FUNDING = 10_000_000
GROUPS = 40


class Reader:
    """Every channel as it was opened."""

    def states(self, outpoints):
        return [state(FUNDING) for _ in outpoints]

    def terms(self, outpoints):
        return [ChannelTerms(key, b"\2" * 33, b"\3" * 33, 1_900_000_000, FUNDING, b"script").serialize() for key in outpoints]


def state(value):
    return ChannelState(Phase.OPEN, Payment(value, b"s" * 71, 0x83)).serialize()


def payloads(size):
    """Groups in which each of `size` channels is paid once, one group after the other."""
    outpoints = [(7919 * number).to_bytes(32, "little") + bytes(4) for number in range(1, size + 1)]
    shards = [shard_of(outpoint, SHARDS) for outpoint in outpoints]
    made = []
    for value in range(FUNDING, FUNDING - GROUPS, -1):
        record, pairs = state(value - 1), zip(outpoints, shards, strict=True)
        made.append(encode_commit([Entry(shard, 1, key, Phase.OPEN, value, record).encode() for key, shard in pairs]))
    return made


@pytest.mark.parametrize("size", [64, 256])
def test_store_group(benchmark, size):
    groups, epochs, reader = payloads(size), [1] * (SHARDS + LEASE_COUNT), Reader()

    def fresh():
        return (StateCache(1 << 12),)

    def run(cache):
        unsettled = NOTHING
        for payload in groups:
            group = Group(reader, cache, epochs, SHARDS, unsettled)
            assert not any(group.judge(payload))
            assert len(group.writes) == size
            group.keep()
            unsettled = group.unsettled
        return unsettled.open

    what = f"the store's judging of a payment, in groups of {size}, without disk"
    assert measure(benchmark, what, run, fresh, count=size * GROUPS) == size * GROUPS
