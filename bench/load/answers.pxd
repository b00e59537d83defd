# What a server's answer says, and whether it is what was foretold. Only bytes: no connection, no clock.

from libc.stdint cimport int64_t, uint16_t, uint32_t

cdef enum:
    ANSWER_SIZE_MAX = 256 << 10    # room for 1024 answers of a batch; pages that are not touched cost nothing

cdef struct Expectation:           # of one payment's answer; -1: not looked at
    int64_t left                   # satoshi
    int64_t received               # satoshi
    uint16_t status

cdef struct Head:
    int status
    size_t body_at
    size_t body_size

cdef int read_head(const unsigned char *data, size_t size, Head *head) noexcept nogil
cdef bint is_as_expected(int status, const unsigned char *body, size_t size, const Expectation *expected) noexcept nogil
cdef bint is_batch_as_expected(const unsigned char *body, size_t size, const Expectation *expected, uint32_t count) noexcept nogil
