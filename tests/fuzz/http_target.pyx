"""The reader of HTTP heads, as a target of the fuzzer."""

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport uintptr_t
from libc.string cimport memcmp, memcpy

from paychan._fast.http cimport HEAD_SIZE_MAX, HEADERS_MAX, RequestHead

from .engine cimport STATUS_MAX, Engine

import time

cdef extern from *:
    """
    #include <stdio.h>
    static const char paychan_decimal[] = "%zd";
    """
    const char *paychan_decimal
    int snprintf(char *out, size_t size, const char *format, ...) nogil

cdef enum:
    BODY = 4096

BODY_MAX = BODY

ctypedef int (*Parser)(const unsigned char *, Py_ssize_t, Py_ssize_t, Py_ssize_t, RequestHead *) noexcept nogil

cpdef enum Broken:
    NOTHING = 0
    KNOWN_STATUS = 1       # the verdict is one of HttpStatus
    INSIDE = 2             # every pointer of the view lies in the head, and path and query follow each other, if there is a path
    FIRST_BLANK_LINE = 3   # a complete head ends at the first CR LF CR LF; without one nothing is complete, with one not incomplete
    PLAIN_BYTES = 4        # no CR or LF alone, no control character but HTAB; in first line and host nothing above 0x7e
    LENIENT_READER = 5     # whoever reads a complete head with less care finds the same body length, one host, no transfer encoding
    BODY_BOUND = 6         # the body's length is within the caller's bound
    PREFIX = 7             # less of the same bytes is incomplete or gets the same verdict and view
    SEEN = 8               # what was seen before spares work and changes nothing
    ALONE = 9              # the head alone has the same view, and one byte less is incomplete
    ROUND_TRIP = 10        # the view, written out again, has the same view
    HEADER_COUNT = 11      # a complete head has no more than HEADERS_MAX header lines


cdef Parser parser_of(object capsule) except NULL:
    return <Parser> PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


def time_parse(object capsule, bytes data, Py_ssize_t count):
    """Return nanoseconds for each of `count` readings of `data`."""
    cdef Parser parse = parser_of(capsule)
    cdef const unsigned char *text = data
    cdef Py_ssize_t size = len(data), _
    cdef RequestHead head
    cdef int status = 0
    start = time.perf_counter_ns()
    with nogil:
        for _ in range(count):
            status |= parse(text, size, 0, BODY, &head)
    spent = time.perf_counter_ns() - start
    assert status == 0
    return spent / count


cdef class HttpEngine(Engine):
    """`attach(functions, statuses)`: the parser under test, in a capsule, and what it may answer."""

    cdef Parser _parse
    cdef bint _is_status[STATUS_MAX]

    def attach(self, dict functions not None, set statuses not None):
        cdef int status
        self._parse = parser_of(functions["parse_head"])
        for status in statuses:
            self._is_status[status] = True

    cdef int examine(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept nogil:
        cdef RequestHead head
        verdict[0] = self._parse(data, size, 0, BODY, &head)
        self.noted(data, size, verdict[0])
        return self._judge(data, size, verdict[0], &head)

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


cdef bint _is_plain(const unsigned char *part, Py_ssize_t size) noexcept nogil:
    """Whether it has neither a blank nor '#', nor anything above 0x7e."""
    cdef Py_ssize_t i
    for i in range(size):
        if part[i] <= 0x20 or part[i] > 0x7E or part[i] == c"#":
            return False
    return True


cdef int _check_view(const unsigned char *data, Py_ssize_t size, RequestHead *head) noexcept nogil:
    cdef Py_ssize_t i, end = head.head_size, line_ends = 0
    if end < 4 or end > size or end > HEAD_SIZE_MAX:
        return INSIDE
    if head.path == NULL or head.query == NULL or head.path_size < 1:
        return INSIDE
    if head.path[0] != c"/" and (head.path[0] != c"*" or head.path_size + head.query_size > 1):
        return INSIDE
    if not (_is_inside(head.query, head.query_size, data, end) and _is_inside(head.host, head.host_size, data, end)):
        return INSIDE
    if head.has_no_path:
        if head.path_size != 1 or _is_inside(head.path, 1, data, end):
            return INSIDE
    elif not _is_inside(head.path, head.path_size, data, end) \
            or head.query != head.path + head.path_size + (head.path[head.path_size] == c"?"):
        return INSIDE
    if _blank_line(data, size) != end - 4:
        return FIRST_BLANK_LINE
    for i in range(end):
        if data[i] == c"\r":
            if data[i + 1] != c"\n":
                return PLAIN_BYTES
        elif data[i] == c"\n":
            line_ends += 1
            if i == 0 or data[i - 1] != c"\r":
                return PLAIN_BYTES
        elif (data[i] < 0x20 and data[i] != c"\t") or data[i] == 0x7F or (data[i] > 0x7F and line_ends == 0):
            return PLAIN_BYTES
    if not (_is_plain(head.path, head.path_size) and _is_plain(head.query, head.query_size)
            and _is_plain(head.host, head.host_size)):
        return PLAIN_BYTES
    if line_ends - 2 > HEADERS_MAX:
        return HEADER_COUNT
    if head.content_length < 0 or head.content_length > BODY:
        return BODY_BOUND
    return _check_leniently(data, end, head.content_length)


cdef inline unsigned char _lower(unsigned char symbol) noexcept nogil:
    return symbol + 32 if c"A" <= symbol <= c"Z" else symbol


cdef int _check_leniently(const unsigned char *data, Py_ssize_t size, Py_ssize_t content_length) noexcept nogil:
    """Read as someone might who takes any line end, any blanks, any bytes around a name: what does the body look like?"""
    cdef Py_ssize_t i = 0, lengths = 0, value = 0, digits = 0, hosts = 0, name_size
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
                elif name_size == 4 and memcmp(name, b"host", 4) == 0:
                    hosts += 1
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
    return NOTHING if lengths <= 1 and hosts <= 1 and value == content_length else LENIENT_READER


cdef bint _same_text(const unsigned char *a, Py_ssize_t a_size, const unsigned char *b, Py_ssize_t b_size) noexcept nogil:
    return (a == NULL) == (b == NULL) and a_size == b_size and (a_size == 0 or memcmp(a, b, a_size) == 0)


cdef bint _same(RequestHead *a, RequestHead *b, bint with_size) noexcept nogil:
    return (
        a.method == b.method
        and _same_text(a.path, a.path_size, b.path, b.path_size)
        and _same_text(a.query, a.query_size, b.query, b.query_size)
        and _same_text(a.host, a.host_size, b.host, b.host_size)
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
    cdef bint is_bare = head.has_no_path and version[8] == c"0"        # a '/' and a Host would be a byte more
    cdef char number[32]
    while data[first] != c" ":
        first += 1
    at = _put(out, at, data, first + 1)
    if is_bare:
        at = _put(out, at, <const unsigned char *> b"http://", 7)
        at = _put(out, at, head.host, head.host_size)
    else:
        at = _put(out, at, head.path, head.path_size)
    if head.query_size:
        at = _put(out, at, <const unsigned char *> b"?", 1)
        at = _put(out, at, head.query, head.query_size)
    at = _put(out, at, <const unsigned char *> b" HTTP/1.", 8)
    at = _put(out, at, version + 8, 1)
    at = _put(out, at, <const unsigned char *> b"\r\n", 2)
    if head.host != NULL and not is_bare:
        at = _put(out, at, <const unsigned char *> b"Host:", 5)
        at = _put(out, at, head.host, head.host_size)
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
