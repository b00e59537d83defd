"""What sellers ask for, on its way in, from the seller's door or from another worker.

A sale's binary form, between our own processes: u8 kind (`SaleKind`) | 36 outpoint | 16 hash of the purchase key | u64 amount in
satoshi | u64 number of the purchase | u32 until (unix seconds) | u32 attempt | the payment that comes with it, in binary form, or
nothing.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from .bytes cimport distance, read_u64, write_u32, write_u64
from .channel cimport ChannelTable
from .intake cimport SALE, Intake, PaymentRequest
from .libcrypto cimport sha256
from .payment cimport PAYMENT_SIZE_MAX, decode_base64url
from .purchase cimport ATTEMPT_MAX, KEY_SIZE, PROVE, SELL, SELL_AGAIN, SETTLE, Sale, SaleKind
from .reply cimport sale_body
from .request cimport parse_txid, parse_vout
from .selling cimport judge_sale
from .tally cimport AGAIN, FORWARDED, SALE_DOOR
from .status cimport Status

cdef enum:
    HEAD_SIZE = 77
    _ATTEMPT_AT = 73
    _SLICE = 64
    _SALES_MAX = 256         # SALES_MAX of paychan/server/protocol/sales.py
    _KEY_TEXT_MAX = 128      # KEY_TEXT_MAX of paychan/core/sales.py
    _AMOUNT_DIGITS = 15      # what has more is left to Python, though MAX_MONEY has 16
    _TXID_DIGITS = 64

SALES_SLICE = 64
"""Sales that are judged in one turn of the event loop, some 2 ms if each brings a payment, so that nobody else waits for long."""


cdef bint _read_sale(bytes raw, Sale *sale) noexcept:
    """Read a sale's binary form; False if it is none. `sale` borrows from `raw`."""
    cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(raw)
    if len(raw) < HEAD_SIZE or not SELL <= at[0] <= SELL_AGAIN:
        return False
    sale.kind = <SaleKind> at[0]
    sale.outpoint, sale.key = at + 1, at + 37
    sale.amount, sale.number = read_u64(at + 53), read_u64(at + 61)
    memcpy(&sale.until, at + 69, 4)
    memcpy(&sale.attempt, at + _ATTEMPT_AT, 4)
    sale.payment_size = len(raw) - HEAD_SIZE
    sale.payment = at + HEAD_SIZE if sale.payment_size else NULL
    return ((sale.kind == PROVE) <= (sale.payment != NULL) and (sale.kind == SETTLE) <= (sale.payment == NULL)
            and sale.attempt <= ATTEMPT_MAX)


# --- as sellers write them ---

cdef struct Text:
    const unsigned char *at       # borrowed; NULL: not there
    Py_ssize_t size

# Members of a charge, as they stand in its JSON.
cdef struct Charge:
    Text verb
    Text channel
    Text key
    Text payment
    uint64_t amount               # satoshi; 0: not there
    uint64_t attempt              # 0: not there


cdef inline const unsigned char *_skip(const unsigned char *at, const unsigned char *end) noexcept nogil:
    """Return where the next thing in a JSON text begins; it may be `end`."""
    while at < end and (at[0] == c" " or at[0] == c"\n" or at[0] == c"\t" or at[0] == c"\r"):
        at += 1
    return at


cdef const unsigned char *_read_text(const unsigned char *at, const unsigned char *end, Text *text) noexcept nogil:
    """Read a JSON string of visible ASCII and blanks without an escape; return what follows, NULL if there is none such."""
    if at >= end or at[0] != c'"':
        return NULL
    at += 1
    text.at = at
    while at < end and at[0] != c'"':
        if at[0] < 32 or at[0] > 126 or at[0] == c"\\":
            return NULL
        at += 1
    text.size = distance(text.at, at)
    return at + 1 if at < end else NULL


cdef const unsigned char *_read_amount(const unsigned char *at, const unsigned char *end, uint64_t *amount) noexcept nogil:
    """Read a number of at least 1; return what follows, NULL if there is none such. Whatever cannot follow is refused there."""
    cdef uint64_t value = 0
    cdef int digits = 0
    while at < end and c"0" <= at[0] <= c"9" and digits <= _AMOUNT_DIGITS:
        value = 10 * value + (at[0] - c"0")
        digits += 1
        if value == 0:
            return NULL
        at += 1
    amount[0] = value
    return at if 0 < digits <= _AMOUNT_DIGITS else NULL


