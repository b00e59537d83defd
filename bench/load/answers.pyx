"""Reading HTTP/1.1 answers as our servers give them, strictly, and holding them against what was foretold."""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp

from paychan._fast.bytes cimport distance

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t needle_size)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *a, const char *b, size_t size)


cdef int64_t read_number(const unsigned char *text, size_t size) noexcept nogil:
    """Return the decimal number after optional spaces, -1 if there is none or it is too long."""
    cdef size_t at = 0, digits = 0
    cdef int64_t value = 0
    while at < size and (text[at] == b" " or text[at] == b"\t"):
        at += 1
    while at < size and b"0" <= text[at] <= b"9" and digits < 18:
        value = 10 * value + (text[at] - <int> b"0")
        at += 1
        digits += 1
    return value if digits and not (at < size and b"0" <= text[at] <= b"9") else -1


cdef int64_t member(const unsigned char *body, size_t size, const char *name, size_t name_size) noexcept nogil:
    """Return the number that follows `name` (with quotes and colon) in a JSON object, -1 if there is none."""
    cdef const unsigned char *found = <const unsigned char *> memmem(body, size, name, name_size)
    if found == NULL:
        return -1
    cdef size_t at = <size_t> distance(body, found) + name_size
    return read_number(body + at, size - at)


cdef int read_head(const unsigned char *data, size_t size, Head *head) noexcept nogil:
    """Read status and length of the body. Return 1; 0 if the head is not complete yet; -1 if it is no head that we know."""
    cdef const unsigned char *end = <const unsigned char *> memmem(data, size, b"\r\n\r\n", 4)
    cdef const unsigned char *line_end
    cdef size_t at, line_size, head_size
    cdef int64_t length = -1
    if end == NULL:
        return 0 if size < ANSWER_SIZE_MAX else -1
    head_size = <size_t> distance(data, end) + 2
    if head_size < 15 or memcmp(data, b"HTTP/1.", 7) != 0 or data[8] != b" ":
        return -1
    head.status = <int> read_number(data + 9, 3)
    if head.status < 100:
        return -1
    at = 0
    while at < head_size:
        line_end = <const unsigned char *> memmem(data + at, head_size - at, b"\r\n", 2)
        line_size = <size_t> distance(data + at, line_end)
        if line_size > 15 and strncasecmp(<const char *> data + at, b"content-length:", 15) == 0:
            if length >= 0:
                return -1
            length = read_number(data + at + 15, line_size - 15)
            if length < 0:
                return -1
        at += line_size + 2
    if length < 0 or length > <int64_t> ANSWER_SIZE_MAX:
        return -1
    head.body_at = head_size + 2
    head.body_size = <size_t> length
    return 1


cdef bint is_as_expected(int status, const unsigned char *body, size_t size, const Expectation *expected) noexcept nogil:
    """Return whether one payment's answer says what it must."""
    if status != expected.status:
        return False
    if expected.left >= 0 and member(body, size, b'"channel_value_left":', 21) != expected.left:
        return False
    return expected.received < 0 or member(body, size, b'"value_received":', 17) == expected.received


cdef bint is_batch_as_expected(const unsigned char *body, size_t size, const Expectation *expected, uint32_t count) noexcept nogil:
    """Return whether a batch's answers, u16 status | u16 length | body each, are those of its payments, in order, and no more."""
    cdef size_t at = 0, part
    cdef uint32_t i
    for i in range(count):
        if size - at < 4:
            return False
        part = body[at + 2] | <size_t> body[at + 3] << 8
        if size - at - 4 < part:
            return False
        if not is_as_expected(body[at] | <int> body[at + 1] << 8, body + at + 4, part, expected + i):
            return False
        at += 4 + part
    return at == size
