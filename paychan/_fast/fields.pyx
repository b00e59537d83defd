"""The fields of HTTP messages as ASGI has them, pairs of bytes: what a till reads of a request's, and adds to an answer's."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeLatin1


cdef bytes _lower(bytes name):
    """Return a name in lower case, as most are."""
    cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(name)
    cdef Py_ssize_t i
    for i in range(PyBytes_GET_SIZE(name)):
        if c"A" <= at[i] <= c"Z":
            return name.lower()
    return name


cdef inline bytes _bytes(object part):
    """Return a part of a field: bytes, or what an application takes for it."""
    return part if type(part) is bytes else bytes(part)


cdef str _text(bytes value):
    return PyUnicode_DecodeLatin1(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), NULL)


def look(headers not None):
    """Return (the values that may be credentials, the Idempotency-Key or an empty text, whether there may be a body)."""
    cdef list credentials = []
    cdef str key = ""
    cdef bint has_body = False
    cdef bytes name, value
    for pair in headers:
        name, value = _bytes(pair[0]), _bytes(pair[1])
        if name == b"authorization" or name == b"payment-authorization":
            credentials.append(_text(value))
        elif name == b"idempotency-key":
            key = _text(value)
        elif name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            has_body = True
    return tuple(credentials), key, has_body


cdef frozenset _OWN = frozenset((b"content-length", b"transfer-encoding", b"connection", b"date", b"server"))


def dress(headers not None, tuple more not None):
    """Return (headers with `more`, names and values in turn of those to be kept). A header of the same name gives way; kept are all
    but those that belong to one sending. more: pairs of texts; kept names are in lower case."""
    cdef list sent = [], kept = [], names = [own.lower().encode() for own, _ in more]
    cdef bytes name
    for pair in headers:
        name = _lower(_bytes(pair[0]))
        if name not in names:
            sent.append(pair)
            if name not in _OWN:
                kept.append(_text(name))
                kept.append(_text(_bytes(pair[1])))
    for name, (_, text) in zip(names, more):
        sent.append((name, text.encode("latin-1")))
        kept.append(_text(name))
        kept.append(text)
    return sent, tuple(kept)
