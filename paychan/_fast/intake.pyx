"""Payments on their way in, from any door: judged at once, answered when they are durable.

What is plain (accepted, replayed, refused by its form) stays compiled from the request's bytes to its answer. Everything else is
handed to `rules` (paychan/server/channels/payments.py), which removes the obstacle (reads the channel, asks its owner, looks at the
funding output) and has the request judged again, or answers it.
"""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize

from .channel cimport is_durable
from .commit cimport LOST, WRITTEN
from .reply cimport paid_body
from .tally cimport LATENCY_AT, NANOSECONDS_FROM, SHARED, nanoseconds

cdef enum:
    ATTEMPTS_MAX = 4  # how often a request is judged: once, after loading its channel, and again when its shard moved meanwhile


cdef class PaymentRequest(Waiter):
    """One payment and whoever waits for its answer. Each door has its own kind, which says where the answer goes."""

    def __init__(self, Intake intake not None):
        self._intake = intake

    @property
    def path(self):
        """The request's path, as `ChannelTable.pay` takes it."""
        return self.get_path()

    @property
    def is_sale(self):
        """Whether it is a seller's, whose `query` then says all of it."""
        return self.frame_kind() == SALE

    @property
    def query(self):
        """The request's query, as `ChannelTable.pay` takes it."""
        return self.get_query()

    cdef str get_path(self):
        raise NotImplementedError

    cdef str get_query(self):
        raise NotImplementedError

    cdef bytes get_target(self):
        """Return path, '?' and query. There is no '?' in the path: what has one is refused by its form."""
        return f"{self.get_path()}?{self.get_query()}".encode()

    cdef unsigned char frame_kind(self):
        """Return the type of the frame in which it goes to another worker."""
        return PAYMENT

    cdef int door(self) noexcept:
        """Return where its answer is counted, a `Door` of tally.pxd."""
        return SHARED

    cdef bint brings_money(self):
        """Return whether more is received on the channel if it is taken."""
        return True

    cdef Status judge(self, ChannelTable table, uint64_t now) except *:
        """Have the table judge it, from the form in which it came."""
        cdef Py_ssize_t path_size = 0, query_size = 0
        cdef str path = self.get_path(), query = self.get_query()
        cdef const char *path_text = PyUnicode_AsUTF8AndSize(path, &path_size)
        cdef const char *query_text = PyUnicode_AsUTF8AndSize(query, &query_size)
        return table.judge(<const unsigned char *> path_text, path_size, <const unsigned char *> query_text, query_size,
                           now, self.ignore_change_address)

    cdef int paid(self) except -1:
        """Answer 200: `_value_left` and `_value_received` are durable."""
        self._intake._tally.count(self.door(), self._status)  # the outcomes of tally.pxd begin as these do
        return self.relay(paid_body(self._value_left, self._value_received))

    cdef int exhausted(self) except -1:
        """Its channel is closing, durably: `outpoint`."""
        self._intake._rules.exhausted(self, self.outpoint, self._value_received)
        return 0

    cdef int relay(self, bytes body) except -1:
        """Answer 200 with the body of an accepted payment."""
        raise NotImplementedError

    cdef int refuse(self, object reply) except -1:
        """Give any other answer, a `Reply`."""
        raise NotImplementedError

    cdef int tell(self, object reply) except -1:
        """Give it, and count it."""
        self._intake._tally.count(self.door(), reply.outcome)
        return self.refuse(reply)

    cdef int elsewhere(self, bytes outpoint, uint32_t shard) except -1:
        """Another worker owns the channel."""
        link = self._intake.links[shard]
        if link is not None and link.is_open:
            link.ask(self, outpoint)
        else:
            self._intake._rules.elsewhere(self, outpoint, shard)
        return 0

    def succeed(self, bytes body not None):
        """Answer 200 with this body."""
        self.relay(body)

    def answer(self, reply not None):
        """Give an answer (a `Reply`) that was found elsewhere."""
        self.tell(reply)

    def again(self):
        """Be judged again, after what stood in the way has been removed."""
        self.attempts += 1
        self._intake.take(self)

    cdef int finish(self, int outcome) except -1:
        """The write that this payment waited for has ended. A bug of ours is answered too."""
        try:
            self._end(outcome)
        except Exception as error:
            self.tell(self._intake._rules.failed(error))
        return 0

    cdef int _end(self, int outcome) except -1:
        cdef Intake intake = self._intake
        if outcome == LOST:
            return self.tell(intake._rules.lost)
        if outcome != WRITTEN:
            self.again()  # it was judged on a state that did not become durable
            return 0
        if intake._queue.told_at:
            intake._tally.note(LATENCY_AT, NANOSECONDS_FROM, intake._queue.told_at - self._arrived)
        if self._status == Status.EXHAUSTED:
            return self.exhausted()
        if self.outpoint is not None:
            intake._rules.exposed(self.outpoint)
        return self.paid()


