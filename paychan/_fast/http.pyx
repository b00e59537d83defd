"""Reading of request heads (RFC 9112), the strict choice everywhere. Every function here is total: any bytes give a status.

Lines are judged in order and only when they are whole, so more bytes never change a verdict: what was refused stays refused,
what was complete stays the same. Bytes from 0x80 on may stand in the values of headers that mean nothing here: they are opaque
(RFC 9110 5.5), and some clients send them. The forms of the values that are read leave no room for them.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memset

from .bytes cimport distance, read_u64

cdef enum:
    TOKEN = 1      # RFC 9110 5.6.2, what header names and connection options are made of
    NAME = 2       # of a host: letters, digits, '.', '-', and '_' which container networks have in theirs
    ADDRESS = 4    # inside the brackets of an IPv6 address

cdef unsigned char _kinds[256]


cdef void _mark(const unsigned char *symbols, Py_ssize_t size, unsigned char kind) noexcept:
    cdef Py_ssize_t i
    for i in range(size):
        _kinds[symbols[i]] |= kind


cdef void _fill_kinds() noexcept:
    cdef bytes digits = b"0123456789"
    cdef bytes letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    cdef bytes token = digits + letters + b"!#$%&'*+-.^_`|~"
    cdef bytes name = digits + letters + b".-_"
    cdef bytes address = digits + b"abcdefABCDEF:."
    _mark(token, len(token), TOKEN)
    _mark(name, len(name), NAME)
    _mark(address, len(address), ADDRESS)


_fill_kinds()

# What the headers so far said, beside what stands in RequestHead.
cdef struct Marks:
    bint is_1_0
    bint has_expect
    bint closes
    const unsigned char *authority   # of the target; NULL: none
    Py_ssize_t authority_size


cdef inline bint _are(const unsigned char *text, Py_ssize_t size, unsigned char kind) noexcept nogil:
    """Whether all bytes are of one kind; true of none."""
    cdef unsigned char common = kind
    cdef Py_ssize_t i
    for i in range(size):
        common &= _kinds[text[i]]
    return common != 0


# Eight bytes at a time. In each sum below every byte stays within its eight bits: nothing carries over. What is above 0x7f apart,
# a byte is first moved so far that the allowed ones begin at 0, modulo 0x80, then so far that the others reach the highest bit.

cdef inline uint64_t _odd_in_value(uint64_t word) noexcept nogil:
    """Nonzero if one of eight bytes is below 0x20 or is 0x7f."""
    cdef uint64_t moved = ((word & 0x7F7F7F7F7F7F7F7FULL) + 0x6060606060606060ULL) & 0x7F7F7F7F7F7F7F7FULL
    return (moved + 0x2121212121212121ULL) & ~word & 0x8080808080808080ULL


cdef inline uint64_t _odd_in_target(uint64_t word) noexcept nogil:
    """Nonzero if one of eight bytes is outside 0x21 to 0x7e or is '#'."""
    cdef uint64_t moved = ((word & 0x7F7F7F7F7F7F7F7FULL) + 0x5F5F5F5F5F5F5F5FULL) & 0x7F7F7F7F7F7F7F7FULL
    return (
        (moved + 0x2222222222222222ULL)
        | ~(((word ^ 0x2323232323232323ULL) & 0x7F7F7F7F7F7F7F7FULL) + 0x7F7F7F7F7F7F7F7FULL)
        | word
    ) & 0x8080808080808080ULL


cdef bint _is_target(const unsigned char *text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t odd = 0
    cdef Py_ssize_t i
    if size < 8:
        for i in range(size):
            if text[i] < 0x21 or text[i] > 0x7E or text[i] == c"#":
                return False
        return True
    for i in range(0, size - 7, 8):
        odd |= _odd_in_target(read_u64(text + i))
    return (odd | _odd_in_target(read_u64(text + size - 8))) == 0   # the last eight, some of them twice


cdef bint _is_value(const unsigned char *text, Py_ssize_t size) noexcept nogil:
    cdef uint64_t odd = 0
    cdef Py_ssize_t i
    if size >= 8:
        for i in range(0, size - 7, 8):
            odd |= _odd_in_value(read_u64(text + i))
        if (odd | _odd_in_value(read_u64(text + size - 8))) == 0:
            return True
    for i in range(size):   # short, or something odd, which can be a HTAB
        if (text[i] < 0x20 and text[i] != c"\t") or text[i] == 0x7F:
            return False
    return True


cdef inline bint _is_word(const unsigned char *text, const char *word, Py_ssize_t size) noexcept nogil:
    """Whether `size` bytes of token or value are a lower-case word of that size, in either case."""
    cdef Py_ssize_t i
    for i in range(size):
        if (text[i] | 0x20) != <unsigned char> word[i]:   # 0x20 apart from letter, digit or '-': that letter, or a control
            return False
    return True


cdef inline void _trim(const unsigned char **text, Py_ssize_t *size) noexcept nogil:
    while size[0] > 0 and (text[0][0] == c" " or text[0][0] == c"\t"):
        text[0] += 1
        size[0] -= 1
    while size[0] > 0 and (text[0][size[0] - 1] == c" " or text[0][size[0] - 1] == c"\t"):
        size[0] -= 1


# --- the request line -------------------------------------------------------------------------------------------------


cdef int _method(const unsigned char *word, Py_ssize_t size) noexcept nogil:
    if size == 3:
        if memcmp(word, <const char *> b"PUT", 3) == 0:
            return Method.PUT
        if memcmp(word, <const char *> b"GET", 3) == 0:
            return Method.GET
    elif size == 4:
        if memcmp(word, <const char *> b"POST", 4) == 0:
            return Method.POST
        if memcmp(word, <const char *> b"HEAD", 4) == 0:
            return Method.HEAD
    elif size == 6 and memcmp(word, <const char *> b"DELETE", 6) == 0:
        return Method.DELETE
    elif size == 7 and memcmp(word, <const char *> b"OPTIONS", 7) == 0:
        return Method.OPTIONS
    return Method.OTHER


cdef bint _is_host(const unsigned char *text, Py_ssize_t size) noexcept nogil:
    """Whether it is NAME, NAME:PORT, [IPV6] or [IPV6]:PORT. The address is not read, only its letters are."""
    cdef Py_ssize_t end = 0, i
    if size > 0 and text[0] == c"[":
        while end < size and text[end] != c"]":
            end += 1
        if end == size or end < 3 or end > 46 or not _are(text + 1, end - 1, ADDRESS):
            return False
        end += 1
    else:
        while end < size and text[end] != c":":
            end += 1
        if end < 1 or end > 253 or not _are(text, end, NAME):
            return False
    if end == size:
        return True
    if text[end] != c":" or size - end < 2 or size - end > 6:
        return False
    for i in range(end + 1, size):
        if not c"0" <= text[i] <= c"9":
            return False
    return True


cdef Py_ssize_t _read_authority(const unsigned char *target, Py_ssize_t size, Marks *marks) noexcept nogil:
    """Read http://AUTHORITY or https://AUTHORITY; return how many bytes that are, 0 if it is neither."""
    cdef Py_ssize_t start, end
    if size > 7 and _is_word(target, b"http://", 7):
        start = 7
    elif size > 8 and _is_word(target, b"https://", 8):
        start = 8
    else:
        return 0
    end = start
    while end < size and target[end] != c"/" and target[end] != c"?":
        end += 1
    if not _is_host(target + start, end - start):
        return 0
    marks.authority = target + start
    marks.authority_size = end - start
    return end


