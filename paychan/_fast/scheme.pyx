"""The two texts of the `Payment` scheme that every purchase has, in the form in which they mostly come: the voucher's credential
and the receipt (docs/PAYMENT_SCHEME.md sections 2.2 and 2.4). What a credential must be like stands in paychan/mpp/credential.py,
which reads whatever is not in this form; tests/unit/mpp/test_plain_texts.py holds both against each other.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from .bytes cimport distance
from .payment cimport TEXT_SIZE_MAX, PaymentView, decode_canonical, parse_payment
from .request cimport parse_txid, parse_vout
from .status cimport Status

cdef extern from "stdio.h" nogil:
    int snprintf(char *text, size_t size, const char *format, ...)

cdef enum:
    TXID_DIGITS = 64
    RECEIPT_MAX = 1023       # a multiple of three
    ENCODED_MAX = 1364       # in base64
    ID_MAX = 256             # of a challenge's id in a receipt


cdef inline const unsigned char *_after(
    const unsigned char *at, const unsigned char *end, const char *word, Py_ssize_t size
) noexcept nogil:
    """Return what follows a word that must stand at `at`; NULL if it does not."""
    return at + size if at != NULL and distance(at, end) >= size and memcmp(at, word, size) == 0 else NULL


cdef const unsigned char *_object_end(const unsigned char *at, const unsigned char *end) noexcept nogil:
    """Return what follows the JSON object that begins at `at`, if it has no other in it and no escape; NULL otherwise. Whether it
    is one is not judged: only where it ends, if it is."""
    cdef bint is_text = False
    if at == end or at[0] != c"{":
        return NULL
    at += 1
    while at < end:
        if at[0] == c'"':
            is_text = not is_text
        elif at[0] == c"\\" or (at[0] == c"{" and not is_text):
            return NULL
        elif at[0] == c"}" and not is_text:
            return at + 1
        at += 1
    return NULL


cdef const unsigned char *_quoted_end(const unsigned char *at, const unsigned char *end) noexcept nogil:
    return <const unsigned char *> memchr(at, c'"', distance(at, end)) if at != NULL else NULL


cdef bint _is_lower(const unsigned char *digits, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        if c"A" <= digits[i] <= c"F":
            return False
    return True


cdef bint _read_channel(const unsigned char *text, Py_ssize_t size, unsigned char *outpoint36) noexcept nogil:
    return (size > TXID_DIGITS + 1 and text[TXID_DIGITS] == c":" and _is_lower(text, TXID_DIGITS)
            and parse_txid(text, TXID_DIGITS, outpoint36) == Status.OK
            and parse_vout(text + TXID_DIGITS + 1, size - TXID_DIGITS - 1, outpoint36 + 32) == Status.OK)


cdef bint parse_voucher(const unsigned char *text, Py_ssize_t size, Voucher *voucher) noexcept nogil:
    """Read a voucher's credential, whose JSON is canonical and has nothing else in it; False if the text is anything else, good or
    bad."""
    cdef PaymentView view
    cdef const unsigned char *end
    cdef const unsigned char *challenge_end
    cdef const unsigned char *at
    cdef const unsigned char *quote
    if size > TEXT_MAX:
        return False
    size = decode_canonical(text, size, voucher.buffer)
    if size <= 0:
        return False
    end = voucher.buffer + size
    voucher.challenge = _after(voucher.buffer, end, b'{"challenge":', 13)
    challenge_end = _object_end(voucher.challenge, end) if voucher.challenge != NULL else NULL
    at = _after(challenge_end, end, b',"payload":{"action":"voucher","channelId":"', 44)
    quote = _quoted_end(at, end)
    if quote == NULL or not _read_channel(at, distance(at, quote), voucher.outpoint):
        return False
    voucher.channel = at
    at = _after(quote, end, b'","payment":"', 13)
    quote = _quoted_end(at, end)
    if quote == NULL or distance(at, quote) > TEXT_SIZE_MAX or _after(quote, end, b'"}}', 3) != end:
        return False
    voucher.challenge_size = distance(voucher.challenge, challenge_end)
    voucher.channel_size = distance(voucher.channel, at) - 13
    voucher.payment_text, voucher.payment_text_size = at, distance(at, quote)
    voucher.payment_size = decode_canonical(at, voucher.payment_text_size, voucher.payment)
    if voucher.payment_size < 0 or parse_payment(voucher.payment, voucher.payment_size, &view) != Status.OK:
        return False
    voucher.change_value = view.change_value
    return True


def read_voucher(str text not None):
    """Return (JSON of the challenge, outpoint, payment in binary form) of a voucher's credential, whose JSON is canonical and has
    nothing else in it; None if the text is anything else, good or bad. The challenge's JSON is not judged."""
    cdef Voucher voucher
    cdef Py_ssize_t size = 0
    cdef const char *read
    if not text.isascii():
        return None
    read = PyUnicode_AsUTF8AndSize(text, &size)
    if not parse_voucher(<const unsigned char *> read, size, &voucher):
        return None
    return (PyBytes_FromStringAndSize(<const char *> voucher.challenge, voucher.challenge_size),
            PyBytes_FromStringAndSize(<const char *> voucher.outpoint, 36),
            PyBytes_FromStringAndSize(<const char *> voucher.payment, voucher.payment_size))


