"""The plain purchase, on its way through a till: a voucher on a known channel that pays for one request at a fixed price, with a
challenge that this price has had before; and the door's answer that it was sold.

Nothing is refused here, and no rule lives here: what is not plain goes to paychan/sell/rules.py, and what is, the rules would let
pass, ask for and sell just so. tests/unit/sell/test_plain_lane.py holds both against each other. That a challenge is ours, and for
this price, is only remembered here, byte for byte, of those that the rules have found so.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp

from .bytes cimport distance, write_bytes
from .libcrypto cimport sha256
from .scheme cimport Voucher, parse_voucher

cdef extern from "stdio.h" nogil:
    int snprintf(char *text, size_t size, const char *format, ...)

cdef enum:
    _FITS_MAX = 8            # challenges of one price: one is made in half an hour, and good for three
    _PRICES_MAX = 4096       # CACHED_MAX of paychan/sell/challenges.py
    _NAMED_MAX = 4096        # bytes of a purchase's name, before it is hashed
    _CHARGE_MAX = 512
    _KEY_DIGITS = 64
    _DIGITS_MAX = 19         # of a purchase's number: 2^63 has as many
    _SALES_MAX = 256         # SALES_MAX of paychan/sell/wire.py

cdef const char *_HEX = "0123456789abcdef"


cdef class Fit:
    """A challenge that the rules have found to be ours and at this price, as it is echoed."""

    cdef object _price             # kept, so that no other price gets its address
    cdef bytes _json
    cdef bytes _shop
    cdef str _challenge_id
    cdef int64_t _until            # unix seconds
    cdef uint64_t _cost            # satoshi
    cdef uint64_t _prepay


cdef class Plain:
    """A purchase that was recognized. `charge`: what the door is asked, as JSON, in which attempt; `asked_at`: when, in monotonic
    seconds: whoever asks notes it."""

    cdef readonly str key
    cdef readonly bytes outpoint
    cdef readonly bytes payment
    cdef readonly str challenge_id
    cdef readonly bytes charge
    cdef readonly uint32_t attempt
    cdef public double asked_at


cdef const unsigned char *_text_of(object text, Py_ssize_t *size) except NULL:
    """Return a text's bytes in UTF-8; raises UnicodeEncodeError where it has none."""
    return <const unsigned char *> PyUnicode_AsUTF8AndSize(text, size)


cdef unsigned char *_write_part(
    unsigned char *at, unsigned char *end, const char *form, const unsigned char *part, Py_ssize_t size
) noexcept nogil:
    """Write a part of a request's fingerprint, its size before it; NULL: it is too long."""
    if at == NULL or distance(at, end) < size + 24:
        return NULL
    at += snprintf(<char *> at, 24, form, size)
    return write_bytes(at, part, size)


cdef Py_ssize_t _write_purchase(
    unsigned char *out, bytes shop, const Voucher *voucher, str method, str target, bytes named
) except -1:
    """Write what a purchase is known by, before it is hashed; return its size, 0 if it is too long."""
    cdef Py_ssize_t method_size = 0, target_size = 0
    cdef const unsigned char *method_text = _text_of(method, &method_size)
    cdef const unsigned char *target_text = _text_of(target, &target_size)
    cdef unsigned char *end = out + _NAMED_MAX
    cdef unsigned char *at = out
    if len(shop) > 64:
        return 0
    at = write_bytes(at, <const unsigned char *> PyBytes_AS_STRING(shop), len(shop))
    at = write_bytes(at, voucher.outpoint, 36)
    at[0], at[1] = 0, <unsigned char> voucher.payment_size
    at = write_bytes(at + 2, voucher.payment, voucher.payment_size)
    at = _write_part(at, end, b"%zd ", method_text, method_size)
    at = _write_part(at, end, b"\n%zd ", target_text, target_size)
    at = _write_part(at, end, b"\n%zd ", <const unsigned char *> PyBytes_AS_STRING(named), len(named))
    return distance(out, at) if at != NULL else 0