cdef HttpStatus _read_target(const unsigned char *target, Py_ssize_t size, Marks *marks, RequestHead *head) noexcept nogil:
    """Read /PATH or /PATH?QUERY, the same after http://AUTHORITY (RFC 9112 3.2.2: proxies ask so), or `*`, the whole server."""
    cdef const unsigned char *mark
    cdef Py_ssize_t before
    if size > TARGET_SIZE_MAX:
        return HttpStatus.TARGET_TOO_LONG
    if size < 1 or not _is_target(target, size):
        return HttpStatus.MALFORMED_REQUEST_LINE
    if target[0] != c"/" and (target[0] != c"*" or size > 1):
        before = _read_authority(target, size, marks)
        if before == 0:
            return HttpStatus.MALFORMED_REQUEST_LINE
        target += before
        size -= before
    head.path = target
    mark = <const unsigned char *> memchr(target, c"?", size)
    if mark == NULL:
        head.path_size = size
        head.query = target + size
    else:
        head.path_size = distance(target, mark)
        head.query = mark + 1
        head.query_size = size - head.path_size - 1
    if head.path_size == 0:   # nothing but an authority, or a query after it
        head.has_no_path = True
        head.path = <const unsigned char *> <const char *> b"/"
        head.path_size = 1
    head.has_escapes = memchr(head.path, c"%", head.path_size) != NULL
    return HttpStatus.COMPLETE


