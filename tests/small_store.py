"""`python -m tests.small_store CONFIG`: the store with caches that are full after some hundred channels, for tests/variants.py.

With those that ship, a quarter of a gigabyte fills in a life of some hundred thousand channels, and hides what should not grow.
"""

import sys
from functools import partial

from paychan._fast.group import StateCache
from store import sequencer
from store.engines import rocksdb
from store.serving import main

CACHE_BUCKETS = 256
BLOCK_CACHE_BYTES = 1 << 20

if __name__ == "__main__":
    sequencer.StateCache = partial(StateCache, CACHE_BUCKETS)  # type: ignore[assignment, misc]
    rocksdb.BLOCK_CACHE_BYTES = BLOCK_CACHE_BYTES
    sys.exit(main())
