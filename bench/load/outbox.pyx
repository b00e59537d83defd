"""A connection's requests, one after the other in memory, so that nothing is made while they are sent."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove


cdef void *grown(void *block, size_t needed, size_t *room, size_t each) except NULL:
    """Return `block` with room for `needed` items of `each` bytes."""
    if block != NULL and needed <= room[0]:
        return block
    cdef size_t wanted = needed + needed // 2 + 16
    cdef void *larger = realloc(block, wanted * each)
    if larger == NULL:
        raise MemoryError()
    room[0] = wanted
    return larger


cdef int append(Outbox *outbox, bytes raw, bint is_batch, list expected) except -1:
    """Append a request and its answers, as `Client.give` has them."""
    if not expected or (len(expected) > 1 and not is_batch):
        raise ValueError("one answer is expected of a request, or one of each payment of a batch")
    cdef size_t size = <size_t> len(raw), at = outbox.bytes_size
    outbox.bytes = <unsigned char *> grown(outbox.bytes, at + size, &outbox.bytes_room, 1)
    memcpy(outbox.bytes + at, <const unsigned char *> raw, size)
    outbox.bytes_size += size
    outbox.requests = <Request *> grown(
        outbox.requests, outbox.request_count + 1, &outbox.request_room, sizeof(Request))
    cdef Request *request = &outbox.requests[outbox.request_count]
    request.start, request.size, request.is_batch = at, size, is_batch
    request.first, request.count = outbox.expectation_count, <uint32_t> len(expected)
    outbox.request_count += 1
    for status, left, received in expected:
        outbox.expectations = <Expectation *> grown(
            outbox.expectations, outbox.expectation_count + 1, &outbox.expectation_room, sizeof(Expectation))
        outbox.expectations[outbox.expectation_count] = Expectation(
            -1 if left is None else left, -1 if received is None else received, status)
        outbox.expectation_count += 1
    return 0


cdef int forget_answered(Outbox *outbox) except -1:
    """Move what is still to be sent to the beginning."""
    cdef size_t i, kept = outbox.request_count - outbox.next
    cdef size_t byte_at, expectation_at
    if outbox.next == 0:
        return 0
    byte_at, expectation_at = outbox.bytes_size, outbox.expectation_count
    if kept:
        byte_at, expectation_at = outbox.requests[outbox.next].start, outbox.requests[outbox.next].first
        memmove(outbox.requests, outbox.requests + outbox.next, kept * sizeof(Request))
        memmove(outbox.bytes, outbox.bytes + byte_at, outbox.bytes_size - byte_at)
        memmove(outbox.expectations, outbox.expectations + expectation_at,
                (outbox.expectation_count - expectation_at) * sizeof(Expectation))
    outbox.bytes_size -= byte_at
    outbox.expectation_count -= expectation_at
    outbox.request_count, outbox.next = kept, 0
    for i in range(kept):
        outbox.requests[i].start -= byte_at
        outbox.requests[i].first -= expectation_at
    return 0


cdef void release(Outbox *outbox) noexcept:
    """Free what an outbox holds."""
    free(outbox.bytes)
    free(outbox.requests)
    free(outbox.expectations)
