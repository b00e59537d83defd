"""The fuzzer's inner loop: mutate an input, have a target try it, keep it if it went a new way.

A target is a subclass (targets.pyx) whose `examine` parses the input, calls `noted` when the parsing whose way counts is over,
and says what is broken. Inputs lie against a page that may not be touched (or, for the address sanitizer, in a heap block of
their exact size), so reading one byte too many ends the process; what was tried last then stands in the record file.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcpy, memmove, memset

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t size)
    int mprotect(void *address, size_t size, int protection)
    const int PROT_NONE, PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_SHARED, MAP_ANONYMOUS
    void *MAP_FAILED


cdef class Engine:
    """seeds, tokens: inputs to begin with, and pieces of inputs. coverage: address of `coverage_size` counters of edges (a multiple
    of 8), 0: none. record_fd: a file of RECORD_SIZE bytes. heap: for the address sanitizer. size_max: of an input. first_line:
    whether mutations rather keep off it.
    """

    def __cinit__(self, list seeds, list tokens, uint64_t seed, int record_fd, bint heap, uintptr_t coverage,
                  Py_ssize_t coverage_size, Py_ssize_t size_max, bint first_line):
        cdef int i
        cdef bytes token
        self._coverage = <uint8_t *> coverage
        self._coverage_size = coverage_size
        self._known = <uint8_t *> calloc(coverage_size + 8, 1)
        self._corpus = <Input *> calloc(CORPUS_MAX, sizeof(Input))
        self._statuses = <uint64_t *> calloc(STATUS_MAX, sizeof(uint64_t))
        self._work.bytes = <unsigned char *> malloc(INPUT_MAX)
        self._output = <unsigned char *> malloc(OUTPUT_MAX)
        self._heap, self._size_max, self._first_line = heap, size_max, first_line
        self._random = seed * 0x9E3779B97F4A7C15ULL + 1
        self._keep = list(tokens)
        for token in self._keep[:1024]:
            self._tokens[self._token_count] = token
            self._token_sizes[self._token_count] = len(token)
            self._token_count += 1
        self._record = <unsigned char *> mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_SHARED, record_fd, 0)
        if <void *> self._record == MAP_FAILED:
            raise MemoryError()
        for i in range(2):
            self._arenas[i] = <unsigned char *> mmap(
                NULL, ARENA + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            if <void *> self._arenas[i] == MAP_FAILED or mprotect(self._arenas[i] + ARENA, PAGE, PROT_NONE):
                raise MemoryError()
        for token in seeds:
            if len(token) <= size_max:
                self._keep_input(token, len(token))

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self._corpus_size):
            free(self._corpus[i].bytes)
        free(self._known)
        free(self._corpus)
        free(self._statuses)
        free(self._work.bytes)
        free(self._output)
        munmap(self._record, ARENA)
        munmap(self._arenas[0], ARENA + PAGE)
        munmap(self._arenas[1], ARENA + PAGE)

    # --- what Python asks ---

    def run(self, uint64_t count):
        """Try `count` mutated inputs; return the first thing that is broken, 0: nothing."""
        cdef int broken = 0
        cdef uint64_t _
        with nogil:
            for _ in range(count):
                self._mutate()
                broken = self._try()
                if broken:
                    break
        return broken

    def check(self, bytes data, Py_ssize_t cut):
        """Return what is broken at one input."""
        self._work.size = min(len(data), INPUT_MAX)
        memcpy(self._work.bytes, <const unsigned char *> data, self._work.size)
        self._cut = cut
        return self._check(NULL)

    @property
    def last(self):
        """(bytes, cut) that were tried last."""
        return self._work.bytes[:self._work.size], self._cut

    @property
    def corpus(self):
        return [self._corpus[i].bytes[:self._corpus[i].size] for i in range(self._corpus_size)]

    @property
    def edges(self):
        return sum(1 for i in range(self._coverage_size) if self._known[i])

    @property
    def statuses(self):
        return {i: self._statuses[i] for i in range(STATUS_MAX) if self._statuses[i]}

    # --- one execution ---

    cdef int _try(self) noexcept nogil:
        cdef int status = 0, broken
        self._cut = self._below(self._work.size + 1)
        if self._below(4) == 0:   # near the end, where one byte decides
            self._cut = self._work.size - self._below(min(self._work.size, <Py_ssize_t> 8) + 1)
        memcpy(self._record, &self._work.size, 8)
        memcpy(self._record + 8, &self._cut, 8)
        memcpy(self._record + 16, self._work.bytes, self._work.size)
        self.executions += 1
        broken = self._check(&status)
        if broken == 0:
            self._statuses[status] += 1
        return broken

    cdef unsigned char *_place(self, int arena, const unsigned char *data, Py_ssize_t size) noexcept nogil:
        cdef unsigned char *place
        if self._heap:
            place = <unsigned char *> malloc(size)
        else:
            place = self._arenas[arena] + ARENA - size
        memcpy(place, data, size)
        return place

    cdef void _leave(self, unsigned char *place) noexcept nogil:
        if self._heap:
            free(place)

    cdef int _check(self, int *verdict) noexcept nogil:
        """Have the target try the input."""
        cdef unsigned char *data = self._place(0, self._work.bytes, self._work.size)
        cdef int broken, status = 0
        self._is_counted = verdict != NULL
        if self._coverage != NULL:
            memset(self._coverage, 0, self._coverage_size)
        broken = self.examine(data, self._work.size, &status)
        if broken == 0 and not 0 <= status < STATUS_MAX:
            broken = 1
        if verdict != NULL:
            verdict[0] = status
        self._leave(data)
        return broken

    cdef int examine(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept nogil:
        """Try one input: put what became of it into `verdict` (0 to STATUS_MAX), return what is broken, 0: nothing."""
        return 0

    cdef void noted(self, const unsigned char *data, Py_ssize_t size, int verdict) noexcept nogil:
        """What has run since the input began is the way it goes: keep it, if that is new."""
        if not self._is_counted:
            return
        if (self._coverage != NULL and self._is_new()) or (0 <= verdict < STATUS_MAX and not self._statuses[verdict]):
            self._keep_input(data, size)

    # --- coverage ---

    cdef bint _is_new(self) noexcept nogil:
        """Whether an edge was passed that never was, or far more often than ever."""
        cdef Py_ssize_t i, k
        cdef uint8_t count, kind
        cdef bint new = False
        for i in range(0, self._coverage_size, 8):
            if (<uint64_t *> (self._coverage + i))[0] == 0:
                continue
            for k in range(i, i + 8):
                count = self._coverage[k]
                if count == 0:
                    continue
                kind = 1
                while count > 1 and kind < 128:   # 1, 2-3, 4-7, ...
                    count >>= 1
                    kind <<= 1
                if not self._known[k] & kind:
                    self._known[k] |= kind
                    new = True
        return new

    cdef void _keep_input(self, const unsigned char *data, Py_ssize_t size) noexcept nogil:
        cdef Input *place
        if self._corpus_size == CORPUS_MAX:
            return
        if size > self._size_max:
            return
        place = &self._corpus[self._corpus_size]
        place.bytes = <unsigned char *> malloc(size + 1)
        memcpy(place.bytes, data, size)
        place.size = size
        self._corpus_size += 1

    # --- mutation ---

    cdef uint64_t _next(self) noexcept nogil:
        self._random ^= self._random << 13
        self._random ^= self._random >> 7
        self._random ^= self._random << 17
        return self._random

    cdef Py_ssize_t _below(self, Py_ssize_t bound) noexcept nogil:
        return <Py_ssize_t> ((self._next() >> 16) % <uint64_t> bound) if bound > 0 else 0

    cdef unsigned char _symbol(self) noexcept nogil:
        """A byte that parsers care for, or any."""
        cdef const unsigned char *symbols = b"\r\n\t :\0,;/?#%\x0b\x0c\x7f\x80\x85\xa0\xff+-_.0159azAZ[]=\"\x1b!~@^`{|}"
        cdef const unsigned char *edges = b"\x00\x01\x02\x7f\x80\x81\x82\x83\xfe\xff\x20\x30\x3f\x40\x48\x51"
        if not self._first_line and self._below(2):
            return edges[self._below(16)]
        return symbols[self._below(46)] if self._below(4) else <unsigned char> self._next()

    cdef Input *_pick(self) noexcept nogil:
        """One of the corpus, rather a short one, often a late one."""
        cdef Input *one = &self._corpus[self._below(self._corpus_size)]
        cdef Input *other = &self._corpus[self._below(self._corpus_size)]
        if self._below(3) == 0 and self._corpus_size > 64:
            other = &self._corpus[self._corpus_size - 1 - self._below(64)]
        if self._below(16):
            return one if one.size < other.size else other
        return one

    cdef void _insert(self, Py_ssize_t at, const unsigned char *text, Py_ssize_t size) noexcept nogil:
        """`text` must not be part of the input itself."""
        if size > self._size_max - self._work.size:
            size = self._size_max - self._work.size
        memmove(self._work.bytes + at + size, self._work.bytes + at, self._work.size - at)
        memcpy(self._work.bytes + at, text, size)
        self._work.size += size

    cdef void _delete(self, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
        if size > self._work.size - at:
            size = self._work.size - at
        memmove(self._work.bytes + at, self._work.bytes + at + size, self._work.size - at - size)
        self._work.size -= size

    cdef Py_ssize_t _line_start(self) noexcept nogil:
        """Where some line starts."""
        cdef Py_ssize_t at = self._below(self._work.size + 1)
        while at > 0 and self._work.bytes[at - 1] != c"\n":
            at -= 1
        return at

    cdef Py_ssize_t _line_size(self, Py_ssize_t at) noexcept nogil:
        cdef const void *end = memchr(self._work.bytes + at, c"\n", self._work.size - at)
        if end == NULL:
            return self._work.size - at
        return <Py_ssize_t> (<uintptr_t> end - <uintptr_t> self._work.bytes) - at + 1

    cdef void _mutate(self) noexcept nogil:
        cdef Input *parent = self._pick()
        cdef Py_ssize_t count = 1 + self._below(3)
        memcpy(self._work.bytes, parent.bytes, parent.size)
        self._work.size = parent.size
        if self._below(8) == 0:
            count += self._below(12)
        while count > 0:
            self._mutate_once()
            count -= 1

    cdef void _mutate_once(self) noexcept nogil:
        cdef int kind = <int> self._below(20)
        cdef Py_ssize_t at = self._below(self._work.size + 1), size, k
        cdef unsigned char symbol
        cdef Input *other
        cdef unsigned char *work = self._work.bytes
        if self._first_line and self._below(4):   # rather behind the request line, which is broken soon and then hides the rest
            size = self._line_size(0)
            at = size + self._below(self._work.size - size + 1)
        if kind < 6 and at < self._work.size:
            if kind == 0:
                work[at] ^= <unsigned char> (1 << self._below(8))
            elif kind <= 2:
                work[at] = self._symbol()
            elif kind == 3:
                work[at] ^= 0x20
            elif kind == 4:
                self._delete(at, 1 + self._below(4))
            elif self._below(4):
                work[at] += 1 if self._below(2) else 255
            else:
                self._delete(at, 1 + self._below(64))
        elif kind <= 7:
            symbol = self._symbol()
            self._insert(at, &symbol, 1)
        elif kind <= 10:
            k = self._below(self._token_count)
            if kind == 10:   # in place of as much
                self._delete(at, self._token_sizes[k])
            self._insert(at, self._tokens[k], self._token_sizes[k])
        elif kind <= 12:     # as a line
            at = self._line_start()
            k = self._below(self._token_count)
            if self._below(8):
                self._insert(at, <const unsigned char *> b"\r\n", 2)
            self._insert(at, self._tokens[k], self._token_sizes[k])
        elif kind == 13:
            at = self._line_start()
            if at == 0 and self._below(8):
                return
            self._delete(at, self._line_size(at))
        elif kind <= 15:     # a line again, once or often
            at = self._line_start()
            size = min(self._line_size(at), <Py_ssize_t> OUTPUT_MAX)
            memcpy(self._output, work + at, size)
            k = 1 if self._below(32) else 1 + self._below(80)
            at = self._line_start()
            while k > 0:
                self._insert(at, self._output, size)
                k -= 1
        elif kind <= 17:     # from another
            other = self._pick()
            k = self._below(other.size + 1)
            size = self._below(min(other.size - k, <Py_ssize_t> 80) + 1)
            if kind == 17:
                self._work.size = at
                size = other.size - k
            self._insert(at, other.bytes + k, size)
        elif kind == 18:
            if self._below(24) == 0:   # to reach the bounds
                size = self._below(min(self._size_max, <Py_ssize_t> LONG_MAX) + 1)
                memset(self._output, c"a" if self._below(2) else self._symbol(), size)
            else:
                size = self._below(20)
                memset(self._output, self._symbol(), size)
            self._insert(at, self._output, size)
        elif self._below(8) == 0:
            self._work.size = at