cdef class FutureRequest(PaymentRequest):
    """A payment whose answer, a `Reply`, goes to a future; or the exception that `rules.not_owner(outpoint)` makes."""

    cdef str _path
    cdef str _query
    cdef object _future
    cdef int _door

    def __init__(self, Intake intake not None, str path not None, str query not None, future not None, int door=SHARED):
        self._intake, self._path, self._query, self._future, self._door = intake, path, query, future, door

    cdef int door(self) noexcept:
        return self._door

    cdef str get_path(self):
        return self._path

    cdef str get_query(self):
        return self._query

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


cdef class Intake:
    """Owned by one event loop.

    rules: `look()` returns (None or the answer to all payments now, unix seconds to judge by); `odd(request, status, outpoint)`
    takes over what is not plain; `elsewhere(request, outpoint, shard)` what another worker owns while `links` has no link to it;
    `exhausted(request, outpoint, value_received)` answers what closed its channel; `exposed(outpoint)` hears of channels that hold
    more than `exposure_max` satoshi, or than the table watches them for; `paid(body)` makes a Reply; `lost` is the answer when the
    store is gone, `overloaded` when too many wait for it, `moved` when a channel could not be had in several attempts,
    `failed(error)` makes the one to a bug of ours.
    no_money: the answer to whatever brings money, as long as no more may come; what was received is still sold for, and given back.
    refusals: by status number, the answers to requests that are refused by their form alone, None for the others.
    """

    def __init__(self, ChannelTable table not None, CommitQueue queue not None, rules not None, list refusals not None,
                 uint64_t exposure_max):
        self._table, self._queue, self._rules, self._refusals = table, queue, rules, refusals
        self._exposure_max, self._tally = exposure_max, queue._tally
        self.forget_links()

    def limit(self, uint64_t exposure_max):
        """Have `exposed` hear of channels that hold more than so many satoshi from now on."""
        self._exposure_max = exposure_max

    def forget_links(self):
        """Shards have changed hands."""
        self.links = [None] * self._table.shard_count

    def submit(self, PaymentRequest request not None):
        """Judge a request; it is answered now or later, once."""
        self.take(request)

    def look_again(self):
        """Ask the rules for interlocks and time before the next payment. They see to it that this happens in each turn of the
        event loop that brings payments."""
        self._has_looked = self._has_time = False

    cdef uint64_t time(self) except? 0:
        """Return the unix seconds that reservations are judged by in this turn of the event loop."""
        if not self._has_time:
            self._time, self._has_time = self._rules.time(), True
        return self._time

    cdef int take(self, PaymentRequest request) except -1:
        """`submit`, for compiled doors. A bug of ours is answered too: without an answer a payer would wait for long."""
        try:
            self._take(request)
        except Exception as error:
            request.tell(self._rules.failed(error))
        return 0

    cdef int _take(self, PaymentRequest request) except -1:
        cdef Status status
        if not self._has_looked:
            self._trouble, self._now = self._rules.look()
            self._has_looked, self._turn = True, nanoseconds()
        if not request._arrived:
            request._arrived = self._turn
        if self._trouble is not None:
            return request.tell(self._trouble)
        if self.no_money is not None and request.brings_money():
            return request.tell(self.no_money)
        if self._queue.waiting >= self._queue.waiting_max:
            return request.tell(self._rules.overloaded)
        if request.attempts >= ATTEMPTS_MAX:
            return request.tell(self._rules.moved)
        status = request.judge(self._table, self._now)
        if status == Status.ACCEPTED or status == Status.EXHAUSTED or status == Status.REPLAYED:
            return self._await_write(request, status)
        reply = self._refusals[<int> status]
        if reply is not None:
            return request.tell(reply)
        if status == Status.NOT_OWNED:
            return request.elsewhere(self._table.outpoint, self._table.shard)
        self._rules.odd(request, <int> status, self._table.outpoint)
        return 0

    cdef int _await_write(self, PaymentRequest request, Status status) except -1:
        cdef ChannelTable table = self._table
        request._status = <int> status
        request._value_left = table.value_left
        request._value_received = 0 if status == Status.REPLAYED else table.value_received
        is_marked = status == Status.EXHAUSTED or table.exposure > self._exposure_max or table.exposure > table.judged.watched_above
        request.outpoint = table.outpoint if is_marked else None
        if status != Status.REPLAYED:
            return self._queue.add(table.judged, request, request._value_received, table.charged)
        if is_durable(table.judged):
            return request.finish(WRITTEN)
        return 0 if self._queue.join(table.judged, request) else self._queue.add(table.judged, request, 0, 0)
