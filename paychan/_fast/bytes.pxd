# Little-endian numbers in byte buffers. Callers have checked that the bytes are there. x86-64 and AArch64 are little-endian,
# and the build refuses anything else (setup.py).

cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint64_t read_u64(const unsigned char *source) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, source, 8)
    return value


cdef inline unsigned char *write_u16(unsigned char *target, uint16_t value) noexcept nogil:
    memcpy(target, &value, 2)
    return target + 2


cdef inline unsigned char *write_u32(unsigned char *target, uint32_t value) noexcept nogil:
    memcpy(target, &value, 4)
    return target + 4


cdef inline unsigned char *write_u64(unsigned char *target, uint64_t value) noexcept nogil:
    memcpy(target, &value, 8)
    return target + 8


cdef inline unsigned char *write_bytes(unsigned char *target, const unsigned char *source, size_t size) noexcept nogil:
    memcpy(target, source, size)
    return target + size


@cython.overflowcheck(False)
cdef inline uint64_t wrapping_sum(uint64_t a, uint64_t b) noexcept nogil:
    """Return the sum modulo 2^64: of changes that may be falls, in two's complement."""
    return a + b


@cython.overflowcheck(False)
cdef inline uint64_t wrapping_difference(uint64_t a, uint64_t b) noexcept nogil:
    """Return the difference modulo 2^64."""
    return a - b


cdef inline Py_ssize_t distance(const unsigned char *start, const unsigned char *end) noexcept nogil:
    """Return the bytes from `start` up to `end`. In numbers: with overflow checks Cython cannot subtract pointers."""
    return <Py_ssize_t> (<size_t> end - <size_t> start)
