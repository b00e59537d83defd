"""The record of a store that was restored from a backup. It stays for ever: who reads old logs will want to know.

On disk, little-endian; cannot change (a new layout takes a new version byte):

    u8 version | u64 when the backup was taken | u64 when it was restored      (unix seconds)
"""

import struct
import time

_VERSION = 1
_FORM = struct.Struct("<BQQ")


def encode_restored(taken_at: int, restored_at: int) -> bytes:
    return _FORM.pack(_VERSION, taken_at, restored_at)


def describe_restored(record: bytes) -> str:
    """Return a line for people. Raises ValueError for any other bytes than `encode_restored` makes."""
    if len(record) != _FORM.size or record[0] != _VERSION:
        raise ValueError("another version")
    _, taken_at, restored_at = _FORM.unpack(record)
    return f"restored at {_text(restored_at)} from a backup taken at {_text(taken_at)}"


def _text(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(at, 1 << 34)))
