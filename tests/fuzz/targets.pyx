"""Compiled targets of the fuzzer: what must hold of requests, payments and frames, each against a reader written another way."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp

from paychan._fast.frame cimport Frame, FrameReader
from paychan._fast.payment cimport PaymentView
from paychan._fast.request cimport Parameter
from paychan._fast.status cimport Status

from .engine cimport ARENA, Engine

cdef extern from *:
    """
    #include <stdio.h>
    static const char paychan_unsigned[] = "%u";
    """
    const char *paychan_unsigned
    int snprintf(char *out, size_t size, const char *format, ...) nogil

ctypedef Status (*PathParser)(const unsigned char *, Py_ssize_t, unsigned char *) noexcept nogil
ctypedef Status (*QueryParser)(const unsigned char *, Py_ssize_t, Parameter *, Parameter *) noexcept nogil
ctypedef Status (*Unescaper)(const unsigned char *, Py_ssize_t, unsigned char *, Py_ssize_t, Py_ssize_t *) noexcept nogil
ctypedef Status (*TextDecoder)(const unsigned char *, Py_ssize_t, unsigned char *, Py_ssize_t *) noexcept nogil
ctypedef Status (*PaymentParser)(const unsigned char *, Py_ssize_t, PaymentView *) noexcept nogil

cdef enum:
    PLAIN_MAX = 108      # characters of a payment's text
    RAW_MAX = 81         # bytes of a payment

cpdef enum Broken:
    NOTHING = 0
    KNOWN_STATUS = 1     # the verdict is one that there can be
    OTHER_VERDICT = 2    # a reader written another way comes to the same verdict
    INSIDE = 3           # what is borrowed lies in the input, what is written in the room for it
    ROUND_TRIP = 4       # what was understood, written out, is the input
    OTHER_VALUE = 5      # a reader written another way finds the same
    FRAMES = 6           # the same frames, however the stream is cut, and the same end
    MEMORY = 7           # no more is kept than one frame may have
    RAISED = 8           # a call raised what it must not, or an assertion: see `failure`


cdef void *function_of(dict functions, str name) except NULL:
    capsule = functions[name]
    return PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


cdef inline bint _is_hex(unsigned char symbol) noexcept nogil:
    return 48 <= symbol <= 57 or 97 <= symbol | 32 <= 102


cdef inline int _hex_value(unsigned char symbol) noexcept nogil:
    return (symbol & 15) + (9 if symbol > 57 else 0)


cdef inline bint _is_within(
        const unsigned char *part, Py_ssize_t size, const unsigned char *data, Py_ssize_t data_size) noexcept nogil:
    return size >= 0 and <uintptr_t> part >= <uintptr_t> data \
        and <uintptr_t> part + <uintptr_t> size <= <uintptr_t> data + <uintptr_t> data_size


cdef class PathEngine(Engine):
    """A channel's path. Accepted is what two plain rules accept, and only its own spelling."""

    cdef PathParser _parse

    def attach(self, dict functions not None):
        self._parse = <PathParser> function_of(functions, "parse_channel_path")

    cdef int examine(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept nogil:
        cdef unsigned char *outpoint = self._arenas[1] + ARENA - 36
        cdef char number[16]
        cdef uint32_t vout
        cdef int i, expected, digits
        cdef Py_ssize_t slash = 13, end
        cdef int status = self._parse(data, size, outpoint)
        verdict[0] = status
        self.noted(data, size, status)
        while slash < size and data[slash] != 47:
            slash += 1
        end = slash + 1
        while end < size and data[end] != 47:
            end += 1
        if size > 1024:
            expected = Status.REQUEST_TOO_LARGE
        elif size < 14 or memcmp(data, <const char *> b"/v1/channels/", 13) or slash >= size or end <= slash + 1:
            expected = Status.NO_SUCH_ROUTE
        else:
            expected = Status.OK if slash == 77 else Status.INVALID_TXID
            for i in range(13, <int> slash):
                if not _is_hex(data[i]):
                    expected = Status.INVALID_TXID
            if expected == Status.OK:
                digits = <int> (end - slash - 1)
                if digits > 10 or (digits > 1 and data[slash + 1] == 48) \
                        or (digits == 10 and memcmp(data + slash + 1, <const char *> b"4294967295", 10) > 0):
                    expected = Status.INVALID_VOUT
                for i in range(<int> slash + 1, <int> end):
                    if not 48 <= data[i] <= 57:
                        expected = Status.INVALID_VOUT
        if status != expected:
            return OTHER_VERDICT
        if status != Status.OK:
            return NOTHING
        for i in range(32):
            if _hex_value(data[13 + 2 * i]) * 16 + _hex_value(data[14 + 2 * i]) != outpoint[31 - i]:
                return ROUND_TRIP
        vout = outpoint[32] | outpoint[33] << 8 | outpoint[34] << 16 | <uint32_t> outpoint[35] << 24
        digits = snprintf(number, 16, paychan_unsigned, vout)
        return NOTHING if digits == end - slash - 1 and memcmp(number, data + slash + 1, digits) == 0 else ROUND_TRIP


cdef class QueryEngine(Engine):
    """A query: its known parameters, and the payment's text without its escapes."""

    cdef QueryParser _parse
    cdef Unescaper _unescape

    def attach(self, dict functions not None):
        self._parse = <QueryParser> function_of(functions, "find_parameters")
        self._unescape = <Unescaper> function_of(functions, "unescape")

    cdef int examine(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept nogil:
        cdef Parameter payment, address
        cdef Py_ssize_t i, start = 0, plain_size = 0, payment_at = -1, address_at = -1, payment_size = 0, address_size = 0
        cdef unsigned char *plain = self._arenas[1] + ARENA - PLAIN_MAX
        cdef int status = self._parse(data, size, &payment, &address), outcome = Status.OK, expected = Status.OK
        if status == Status.OK:
            outcome = self._unescape(payment.text, payment.size, plain, PLAIN_MAX, &plain_size)
        verdict[0] = status if status else outcome
        self.noted(data, size, verdict[0])
        if size > 2048:
            expected = Status.REQUEST_TOO_LARGE
        for i in range(size + 1):
            if expected != Status.OK:
                break
            if i < size and data[i] != 38 and data[i] != 59:
                continue
            if i - start >= 8 and memcmp(data + start, <const char *> b"payment=", 8) == 0:
                expected = Status.OK if payment_at < 0 else Status.REPEATED_PARAMETER
                payment_at, payment_size = start + 8, i - start - 8
            elif i - start >= 15 and memcmp(data + start, <const char *> b"change_address=", 15) == 0:
                expected = Status.OK if address_at < 0 else Status.REPEATED_PARAMETER
                address_at, address_size = start + 15, i - start - 15
            start = i + 1
        if expected == Status.OK and payment_at < 0:
            expected = Status.MISSING_PARAMETER
        if status != expected:
            return OTHER_VERDICT
        if status != Status.OK:
            return NOTHING
        if payment.text != data + payment_at or payment.size != payment_size \
                or (address.text != NULL) != (address_at >= 0) \
                or (address_at >= 0 and (address.text != data + address_at or address.size != address_size)):
            return OTHER_VALUE
        return self._check_plain(data + payment_at, payment_size, outcome, plain, plain_size)

    cdef int _check_plain(self, const unsigned char *text, Py_ssize_t size, int outcome, const unsigned char *plain,
                          Py_ssize_t plain_size) noexcept nogil:
        cdef Py_ssize_t i = 0, at = 0
        cdef unsigned char symbol
        while i < size:
            if at == PLAIN_MAX:
                return NOTHING if outcome == Status.INVALID_PAYMENT else OTHER_VERDICT
            symbol = text[i]
            i += 1
            if symbol == 37:
                if size - i < 2 or not _is_hex(text[i]) or not _is_hex(text[i + 1]):
                    return NOTHING if outcome == Status.INVALID_BASE64 else OTHER_VERDICT
                symbol = <unsigned char> (_hex_value(text[i]) * 16 + _hex_value(text[i + 1]))
                i += 2
            elif symbol == 43:
                symbol = 32
            if outcome == Status.OK and (at >= plain_size or plain[at] != symbol):
                return OTHER_VALUE
            at += 1
        return NOTHING if outcome == Status.OK and at == plain_size else OTHER_VERDICT


cdef class TextEngine(Engine):
    """A payment's text: accepted is what encoding its bytes gives, with all its padding or none."""

    cdef TextDecoder _decode

    def attach(self, dict functions not None):
        self._decode = <TextDecoder> function_of(functions, "decode_base64url")

    cdef int examine(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept nogil:
        cdef const unsigned char *alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        cdef unsigned char *raw = self._arenas[1] + ARENA - RAW_MAX
        cdef Py_ssize_t raw_size = -1, i, at = 0
        cdef uint32_t bits
        cdef int status = self._decode(data, size, raw, &raw_size), left, k
        verdict[0] = status
        self.noted(data, size, status)
        if status == Status.INVALID_PAYMENT:
            return NOTHING if size > PLAIN_MAX else OTHER_VERDICT
        if status == Status.INVALID_BASE64:
            return OTHER_VERDICT if _is_canonical(data, size) else NOTHING
        if status != Status.OK:
            return KNOWN_STATUS
        if not 0 <= raw_size <= RAW_MAX:
            return INSIDE
        for i in range(0, raw_size, 3):
            left = <int> (raw_size - i)
            bits = <uint32_t> raw[i] << 16
            if left > 1:
                bits |= <uint32_t> raw[i + 1] << 8
            if left > 2:
                bits |= raw[i + 2]
            for k in range(4 if left > 2 else left + 1):
                if at >= size or data[at] != alphabet[bits >> (18 - 6 * k) & 63]:
                    return ROUND_TRIP
                at += 1
        if at == size:
            return NOTHING
        while at < size:
            if data[at] != 61 or size % 4:
                return ROUND_TRIP
            at += 1
        return NOTHING if at - (raw_size * 4 + 2) // 3 <= 2 else ROUND_TRIP


cdef bint _is_canonical(const unsigned char *text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i, length = size
    cdef int value = 0
    if size > PLAIN_MAX:
        return False
    if size and size % 4 == 0:
        while length > size - 2 and text[length - 1] == 61:
            length -= 1
    for i in range(length):
        if 65 <= text[i] <= 90:
            value = text[i] - 65
        elif 97 <= text[i] <= 122:
            value = text[i] - 71
        elif 48 <= text[i] <= 57:
            value = text[i] + 4
        elif text[i] == 45 or text[i] == 95:
            value = 62 + (text[i] == 95)
        else:
            return False
    return length % 4 == 0 or (length % 4 == 2 and value % 16 == 0) or (length % 4 == 3 and value % 4 == 0)


cdef bint is_valid_encoding(const unsigned char *sig, Py_ssize_t size) noexcept nogil:
    """BIP 66's own function, translated: a signature with its sighash type."""
    cdef Py_ssize_t r_size, s_size
    if size < 9 or size > 73 or sig[0] != 0x30 or sig[1] != size - 3:
        return False
    r_size = sig[3]
    if 5 + r_size >= size:
        return False
    s_size = sig[5 + r_size]
    if r_size + s_size + 7 != size:
        return False
    if sig[2] != 0x02 or r_size == 0 or sig[4] & 0x80:
        return False
    if r_size > 1 and sig[4] == 0 and not sig[5] & 0x80:
        return False
    if sig[r_size + 4] != 0x02 or s_size == 0 or sig[r_size + 6] & 0x80:
        return False
    return not (s_size > 1 and sig[r_size + 6] == 0 and not sig[r_size + 7] & 0x80)


cdef class PaymentEngine(Engine):
    """A payment in binary form: value, DER, sighash type."""

    cdef PaymentParser _parse

    def attach(self, dict functions not None):
        self._parse = <PaymentParser> function_of(functions, "parse_payment")

    cdef int examine(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept nogil:
        cdef PaymentView view
        cdef int status = self._parse(data, size, &view), expected
        verdict[0] = status
        self.noted(data, size, status)
        if status == Status.OK and (view.der != data + 8 or view.der_size != size - 9 or view.sighash_type != data[size - 1]
                                    or view.change_value != _value(data)):
            return OTHER_VALUE
        if size < 17 or size > RAW_MAX:
            expected = Status.INVALID_PAYMENT
        elif not is_valid_encoding(data + 8, size - 8):
            expected = Status.INVALID_DER
        elif _has_high_s(data + 8):
            expected = Status.HIGH_S
        elif data[size - 1] == 0x82:
            expected = Status.CHANGE_VALUE_NOT_ZERO if _value(data) else Status.OK
        elif data[size - 1] != 0x83:
            expected = Status.INVALID_SIGHASH_TYPE
        elif _value(data) < 700:
            expected = Status.DUST_CHANGE
        else:
            expected = Status.CHANGE_VALUE_RANGE if _value(data) > 2100000000000000ULL else Status.OK
        return NOTHING if status == expected else OTHER_VERDICT


cdef uint64_t _value(const unsigned char *data) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(7, -1, -1):
        value = value << 8 | data[i]
    return value


cdef const unsigned char *_HALF = (
    b"\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\x5d\x57\x6e\x73\x57\xa4\x50\x1d\xdf\xe9\x2f\x46\x68\x1b\x20\xa0")
cdef const unsigned char *_ORDER = (
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"
    b"\xba\xae\xdc\xe6\xaf\x48\xa0\x3b\xbf\xd2\x5e\x8c\xd0\x36\x41\x41")


cdef bint _has_high_s(const unsigned char *der) noexcept nogil:
    """Whether S of a strict signature is above half the order; at the order and above it counts as nothing, which no key fits."""
    cdef const unsigned char *s = der + 6 + der[3]
    cdef int size = der[5 + der[3]]
    if size and s[0] == 0:
        s += 1
        size -= 1
    return size == 32 and memcmp(s, _HALF, 32) > 0 and memcmp(s, _ORDER, 32) < 0


cdef class FrameEngine(Engine):
    """The reader of frames: a stream in one piece and in many. Called through the reader's own table of methods, uncast."""

    cdef object _reader_class
    cdef uint32_t _payload_max

    def attach(self, reader_class, uint32_t payload_max):
        self._reader_class, self._payload_max = reader_class, payload_max

    cdef int examine(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept nogil:
        with gil:
            return self._compare(data, size, verdict)

    cdef int _compare(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept:
        cdef Py_ssize_t whole = 0, pieces = 0, at = 0, piece
        cdef bint whole_failed, failed = False
        cdef object reader = self._reader_class(self._payload_max)
        whole_failed = self._feed(reader, data, size, data, size, &whole)
        verdict[0] = 2 * <int> min(whole != 0, 1) + whole_failed
        self.noted(data, size, verdict[0])
        if not self._is_right(data, size, whole, whole_failed):
            return OTHER_VERDICT
        reader = self._reader_class(self._payload_max)
        while at < size and not failed:
            piece = min(size - at, <Py_ssize_t> (1 + self._below(1 + self._below(40))))
            failed = self._feed(reader, data + at, piece, data, size, &pieces)
            at += piece
            if len((<FrameReader> reader)._rest) > 12 + <Py_ssize_t> self._payload_max:
                return MEMORY
        return NOTHING if failed == whole_failed and pieces == whole else FRAMES

    cdef bint _feed(self, object reader, const unsigned char *piece, Py_ssize_t size, const unsigned char *data,
                    Py_ssize_t data_size, Py_ssize_t *at) noexcept:
        """Have the reader take a piece; move `at` behind each frame that is the one at `at`, or to -1. Return whether it failed."""
        cdef Frame frame
        cdef const unsigned char *head
        try:
            (<FrameReader> reader).start(PyBytes_FromStringAndSize(<const char *> piece, size))
            while (<FrameReader> reader).next(&frame):
                head = data + at[0]
                if at[0] < 0 or data_size - at[0] < 12 + frame.size or frame.size != <Py_ssize_t> (<const uint32_t *> head)[0] \
                        or frame.kind != head[5] or frame.request_id != (<const uint32_t *> (head + 8))[0] \
                        or memcmp(frame.payload, head + 12, frame.size):
                    at[0] = -1
                else:
                    at[0] += 12 + frame.size
        except Exception as error:
            if type(error).__name__ != "FrameError":
                at[0] = -1
            return True
        return False

    cdef bint _is_right(self, const unsigned char *data, Py_ssize_t size, Py_ssize_t end, bint failed) noexcept:
        """Whether the frames before `end` are all that there are, and the rest is an error if and only if its head is."""
        cdef bint is_bad
        if end < 0:
            return False
        if size - end < 12:
            return not failed
        is_bad = data[end + 4] != 1 or data[end + 6] or data[end + 7] or (<const uint32_t *> (data + end))[0] > self._payload_max
        if is_bad:
            return failed
        return not failed and size - end - 12 < <Py_ssize_t> (<const uint32_t *> (data + end))[0]


cdef class CallEngine(Engine):
    """A Python function, called with (bytes, cut); what it returns is the verdict. It asserts what must hold."""

    cdef object _call
    cdef readonly object failure

    def attach(self, call):
        self._call = call

    cdef int examine(self, const unsigned char *data, Py_ssize_t size, int *verdict) noexcept nogil:
        with gil:
            try:
                verdict[0] = self._call(PyBytes_FromStringAndSize(<const char *> data, size), self._cut)
            except BaseException as error:
                self.failure = error
                return RAISED
            self.noted(data, size, verdict[0])
            return NOTHING
