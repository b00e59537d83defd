# The one answer that is made thousands of times a second.

from libc.stdint cimport uint64_t

from .purchase cimport Purchase

cdef bytes paid_body(uint64_t value_left, uint64_t value_received)
cdef bytes sale_body(const Purchase *purchase, bint is_repeated, uint64_t value_received, uint64_t received, uint64_t spent,
                     uint64_t value_left)