# --- the receipt ---

cdef const char *_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
cdef const char *_HEX = "0123456789abcdef"


cdef Py_ssize_t _encode(const unsigned char *raw, Py_ssize_t size, char *out) noexcept nogil:
    """Write base64url without padding; return how many characters."""
    cdef Py_ssize_t at, written = 0
    cdef uint32_t bits
    for at in range(0, size - size % 3, 3):
        bits = <uint32_t> raw[at] << 16 | <uint32_t> raw[at + 1] << 8 | raw[at + 2]
        out[written] = _ALPHABET[bits >> 18]
        out[written + 1] = _ALPHABET[bits >> 12 & 63]
        out[written + 2] = _ALPHABET[bits >> 6 & 63]
        out[written + 3] = _ALPHABET[bits & 63]
        written += 4
    at = size - size % 3
    if size % 3:
        bits = <uint32_t> raw[at] << 16 | (<uint32_t> raw[at + 1] << 8 if size % 3 == 2 else 0)
        out[written] = _ALPHABET[bits >> 18]
        out[written + 1] = _ALPHABET[bits >> 12 & 63]
        written += 2
        if size % 3 == 2:
            out[written] = _ALPHABET[bits >> 6 & 63]
            written += 1
    return written


cdef void _write_channel(const unsigned char *outpoint36, char *out80) noexcept nogil:
    """Write a channel's name in the scheme, and a zero."""
    cdef int i
    cdef uint32_t vout
    memcpy(&vout, outpoint36 + 32, 4)
    for i in range(32):
        out80[2 * i] = _HEX[outpoint36[31 - i] >> 4]
        out80[2 * i + 1] = _HEX[outpoint36[31 - i] & 15]
    snprintf(out80 + TXID_DIGITS, 80 - TXID_DIGITS, b":%lu", <unsigned long> vout)


def receipt_text(bytes outpoint not None, str challenge_id not None, str timestamp not None, uint64_t accepted, uint64_t spent,
                 uint64_t deposit, uint64_t units):
    """Return the value of a receipt's header, of one without signature or settlement. Amounts: satoshi, spent at most accepted.
    challenge_id, timestamp: without what JSON escapes. Raises ValueError, OverflowError."""
    cdef char channel[80]
    cdef char text[RECEIPT_MAX]
    cdef char encoded[ENCODED_MAX]
    cdef int size
    if len(outpoint) != 36 or len(challenge_id) > ID_MAX or len(timestamp) > 32 or spent > accepted:
        raise ValueError("no plain receipt")
    _write_channel(<const unsigned char *> outpoint, channel)
    size = snprintf(
        text, sizeof(text),
        b'{"acceptedCumulative":"%llu","challengeId":"%s","channelId":"%s","deposit":"%llu","intent":"session","method":"bitcoin",'
        b'"reference":"%s","remaining":"%llu","spent":"%llu","status":"success","timestamp":"%s","units":%llu}',
        <unsigned long long> accepted, PyUnicode_AsUTF8AndSize(challenge_id, NULL), channel, <unsigned long long> deposit,
        channel, <unsigned long long> (accepted - spent), <unsigned long long> spent, PyUnicode_AsUTF8AndSize(timestamp, NULL),
        <unsigned long long> units)
    if not 0 < size < <int> sizeof(text):
        raise ValueError("no plain receipt")
    return PyUnicode_DecodeASCII(encoded, _encode(<const unsigned char *> text, size, encoded), NULL)
