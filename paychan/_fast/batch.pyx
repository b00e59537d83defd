"""Many payments in one request: `POST /v1/payments`. docs/PROTOCOL.md describes it.

The body is, for each payment, a 36-byte outpoint (txid in internal order, index little-endian) | u8 size | the payment in binary
form. The answer is, for each of them in order, u16 HTTP status | u16 size | the body that a PUT of this payment would have had.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint16_t, uint64_t
from libc.string cimport memcpy

from .channel cimport ChannelTable
from .intake cimport Intake, PaymentRequest
from .status cimport Status
from .tally cimport BATCH

BATCH_PAYMENTS_MAX = 1024
"""Payments in one request: some 30 ms of verifying, in slices."""

BATCH_SLICE = 64
"""Payments that are judged in one turn of the event loop, some 2 ms, so that nobody else waits for long."""

BATCH_FAILURES_MAX = 16
"""Bad signatures and unknown channels in one batch, after which its other payments are answered 503 unseen. Whoever relays good
payments meets few."""

BATCH_BYTES_MAX = BATCH_PAYMENTS_MAX * (36 + 1 + 81)
"""Of a request's body: what so many of the longest payments take."""

cdef enum:
    OUTPOINT_SIZE = 36
    _SLICE = 64
    _FAILURES_MAX = 16


cdef class BatchPayment(PaymentRequest):
    """One payment of a batch."""

    cdef Batch _batch
    cdef Py_ssize_t _place
    cdef Py_ssize_t _at         # of its outpoint in the body
    cdef Py_ssize_t _size       # of its binary form
    cdef bint _is_loading       # its channel is being read

    cdef Status judge(self, ChannelTable table, uint64_t now) except *:
        cdef const unsigned char *outpoint = <const unsigned char *> PyBytes_AS_STRING(self._batch._body) + self._at
        self._set_loading(False)
        if self._batch._failures >= _FAILURES_MAX:
            return Status.TOO_MANY_FAILURES
        cdef Status status = table.judge_binary(outpoint, outpoint + OUTPOINT_SIZE + 1, self._size, now)
        self._batch._failures += status == Status.BAD_SIGNATURE
        self._set_loading(status == Status.NOT_LOADED)
        return status

    cdef int door(self) noexcept:
        return BATCH

    cdef uint64_t address(self) except? 0:
        return self._batch._address

    cdef int _set_loading(self, bint is_loading) except -1:
        if is_loading != self._is_loading:
            self._is_loading = is_loading
            self._batch.loading(1 if is_loading else -1)
        return 0

    cdef str get_path(self):
        outpoint = self._batch._body[self._at:self._at + OUTPOINT_SIZE]
        return f"/v1/channels/{outpoint[31::-1].hex()}/{int.from_bytes(outpoint[32:], 'little')}"

    cdef str get_query(self):
        start = self._at + OUTPOINT_SIZE + 1
        return "payment=" + self._batch._to_text(self._batch._body[start:start + self._size])

    cdef int relay(self, bytes body) except -1:
        self._set_loading(False)
        return self._batch.put(self._place, 200, body)

    cdef int refuse(self, object reply) except -1:
        self._batch._failures += self._is_loading and reply.status == 404
        self._set_loading(False)
        return self._batch.put(self._place, reply.status, reply.body)


cdef class Batch:
    """One request's payments. `done(body)` is called once with the answer; `to_text(bytes)` returns the base64url of a payment;
    `later(call)` has a call made in another turn of the event loop. address: whom it is counted for."""

    cdef bytes _body
    cdef object _done
    cdef object _to_text
    cdef object _later
    cdef list _payments
    cdef list _answers
    cdef Py_ssize_t _judged
    cdef Py_ssize_t _missing
    cdef Py_ssize_t _failures
    cdef Py_ssize_t _loading    # payments whose channels are being read
    cdef bint _is_waiting       # the next slice, for them
    cdef uint64_t _address

    def __init__(self, bytes body not None, to_text not None, done not None, later not None, uint64_t address=0):
        self._address = address
        self._body, self._to_text, self._done, self._later = body, to_text, done, later
        self._payments, self._answers = [], []

    def submit(self, Intake intake not None):
        """Judge all payments in their order, slice by slice; the next waits until the channels of the last are read, so that who
        names unknown ones has few of them looked up. Raises ValueError, before the first is judged, if the body is not
        well-formed."""
        self._payments = self._split(intake)
        self._missing = len(self._payments)
        self._answers = [None] * self._missing
        if not self._payments:
            self._done(b"")
        else:
            self._judge_slice()

    def _judge_slice(self):
        cdef BatchPayment payment
        cdef Py_ssize_t end = min(self._judged + _SLICE, <Py_ssize_t> len(self._payments))
        while self._judged < end:
            payment = self._payments[self._judged]
            self._judged += 1
            payment._intake.take(payment)
        if self._judged == <Py_ssize_t> len(self._payments):
            self._payments = []
        elif self._loading:
            self._is_waiting = True
        else:
            self._later(self._judge_slice)

    cdef int loading(self, Py_ssize_t more) except -1:
        """Count payments whose channels are being read."""
        self._loading += more
        if self._loading == 0 and self._is_waiting:
            self._is_waiting = False
            self._later(self._judge_slice)
        return 0

    def _split(self, Intake intake):
        cdef const unsigned char *body = <const unsigned char *> PyBytes_AS_STRING(self._body)
        cdef Py_ssize_t size = len(self._body), at = 0
        cdef BatchPayment payment
        cdef list payments = []
        while at < size:
            if size - at < OUTPOINT_SIZE + 1 or size - at < OUTPOINT_SIZE + 1 + body[at + OUTPOINT_SIZE]:
                raise ValueError("the last payment is cut off")
            if len(payments) == BATCH_PAYMENTS_MAX:
                raise ValueError(f"more than {BATCH_PAYMENTS_MAX} payments")
            payment = BatchPayment.__new__(BatchPayment)
            payment._intake, payment._batch = intake, self
            payment._place, payment._at, payment._size = len(payments), at, body[at + OUTPOINT_SIZE]
            payments.append(payment)
            at += OUTPOINT_SIZE + 1 + payment._size
        return payments

    cdef int put(self, Py_ssize_t place, uint16_t status, bytes body) except -1:
        """Note the answer to one payment; the last one completes the request."""
        cdef uint16_t size = <uint16_t> len(body)
        cdef unsigned char head[4]
        if self._answers[place] is not None:
            return 0  # a bug of ours had it answered before
        memcpy(head, &status, 2)
        memcpy(head + 2, &size, 2)
        self._answers[place] = head[:4] + body
        self._missing -= 1
        if self._missing == 0:
            self._done(b"".join(self._answers))
        return 0