cdef HttpStatus _read_version(const unsigned char *text, Marks *marks) noexcept nogil:
    """Read eight bytes."""
    if memcmp(text, <const char *> b"HTTP/1.1", 8) == 0:
        return HttpStatus.COMPLETE
    if memcmp(text, <const char *> b"HTTP/1.0", 8) == 0:
        marks.is_1_0 = True
        return HttpStatus.COMPLETE
    if memcmp(text, <const char *> b"HTTP/", 5) == 0 and text[6] == c"." \
            and c"0" <= text[5] <= c"9" and c"0" <= text[7] <= c"9":
        return HttpStatus.UNSUPPORTED_VERSION
    return HttpStatus.MALFORMED_REQUEST_LINE


cdef HttpStatus _read_request_line(
    const unsigned char *line, Py_ssize_t size, Marks *marks, RequestHead *head
) noexcept nogil:
    """Read METHOD SP TARGET SP VERSION CR; the LF is not among the `size` bytes."""
    cdef Py_ssize_t method_size = 0
    cdef HttpStatus status
    while method_size < size and c"A" <= line[method_size] <= c"Z":
        method_size += 1
    # From the other end: CR, eight bytes of version, SP. A byte more between them is then a byte of the target.
    if method_size < 1 or method_size > METHOD_SIZE_MAX or size < method_size + 11:
        return HttpStatus.MALFORMED_REQUEST_LINE
    if line[method_size] != c" " or line[size - 1] != c"\r" or line[size - 10] != c" ":
        return HttpStatus.MALFORMED_REQUEST_LINE
    head.method = _method(line, method_size)
    status = _read_target(line + method_size + 1, size - method_size - 11, marks, head)
    if status != HttpStatus.COMPLETE:
        return status
    return _read_version(line + size - 9, marks)


# --- the headers that mean something ----------------------------------------------------------------------------------


cdef HttpStatus _read_content_length(
    const unsigned char *text, Py_ssize_t size, Py_ssize_t body_max, RequestHead *head
) noexcept nogil:
    cdef Py_ssize_t value = 0, i
    if size < 1 or (size > 1 and text[0] == c"0"):
        return HttpStatus.INVALID_CONTENT_LENGTH
    for i in range(size):
        if not c"0" <= text[i] <= c"9":
            return HttpStatus.INVALID_CONTENT_LENGTH
    if size > 18:   # at least 10**18, and 64 bits would not hold all of them
        return HttpStatus.BODY_TOO_LARGE
    for i in range(size):
        value = value * 10 + (text[i] - c"0")
    if value > body_max:
        return HttpStatus.BODY_TOO_LARGE
    head.content_length = value
    return HttpStatus.COMPLETE


cdef HttpStatus _read_connection(const unsigned char *text, Py_ssize_t size, Marks *marks) noexcept nogil:
    """Look for `close` in a list; `keep-alive` is what HTTP/1.1 does anyway, and HTTP/1.0 is not granted it."""
    cdef Py_ssize_t start = 0, end, option_size
    cdef const unsigned char *option
    while start < size:
        end = start
        while end < size and text[end] != c",":
            end += 1
        option = text + start
        option_size = end - start
        _trim(&option, &option_size)
        if not _are(option, option_size, TOKEN):
            return HttpStatus.INVALID_CONNECTION
        if option_size == 5 and _is_word(option, b"close", 5):
            marks.closes = True
        start = end + 1
    return HttpStatus.COMPLETE


