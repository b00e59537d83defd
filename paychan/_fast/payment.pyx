"""Parsing of payments. Every function here is total: any bytes give a status, none can crash it."""

from .bytes cimport read_u64
from .secp256k1 cimport context, normalize, parse_der
from .status cimport Status

cdef extern from *:
    """
    #define PAYCHAN_MAX_MONEY 2100000000000000ULL
    #define PAYCHAN_DUST_LIMIT 700ULL
    """
    const uint64_t PAYCHAN_MAX_MONEY
    const uint64_t PAYCHAN_DUST_LIMIT

MAX_MONEY = PAYCHAN_MAX_MONEY
DUST_LIMIT = PAYCHAN_DUST_LIMIT

cdef signed char _digit[256]


cdef void _fill_digits() noexcept:
    cdef const unsigned char *alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    cdef signed char i
    cdef int symbol
    for symbol in range(256):
        _digit[symbol] = -1
    for i in range(64):
        _digit[alphabet[i]] = i


_fill_digits()


cdef Py_ssize_t decode_canonical(const unsigned char *text, Py_ssize_t size, unsigned char *out) noexcept nogil:
    """Decode base64url without padding, unused bits zero, to `out`, which has room for 3 bytes of each 4 characters begun; return
    how many bytes there are, -1 if the text is none."""
    cdef Py_ssize_t at = 0, written = 0, whole = size - size % 4
    cdef int a, b, c, d
    if size % 4 == 1:
        return -1
    while at < whole:
        a, b, c, d = _digit[text[at]], _digit[text[at + 1]], _digit[text[at + 2]], _digit[text[at + 3]]
        if (a | b | c | d) < 0:
            return -1
        out[written] = <unsigned char> (a << 2 | b >> 4)
        out[written + 1] = <unsigned char> ((b & 15) << 4 | c >> 2)
        out[written + 2] = <unsigned char> ((c & 3) << 6 | d)
        at += 4
        written += 3
    if whole == size:
        return written
    a, b = _digit[text[at]], _digit[text[at + 1]]
    c = _digit[text[at + 2]] if size - at == 3 else 0
    if (a | b | c) < 0 or (b & 15 if size - at == 2 else c & 3):
        return -1
    out[written] = <unsigned char> (a << 2 | b >> 4)
    if size - at == 2:
        return written + 1
    out[written + 1] = <unsigned char> ((b & 15) << 4 | c >> 2)
    return written + 2


cdef Status decode_base64url(
    const unsigned char *text, Py_ssize_t size, unsigned char *out, Py_ssize_t *out_size
) noexcept nogil:
    """Decode at most TEXT_SIZE_MAX characters to at most PAYMENT_SIZE_MAX bytes in `out`.

    Canonical only: padded to a multiple of four or not at all, unused bits zero; so one text (and its padded twin) for one
    payment.
    """
    cdef Py_ssize_t length = size
    if size > TEXT_SIZE_MAX:
        return Status.INVALID_PAYMENT
    if size % 4 == 0 and size > 0 and text[size - 1] == c"=":
        length = size - 2 if text[size - 2] == c"=" else size - 1
    length = decode_canonical(text, length, out)
    if length < 0:
        return Status.INVALID_BASE64
    out_size[0] = length
    return Status.OK


cdef inline bint _is_strict_integer(const unsigned char *number, int size) noexcept nogil:
    """Whether a DER integer is non-negative and has no superfluous leading zero."""
    if size == 0 or number[0] & 0x80:
        return False
    return not (size > 1 and number[0] == 0 and not number[1] & 0x80)


cdef bint is_strict_der(const unsigned char *der, Py_ssize_t size) noexcept nogil:
    """Whether these bytes, without a sighash type, are what BIP 66 allows: 30 len 02 len R 02 len S, minimal integers."""
    cdef int r_size, s_size
    if size < DER_SIZE_MIN or size > DER_SIZE_MAX:
        return False
    if der[0] != 0x30 or der[1] != size - 2 or der[2] != 0x02:
        return False
    r_size = der[3]
    if 5 + r_size >= size or der[4 + r_size] != 0x02:
        return False
    s_size = der[5 + r_size]
    if r_size + s_size + 6 != size:
        return False
    return _is_strict_integer(der + 4, r_size) and _is_strict_integer(der + 6 + r_size, s_size)


cdef Status parse_payment(const unsigned char *raw, Py_ssize_t size, PaymentView *view) noexcept nogil:
    """Read a payment's binary form without copying; `view.der` borrows from `raw`. Whether it is signed truly is not asked."""
    if size < PAYMENT_SIZE_MIN or size > PAYMENT_SIZE_MAX:
        return Status.INVALID_PAYMENT
    view.change_value = read_u64(raw)
    view.der = raw + 8
    view.der_size = <unsigned char> (size - 9)
    view.sighash_type = raw[size - 1]
    if not is_strict_der(view.der, view.der_size):
        return Status.INVALID_DER
    if not parse_der(context, &view.signature, view.der, view.der_size):
        return Status.INVALID_DER
    if normalize(context, NULL, &view.signature):
        return Status.HIGH_S
    if view.sighash_type == SIGHASH_NO_CHANGE:
        return Status.OK if view.change_value == 0 else Status.CHANGE_VALUE_NOT_ZERO
    if view.sighash_type != SIGHASH_CHANGE:
        return Status.INVALID_SIGHASH_TYPE
    if view.change_value < PAYCHAN_DUST_LIMIT:
        return Status.DUST_CHANGE
    if view.change_value > PAYCHAN_MAX_MONEY:
        return Status.CHANGE_VALUE_RANGE
    return Status.OK


# The Python face, for paychan/core/payment.py.

def split_payment(bytes raw not None):
    """Return (status, change value, DER signature, sighash type) of a binary payment; status 0 is good."""
    cdef PaymentView view
    cdef const unsigned char *data = raw
    cdef Status status = parse_payment(data, len(raw), &view)
    if status != Status.OK:
        return <int> status, 0, b"", 0
    return 0, view.change_value, raw[8:8 + view.der_size], <int> view.sighash_type


def decode_payment_text(str text not None):
    """Return (status, bytes) of a base64url text; status 0 is good."""
    cdef unsigned char buffer[PAYMENT_SIZE_MAX]
    cdef Py_ssize_t size = 0
    cdef bytes encoded = text.encode("utf-8", "surrogatepass")
    cdef const unsigned char *data = encoded
    cdef Status status = decode_base64url(data, len(encoded), buffer, &size)
    return <int> status, buffer[:size] if status == Status.OK else b""
