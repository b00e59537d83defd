"""What sellers ask for, on its way in, from the seller's door or from another worker.

A sale's binary form, between our own processes: u8 kind (`SaleKind`) | 36 outpoint | 16 hash of the purchase key | u64 amount in
satoshi | u64 number of the purchase | u32 until (unix seconds) | the payment that comes with it, in binary form, or nothing.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from .bytes cimport read_u64
from .channel cimport ChannelTable
from .intake cimport SALE, Intake, PaymentRequest
from .purchase cimport PROVE, SELL, SELL_AGAIN, SETTLE, Sale, SaleKind
from .reply cimport sale_body
from .selling cimport judge_sale
from .status cimport Status

cdef enum:
    HEAD_SIZE = 73
    _SLICE = 64

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
    sale.payment_size = len(raw) - HEAD_SIZE
    sale.payment = at + HEAD_SIZE if sale.payment_size else NULL
    return (sale.kind == PROVE) <= (sale.payment != NULL) and (sale.kind == SETTLE) <= (sale.payment == NULL)


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
        status = judge_sale(table, &self._sale, now, self._intake._rules.time())
        self._purchase, self._received, self._spent = table.purchase, table.exposure, table.spent
        self._is_repeated = table.is_repeated
        return status

    cdef unsigned char frame_kind(self):
        return SALE

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
        return self.relay(sale_body(
            &self._purchase, self._is_repeated, self._value_received, self._received, self._spent, self._value_left))


cdef class FutureSale(SaleRequest):
    """A sale whose answer, a `Reply`, goes to a future; or the exception that `rules.not_owner(outpoint)` makes."""

    cdef object _future

    def __init__(self, Intake intake not None, bytes raw not None, future not None):
        self.set_up(intake, raw)
        self._future = future

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
