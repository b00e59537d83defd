# The request for a channel's resource: /v1/channels/TXID/VOUT?payment=... to an outpoint and a payment's text.

from .status cimport Status

cpdef enum:
    PATH_SIZE_MAX = 1024     # bytes; the longest that means something has 90
    QUERY_SIZE_MAX = 2048    # bytes; the longest that means something, all of it %-escaped, has some 500

# A piece of the query, borrowed from it; `text` NULL: not given.
cdef struct Parameter:
    const unsigned char *text
    Py_ssize_t size

cdef Status parse_txid(const unsigned char *text, Py_ssize_t size, unsigned char *txid32) noexcept nogil
cdef Status parse_vout(const unsigned char *text, Py_ssize_t size, unsigned char *vout4) noexcept nogil
cdef Status parse_channel_path(const unsigned char *path, Py_ssize_t size, unsigned char *outpoint36) noexcept nogil
cdef Status find_parameters(
    const unsigned char *query, Py_ssize_t size, Parameter *payment, Parameter *change_address) noexcept nogil
cdef Status unescape(
    const unsigned char *text, Py_ssize_t size, unsigned char *out, Py_ssize_t capacity, Py_ssize_t *out_size) noexcept nogil
