"""The load client: many HTTP/1.1 connections in one compiled epoll loop, every answer checked, every latency kept.

Requests are serialised and their answers foretold before the clock starts; within `run` no Python object is touched and the
interpreter's lock is released. Each connection sends its requests in order, one in flight.

Closed loop: the next request leaves when the answer before has come. Open loop: requests leave at instants fixed beforehand
(`rate` a second over all connections), and a latency counts from that instant, however late the request could be sent: a slow
answer makes its successors late, and that is seen (no coordinated omission).
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, itimerspec, timespec
from posix.unistd cimport close

from paychan._fast.bytes cimport distance

import socket
import time

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t needle_size)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *a, const char *b, size_t size)

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
    ANSWER_SIZE_MAX = 256 << 10    # room for 1024 answers of a batch; pages that are not touched cost nothing
    EVENTS_MAX = 256
    SAMPLE_SIZE = 600              # of the first wrong answer, for the report
    TIMER = 0xFFFFFFFF             # the timer's mark among the connections' numbers
    SECOND = 1_000_000_000

IDLE_SECONDS_MAX = 8.0
"""A connection that rested longer is made anew before a run: granian closes idle ones after 20 s, and could do so just then."""

cdef struct Expectation:           # of one payment's answer; -1: not looked at
    int64_t left                   # satoshi
    int64_t received               # satoshi
    uint16_t status

cdef struct Request:
    size_t start                   # in `bytes`
    size_t size
    size_t first                   # in `expectations`
    uint32_t count                 # of expectations: more than one only in a batch
    bint is_batch

cdef struct Connection:
    int fd                         # -1: closed
    bint busy                      # a request is in flight
    bint lost                      # closed with work to do: out of this run
    unsigned char *bytes           # all requests one after the other
    size_t bytes_size, bytes_room
    Request *requests
    size_t request_count, request_room
    Expectation *expectations
    size_t expectation_count, expectation_room
    size_t next                    # the request in flight, or to be sent next
    size_t sent                    # bytes of it that the kernel took
    uint64_t due                   # ns: from when its latency counts
    uint32_t owed                  # open loop: requests that should have left already
    uint64_t scheduled             # open loop: how many of this run's instants belong to it and have passed or been used
    unsigned char *answer
    size_t answer_size

cdef struct Head:
    int status
    size_t body_at
    size_t body_size


cdef inline uint64_t now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * SECOND + <uint64_t> now.tv_nsec


cdef int64_t read_number(const unsigned char *text, size_t size) noexcept nogil:
    """Return the decimal number after optional spaces, -1 if there is none or it is too long."""
    cdef size_t at = 0, digits = 0
    cdef int64_t value = 0
    while at < size and (text[at] == b" " or text[at] == b"\t"):
        at += 1
    while at < size and b"0" <= text[at] <= b"9" and digits < 18:
        value = 10 * value + (text[at] - <int> b"0")
        at += 1
        digits += 1
    return value if digits and not (at < size and b"0" <= text[at] <= b"9") else -1


cdef int64_t member(const unsigned char *body, size_t size, const char *name, size_t name_size) noexcept nogil:
    """Return the number that follows `name` (with quotes and colon) in a JSON object, -1 if there is none."""
    cdef const unsigned char *found = <const unsigned char *> memmem(body, size, name, name_size)
    if found == NULL:
        return -1
    cdef size_t at = <size_t> distance(body, found) + name_size
    return read_number(body + at, size - at)


cdef int read_head(const unsigned char *data, size_t size, Head *head) noexcept nogil:
    """Read status and length of the body. Return 1; 0 if the head is not complete yet; -1 if it is no head that we know."""
    cdef const unsigned char *end = <const unsigned char *> memmem(data, size, b"\r\n\r\n", 4)
    cdef const unsigned char *line_end
    cdef size_t at, line_size, head_size
    cdef int64_t length = -1
    if end == NULL:
        return 0 if size < ANSWER_SIZE_MAX else -1
    head_size = <size_t> distance(data, end) + 2
    if head_size < 15 or memcmp(data, b"HTTP/1.", 7) != 0 or data[8] != b" ":
        return -1
    head.status = <int> read_number(data + 9, 3)
    if head.status < 100:
        return -1
    at = 0
    while at < head_size:
        line_end = <const unsigned char *> memmem(data + at, head_size - at, b"\r\n", 2)
        line_size = <size_t> distance(data + at, line_end)
        if line_size > 15 and strncasecmp(<const char *> data + at, b"content-length:", 15) == 0:
            if length >= 0:
                return -1
            length = read_number(data + at + 15, line_size - 15)
            if length < 0:
                return -1
        at += line_size + 2
    if length < 0 or length > <int64_t> ANSWER_SIZE_MAX:
        return -1
    head.body_at = head_size + 2
    head.body_size = <size_t> length
    return 1


cdef bint is_as_expected(int status, const unsigned char *body, size_t size, const Expectation *expected) noexcept nogil:
    """Return whether one payment's answer says what it must."""
    if status != expected.status:
        return False
    if expected.left >= 0 and member(body, size, b'"channel_value_left":', 21) != expected.left:
        return False
    return expected.received < 0 or member(body, size, b'"value_received":', 17) == expected.received


