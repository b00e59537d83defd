# What sellers ask for, on its way in: judged as payments are, by the same intake, and answered when it is durable.

from libc.stdint cimport uint64_t

from .intake cimport Intake, PaymentRequest
from .purchase cimport Purchase, Sale

cdef class SaleRequest(PaymentRequest):
    cdef bytes _raw          # its binary form, from which `_sale` borrows
    cdef Sale _sale
    cdef Purchase _purchase
    cdef bint _is_repeated
    cdef uint64_t _received  # satoshi
    cdef uint64_t _spent     # satoshi

    cdef int set_up(self, Intake intake, bytes raw) except -1
