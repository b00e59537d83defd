"""The answer to STORES is read as it was written, and anything else is refused with a MessageError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan.rpc.store_messages import MessageError
from paychan.rpc.stores_messages import Life, StoreSeen, StoresSeen, decode_stores, encode_stores

BIG, SATOSHI = st.integers(0, (1 << 64) - 1), st.integers(-(1 << 63), (1 << 63) - 1)
STORE = st.builds(
    StoreSeen,
    name=st.text("abcdefgh_0123", max_size=63),
    number=st.integers(0, 65_535),
    is_this=st.booleans(),
    life=st.sampled_from(Life),
    unmoved_ms=BIG,
    fence=BIG,
    groups=BIG,
    open=SATOSHI,
    begun=SATOSHI,
    workers=st.dictionaries(st.integers(0, (1 << 32) - 1), st.text(max_size=20), max_size=4),
    owners=st.dictionaries(st.integers(0, 65_535), st.integers(0, (1 << 32) - 1), max_size=8),
)
SEEN = st.builds(
    StoresSeen, age_ms=st.integers(0, (1 << 32) - 1), shard_count=st.integers(1, 4096), stores=st.lists(STORE, max_size=3)
)


@given(SEEN)
def test_it_is_read_as_it_was_written(seen):
    assert decode_stores(encode_stores(seen)) == seen


@given(SEEN, st.data())
def test_what_was_cut_or_goes_on_is_refused(seen, data):
    whole = encode_stores(seen)
    for bad in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\0"):
        with pytest.raises(MessageError):
            decode_stores(bad)


def test_a_life_that_there_is_not_is_refused():
    whole = encode_stores(StoresSeen(0, 8, [StoreSeen("", 1, True, Life.SILENT, 0, 0, 0, 0, 0, {}, {})]))
    with pytest.raises(MessageError):
        decode_stores(whole.replace(b"\x01\x02", b"\x01\x07"))