cdef HttpStatus _read_expect(const unsigned char *text, Py_ssize_t size, Marks *marks, RequestHead *head) noexcept nogil:
    if marks.has_expect:
        return HttpStatus.REPEATED_HEADER
    if size != 12 or not _is_word(text, b"100-continue", 12):
        return HttpStatus.UNKNOWN_EXPECTATION
    marks.has_expect = True
    head.expects_continue = not marks.is_1_0   # RFC 9110 10.1.1: whoever speaks 1.0 would not understand the answer
    return HttpStatus.COMPLETE


cdef HttpStatus _read_header(
    const unsigned char *line, Py_ssize_t size, Py_ssize_t body_max, Marks *marks, RequestHead *head
) noexcept nogil:
    """Read NAME: VALUE, without the CR LF. A folded line starts with a blank, which is no token."""
    cdef const unsigned char *colon = <const unsigned char *> memchr(line, c":", size)
    cdef const unsigned char *value
    cdef Py_ssize_t name_size, value_size
    if colon == NULL:
        return HttpStatus.MALFORMED_HEADER
    name_size = distance(line, colon)
    value = colon + 1
    value_size = size - name_size - 1
    if name_size < 1 or not _are(line, name_size, TOKEN) or not _is_value(value, value_size):
        return HttpStatus.MALFORMED_HEADER
    _trim(&value, &value_size)
    if name_size == 4 and _is_word(line, b"host", 4):
        if head.host != NULL:
            return HttpStatus.REPEATED_HEADER
        if not _is_host(value, value_size):
            return HttpStatus.INVALID_HOST
        head.host = value
        head.host_size = value_size
    elif name_size == 14 and _is_word(line, b"content-length", 14):
        if head.has_content_length:
            return HttpStatus.REPEATED_HEADER
        head.has_content_length = True
        return _read_content_length(value, value_size, body_max, head)
    elif name_size == 13 and _is_word(line, b"authorization", 13):
        head.authorizations += 1
        if head.authorization == NULL:
            head.authorization = value
            head.authorization_size = value_size
    elif name_size == 17 and _is_word(line, b"transfer-encoding", 17):
        return HttpStatus.HAS_TRANSFER_ENCODING
    elif name_size == 10 and _is_word(line, b"connection", 10):
        return _read_connection(value, value_size, marks)
    elif name_size == 6 and _is_word(line, b"expect", 6):
        return _read_expect(value, value_size, marks, head)
    return HttpStatus.COMPLETE


# --- the whole --------------------------------------------------------------------------------------------------------


cdef inline const unsigned char *_line_end(const unsigned char *line, Py_ssize_t size) noexcept nogil:
    return <const unsigned char *> memchr(line, c"\n", size)


cdef inline bint _nothing_new(const unsigned char *data, Py_ssize_t size, Py_ssize_t seen) noexcept nogil:
    """Whether no line has ended and no bound been reached since `seen` bytes were judged INCOMPLETE."""
    if seen <= 0 or seen > size or size >= HEAD_SIZE_MAX:
        return False
    if seen < REQUEST_LINE_SIZE_MAX <= size:
        return False
    return _line_end(data + seen, size - seen) == NULL