cdef inline bint _is(const Text *text, const char *word, Py_ssize_t size) noexcept nogil:
    return text.size == size and memcmp(text.at, word, size) == 0


cdef const unsigned char *_read_member(const unsigned char *at, const unsigned char *end, Charge *charge) noexcept nogil:
    """Read a member; return what follows, NULL if it is none of a plain charge's, or stands twice."""
    cdef Text name
    cdef Text *text = NULL
    at = _read_text(at, end, &name)
    at = _skip(at, end) if at != NULL else NULL
    if at == NULL or at == end or at[0] != c":":
        return NULL
    at = _skip(at + 1, end)
    if _is(&name, b"amount", 6):
        return _read_amount(at, end, &charge.amount) if charge.amount == 0 else NULL
    if _is(&name, b"attempt", 7):
        return _read_amount(at, end, &charge.attempt) if charge.attempt == 0 else NULL
    if _is(&name, b"do", 2):
        text = &charge.verb
    elif _is(&name, b"channel", 7):
        text = &charge.channel
    elif _is(&name, b"key", 3):
        text = &charge.key
    elif _is(&name, b"payment", 7):
        text = &charge.payment
    return _read_text(at, end, text) if text != NULL and text.at == NULL else NULL


cdef const unsigned char *_read_charge(const unsigned char *at, const unsigned char *end, Charge *charge) noexcept nogil:
    """Read an object; return what follows, NULL if it is no plain charge."""
    memset(charge, 0, sizeof(Charge))
    if at == end or at[0] != c"{":
        return NULL
    while True:
        at = _read_member(_skip(at + 1, end), end, charge)
        at = _skip(at, end) if at != NULL else NULL
        if at == NULL or at == end:
            return NULL
        if at[0] == c"}":
            return at + 1
        if at[0] != c",":
            return NULL


cdef bytes _form_of(const Charge *charge):
    """Return a charge's binary form; None if Python must say what is wrong with it."""
    cdef unsigned char form[HEAD_SIZE + PAYMENT_SIZE_MAX]
    cdef unsigned char digest[32]
    cdef Py_ssize_t payment_size = 0
    if not _is(&charge.verb, b"charge", 6) or charge.amount == 0 or charge.attempt > ATTEMPT_MAX:
        return None
    if not 0 < charge.key.size <= _KEY_TEXT_MAX:
        return None
    if charge.channel.size <= _TXID_DIGITS + 1 or charge.channel.at[_TXID_DIGITS] not in (c"/", c":"):
        return None
    memset(form, 0, HEAD_SIZE)
    if (parse_txid(charge.channel.at, _TXID_DIGITS, form + 1) != Status.OK
            or parse_vout(charge.channel.at + _TXID_DIGITS + 1, charge.channel.size - _TXID_DIGITS - 1, form + 33) != Status.OK):
        return None
    if charge.payment.at != NULL and (
            charge.payment.size == 0
            or decode_base64url(charge.payment.at, charge.payment.size, form + HEAD_SIZE, &payment_size) != Status.OK):
        return None
    form[0] = SELL
    sha256(charge.key.at, charge.key.size, digest)
    memcpy(form + 37, digest, KEY_SIZE)
    write_u64(form + 37 + KEY_SIZE, charge.amount)
    write_u32(form + _ATTEMPT_AT, <uint32_t> charge.attempt)
    return PyBytes_FromStringAndSize(<const char *> form, HEAD_SIZE + payment_size)


def read_charges(bytes body not None):
    """Return the binary forms of the charges in a request's body, a JSON object or a list, as most are written: members of ASCII
    without an escape, no other ones. None for anything else, good or bad: paychan/server/protocol/sales.py has the rules, and
    tests/unit/server/protocol/test_plain_charges.py holds both against each other."""
    cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(body)
    cdef const unsigned char *end = at + len(body)
    cdef bint is_list
    cdef Charge charge
    cdef bytes form
    cdef list forms = []
    at = _skip(at, end)
    is_list = at < end and at[0] == c"["
    while True:
        at = _read_charge(_skip(at + 1, end) if is_list else at, end, &charge)
        form = _form_of(&charge) if at != NULL else None
        if form is None or len(forms) == _SALES_MAX:
            return None
        forms.append(form)
        at = _skip(at, end)
        if not is_list or at == end or at[0] != c",":
            break
    if is_list:
        if at == end or at[0] != c"]":
            return None
        at = _skip(at + 1, end)
    return forms if at == end else None


