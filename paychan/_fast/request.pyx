"""Parsing of a channel resource's path and query (spec sections 1 and 2), strictly: an outpoint has one spelling.

The path arrives %-decoded by the HTTP server, the query does not. `&` and `;` separate parameters, as in v1.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp

from .bytes cimport distance, write_u32
from .status cimport Status


cdef inline int _hex_digit(unsigned char symbol) noexcept nogil:
    if c"0" <= symbol <= c"9":
        return symbol - c"0"
    if c"a" <= symbol <= c"f":
        return symbol - c"a" + 10
    if c"A" <= symbol <= c"F":
        return symbol - c"A" + 10
    return -1


cdef Status parse_txid(const unsigned char *text, Py_ssize_t size, unsigned char *txid32) noexcept nogil:
    """64 hex digits, either case, in display order: the last pair is the first byte."""
    cdef int i, high, low
    if size != 64:
        return Status.INVALID_TXID
    for i in range(32):
        high = _hex_digit(text[2 * i])
        low = _hex_digit(text[2 * i + 1])
        if high < 0 or low < 0:
            return Status.INVALID_TXID
        txid32[31 - i] = <unsigned char> (high << 4 | low)
    return Status.OK


cdef Status parse_vout(const unsigned char *text, Py_ssize_t size, unsigned char *vout4) noexcept nogil:
    """A plain decimal of 32 bits: no sign, no leading zero, no blank."""
    cdef uint64_t value = 0
    cdef Py_ssize_t i
    if size < 1 or size > 10 or (size > 1 and text[0] == c"0"):
        return Status.INVALID_VOUT
    for i in range(size):
        if not c"0" <= text[i] <= c"9":
            return Status.INVALID_VOUT
        value = value * 10 + (text[i] - c"0")
    if value > 0xFFFFFFFFULL:
        return Status.INVALID_VOUT
    write_u32(vout4, <unsigned int> value)
    return Status.OK


cdef Status parse_channel_path(const unsigned char *path, Py_ssize_t size, unsigned char *outpoint36) noexcept nogil:
    """Read /v1/channels/TXID/VOUT; as in v1, further path segments are tolerated."""
    cdef const unsigned char *txid = path + 13
    cdef const unsigned char *slash
    cdef const unsigned char *vout
    cdef const unsigned char *end
    cdef Status status
    if size > PATH_SIZE_MAX:
        return Status.REQUEST_TOO_LARGE
    if size <= 13 or memcmp(path, <const char *> b"/v1/channels/", 13) != 0:
        return Status.NO_SUCH_ROUTE
    slash = <const unsigned char *> memchr(txid, c"/", size - 13)
    if slash == NULL or slash + 1 == path + size or slash[1] == c"/":
        return Status.NO_SUCH_ROUTE
    vout = slash + 1
    end = <const unsigned char *> memchr(vout, c"/", distance(vout, path + size))
    if end == NULL:
        end = path + size
    status = parse_txid(txid, distance(txid, slash), outpoint36)
    if status != Status.OK:
        return status
    return parse_vout(vout, distance(vout, end), outpoint36 + 32)


cdef inline bint _is_named(
    const unsigned char *part, Py_ssize_t size, const char *name, Py_ssize_t name_size
) noexcept nogil:
    return size > name_size and part[name_size] == c"=" and memcmp(part, name, name_size) == 0


cdef inline Status _take(Parameter *parameter, const unsigned char *text, Py_ssize_t size) noexcept nogil:
    if parameter.text != NULL:
        return Status.REPEATED_PARAMETER
    parameter.text = text
    parameter.size = size
    return Status.OK


cdef Status find_parameters(
    const unsigned char *query, Py_ssize_t size, Parameter *payment, Parameter *change_address
) noexcept nogil:
    """Find the two known parameters. Unknown ones are ignored, a repeated known one is refused."""
    cdef Py_ssize_t start = 0, end = 0
    cdef const unsigned char *part
    cdef Status status = Status.OK
    payment.text = NULL
    payment.size = 0
    change_address.text = NULL
    change_address.size = 0
    if size > QUERY_SIZE_MAX:
        return Status.REQUEST_TOO_LARGE
    while start < size:
        end = start
        while end < size and query[end] != c"&" and query[end] != c";":
            end += 1
        part = query + start
        if _is_named(part, end - start, b"payment", 7):
            status = _take(payment, part + 8, end - start - 8)
        elif _is_named(part, end - start, b"change_address", 14):
            status = _take(change_address, part + 15, end - start - 15)
        if status != Status.OK:
            return status
        start = end + 1
    return Status.OK if payment.text != NULL else Status.MISSING_PARAMETER


cdef Status unescape(
    const unsigned char *text, Py_ssize_t size, unsigned char *out, Py_ssize_t capacity, Py_ssize_t *out_size
) noexcept nogil:
    """Resolve %-escapes and `+` into at most `capacity` bytes; only a payment is read with it, so faults are its."""
    cdef Py_ssize_t i = 0, written = 0
    cdef int high, low
    while i < size:
        if written == capacity:
            return Status.INVALID_PAYMENT
        if text[i] == c"%":
            high = _hex_digit(text[i + 1]) if i + 2 < size else -1
            low = _hex_digit(text[i + 2]) if i + 2 < size else -1
            if high < 0 or low < 0:
                return Status.INVALID_BASE64
            out[written] = <unsigned char> (high << 4 | low)
            i += 3
        else:
            out[written] = c" " if text[i] == c"+" else text[i]
            i += 1
        written += 1
    out_size[0] = written
    return Status.OK
