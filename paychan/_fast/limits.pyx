"""What each address has lately cost, in a table that never grows: opens that were tried, and requests that failed.

Each address may have so many a minute, all at once if it likes; then they come back one by one. Of an address the table holds one
time for each kind: when all that was counted is paid off (the generic cell rate algorithm). A time that has passed says nothing,
so its place is free. Where a set of places is full, the address that owes least is forgotten, which is to its good: nobody is ever
counted for another, and a stranger with many addresses forgives others a little, and refuses nobody.
"""

import os

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from .tally cimport nanoseconds

ADDRESSES_MAX = 16384
"""Addresses that are remembered, by each worker: 400 kB."""

cdef enum:
    WAYS = 8
    SETS = 2048
    MINUTE = 60_000_000_000


cdef class AddressLimits:
    """opens, failures: of one address in a minute; 0: any number."""

    def __cinit__(self, uint32_t opens=0, uint32_t failures=0):
        self._places = <Place *> calloc(SETS * WAYS, sizeof(Place))
        if self._places == NULL:
            raise MemoryError()
        self._seed = int.from_bytes(os.urandom(8), "little") | 1
        self._open_cost = MINUTE // opens if opens else 0
        self._failure_cost = MINUTE // failures if failures else 0

    def __dealloc__(self):
        free(self._places)

    @cython.overflowcheck(False)
    cdef Place *_find(self, uint64_t address) noexcept nogil:
        """Return the first of the places in which an address may be."""
        cdef uint64_t mixed = (address ^ (address >> 29)) * self._seed
        return self._places + WAYS * <size_t> ((mixed >> 40) % SETS)

    cdef Place *_take(self, uint64_t address, int64_t now) noexcept nogil:
        """Return an address' place; if it has none, that of the one in its set that owes least."""
        cdef Place *places = self._find(address)
        cdef Place *least = places
        cdef int way
        for way in range(WAYS):
            if places[way].address == address:
                return places + way
            if _debt(places + way, now) < _debt(least, now):
                least = places + way
        least.address, least.opens_due, least.failures_due = address, 0, 0
        return least

    cdef bint is_over(self, uint64_t address, int64_t now) noexcept nogil:
        """Return whether so many of an address' requests failed that the next one that does is too many."""
        cdef Place *places = self._find(address)
        cdef int way
        if now >= self.failing_until or address == 0:
            return False
        for way in range(WAYS):
            if places[way].address == address:
                return places[way].failures_due + self._failure_cost > now + MINUTE
        return False

    cdef void count_failure(self, uint64_t address, int64_t now) noexcept nogil:
        """Count a request that failed. What is over stays just over: who stops is soon believed again."""
        cdef Place *place
        if address == 0 or self._failure_cost == 0:
            return
        place = self._take(address, now)
        place.failures_due = min(max(place.failures_due, now) + self._failure_cost, now + MINUTE)
        self.failing_until = max(self.failing_until, place.failures_due + self._failure_cost - MINUTE)

    def takes_open(self, uint64_t address, now=None):
        """Count an open that is tried; return whether it may be. One that may not is not counted. now: nanoseconds, for tests."""
        cdef int64_t moment = nanoseconds() if now is None else now
        cdef Place *place
        if address == 0 or self._open_cost == 0:
            return True
        place = self._take(address, moment)
        if max(place.opens_due, moment) + self._open_cost > moment + MINUTE:
            return False
        place.opens_due = max(place.opens_due, moment) + self._open_cost
        return True

    def fail(self, uint64_t address, now=None):
        """Count a request that failed."""
        self.count_failure(address, nanoseconds() if now is None else now)

    def is_failing(self, uint64_t address, now=None):
        """Return whether too many of an address' requests failed."""
        return bool(self.is_over(address, nanoseconds() if now is None else now))

    def __len__(self):
        """Return how many addresses are remembered, those too that owe nothing any more."""
        return sum(1 for place in range(SETS * WAYS) if self._places[place].address)


cdef inline int64_t _debt(const Place *place, int64_t now) noexcept nogil:
    """Return how long it takes until nothing is known of an address any more, 0 of a free place."""
    return max(max(place.opens_due, place.failures_due) - now, 0) if place.address else 0
