"""The fuzzer's inner loop: mutate a request, parse it, check what must hold, keep it if it went a new way.

Each input lies against a page that may not be touched (or, for the address sanitizer, in a heap block of its exact size), so
reading one byte too many ends the process; what was tried last then stands in the record file.
"""

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport uint8_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from paychan._fast.http cimport HEAD_SIZE_MAX, RequestHead

import time

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t size)
    int mprotect(void *address, size_t size, int protection)
    const int PROT_NONE, PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_SHARED, MAP_ANONYMOUS
    void *MAP_FAILED

cdef extern from *:
    """
    #include <stdio.h>
    static const char paychan_decimal[] = "%zd";
    """
    const char *paychan_decimal
    int snprintf(char *out, size_t size, const char *format, ...) nogil

cdef enum:
    PAGE = 4096
    INPUT_MAX = 3 * PAGE
    OUTPUT_MAX = INPUT_MAX + 256
    ARENA = 4 * PAGE
    COVERAGE_SIZE = 8192
    CORPUS_MAX = 8192
    STATUS_MAX = 6000
    BODY = 4096

BODY_MAX = BODY

ctypedef int (*Parser)(const unsigned char *, Py_ssize_t, Py_ssize_t, Py_ssize_t, RequestHead *) noexcept nogil

cpdef enum Broken:
    NOTHING = 0
    KNOWN_STATUS = 1       # the verdict is one of HttpStatus
    INSIDE = 2             # every pointer of the view lies in the head, and path and query follow each other
    FIRST_BLANK_LINE = 3   # a complete head ends at the first CR LF CR LF; without one nothing is complete, with one not incomplete
    PLAIN_BYTES = 4        # a complete head has no CR without LF, no LF without CR, nothing outside 0x20 to 0x7e but HTAB
    LENIENT_READER = 5     # whoever reads a complete head with less care finds the same body length and no transfer encoding
    BODY_BOUND = 6         # the body's length is within the caller's bound
    PREFIX = 7             # less of the same bytes is incomplete or gets the same verdict and view
    SEEN = 8               # what was seen before spares work and changes nothing
    ALONE = 9              # the head alone has the same view, and one byte less is incomplete
    ROUND_TRIP = 10        # the view, written out again, has the same view


cdef Parser parser_of(object capsule) except NULL:
    return <Parser> PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


def time_parse(object capsule, bytes data, Py_ssize_t count):
    """Return nanoseconds for each of `count` readings of `data`."""
    cdef Parser parse = parser_of(capsule)
    cdef const unsigned char *text = data
    cdef Py_ssize_t i, size = len(data)
    cdef RequestHead head
    cdef int status = 0
    start = time.perf_counter_ns()
    with nogil:
        for i in range(count):
            status |= parse(text, size, 0, BODY, &head)
    spent = time.perf_counter_ns() - start
    assert status == 0
    return spent / count


cdef struct Input:
    unsigned char *bytes     # INPUT_MAX of them
    Py_ssize_t size


