"""Payments from one worker to another: what came to the wrong worker goes to its shard's owner, and its answer comes back as it is.

A PAYMENT frame carries path, '?' and query, and so does a FAILING_PAYMENT, from an address of whose requests too many fail; a SALE
frame a sale in binary form. The answer carries u16 HTTP status | u16 size of the location | location | body; an ERROR frame says
that the worker asked is not the owner, and nothing was done. Both ends belong to one event loop each.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from .bytes cimport distance
from .channel cimport ChannelTable
from .frame cimport ERROR, REPLY, Frame, FrameReader, make_frame
from .intake cimport FAILING_PAYMENT, PAYMENT, SALE, Intake, PaymentRequest
from .sale cimport SaleRequest
from .status cimport Status
from .tally cimport FORWARDED as FORWARDED_DOOR, PASSED_ON, nanoseconds

from .frame import FrameError as _FrameError

ASKED_MAX = 20_000
"""Payments that one other worker may owe us the answers to: as many as may wait for its disk. A stopped one gives none for 12 s."""

cdef enum:
    _ASKED_MAX = 20_000
    ANSWER_HEAD_SIZE = 4


cdef class PeerEnd:
    """One end of a connection between workers: an asyncio protocol that speaks frames.

    What one turn of the event loop writes leaves in one piece, by `call_soon`: the transport would make a system call for each.
    """

    cdef object _transport
    cdef object _call_soon
    cdef FrameReader _reader
    cdef list _unsent

    def __init__(self, Py_ssize_t payload_max, call_soon not None):
        self._reader, self._call_soon, self._unsent = FrameReader(payload_max), call_soon, []

    def connection_made(self, transport):
        self._transport = transport

    def connection_lost(self, _):
        self._transport = None
        self._lost()

    def pause_writing(self):
        """Nothing: both ends bound what they have in flight."""

    def resume_writing(self):
        """Nothing."""

    def eof_received(self):
        """Let the transport close."""

    def data_received(self, bytes data not None):
        cdef Frame frame
        try:
            self._reader.start(data)
            while self._reader.next(&frame):
                self._take(&frame)
        except (_FrameError, UnicodeDecodeError):
            self.close()

    @property
    def is_open(self):
        return self._transport is not None and not self._transport.is_closing()

    def close(self):
        """Close at once, dropping what the other end does not take now."""
        self._flush()
        if self._transport is not None:
            self._transport.abort()

    cdef int _write(self, bytes frame) except -1:
        if self._transport is None:
            return 0
        self._unsent.append(frame)
        if len(self._unsent) == 1:
            self._call_soon(self._flush)
        return 0

    def _flush(self):
        cdef list frames = self._unsent
        self._unsent = []
        if self._transport is not None and frames:
            self._transport.write(b"".join(frames))

    cdef int _take(self, Frame *frame) except -1:
        raise NotImplementedError

    cdef int _lost(self) except -1:
        return 0


cdef class ForwardLink(PeerEnd):
    """The asking end. `reply(status, body, location)` makes a Reply; `refused(request, outpoint)` has it sent on by the patient
    way; `gone` is the answer to what the owner took and did not answer: whether it took effect is unknown. `full`: to what is not
    sent, because too many are waiting.
    """

    cdef dict _asked      # request id: PaymentRequest
    cdef dict _asked_long_ago
    cdef uint32_t _last_id
    cdef object _reply
    cdef object _refused
    cdef object _gone
    cdef object _full

    def __init__(self, Py_ssize_t payload_max, call_soon not None, reply not None, refused not None, gone not None, full=None):
        super().__init__(payload_max, call_soon)
        self._reply, self._refused, self._gone, self._full = reply, refused, gone, full
        self._asked, self._asked_long_ago = {}, {}

    def ask(self, PaymentRequest request not None, bytes outpoint not None):
        """Forward a payment for a channel; it is answered once. The link must be open."""
        cdef bytes target
        cdef unsigned char kind
        if len(self._asked) + len(self._asked_long_ago) >= _ASKED_MAX:
            request.tell(self._full)
            return
        target = request.get_target()
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        request.outpoint = outpoint
        self._asked[self._last_id] = request
        kind = request.frame_kind()
        if kind == PAYMENT and request._intake._limits.failing_until > <int64_t> nanoseconds() and request.is_from_failing():
            kind = FAILING_PAYMENT
        self._write(make_frame(kind, self._last_id, <const unsigned char *> target, len(target)))

    def expire(self):
        """Give up what was asked before the last call, so call it as often as an answer may take."""
        late, self._asked_long_ago, self._asked = self._asked_long_ago, self._asked, {}
        self._give_up(late)

    cdef int _lost(self) except -1:
        asked, self._asked = {**self._asked_long_ago, **self._asked}, {}
        self._asked_long_ago = {}
        return self._give_up(asked)

    cdef int _give_up(self, dict asked) except -1:
        cdef PaymentRequest request
        for request in asked.values():
            request.tell(self._gone)
        return 0

    cdef int _take(self, Frame *frame) except -1:
        cdef PaymentRequest request
        cdef uint16_t status = 0, location_size = 0
        cdef const unsigned char *location = frame.payload + ANSWER_HEAD_SIZE
        cdef str place = ""
        if frame.kind != ERROR:
            if frame.size < ANSWER_HEAD_SIZE:
                raise _FrameError("an answer is too short")
            memcpy(&status, frame.payload, 2)
            memcpy(&location_size, frame.payload + 2, 2)
            if frame.size < ANSWER_HEAD_SIZE + <Py_ssize_t> location_size:
                raise _FrameError("an answer is too short")
            place = location[:location_size].decode()  # before the request is taken out: one that cannot be read ends the link
        request = self._asked.pop(frame.request_id, None)
        if request is None:
            request = self._asked_long_ago.pop(frame.request_id, None)
        if request is None:
            return 0  # given up
        if frame.kind == ERROR:
            self._refused(request, request.outpoint)
            return 0
        body = location[location_size:frame.size - ANSWER_HEAD_SIZE]
        request._intake._tally.count(request.door(), PASSED_ON)
        request.blame(status)
        if status == 200 and not location_size:
            return request.relay(body)
        return request.refuse(self._reply(status, body, place))


cdef class ForwardedPayment(PaymentRequest):
    """A payment that another worker sent here."""

    cdef OwnerEnd _end
    cdef uint32_t _request_id
    cdef bytes _target            # path, '?' and query
    cdef Py_ssize_t _path_size

    cdef Status judge(self, ChannelTable table, uint64_t now) except *:
        cdef const unsigned char *target = <const unsigned char *> PyBytes_AS_STRING(self._target)
        cdef Py_ssize_t query_at = self._path_size + 1
        return table.judge(target, self._path_size, target + query_at, len(self._target) - query_at, now,
                           self.ignore_change_address)

    cdef int door(self) noexcept:
        return FORWARDED_DOOR

    cdef str get_path(self):
        return self._target[:self._path_size].decode(errors="replace")

    cdef str get_query(self):
        return self._target[self._path_size + 1:].decode(errors="replace")

    cdef int relay(self, bytes body) except -1:
        return _send(self._end, PAYMENT, self._request_id, 200, b"", body)

    cdef int refuse(self, object reply) except -1:
        return _send(self._end, PAYMENT, self._request_id, reply.status, reply.location.encode(), reply.body)

    cdef int elsewhere(self, bytes outpoint, uint32_t shard) except -1:
        return self._end._write(make_frame(ERROR, self._request_id, b"", 0))


cdef class ForwardedSale(SaleRequest):
    """A sale that another worker sent here."""

    cdef OwnerEnd _end
    cdef uint32_t _request_id

    cdef int door(self) noexcept:
        return FORWARDED_DOOR

    cdef int relay(self, bytes body) except -1:
        return _send(self._end, SALE, self._request_id, 200, b"", body)

    cdef int refuse(self, object reply) except -1:
        return _send(self._end, SALE, self._request_id, reply.status, reply.location.encode(), reply.body)

    cdef int elsewhere(self, bytes outpoint, uint32_t shard) except -1:
        return self._end._write(make_frame(ERROR, self._request_id, b"", 0))


cdef int _send(OwnerEnd end, unsigned char kind, uint32_t request_id, uint16_t status, bytes location, bytes body) except -1:
    """Answer a request of another worker."""
    cdef uint16_t location_size = <uint16_t> len(location)
    payload = (<const unsigned char *> &status)[:2] + (<const unsigned char *> &location_size)[:2] + location + body
    return end._write(make_frame(kind + REPLY, request_id, <const unsigned char *> payload, len(payload)))


cdef class OwnerEnd(PeerEnd):
    """The answering end. Frames of other types go to `on_frame(end, type, request id, payload)`; `intake()` returns the Intake, or
    None before there is one."""

    cdef object _intake
    cdef object _on_frame
    cdef object _on_open
    cdef object _on_close

    def __init__(self, Py_ssize_t payload_max, call_soon not None, intake not None, on_frame not None, on_open not None,
                 on_close not None):
        super().__init__(payload_max, call_soon)
        self._intake, self._on_frame, self._on_open, self._on_close = intake, on_frame, on_open, on_close

    def connection_made(self, transport):
        self._transport = transport
        self._on_open(self)

    cdef int _lost(self) except -1:
        self._on_close(self)
        return 0

    def reply(self, unsigned char kind, uint32_t request_id, bytes payload not None=b""):
        """Answer a request of type `kind`."""
        self._write(make_frame(kind + REPLY, request_id, payload, len(payload)))

    def refuse(self, uint32_t request_id, bytes payload not None):
        """Answer a request with an ERROR frame."""
        self._write(make_frame(ERROR, request_id, payload, len(payload)))

    cdef int _take(self, Frame *frame) except -1:
        cdef Intake intake
        if frame.kind != PAYMENT and frame.kind != FAILING_PAYMENT and frame.kind != SALE:
            self._on_frame(self, frame.kind, frame.request_id, frame.payload[:frame.size])
            return 0
        intake = self._intake()
        if intake is None:
            return self._write(make_frame(ERROR, frame.request_id, b"", 0))
        return self._take_sale(frame, intake) if frame.kind == SALE else self._take_payment(frame, intake)

    cdef int _take_sale(self, Frame *frame, Intake intake) except -1:
        cdef ForwardedSale request = ForwardedSale.__new__(ForwardedSale)
        request._end, request._request_id = self, frame.request_id
        request.set_up(intake, frame.payload[:frame.size])
        return intake.take(request)

    cdef int _take_payment(self, Frame *frame, Intake intake) except -1:
        cdef ForwardedPayment request
        cdef const void *mark = memchr(frame.payload, c"?", frame.size)
        if mark == NULL:
            raise _FrameError("a forwarded payment has no query")
        request = ForwardedPayment.__new__(ForwardedPayment)
        request._intake, request._end, request._request_id = intake, self, frame.request_id
        request.is_marked = frame.kind == FAILING_PAYMENT
        request._target = frame.payload[:frame.size]
        request._path_size = distance(frame.payload, <const unsigned char *> mark)
        return intake.take(request)