cdef bint is_batch_as_expected(const unsigned char *body, size_t size, const Expectation *expected, uint32_t count) noexcept nogil:
    """Return whether a batch's answers, u16 status | u16 length | body each, are those of its payments, in order, and no more."""
    cdef size_t at = 0, part
    cdef uint32_t i
    for i in range(count):
        if size - at < 4:
            return False
        part = body[at + 2] | <size_t> body[at + 3] << 8
        if size - at - 4 < part:
            return False
        if not is_as_expected(body[at] | <int> body[at + 1] << 8, body + at + 4, part, expected + i):
            return False
        at += 4 + part
    return at == size


cdef void *grown(void *block, size_t needed, size_t *room, size_t each) except NULL:
    """Return `block` with room for `needed` items of `each` bytes."""
    if block != NULL and needed <= room[0]:
        return block
    cdef size_t wanted = needed + needed // 2 + 16
    cdef void *larger = realloc(block, wanted * each)
    if larger == NULL:
        raise MemoryError()
    room[0] = wanted
    return larger


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
            free(self._connections[i].bytes)
            free(self._connections[i].requests)
            free(self._connections[i].expectations)
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
        return connection.request_count - connection.next

    def give(self, Py_ssize_t number, list requests not None):
        """Append requests to a connection's: (bytes, is it a batch, [(status, value left, value received), ...]) each.

        Values in satoshi, -1 or None: not looked at. What has been answered is forgotten first.
        """
        cdef Connection *connection = self._at(number)
        cdef bytes raw
        cdef list expected
        _forget_answered(connection)
        for raw, is_batch, expected in requests:
            _append(connection, raw, is_batch, expected)

    def clear(self):
        """Forget all requests that have not been sent."""
        cdef Py_ssize_t i
        for i in range(self._count):
            self._connections[i].next = self._connections[i].request_count
            _forget_answered(&self._connections[i])

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
        if self._started >= self._most or connection.lost or connection.next >= connection.request_count:
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
        cdef Request *request = &connection.requests[connection.next]
        cdef ssize_t count
        if not connection.busy:
            return
        while connection.sent < request.size:
            count = send(connection.fd, connection.bytes + request.start + connection.sent,
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
        cdef Request *request = &connection.requests[connection.next]
        cdef const unsigned char *body = connection.answer + head.body_at
        cdef Expectation *expected = connection.expectations + request.first
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
        connection.next += 1
        if self._interval > 0:
            self._start_owed(connection)
        else:
            self._start_next(connection, self._last)

    cdef void _object(self, Connection *connection) noexcept nogil:
        """Count a wrong answer, and keep the first one's beginning."""
        self._wrong += 1
        if self._sample_size == 0:
            self._sample_size = min(connection.answer_size, <size_t> SAMPLE_SIZE)
            memcpy(self._sample, connection.answer, self._sample_size)
            if connection.next < connection.request_count:
                self._sample_expected = connection.expectations[connection.requests[connection.next].first]

    cdef void _lose(self, Connection *connection) noexcept nogil:
        """Close a connection; a request in flight, or one that should follow in this run, has no answer."""
        if connection.fd >= 0:
            close(connection.fd)
        connection.fd, connection.lost = -1, True
        if connection.busy:
            self._missing += 1
            self._in_flight -= 1
            connection.busy = False
            connection.next += 1


cdef bint _is_closed(Connection *connection) noexcept:
    """Return whether the server has closed a connection that rests, or said something unasked."""
    cdef ssize_t count = recv(connection.fd, connection.answer, 1, 0)
    return not (count < 0 and errno == EAGAIN)


cdef int _append(Connection *connection, bytes raw, bint is_batch, list expected) except -1:
    cdef size_t size = <size_t> len(raw), at = connection.bytes_size
    connection.bytes = <unsigned char *> grown(connection.bytes, at + size, &connection.bytes_room, 1)
    memcpy(connection.bytes + at, <const unsigned char *> raw, size)
    connection.bytes_size += size
    connection.requests = <Request *> grown(
        connection.requests, connection.request_count + 1, &connection.request_room, sizeof(Request))
    cdef Request *request = &connection.requests[connection.request_count]
    request.start, request.size, request.is_batch = at, size, is_batch
    request.first, request.count = connection.expectation_count, <uint32_t> len(expected)
    if request.count == 0 or (request.count > 1 and not is_batch):
        raise ValueError("one answer is expected of a request, or one of each payment of a batch")
    connection.request_count += 1
    for status, left, received in expected:
        connection.expectations = <Expectation *> grown(
            connection.expectations, connection.expectation_count + 1, &connection.expectation_room, sizeof(Expectation))
        connection.expectations[connection.expectation_count] = Expectation(
            -1 if left is None else left, -1 if received is None else received, status)
        connection.expectation_count += 1
    return 0


cdef int _forget_answered(Connection *connection) except -1:
    """Move what is still to be sent to the beginning."""
    cdef size_t i, kept = connection.request_count - connection.next
    cdef size_t byte_at, expectation_at
    if connection.next == 0:
        return 0
    byte_at, expectation_at = connection.bytes_size, connection.expectation_count
    if kept:
        byte_at, expectation_at = connection.requests[connection.next].start, connection.requests[connection.next].first
        memmove(connection.requests, connection.requests + connection.next, kept * sizeof(Request))
        memmove(connection.bytes, connection.bytes + byte_at, connection.bytes_size - byte_at)
        memmove(connection.expectations, connection.expectations + expectation_at,
                (connection.expectation_count - expectation_at) * sizeof(Expectation))
    connection.bytes_size -= byte_at
    connection.expectation_count -= expectation_at
    connection.request_count, connection.next = kept, 0
    for i in range(kept):
        connection.requests[i].start -= byte_at
        connection.requests[i].first -= expectation_at
    return 0
