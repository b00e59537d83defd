"""The load client: many HTTP/1.1 connections in one compiled epoll loop, every answer checked, every latency kept.

Requests are serialised and their answers foretold before the clock starts; within `run` no Python object is touched and the
interpreter's lock is released. Each connection sends its requests in order, one in flight.

Closed loop: the next request leaves when the answer before has come. Open loop: requests leave at instants fixed beforehand
(`rate` a second over all connections), and a latency counts from that instant, however late the request could be sent: a slow
answer makes its successors late, and that is seen (no coordinated omission).
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, itimerspec, timespec
from posix.unistd cimport close

from bench.load.answers cimport ANSWER_SIZE_MAX, Expectation, Head, is_as_expected, is_batch_as_expected, read_head
from bench.load.outbox cimport Outbox, Request, append, forget_answered, grown, release
from paychan._fast.bytes cimport distance

import socket
import time

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t needle_size)

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_NOSIGNAL
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t recv(int fd, void *data, size_t size, int flags)

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN, EPOLLOUT, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int poll, int operation, int fd, epoll_event *event)
    int epoll_wait(int poll, epoll_event *events, int count, int timeout_ms)

cdef extern from "<sys/timerfd.h>" nogil:
    enum: TFD_TIMER_ABSTIME, TFD_NONBLOCK, TFD_CLOEXEC
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *new, itimerspec *old)

cdef enum:
    EVENTS_MAX = 256
    SAMPLE_SIZE = 600              # of the first wrong answer, for the report
    TIMER = 0xFFFFFFFF             # the timer's mark among the connections' numbers
    SECOND = 1_000_000_000

IDLE_SECONDS_MAX = 8.0
"""A connection that rested longer is made anew before a run: granian closes idle ones after 20 s, and could do so just then."""

cdef struct Connection:
    int fd                         # -1: closed
    bint busy                      # a request is in flight
    bint lost                      # closed with work to do: out of this run
    Outbox outbox
    size_t sent                    # bytes of it that the kernel took
    uint64_t due                   # ns: from when its latency counts
    uint32_t owed                  # open loop: requests that should have left already
    uint64_t scheduled             # open loop: how many of this run's instants belong to it and have passed or been used
    unsigned char *answer
    size_t answer_size


cdef inline uint64_t now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * SECOND + <uint64_t> now.tv_nsec


cdef class Client:
    """Connections to HTTP servers, kept from one run to the next.

    needle: bytes that every answer's body must contain, empty for none.
    """

    cdef Connection *_connections
    cdef Py_ssize_t _count
    cdef list _addresses
    cdef list _rested_at
    cdef bytes _needle
    cdef const unsigned char *_needle_bytes
    cdef size_t _needle_size
    cdef int _poll, _timer
    # one run
    cdef uint64_t *_latencies
    cdef size_t _room, _answers, _wrong, _missing, _started, _most, _payments, _in_flight
    cdef uint64_t _begun, _last, _heard, _deadline, _patience
    cdef double _interval           # ns between two instants of the open loop, 0: closed loop
    cdef uint64_t _instants         # of the open loop that have passed
    cdef unsigned char _sample[SAMPLE_SIZE]
    cdef size_t _sample_size
    cdef Expectation _sample_expected

    def __cinit__(self, list addresses not None, bytes needle not None=b""):
        """addresses: (host, port) for each connection."""
        self._poll = self._timer = -1
        self._addresses = addresses
        self._needle, self._needle_bytes, self._needle_size = needle, needle, len(needle)
        self._rested_at = [0.0] * len(addresses)
        self._connections = <Connection *> calloc(len(addresses) + 1, sizeof(Connection))
        if self._connections == NULL:
            raise MemoryError()
        self._count = len(addresses)
        cdef Py_ssize_t i
        for i in range(self._count):
            self._connections[i].fd = -1
        self._poll = epoll_create1(EPOLL_CLOEXEC)
        self._timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self._poll < 0 or self._timer < 0:
            raise OSError("epoll or timerfd")
        cdef epoll_event event
        event.events, event.data.u32 = EPOLLIN, TIMER
        if epoll_ctl(self._poll, EPOLL_CTL_ADD, self._timer, &event) != 0:
            raise OSError("epoll_ctl")

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self._count):
            if self._connections[i].fd >= 0:
                close(self._connections[i].fd)
            release(&self._connections[i].outbox)
            free(self._connections[i].answer)
        free(self._connections)
        free(self._latencies)
        for fd in (self._poll, self._timer):
            if fd >= 0:
                close(fd)

    def __len__(self):
        return self._count

    # --- before the clock starts ---

    def waiting(self, Py_ssize_t number):
        """Return how many requests a connection has still to send."""
        cdef Connection *connection = self._at(number)
        return connection.outbox.request_count - connection.outbox.next

    def give(self, Py_ssize_t number, list requests not None):
        """Append requests to a connection's: (bytes, is it a batch, [(status, value left, value received), ...]) each.

        Values in satoshi, -1 or None: not looked at. What has been answered is forgotten first.
        """
        cdef Connection *connection = self._at(number)
        cdef bytes raw
        cdef list expected
        forget_answered(&connection.outbox)
        for raw, is_batch, expected in requests:
            append(&connection.outbox, raw, is_batch, expected)

    def clear(self):
        """Forget all requests that have not been sent."""
        cdef Py_ssize_t i
        for i in range(self._count):
            self._connections[i].outbox.next = self._connections[i].outbox.request_count
            forget_answered(&self._connections[i].outbox)

    cdef Connection *_at(self, Py_ssize_t number) except NULL:
        if not 0 <= number < self._count:
            raise IndexError("no such connection")
        return &self._connections[number]

    def connect(self):
        """Connect what is not connected, or has rested so long that the server may close it any moment. Raises OSError."""
        cdef Py_ssize_t i
        now = time.monotonic()
        for i in range(self._count):
            is_fresh = self._connections[i].fd >= 0 and now - self._rested_at[i] < IDLE_SECONDS_MAX
            if is_fresh and not _is_closed(&self._connections[i]):
                continue
            self._connect_one(i)

    def _connect_one(self, Py_ssize_t number):
        cdef Connection *connection = self._at(number)
        cdef epoll_event event
        if connection.fd >= 0:
            close(connection.fd)
            connection.fd = -1
        if connection.answer == NULL:
            connection.answer = <unsigned char *> malloc(ANSWER_SIZE_MAX)
            if connection.answer == NULL:
                raise MemoryError()
        made = socket.create_connection(self._addresses[number], timeout=10)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        connection.fd = made.detach()
        event.events, event.data.u32 = EPOLLIN, <uint32_t> number
        if epoll_ctl(self._poll, EPOLL_CTL_ADD, connection.fd, &event) != 0:
            raise OSError("epoll_ctl")

    # --- a run ---

    def run(self, size_t most, double seconds=60.0, double rate=0.0, double patience=10.0):
        """Send up to `most` requests and wait for their answers; return what happened.

        seconds: after these no more is sent; what is in flight is waited for.
        patience: seconds without a byte from any server, after which all that is in flight counts as missing.
        rate: requests a second over all connections, for the open loop; 0: the closed loop.
        Returns a dict: answers, payments (in them), wrong, missing, seconds (first request to last answer),
        latencies (bytes: u64 nanoseconds each, in the order of the answers), complaint (about the first wrong answer).
        """
        cdef Py_ssize_t i
        self.connect()
        self._reserve(most)
        self._answers = self._wrong = self._missing = self._started = self._payments = self._in_flight = self._instants = 0
        self._sample_size, self._most = 0, most
        self._interval = SECOND / rate if rate > 0 else 0.0
        for i in range(self._count):
            self._connections[i].owed = 0
            self._connections[i].scheduled = 0
            self._connections[i].lost = False
            self._connections[i].answer_size = 0
        with nogil:
            self._begun = self._last = self._heard = now_ns()
            self._patience = <uint64_t> (patience * SECOND)
            self._deadline = self._begun + <uint64_t> (seconds * SECOND)
            self._loop()
            self._set_timer(0)
        rested_at = time.monotonic()
        for i in range(self._count):
            if self._connections[i].busy:
                self._lose(&self._connections[i])
            self._rested_at[i] = rested_at
        return {
            "answers": self._answers,
            "payments": self._payments,
            "wrong": self._wrong,
            "missing": self._missing,
            "seconds": <double> (self._last - self._begun) / SECOND,
            "latencies": (<const char *> self._latencies)[: self._answers * sizeof(uint64_t)],
            "complaint": self._complaint(),
        }

    cdef int _reserve(self, size_t most) except -1:
        self._latencies = <uint64_t *> grown(self._latencies, most + 1, &self._room, sizeof(uint64_t))
        return 0

    def _complaint(self):
        if self._sample_size:
            text = (<const char *> self._sample)[: self._sample_size].decode(errors="replace")
            expected = self._sample_expected
            return f"expected status {expected.status}, left {expected.left}, received {expected.received}; got {text!r}"
        return "a connection was closed, or an answer did not come" if self._missing else ""

    cdef void _loop(self) noexcept nogil:
        cdef epoll_event events[EVENTS_MAX]
        cdef int count, i
        cdef Py_ssize_t k
        cdef uint32_t number
        if self._interval == 0:
            for k in range(self._count):
                self._start_next(&self._connections[k], self._begun)
        while True:
            if self._interval > 0:
                self._start_due()
            if self._in_flight == 0 and self._is_over():
                return
            count = epoll_wait(self._poll, events, EVENTS_MAX, 100)
            if count < 0 and errno != EINTR:
                return
            if self._in_flight and now_ns() > self._heard + self._patience:
                return
            for i in range(count):
                number = events[i].data.u32
                if number == TIMER:
                    continue  # set anew, or over
                if events[i].events & EPOLLOUT:
                    self._send(&self._connections[number], number)
                if events[i].events & ~<uint32_t> EPOLLOUT:
                    self._receive(&self._connections[number])

    cdef bint _is_over(self) noexcept nogil:
        """Return whether nothing more will be sent. Called while nothing is in flight: only the open loop's clock starts more."""
        return self._interval == 0 or self._instants >= self._most or now_ns() >= self._deadline

    cdef void _start_next(self, Connection *connection, uint64_t due) noexcept nogil:
        """Send a connection's next request, if there is one, and the run goes on."""
        if self._started >= self._most or connection.lost or connection.outbox.next >= connection.outbox.request_count:
            return
        if now_ns() >= self._deadline:
            return
        self._started += 1
        self._in_flight += 1
        if self._in_flight == 1:
            self._heard = now_ns()
        connection.busy, connection.sent, connection.due = True, 0, due
        self._send(connection, -1)

    cdef void _start_due(self) noexcept nogil:
        """Open loop: give every instant that has passed to its connection in turn, and set the timer to the next."""
        cdef uint64_t now = now_ns(), next_at
        cdef Connection *connection
        while self._instants < self._most:
            next_at = self._begun + <uint64_t> (self._instants * self._interval)
            if next_at > now:
                self._set_timer(next_at)
                return
            connection = &self._connections[self._instants % <uint64_t> self._count]
            self._instants += 1
            connection.owed += 1
            if not connection.busy:
                self._start_owed(connection)

        self._set_timer(0)

    cdef void _set_timer(self, uint64_t at) noexcept nogil:
        """Let the timer wake the loop at an instant; 0: never, which also takes back what it has said."""
        cdef itimerspec when
        memset(&when, 0, sizeof(when))
        when.it_value.tv_sec = <long> (at // SECOND)
        when.it_value.tv_nsec = <long> (at % SECOND)
        timerfd_settime(self._timer, TFD_TIMER_ABSTIME, &when, NULL)

    cdef void _start_owed(self, Connection *connection) noexcept nogil:
        """Open loop: send the oldest request that a connection owes, its latency counted from its instant."""
        cdef uint64_t number, due
        if connection.owed == 0:
            return
        number = <uint64_t> distance(<unsigned char *> self._connections, <unsigned char *> connection) // sizeof(Connection)
        number += connection.scheduled * <uint64_t> self._count
        due = self._begun + <uint64_t> (number * self._interval)
        connection.owed -= 1
        connection.scheduled += 1
        self._missing += connection.lost
        self._start_next(connection, due)

    cdef void _send(self, Connection *connection, int64_t number) noexcept nogil:
        """Send what the kernel takes of the request in flight; number: of the connection if it waited for room, else -1."""
        cdef Request *request = &connection.outbox.requests[connection.outbox.next]
        cdef ssize_t count
        if not connection.busy:
            return
        while connection.sent < request.size:
            count = send(connection.fd, connection.outbox.bytes + request.start + connection.sent,
                         request.size - connection.sent, MSG_NOSIGNAL)
            if count >= 0:
                connection.sent += <size_t> count
            elif errno == EAGAIN:
                if number < 0:
                    self._watch(connection, EPOLLIN | EPOLLOUT)
                return
            elif errno != EINTR:
                self._lose(connection)
                return
        if number >= 0:
            self._watch(connection, EPOLLIN)

    cdef void _watch(self, Connection *connection, uint32_t events) noexcept nogil:
        cdef epoll_event event
        event.events = events
        event.data.u32 = <uint32_t> (<uint64_t> distance(
            <unsigned char *> self._connections, <unsigned char *> connection) // sizeof(Connection))
        epoll_ctl(self._poll, EPOLL_CTL_MOD, connection.fd, &event)

    cdef void _receive(self, Connection *connection) noexcept nogil:
        """Take what has come; judge the answer if it is complete, and go on."""
        cdef ssize_t count
        cdef Head head
        cdef int state
        if connection.fd < 0:
            return
        count = recv(connection.fd, connection.answer + connection.answer_size, ANSWER_SIZE_MAX - connection.answer_size, 0)
        if count < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if count <= 0:
            self._lose(connection)
            return
        connection.answer_size += <size_t> count
        self._heard = now_ns()
        if not connection.busy:
            self._object(connection)  # nothing was asked
            self._lose(connection)
            return
        state = read_head(connection.answer, connection.answer_size, &head)
        if state < 0:
            self._object(connection)
            self._lose(connection)
        elif state > 0 and connection.answer_size >= head.body_at + head.body_size:
            self._judge(connection, &head)

    cdef void _judge(self, Connection *connection, Head *head) noexcept nogil:
        cdef Request *request = &connection.outbox.requests[connection.outbox.next]
        cdef const unsigned char *body = connection.answer + head.body_at
        cdef Expectation *expected = connection.outbox.expectations + request.first
        cdef bint is_right
        if request.is_batch:
            is_right = head.status == 200 and is_batch_as_expected(body, head.body_size, expected, request.count)
        else:
            is_right = is_as_expected(head.status, body, head.body_size, expected)
        if self._needle_size and memmem(body, head.body_size, self._needle_bytes, self._needle_size) == NULL:
            is_right = False
        if connection.answer_size != head.body_at + head.body_size or connection.sent < request.size:
            is_right = False  # more than was asked for, or before it was asked
        if not is_right:
            self._object(connection)
        self._last = self._heard
        self._latencies[self._answers] = self._last - connection.due
        self._answers += 1
        self._payments += request.count
        self._in_flight -= 1
        connection.busy, connection.answer_size = False, 0
        connection.outbox.next += 1
        if self._interval > 0:
            self._start_owed(connection)
        else:
            self._start_next(connection, self._last)

    cdef void _object(self, Connection *connection) noexcept nogil:
        """Count a wrong answer, and keep the first one's beginning."""
        cdef Request *request
        self._wrong += 1
        if self._sample_size == 0:
            self._sample_size = min(connection.answer_size, <size_t> SAMPLE_SIZE)
            memcpy(self._sample, connection.answer, self._sample_size)
            if connection.outbox.next < connection.outbox.request_count:
                request = &connection.outbox.requests[connection.outbox.next]
                self._sample_expected = connection.outbox.expectations[request.first]

    cdef void _lose(self, Connection *connection) noexcept nogil:
        """Close a connection; a request in flight, or one that should follow in this run, has no answer."""
        if connection.fd >= 0:
            close(connection.fd)
        connection.fd, connection.lost = -1, True
        if connection.busy:
            self._missing += 1
            self._in_flight -= 1
            connection.busy = False
            connection.outbox.next += 1


cdef bint _is_closed(Connection *connection) noexcept:
    """Return whether the server has closed a connection that rests, or said something unasked."""
    cdef ssize_t count = recv(connection.fd, connection.answer, 1, 0)
    return not (count < 0 and errno == EAGAIN)