cdef bytes _charge_of(const Voucher *voucher, const char *key64, uint64_t cost, uint32_t attempt):
    cdef char text[_CHARGE_MAX]
    cdef int size = snprintf(
        text, sizeof(text),
        b'{"do":"charge","channel":"%.64s/%.*s","key":"%.64s","amount":%llu,"payment":"%.*s","attempt":%lu}',
        voucher.channel, <int> (voucher.channel_size - 65), voucher.channel + 65, key64, <unsigned long long> cost,
        <int> voucher.payment_text_size, voucher.payment_text, <unsigned long> attempt)
    return PyBytes_FromStringAndSize(text, size) if 0 < size < <int> sizeof(text) else None


cdef class Lane:
    """Of one till. standings: what is known of channels, by outpoint; each has funding_value, received and spent, in satoshi."""

    cdef object _standings
    cdef dict _fits                # by the price's address: a list of Fit, the newest last

    def __init__(self, standings not None):
        self._standings, self._fits = standings, {}

    def forget(self):
        """The terms have changed: what fitted may fit no more."""
        self._fits.clear()

    def learn(self, str credential not None, price not None, bytes shop not None, str challenge_id not None, int64_t until,
              uint64_t cost, uint64_t prepay):
        """Remember the challenge that a credential (as it stands in its header) echoes: the rules have found it to be this shop's,
        and for this price. until: unix seconds. cost, prepay: satoshi."""
        cdef Voucher voucher
        cdef Fit fit
        cdef list fits
        if not _read(credential, &voucher):
            return
        if len(self._fits) >= _PRICES_MAX:
            self._fits.clear()
        fit = Fit.__new__(Fit)
        fit._price, fit._shop, fit._challenge_id, fit._until = price, shop, challenge_id, until
        fit._json = PyBytes_FromStringAndSize(<const char *> voucher.challenge, voucher.challenge_size)
        fit._cost, fit._prepay = cost, prepay
        fits = self._fits.setdefault(id(price), [])
        fits.append(fit)
        if len(fits) > _FITS_MAX:
            del fits[0]

    cdef Fit _find(self, const Voucher *voucher, object price, bytes shop, int64_t now):
        cdef Fit fit
        cdef list fits = self._fits.get(id(price))
        if fits is None:
            return None
        for fit in reversed(fits):
            if (len(fit._json) == voucher.challenge_size and now < fit._until and fit._shop == shop
                    and memcmp(PyBytes_AS_STRING(fit._json), voucher.challenge, voucher.challenge_size) == 0):
                return fit
        return None

    cdef bint _is_in_reach(self, const Voucher *voucher, bytes outpoint, Fit fit) except -1:
        """Return whether a voucher rises as far as is required, by what is known of its channel, and not too far."""
        cdef uint64_t funding_value, received, spent, cumulative
        standing = self._standings.get(outpoint)
        if standing is None:
            return False
        funding_value, received, spent = standing.funding_value, standing.received, standing.spent
        if voucher.change_value > funding_value:
            return False
        cumulative = funding_value - voucher.change_value
        return (received < cumulative and spent <= cumulative and fit._cost <= cumulative - spent
                and cumulative - spent - fit._cost <= fit._prepay)

    def recognize(self, str credential not None, price not None, bytes shop not None, str method not None, str target not None,
                  bytes named not None, int64_t now, uint32_t attempt):
        """Return what a request asks for, None if it is not plain. credential: as it stands in its header. method, target: of the
        request; named: its Idempotency-Key, else the hash of its body. now: unix seconds. attempt: what this one is called."""
        cdef Voucher voucher
        cdef unsigned char written[_NAMED_MAX]
        cdef unsigned char digest[32]
        cdef char key[_KEY_DIGITS]
        cdef Py_ssize_t size
        cdef Plain plain
        cdef Fit fit
        cdef bytes outpoint
        cdef int i
        if not method.isascii() or not target.isascii() or not _read(credential, &voucher):
            return None
        fit = self._find(&voucher, price, shop, now)
        if fit is None:
            return None
        outpoint = PyBytes_FromStringAndSize(<const char *> voucher.outpoint, 36)
        if not self._is_in_reach(&voucher, outpoint, fit):
            return None
        size = _write_purchase(written, shop, &voucher, method, target, named)
        if size == 0:
            return None
        sha256(written, size, digest)
        for i in range(32):
            key[2 * i], key[2 * i + 1] = _HEX[digest[i] >> 4], _HEX[digest[i] & 15]
        plain = Plain.__new__(Plain)
        plain.outpoint, plain.challenge_id = outpoint, fit._challenge_id
        plain.payment = PyBytes_FromStringAndSize(<const char *> voucher.payment, voucher.payment_size)
        plain.key = PyUnicode_DecodeASCII(key, _KEY_DIGITS, NULL)
        plain.attempt, plain.charge = attempt, _charge_of(&voucher, key, fit._cost, attempt)
        return plain if plain.charge is not None else None


