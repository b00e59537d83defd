# The head of an HTTP/1.1 request, request line and headers, read in place and strictly: what is not fully understood is refused.

cpdef enum:
    HEAD_SIZE_MAX = 8192           # bytes of request line, headers and the blank line
    HEADERS_MAX = 64               # header lines; with `seen` below it bounds the work for a head that drips in
    TARGET_SIZE_MAX = 4096         # bytes of path, question mark and query
    METHOD_SIZE_MAX = 16           # letters; the longest registered method has 17 and means nothing here
    REQUEST_LINE_SIZE_MAX = 4124   # METHOD_SIZE_MAX, TARGET_SIZE_MAX, two spaces, 8 bytes of version, CR LF

cpdef enum Method:
    GET = 0
    PUT = 1
    POST = 2
    DELETE = 3
    OPTIONS = 4
    HEAD = 5
    OTHER = 6                      # any other upper-case word: what it means is not asked, so it is no error here

# From 4000 on: a refusal. A tenth of it is the HTTP status it leads to. After a refusal nobody knows where the
# next request starts: answer and close, never read on.
cpdef enum HttpStatus:
    COMPLETE = 0
    INCOMPLETE = 1
    MALFORMED_REQUEST_LINE = 4000  # also: authority-form, a bare LF or CR, a blank line before it
    MALFORMED_HEADER = 4001        # also: folded lines, blanks before the colon, control characters other than HTAB
    INVALID_HOST = 4002            # also: missing in HTTP/1.1
    INVALID_CONTENT_LENGTH = 4003  # anything but plain decimal digits without leading zeros
    INVALID_CONNECTION = 4004      # not a list of tokens
    REPEATED_HEADER = 4006         # Host, Content-Length or Expect, even if both say the same
    BODY_TOO_LARGE = 4130          # Content-Length above the caller's bound
    TARGET_TOO_LONG = 4140
    UNKNOWN_EXPECTATION = 4170     # Expect: other than 100-continue
    HEAD_TOO_LARGE = 4310
    TOO_MANY_HEADERS = 4311
    HAS_TRANSFER_ENCODING = 5010   # of any kind, with or without Content-Length
    UNSUPPORTED_VERSION = 5050     # other than HTTP/1.1 and HTTP/1.0

# Pointers are borrowed from the bytes parsed, but for the path that a target does not have. Only after COMPLETE does any of it mean
# something; before, `method` does once it is not GET.
cdef struct RequestHead:
    int method                           # Method
    const unsigned char *path            # raw, up to '?': from the first '/' after the authority, if the target has one; or '*'
    Py_ssize_t path_size
    const unsigned char *query           # raw, after the first '?'
    Py_ssize_t query_size                # 0: none, or empty
    const unsigned char *host            # with the port; the target's, if it has one; NULL: none (HTTP/1.0 only)
    Py_ssize_t host_size
    Py_ssize_t content_length            # bytes of body, 0 if not given; any method can have one, and it must be read or dropped
    Py_ssize_t head_size                 # bytes up to and including the blank line: there the body starts
    const unsigned char *authorization   # of the first such header; NULL: none
    Py_ssize_t authorization_size
    Py_ssize_t authorizations            # how many there are
    bint keep_alive                      # HTTP/1.1 and no `Connection: close`
    bint expects_continue                # waits for "100 Continue" before it sends the body; never in HTTP/1.0
    bint has_escapes                     # a '%' in the path
    bint has_no_path                     # the target ended with its authority, or '?' came after it: `path` is a '/' of ours
    bint has_content_length

# `data` holds `size` bytes from the first of the request on, and may hold its body and further requests. `seen`: how many of
# them were there when the last call for this request answered INCOMPLETE, 0 at first. It only saves work: when no line has
# ended since, nothing is read again, so a head sent byte by byte costs at most 66 readings, not 8192.
cdef HttpStatus parse_head(
    const unsigned char *data, Py_ssize_t size, Py_ssize_t seen, Py_ssize_t body_max, RequestHead *head) noexcept nogil

# The values of all headers of a name (in lower case) in a head of `head_size` bytes that was COMPLETE, joined by commas.
cdef bytes values_of(const unsigned char *data, Py_ssize_t head_size, bytes name)