cdef class Engine:
    cdef Parser _parse
    cdef uint8_t *_coverage          # the parser's counters; NULL: it has none
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
    cdef uint64_t _random
    cdef uint64_t *_statuses
    cdef bint *_is_status
    cdef Input _work
    cdef unsigned char *_output
    cdef Py_ssize_t _cut
    cdef readonly uint64_t executions

    def __cinit__(self, object capsule, uintptr_t coverage, list seeds, list tokens, set statuses, uint64_t seed, int record_fd,
                  bint heap):
        cdef int i
        cdef bytes token
        self._parse = parser_of(capsule)
        self._coverage = <uint8_t *> coverage
        self._known = <uint8_t *> calloc(COVERAGE_SIZE, 1)
        self._corpus = <Input *> calloc(CORPUS_MAX, sizeof(Input))
        self._statuses = <uint64_t *> calloc(STATUS_MAX, sizeof(uint64_t))
        self._is_status = <bint *> calloc(STATUS_MAX, sizeof(bint))
        self._work.bytes = <unsigned char *> malloc(INPUT_MAX)
        self._output = <unsigned char *> malloc(OUTPUT_MAX)
        self._heap = heap
        self._random = seed * 0x9E3779B97F4A7C15ULL + 1
        self._keep = list(tokens)
        for token in self._keep[:1024]:
            self._tokens[self._token_count] = token
            self._token_sizes[self._token_count] = len(token)
            self._token_count += 1
        for i in statuses:
            self._is_status[i] = True
        self._record = <unsigned char *> mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_SHARED, record_fd, 0)
        if <void *> self._record == MAP_FAILED:
            raise MemoryError()
        for i in range(2):
            self._arenas[i] = <unsigned char *> mmap(
                NULL, ARENA + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            if <void *> self._arenas[i] == MAP_FAILED or mprotect(self._arenas[i] + ARENA, PAGE, PROT_NONE):
                raise MemoryError()
        for token in seeds:
            if len(token) <= INPUT_MAX:
                self._keep_input(token, len(token))

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self._corpus_size):
            free(self._corpus[i].bytes)
        free(self._known)
        free(self._corpus)
        free(self._statuses)
        free(self._is_status)
        free(self._work.bytes)
        free(self._output)
        munmap(self._record, ARENA)
        munmap(self._arenas[0], ARENA + PAGE)
        munmap(self._arenas[1], ARENA + PAGE)

    # --- what Python asks ---

    def run(self, uint64_t count):
        """Try `count` mutated inputs; return the first thing that is broken, or NOTHING."""
        cdef int broken = 0
        cdef uint64_t i
        with nogil:
            for i in range(count):
                self._mutate()
                broken = self._try()
                if broken:
                    break
        return broken

    def check(self, bytes data, Py_ssize_t cut):
        """Return what is broken at one input."""
        memcpy(self._work.bytes, <const unsigned char *> data, min(len(data), INPUT_MAX))
        self._work.size = min(len(data), INPUT_MAX)
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
        return sum(1 for i in range(COVERAGE_SIZE) if self._known[i])

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
        if broken == NOTHING:
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

    cdef inline void _leave(self, unsigned char *place) noexcept nogil:
        if self._heap:
            free(place)

    cdef int _check(self, int *verdict) noexcept nogil:
        """Parse the input as a whole, note new coverage, check all that must hold."""
        cdef unsigned char *data = self._place(0, self._work.bytes, self._work.size)
        cdef Py_ssize_t size = self._work.size
        cdef RequestHead head
        cdef int status, broken
        if self._coverage != NULL:
            memset(self._coverage, 0, COVERAGE_SIZE)
        status = self._parse(data, size, 0, BODY, &head)
        if self._coverage != NULL and verdict != NULL and self._is_new():
            self._keep_input(data, size)
        broken = self._judge(data, size, status, &head)
        if verdict != NULL:
            verdict[0] = status
        self._leave(data)
        return broken

    cdef int _judge(self, const unsigned char *data, Py_ssize_t size, int status, RequestHead *head) noexcept nogil:
        cdef int broken = NOTHING
        if status < 0 or status >= STATUS_MAX or not self._is_status[status]:
            return KNOWN_STATUS
        if status == 1 and (size >= HEAD_SIZE_MAX or _blank_line(data, size) >= 0):
            return FIRST_BLANK_LINE
        if status == 0:
            broken = _check_view(data, size, head)
            if broken == NOTHING:
                broken = self._check_alone(data, head)
            if broken == NOTHING:
                broken = self._check_round_trip(data, head)
        if broken == NOTHING:
            broken = self._check_prefix(data, size, status, head)
        return broken

    cdef int _check_prefix(self, const unsigned char *data, Py_ssize_t size, int status, RequestHead *head) noexcept nogil:
        cdef unsigned char *part = self._place(1, data, self._cut)
        cdef RequestHead other
        cdef int verdict = self._parse(part, self._cut, 0, BODY, &other)
        cdef int broken = NOTHING
        if verdict != 1:
            if verdict != status or (status == 0 and not _same(head, &other, True)):
                broken = PREFIX
        else:
            if status == 0 and self._cut >= head.head_size:
                broken = PREFIX
            verdict = self._parse(data, size, self._cut, BODY, &other)
            if verdict != status or (status == 0 and not _same(head, &other, True)):
                broken = SEEN
        self._leave(part)
        return broken

    cdef int _check_alone(self, const unsigned char *data, RequestHead *head) noexcept nogil:
        cdef unsigned char *part = self._place(1, data, head.head_size)
        cdef RequestHead other
        cdef int broken = NOTHING
        if self._parse(part, head.head_size, 0, BODY, &other) != 0 or not _same(head, &other, True):
            broken = ALONE
        self._leave(part)
        part = self._place(1, data, head.head_size - 1)
        if self._parse(part, head.head_size - 1, 0, BODY, &other) != 1:
            broken = ALONE
        self._leave(part)
        return broken

    cdef int _check_round_trip(self, const unsigned char *data, RequestHead *head) noexcept nogil:
        cdef Py_ssize_t size = _serialize(data, head, self._output)
        cdef unsigned char *copy = self._place(1, self._output, size)
        cdef RequestHead other
        cdef int broken = NOTHING
        if self._parse(copy, size, 0, BODY, &other) != 0 or not _same(head, &other, False) or other.head_size != size:
            broken = ROUND_TRIP
        self._leave(copy)
        return broken

    # --- coverage ---

    cdef bint _is_new(self) noexcept nogil:
        """Whether an edge was passed that never was, or far more often than ever."""
        cdef Py_ssize_t i, k
        cdef uint8_t count, kind
        cdef bint new = False
        for i in range(0, COVERAGE_SIZE, 8):
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
        place = &self._corpus[self._corpus_size]
        place.bytes = <unsigned char *> malloc(size + 1)
        memcpy(place.bytes, data, size)
        place.size = size
        self._corpus_size += 1

    # --- mutation ---

    cdef inline uint64_t _next(self) noexcept nogil:
        self._random ^= self._random << 13
        self._random ^= self._random >> 7
        self._random ^= self._random << 17
        return self._random

    cdef inline Py_ssize_t _below(self, Py_ssize_t bound) noexcept nogil:
        return <Py_ssize_t> ((self._next() >> 16) % <uint64_t> bound) if bound > 0 else 0

    cdef inline unsigned char _symbol(self) noexcept nogil:
        """A byte that parsers care for, or any."""
        cdef const unsigned char *symbols = b"\r\n\t :\0,;/?#%\x0b\x0c\x7f\x80\x85\xa0\xff+-_.0159azAZ[]=\"\x1b!~@^`{|}"
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
        if size > INPUT_MAX - self._work.size:
            size = INPUT_MAX - self._work.size
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
        if self._below(4):   # rather behind the request line, which is broken soon and then hides the rest
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
                size = self._below(HEAD_SIZE_MAX + 64)
                memset(self._output, c"a" if self._below(2) else self._symbol(), size)
            else:
                size = self._below(20)
                memset(self._output, self._symbol(), size)
            self._insert(at, self._output, size)
        elif self._below(8) == 0:
            self._work.size = at