cdef HttpStatus parse_head(
    const unsigned char *data, Py_ssize_t size, Py_ssize_t seen, Py_ssize_t body_max, RequestHead *head
) noexcept nogil:
    """Read one request's head without copying; the pointers in `head` borrow from `data`. See http.pxd for `seen`."""
    cdef Py_ssize_t limit = size if size < HEAD_SIZE_MAX else HEAD_SIZE_MAX
    cdef Py_ssize_t start, line_size, headers = 0
    cdef const unsigned char *end
    cdef HttpStatus status
    cdef Marks marks
    memset(head, 0, sizeof(RequestHead))
    memset(&marks, 0, sizeof(Marks))
    if size < 1 or _nothing_new(data, size, seen):
        return HttpStatus.INCOMPLETE
    end = _line_end(data, limit if limit < REQUEST_LINE_SIZE_MAX else REQUEST_LINE_SIZE_MAX)
    if end == NULL:
        if not c"A" <= data[0] <= c"Z":   # another protocol, and its sender would wait long for a line to end
            return HttpStatus.MALFORMED_REQUEST_LINE
        return HttpStatus.INCOMPLETE if size < REQUEST_LINE_SIZE_MAX else HttpStatus.TARGET_TOO_LONG
    start = distance(data, end) + 1
    status = _read_request_line(data, start - 1, &marks, head)
    while status == HttpStatus.COMPLETE:
        end = _line_end(data + start, limit - start)
        if end == NULL:
            return HttpStatus.INCOMPLETE if size < HEAD_SIZE_MAX else HttpStatus.HEAD_TOO_LARGE
        line_size = distance(data + start, end)
        if line_size == 0 or data[start + line_size - 1] != c"\r":
            return HttpStatus.MALFORMED_HEADER
        if line_size == 1:
            break
        headers += 1
        if headers > HEADERS_MAX:
            return HttpStatus.TOO_MANY_HEADERS
        status = _read_header(data + start, line_size - 1, body_max, &marks, head)
        start += line_size + 1
    if status == HttpStatus.COMPLETE and head.host == NULL and not marks.is_1_0:
        status = HttpStatus.INVALID_HOST
    if marks.authority != NULL:   # the Host header must be there and be one; what it says does not count
        head.host = marks.authority
        head.host_size = marks.authority_size
    head.keep_alive = not marks.is_1_0 and not marks.closes
    head.head_size = start + 2
    return status


cdef bytes values_of(const unsigned char *data, Py_ssize_t head_size, bytes name):
    """See http.pxd. What a proxy adds may be a line of its own."""
    cdef const unsigned char *line = _line_end(data, head_size) + 1
    cdef const unsigned char *end
    cdef const unsigned char *value
    cdef Py_ssize_t size, value_size, name_size = len(name)
    cdef bytes found = None
    while True:
        end = _line_end(line, head_size - distance(data, line))
        size = distance(line, end) - 1
        if size <= 0:
            return found if found is not None else b""
        if size > name_size and line[name_size] == c":" and _is_word(line, <const char *> name, name_size):
            value, value_size = line + name_size + 1, size - name_size - 1
            _trim(&value, &value_size)
            found = value[:value_size] if found is None else found + b"," + value[:value_size]
        line = end + 1


# The Python face, for the tests.

def header_values(bytes head not None, bytes name not None):
    """Return the values of all headers of a name (in lower case) in a whole head, joined by commas. Raises ValueError."""
    if parse_request_head(head, 0)[0]:
        raise ValueError("it is no whole head")
    return values_of(<const unsigned char *> head, len(head), name)


cdef bytes _copy(const unsigned char *text, Py_ssize_t size):
    return None if text == NULL else text[:size]


def parse_request_head(bytes data not None, Py_ssize_t body_max, Py_ssize_t seen=0):
    """Return (status, None), or (0, fields of the head by name) if it is COMPLETE."""
    cdef RequestHead head
    cdef HttpStatus status = parse_head(<const unsigned char *> data, len(data), seen, body_max, &head)
    if status != HttpStatus.COMPLETE:
        return <int> status, None
    return 0, {
        "method": head.method,
        "path": _copy(head.path, head.path_size),
        "query": _copy(head.query, head.query_size),
        "host": _copy(head.host, head.host_size),
        "content_length": head.content_length,
        "head_size": head.head_size,
        "keep_alive": bool(head.keep_alive),
        "expects_continue": bool(head.expects_continue),
        "has_escapes": bool(head.has_escapes),
        "authorization": _copy(head.authorization, head.authorization_size) if head.authorizations == 1 else None,
    }


def is_host(bytes text not None):
    """Return whether it is NAME, NAME:PORT, [IPV6] or [IPV6]:PORT: what a Host header may say, and what may be part of a URL."""
    return _is_host(<const unsigned char *> text, len(text))
