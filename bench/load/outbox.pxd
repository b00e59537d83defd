# What one connection has to send, and which answers it expects: all of it in memory before the clock starts.

from libc.stdint cimport uint32_t

from bench.load.answers cimport Expectation

cdef struct Request:
    size_t start                   # in `bytes`
    size_t size
    size_t first                   # in `expectations`
    uint32_t count                 # of expectations: more than one only in a batch
    bint is_batch

cdef struct Outbox:
    unsigned char *bytes           # all requests one after the other
    size_t bytes_size, bytes_room
    Request *requests
    size_t request_count, request_room
    Expectation *expectations
    size_t expectation_count, expectation_room
    size_t next                    # the request in flight, or to be sent next

cdef void *grown(void *block, size_t needed, size_t *room, size_t each) except NULL
cdef int append(Outbox *outbox, bytes raw, bint is_batch, list expected) except -1
cdef int forget_answered(Outbox *outbox) except -1
cdef void release(Outbox *outbox) noexcept
