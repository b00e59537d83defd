# The fuzzer's inner loop, for its targets. See engine.pyx.

from libc.stdint cimport uint8_t, uint64_t, uintptr_t

cdef enum:
    PAGE = 4096
    INPUT_MAX = 3 * PAGE
    OUTPUT_MAX = INPUT_MAX + 256
    ARENA = 4 * PAGE
    CORPUS_MAX = 8192
    STATUS_MAX = 6000
    LONG_MAX = 8256        # of the longest run of one byte: beyond the longest head

cdef struct Input:
    unsigned char *bytes   # INPUT_MAX of them
    Py_ssize_t size

cdef class Engine:
    cdef uint8_t *_coverage          # the parser's counters; NULL: it has none
    cdef Py_ssize_t _coverage_size
    cdef uint8_t *_known             # for each edge the classes of counts met so far
    cdef Input *_corpus
    cdef Py_ssize_t _corpus_size
    cdef const unsigned char *_tokens[1024]
    cdef Py_ssize_t _token_sizes[1024]
    cdef Py_ssize_t _token_count
    cdef list _keep
    cdef unsigned char *_record
    cdef unsigned char *_arenas[2]
    cdef bint _heap
    cdef Py_ssize_t _size_max
    cdef bint _first_line
    cdef bint _is_counted
    cdef uint64_t _random
    cdef uint64_t *_statuses
    cdef Input _work
    cdef unsigned char *_output      # OUTPUT_MAX bytes, for whoever needs them
    cdef Py_ssize_t _cut             # a place in the input, for targets that read it in two pieces
    cdef readonly uint64_t executions

    cdef int examine(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept nogil
    cdef void noted(self, const unsigned char *data, Py_ssize_t size, int verdict) noexcept nogil
    cdef int _try(self) noexcept nogil
    cdef unsigned char *_place(self, int arena, const unsigned char *data, Py_ssize_t size) noexcept nogil
    cdef void _leave(self, unsigned char *place) noexcept nogil
    cdef int _check(self, int *verdict) noexcept nogil
    cdef bint _is_new(self) noexcept nogil
    cdef void _keep_input(self, const unsigned char *data, Py_ssize_t size) noexcept nogil
    cdef uint64_t _next(self) noexcept nogil
    cdef Py_ssize_t _below(self, Py_ssize_t bound) noexcept nogil
    cdef unsigned char _symbol(self) noexcept nogil
    cdef Input *_pick(self) noexcept nogil
    cdef void _insert(self, Py_ssize_t at, const unsigned char *text, Py_ssize_t size) noexcept nogil
    cdef void _delete(self, Py_ssize_t at, Py_ssize_t size) noexcept nogil
    cdef Py_ssize_t _line_start(self) noexcept nogil
    cdef Py_ssize_t _line_size(self, Py_ssize_t at) noexcept nogil
    cdef void _mutate(self) noexcept nogil
    cdef void _mutate_once(self) noexcept nogil
