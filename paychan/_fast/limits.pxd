# What each address has lately cost, in a table that never grows.

from libc.stdint cimport int64_t, uint64_t

# Nanoseconds of the monotonic clock. "due": when all that was counted would have been paid off, at the rate that is allowed.
cdef struct Place:
    uint64_t address             # a number of paychan/core/addresses.py; 0: free
    int64_t opens_due
    int64_t failures_due

cdef class AddressLimits:
    cdef Place *_places
    cdef uint64_t _seed
    cdef int64_t _open_cost      # nanoseconds of a minute that one of them takes; 0: any number may be
    cdef int64_t _failure_cost
    cdef int64_t failing_until   # from then on no address is over its failures

    cdef Place *_find(self, uint64_t address) noexcept nogil
    cdef Place *_take(self, uint64_t address, int64_t now) noexcept nogil
    cdef bint is_over(self, uint64_t address, int64_t now) noexcept nogil
    cdef void count_failure(self, uint64_t address, int64_t now) noexcept nogil