# --- what must hold of a complete head --------------------------------------------------------------------------------


cdef Py_ssize_t _blank_line(const unsigned char *data, Py_ssize_t size) noexcept nogil:
    """Where the first CR LF CR LF starts; -1: nowhere."""
    cdef Py_ssize_t i
    for i in range(size - 3):
        if data[i] == c"\r" and data[i + 1] == c"\n" and data[i + 2] == c"\r" and data[i + 3] == c"\n":
            return i
    return -1


cdef bint _is_inside(const unsigned char *part, Py_ssize_t part_size, const unsigned char *data, Py_ssize_t size) noexcept nogil:
    if part == NULL:
        return part_size == 0
    return part_size >= 0 and <uintptr_t> data <= <uintptr_t> part \
        and <uintptr_t> part + <uintptr_t> part_size <= <uintptr_t> data + <uintptr_t> size


cdef int _check_view(const unsigned char *data, Py_ssize_t size, RequestHead *head) noexcept nogil:
    cdef Py_ssize_t i, end = head.head_size
    if end < 4 or end > size or end > HEAD_SIZE_MAX:
        return INSIDE
    if head.path == NULL or head.query == NULL or head.path_size < 1 or head.path[0] != c"/":
        return INSIDE
    if not (_is_inside(head.path, head.path_size, data, end) and _is_inside(head.query, head.query_size, data, end)
            and _is_inside(head.host, head.host_size, data, end)
            and _is_inside(head.content_type, head.content_type_size, data, end)):
        return INSIDE
    if head.query != head.path + head.path_size + (head.path[head.path_size] == c"?"):
        return INSIDE
    if _blank_line(data, size) != end - 4:
        return FIRST_BLANK_LINE
    for i in range(end):
        if data[i] == c"\r":
            if data[i + 1] != c"\n":
                return PLAIN_BYTES
        elif data[i] == c"\n":
            if i == 0 or data[i - 1] != c"\r":
                return PLAIN_BYTES
        elif (data[i] < 0x20 and data[i] != c"\t") or data[i] > 0x7E:
            return PLAIN_BYTES
    if head.content_length < 0 or head.content_length > BODY:
        return BODY_BOUND
    return _check_leniently(data, end, head.content_length)


cdef inline unsigned char _lower(unsigned char symbol) noexcept nogil:
    return symbol + 32 if c"A" <= symbol <= c"Z" else symbol