cdef bint _read(str credential, Voucher *voucher) except -1:
    """Read the voucher in a credential's header, alone there and in its plain form."""
    cdef Py_ssize_t size = 0
    cdef const unsigned char *text
    if not credential.isascii():
        return False
    text = _text_of(credential, &size)
    return size > 8 and memcmp(text, b"Payment ", 8) == 0 and parse_voucher(text + 8, size - 8, voucher)


# --- what the door answers ---

cdef inline const unsigned char *_pass(
    const unsigned char *at, const unsigned char *end, const char *word, Py_ssize_t size
) noexcept nogil:
    """Return what follows a word that must stand at `at`; NULL if it does not."""
    return at + size if at != NULL and distance(at, end) >= size and memcmp(at, word, size) == 0 else NULL


cdef const unsigned char *_number(const unsigned char *at, const unsigned char *end, uint64_t *value) noexcept nogil:
    """Read a number as JSON writes it; return what follows, NULL if there is none, or it has too many digits."""
    cdef const unsigned char *begin = at
    value[0] = 0
    while at != NULL and at < end and c"0" <= at[0] <= c"9" and distance(begin, at) <= _DIGITS_MAX:
        value[0] = 10 * value[0] + (at[0] - c"0")
        at += 1
    if at == NULL or at == begin or distance(begin, at) > _DIGITS_MAX or (begin[0] == c"0" and distance(begin, at) > 1):
        return NULL
    return at


cdef struct Sold:
    uint64_t number
    uint64_t received
    uint64_t spent
    uint64_t left
    uint64_t other


cdef const unsigned char *_read_sold(const unsigned char *at, const unsigned char *end, Sold *sold) noexcept nogil:
    """Read the answer to a charge that was sold just now, as `sale_body` of reply.pyx writes it; NULL if it is any other."""
    at = _number(_pass(at, end, b'{"status":200,"repeated":false,"purchase":{"number":', 52), end, &sold.number)
    at = _number(_pass(at, end, b',"asked":', 9), end, &sold.other)
    at = _number(_pass(at, end, b',"amount":', 10), end, &sold.other)
    at = _number(_pass(at, end, b',"until":0},"value_received":', 29), end, &sold.other)
    at = _number(_pass(at, end, b',"received":', 12), end, &sold.received)
    at = _number(_pass(at, end, b',"spent":', 9), end, &sold.spent)
    at = _number(_pass(at, end, b',"credit":', 10), end, &sold.other)
    at = _number(_pass(at, end, b',"channel_value_left":', 22), end, &sold.left)
    return _pass(at, end, b"}", 1)


def read_sold(bytes body not None, Py_ssize_t count):
    """Return, for each of `count` charges that went as a list, (number of the purchase, received, spent, left to the payer), all
    but the number in satoshi; None if not all were sold just now, or the answer is not in its plain form."""
    cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(body)
    cdef const unsigned char *end = at + len(body)
    cdef Sold sold
    cdef list told = []
    while len(told) < count:
        at = _read_sold(_pass(at, end, b"," if told else b"[", 1), end, &sold)
        if at == NULL:
            return None
        told.append((sold.number, sold.received, sold.spent, sold.left))
    return told if count and _pass(at, end, b"]\n", 2) == end else None
