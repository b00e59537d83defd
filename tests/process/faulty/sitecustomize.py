"""With this directory in PYTHONPATH, memory fails in the store process: when the file that PAYCHAN_FAULT names appears, with a
channel's outpoint in it (72 hexadecimal digits), one bit of what the store has cached of that channel flips, and the file goes; it
stays if there is no such channel."""

import os
import sys
import threading
import time


def flip(outpoint: bytes) -> None:
    """Flip a bit of what was received on a channel: 1024 satoshi. Raises LookupError if the cache does not have it."""
    import ctypes
    import gc

    from paychan._fast.group import CACHE_BUCKETS, KNOWN_OUTPOINT_AT, KNOWN_SIZE, StateCache

    (cache,) = [found for found in gc.get_objects() if isinstance(found, StateCache)]
    places = ctypes.c_uint64.from_address(id(cache) + 40).value
    bucket_size = KNOWN_SIZE * 4
    for at in range(places, places + CACHE_BUCKETS * bucket_size, bucket_size * 16):
        found = ctypes.string_at(at, bucket_size * 16).find(outpoint)
        if found >= 0:
            ctypes.c_uint8.from_address(at + found - KNOWN_OUTPOINT_AT + 17).value ^= 4
            return
    raise LookupError(outpoint.hex())


def wait() -> None:
    path = os.environ["PAYCHAN_FAULT"]
    while True:
        if os.path.exists(path):
            with open(path) as file:
                flip(bytes.fromhex(file.read()))
            os.unlink(path)
        time.sleep(0.05)


if sys.orig_argv[1:3] == ["-m", "store"] and "PAYCHAN_FAULT" in os.environ:
    threading.Thread(target=wait, daemon=True).start()