cdef int _check_leniently(const unsigned char *data, Py_ssize_t size, Py_ssize_t content_length) noexcept nogil:
    """Read as someone might who takes any line end, any blanks, any bytes around a name: what does the body look like?"""
    cdef Py_ssize_t i = 0, lengths = 0, value = 0, digits = 0, name_size
    cdef unsigned char name[24]
    cdef bint in_name
    cdef int kind
    while i < size:
        name_size = 0
        kind = 0
        in_name = True
        while i < size and data[i] != c"\r" and data[i] != c"\n":
            if in_name and data[i] == c":":
                in_name = False
                if name_size == 14 and memcmp(name, b"content-length", 14) == 0:
                    kind = 1
                    lengths += 1
                elif name_size == 17 and memcmp(name, b"transfer-encoding", 17) == 0:
                    return LENIENT_READER
            elif in_name:
                if data[i] > 0x20 and data[i] < 0x7F and name_size < 24:
                    name[name_size] = _lower(data[i])
                    name_size += 1
            elif kind == 1:
                if c"0" <= data[i] <= c"9":
                    digits += 1
                    if digits == 2 and value == 0:   # octal, to some
                        return LENIENT_READER
                    if value < 1000000000:
                        value = value * 10 + (data[i] - c"0")
                elif data[i] != c" " and data[i] != c"\t":
                    return LENIENT_READER
            i += 1
        i += 1
    return NOTHING if lengths <= 1 and value == content_length else LENIENT_READER


cdef bint _same_text(const unsigned char *a, Py_ssize_t a_size, const unsigned char *b, Py_ssize_t b_size) noexcept nogil:
    return (a == NULL) == (b == NULL) and a_size == b_size and (a_size == 0 or memcmp(a, b, a_size) == 0)


cdef bint _same(RequestHead *a, RequestHead *b, bint with_size) noexcept nogil:
    return (
        a.method == b.method
        and _same_text(a.path, a.path_size, b.path, b.path_size)
        and _same_text(a.query, a.query_size, b.query, b.query_size)
        and _same_text(a.host, a.host_size, b.host, b.host_size)
        and _same_text(a.content_type, a.content_type_size, b.content_type, b.content_type_size)
        and a.content_length == b.content_length
        and (not with_size or a.head_size == b.head_size)
        and a.keep_alive == b.keep_alive
        and a.expects_continue == b.expects_continue
        and a.has_escapes == b.has_escapes
    )


cdef inline Py_ssize_t _put(unsigned char *out, Py_ssize_t at, const unsigned char *text, Py_ssize_t size) noexcept nogil:
    memcpy(out + at, text, size)
    return at + size


cdef Py_ssize_t _serialize(const unsigned char *data, RequestHead *head, unsigned char *out) noexcept nogil:
    """Write the view in the fewest bytes: never more than it was read from, so that no bound is passed."""
    cdef Py_ssize_t at = 0, first = 0
    cdef const unsigned char *version = head.query + head.query_size   # SP HTTP/1.x
    cdef char number[32]
    while data[first] != c" ":
        first += 1
    at = _put(out, at, data, first + 1)
    at = _put(out, at, head.path, head.path_size)
    if head.query_size:
        at = _put(out, at, <const unsigned char *> b"?", 1)
        at = _put(out, at, head.query, head.query_size)
    at = _put(out, at, <const unsigned char *> b" HTTP/1.", 8)
    at = _put(out, at, version + 8, 1)
    at = _put(out, at, <const unsigned char *> b"\r\n", 2)
    if head.host != NULL:
        at = _put(out, at, <const unsigned char *> b"Host:", 5)
        at = _put(out, at, head.host, head.host_size)
        at = _put(out, at, <const unsigned char *> b"\r\n", 2)
    if head.content_type != NULL:
        at = _put(out, at, <const unsigned char *> b"Content-Type:", 13)
        at = _put(out, at, head.content_type, head.content_type_size)
        at = _put(out, at, <const unsigned char *> b"\r\n", 2)
    if head.content_length:
        at = _put(out, at, <const unsigned char *> b"Content-Length:", 15)
        at = _put(out, at, <const unsigned char *> number, snprintf(number, 32, paychan_decimal, head.content_length))
        at = _put(out, at, <const unsigned char *> b"\r\n", 2)
    if head.expects_continue:
        at = _put(out, at, <const unsigned char *> b"Expect:100-continue\r\n", 21)
    if not head.keep_alive and version[8] == c"1":
        at = _put(out, at, <const unsigned char *> b"Connection:close\r\n", 18)
    return _put(out, at, <const unsigned char *> b"\r\n", 2)
