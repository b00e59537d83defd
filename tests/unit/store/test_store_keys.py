"""Aim: the store's keys and small values never change: they are on disk. Method: their bytes, written out."""

import pytest

from paychan.rpc.store_messages import Unsettled
from store import keys

OUTPOINT = bytes(range(36))


def test_every_kind_of_key_has_its_letter():
    letters = (keys.IDENTITY, keys.EPOCH, keys.TERMS, keys.STATE, keys.SETTLEMENT, keys.EXPIRING, keys.UNFINISHED)
    assert letters == (b"I", b"E", b"T", b"S", b"X", b"O", b"U")
    assert (keys.UNSETTLED, keys.OPEN_SPENT, keys.RESTORED, keys.FUNDING, keys.DONE) == (b"V", b"G", b"R", b"F", b"D")
    assert (keys.EVENT, keys.NEXT_TO_EVENT, keys.NOTE) == (b"L", b"M", b"N")
    assert set(keys.SINGLE) == {b"I", b"V", b"G", b"R"}
    assert set(keys.MANY) == {b"E", b"T", b"S", b"X", b"F", b"O", b"U", b"D", b"L", b"N"}


def test_epochs():
    assert keys.epoch_key(0x0102) == b"E\x01\x02"
    assert keys.encode_epoch(0x0102) == b"\x02\x01" + bytes(6)
    assert keys.decode_epoch(keys.encode_epoch(2**64 - 1)) == 2**64 - 1
    assert keys.decode_epoch(None) == 0


def test_what_is_unsettled():
    assert keys.encode_unsettled(Unsettled(0x0102, 3)) == b"\x02\x01" + bytes(6) + b"\x03" + bytes(7)
    assert keys.decode_unsettled(keys.encode_unsettled(Unsettled(2**64 - 1, 21 * 10**14))) == (2**64 - 1, 21 * 10**14)
    assert keys.decode_unsettled(None) == (0, 0)
    assert keys.decode_unsettled(b"\x02\x01" + bytes(6)) == (0x0102, 0)
    for size in (0, 7, 9, 15, 17):
        with pytest.raises(ValueError, match="unsettled is damaged"):
            keys.decode_unsettled(bytes(size))


def test_expiries_sort_as_they_count():
    assert keys.expiring_key(0x01020304, OUTPOINT) == b"O\x01\x02\x03\x04" + OUTPOINT
    assert keys.expiring_key(5) == b"O\0\0\0\x05"
    assert keys.split_timed_key(keys.expiring_key(2**32 - 1, OUTPOINT)) == (2**32 - 1, OUTPOINT)
    assert sorted(keys.expiring_key(number) for number in (256, 1, 2**31, 255)) == [
        keys.expiring_key(number) for number in (1, 255, 256, 2**31)
    ]


def test_settled_channels_sort_by_when_they_were():
    assert keys.done_key(0x01020304, OUTPOINT) == b"D\x01\x02\x03\x04" + OUTPOINT
    assert keys.split_timed_key(keys.done_key(7, OUTPOINT)) == (7, OUTPOINT)
