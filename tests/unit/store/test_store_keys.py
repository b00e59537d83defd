"""Aim: the store's keys and small values never change: they are on disk. Method: their bytes, written out."""

from store import keys

OUTPOINT = bytes(range(36))


def test_every_kind_of_key_has_its_letter():
    letters = (keys.IDENTITY, keys.EPOCH, keys.TERMS, keys.STATE, keys.SETTLEMENT, keys.EXPIRING, keys.UNFINISHED)
    assert letters == (b"I", b"E", b"T", b"S", b"X", b"O", b"U")
    assert (keys.OPEN_VALUE, keys.OPEN_SPENT, keys.RESTORED, keys.FUNDING) == (b"V", b"G", b"R", b"F")
    assert set(keys.SINGLE) == {b"I", b"V", b"G", b"R"}
    assert set(keys.MANY) == {b"E", b"T", b"S", b"X", b"F", b"O", b"U"}


def test_epochs():
    assert keys.epoch_key(0x0102) == b"E\x01\x02"
    assert keys.encode_epoch(0x0102) == b"\x02\x01" + bytes(6)
    assert keys.decode_epoch(keys.encode_epoch(2**64 - 1)) == 2**64 - 1
    assert keys.decode_epoch(None) == 0


def test_the_value_received_on_open_channels():
    assert keys.encode_value(0x0102) == b"\x02\x01" + bytes(6)
    assert keys.decode_value(keys.encode_value(21 * 10**14)) == 21 * 10**14
    assert keys.decode_value(None) == 0


def test_expiries_sort_as_they_count():
    assert keys.expiring_key(0x01020304, OUTPOINT) == b"O\x01\x02\x03\x04" + OUTPOINT
    assert keys.expiring_key(5) == b"O\0\0\0\x05"
    assert keys.split_expiring_key(keys.expiring_key(2**32 - 1, OUTPOINT)) == (2**32 - 1, OUTPOINT)
    assert sorted(keys.expiring_key(number) for number in (256, 1, 2**31, 255)) == [
        keys.expiring_key(number) for number in (1, 255, 256, 2**31)
    ]
