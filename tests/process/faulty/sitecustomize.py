"""With this directory in PYTHONPATH, memory fails in the store process: when the file that PAYCHAN_FAULT names appears, with a
channel's outpoint in it (72 hexadecimal digits), one bit of what the store has cached of that channel flips, and the file goes."""

import os
import sys
import threading
import time


def flip(outpoint: bytes) -> None:
    import ctypes
    import gc

    from paychan._fast.group import CACHE_BUCKETS, StateCache

    (cache,) = [found for found in gc.get_objects() if isinstance(found, StateCache)]
    places = ctypes.c_uint64.from_address(id(cache) + 40).value
    memory = ctypes.string_at  # a page at a time: what was never written takes no memory
    for at in range(places, places + CACHE_BUCKETS * 4 * 64, 4096):
        found = memory(at, 4096).find(outpoint)
        if found >= 0:
            ctypes.c_uint8.from_address(at + found - 27 + 1).value ^= 4  # 1024 satoshi of what is left
            return


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