cdef class SaleRequest(PaymentRequest):
    """One thing that a seller asks for. The intake's rules have for it, beside what they have for payments: `time()`, the unix
    seconds that reservations are judged by; `sold_out(outpoint)` has a channel settled that its last payment exhausted;
    `proved(request, outpoint)` answers who has signed a payment on a channel."""

    cdef int set_up(self, Intake intake, bytes raw) except -1:
        self._intake, self._raw = intake, raw
        return 0

    cdef Status judge(self, ChannelTable table, uint64_t now) except *:
        cdef Status status
        if not _read_sale(self._raw, &self._sale):
            return Status.INVALID_SALE
        status = judge_sale(table, &self._sale, now, self._intake.time())
        self._purchase, self._received, self._spent = table.purchase, table.exposure, table.spent
        self._is_repeated = table.is_repeated
        return status

    cdef unsigned char frame_kind(self):
        return SALE

    cdef int door(self) noexcept:
        return SALE_DOOR

    cdef bint brings_money(self):
        return len(self._raw) > HEAD_SIZE and (self._raw[0] == SELL or self._raw[0] == SELL_AGAIN)

    cdef bytes get_target(self):
        return self._raw

    cdef str get_path(self):
        """Nothing: there is no such resource."""
        return ""

    cdef str get_query(self):
        """Return it as text, for the patient way to its owner."""
        return self._raw.hex()

    cdef int exhausted(self) except -1:
        self._intake._rules.sold_out(self.outpoint)
        return self.paid()

    cdef int paid(self) except -1:
        if self._sale.kind == PROVE:
            self._intake._rules.proved(self, self._raw[1:37])
            return 0
        self._intake._tally.count(self.door(), AGAIN if self._is_repeated else self._status)
        return self.relay(sale_body(
            &self._purchase, self._is_repeated, self._value_received, self._received, self._spent, self._value_left))


cdef class FutureSale(SaleRequest):
    """A sale that another worker sent by the patient way. Its answer, a `Reply`, goes to a future; or the exception that
    `rules.not_owner(outpoint)` makes."""

    cdef object _future

    def __init__(self, Intake intake not None, bytes raw not None, future not None):
        self.set_up(intake, raw)
        self._future = future

    cdef int door(self) noexcept:
        return FORWARDED

    cdef int relay(self, bytes body) except -1:
        return self.refuse(self._intake._rules.paid(body))

    cdef int refuse(self, object reply) except -1:
        if not self._future.done():
            self._future.set_result(reply)
        return 0

    cdef int elsewhere(self, bytes outpoint, uint32_t shard) except -1:
        if not self._future.done():
            self._future.set_exception(self._intake._rules.not_owner(outpoint))
        return 0


cdef class BatchSale(SaleRequest):
    """One of many."""

    cdef SaleBatch _batch
    cdef Py_ssize_t _place

    cdef int relay(self, bytes body) except -1:
        return self._batch.put(self._place, body)

    cdef int refuse(self, object reply) except -1:
        return self._batch.put(self._place, reply.body)


cdef class SaleBatch:
    """The sales of one request, judged in their order. `done(bodies)` is called once, with the body of each answer;
    `later(call)` has a call made in another turn of the event loop."""

    cdef list _raws
    cdef object _done
    cdef object _later
    cdef list _answers
    cdef Intake _intake
    cdef Py_ssize_t _judged
    cdef Py_ssize_t _missing

    def __init__(self, list raws not None, done not None, later not None):
        self._raws, self._done, self._later = raws, done, later
        self._missing = len(raws)
        self._answers = [None] * self._missing

    def submit(self, Intake intake not None):
        """Judge all; there is at least one."""
        self._intake = intake
        self._judge_slice()

    def _judge_slice(self):
        cdef BatchSale sale
        cdef Py_ssize_t end = min(self._judged + _SLICE, <Py_ssize_t> len(self._raws))
        while self._judged < end:
            sale = BatchSale.__new__(BatchSale)
            sale.set_up(self._intake, self._raws[self._judged])
            sale._batch, sale._place = self, self._judged
            self._judged += 1
            self._intake.take(sale)
        if self._judged < <Py_ssize_t> len(self._raws):
            self._later(self._judge_slice)

    cdef int put(self, Py_ssize_t place, bytes body) except -1:
        """Note one answer; the last one completes the request."""
        if self._answers[place] is not None:
            return 0  # a bug of ours had it answered before
        self._answers[place] = body
        self._missing -= 1
        if self._missing == 0:
            self._done(self._answers)
        return 0
