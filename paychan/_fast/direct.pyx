"""The owner's own port: HTTP/1.1 spoken by the worker itself, on its event loop, for payments at their signature check's price.

Strict: what the reader of request heads (http.pyx) does not fully understand is refused, and the connection closed. Requests may be
pipelined; answers go out in the order of the requests. Everything but a payment goes the way of all other requests, by
`door.answer`.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from libc.time cimport time, time_t

from .channel cimport ChannelTable
from .http cimport COMPLETE, HEAD, INCOMPLETE, POST, PUT, HttpStatus, RequestHead, parse_head, values_of
from .intake cimport Intake, PaymentRequest
from .status cimport Status
from .tally cimport OWN

PIPELINED_MAX = 64
"""Requests of one connection that wait for their answers: beyond it, nothing more is read from it."""

PENDING_BYTES_MAX = 262144
"""Of the bodies of those requests: two batches. A batch takes three times its size while it waits, so 64 of them were 21 MB."""

LENGTH_REQUIRED = 4110
"""Beside the `HttpStatus` of heads: a batch without Content-Length. Whether a body follows, nobody knows."""

cdef enum:
    _PIPELINED_MAX = 64
    _PENDING_BYTES_MAX = 262144
    _LENGTH_REQUIRED = 4110

cdef tuple _METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "OTHER")

cdef extern from "stdio.h" nogil:
    int snprintf(char *text, size_t size, const char *format, ...)


cdef class DirectRequest(PaymentRequest):
    """A request of a connection, and its place in the order of the answers."""

    cdef DirectConnection _connection
    cdef bytes _target            # path, '?' and query, as they came
    cdef Py_ssize_t _path_size
    cdef str _decoded_path        # if the path had escapes
    cdef readonly bytes host
    cdef bytes _forwarded         # what the trusted proxy wrote of its client; None: the connection is the client's own
    cdef bytes _authorization     # if there is exactly one
    cdef readonly bint is_last    # the connection ends with its answer
    cdef readonly bint wants_no_body
    cdef Py_ssize_t _body_size
    cdef bytes _response

    @property
    def authorization(self):
        """The Authorization header; empty if there is none, or more than one."""
        return self._authorization or b""

    @property
    def counted_for(self):
        """Whom it is counted for, a number of paychan/core/addresses.py."""
        return self.address()

    cdef uint64_t address(self) except? 0:
        if self._forwarded is None:
            return self._connection._address
        return self._connection._door._callers.behind(self._connection._host, self._forwarded)

    cdef Status judge(self, ChannelTable table, uint64_t now) except *:
        cdef const unsigned char *target = <const unsigned char *> PyBytes_AS_STRING(self._target)
        cdef Py_ssize_t query_at = min(self._path_size + 1, len(self._target))
        if self._decoded_path is not None:
            return PaymentRequest.judge(self, table, now)
        return table.judge(target, self._path_size, target + query_at, len(self._target) - query_at, now,
                           self.ignore_change_address)

    cdef int door(self) noexcept:
        return OWN

    cdef str get_path(self):
        if self._decoded_path is not None:
            return self._decoded_path
        return self._target[:self._path_size].decode("ascii")

    cdef str get_query(self):
        return self._target[self._path_size + 1:].decode("ascii")

    cdef bytes get_target(self):
        return self._target if self._decoded_path is None else PaymentRequest.get_target(self)

    cdef int relay(self, bytes body) except -1:
        return self._respond(self._connection._door.paid_response(body, self.is_last))

    cdef int refuse(self, object reply) except -1:
        return self._respond(self._connection._door._render(reply, self))

    def respond(self, reply not None):
        """Answer what is no payment, with a `Reply`."""
        self.refuse(reply)

    cdef int _respond(self, bytes response) except -1:
        if self._response is None:
            self._response = response
            self._connection.flush()
        return 0


cdef class DirectDoor:
    """What all connections of a worker share.

    answer(request, method, path, query, body): answers, later, what is no payment. render(reply, request): returns a whole HTTP
    response. refusal(status): the Reply to a head that was refused, by its `HttpStatus`. unquote(text): resolves a path's escapes.
    paid_head(date): an accepted payment's status line and headers, up to the value of Content-Length. body_paths: the resources
    that take a body, of at most `body_max` bytes. connections_max: more are closed at once.
    callers: tells whom a connection is counted for, and refuses those of an address that has too many (paychan/server/limits.py);
    None: nobody is counted.
    """

    cdef public Intake intake          # None until the worker has joined the store
    cdef readonly set connections
    cdef object _answer
    cdef object _render
    cdef object _refusal
    cdef object _unquote
    cdef object _paid_head_of
    cdef tuple _body_paths
    cdef Py_ssize_t _body_max
    cdef Py_ssize_t _connections_max
    cdef object _callers
    cdef bytes _forwarding             # the header in which trusted proxies write, in lower case
    cdef time_t _second
    cdef bytes _paid_head
    cdef long _ticks                   # of `sweep`

    def __init__(self, *, answer, render, refusal, unquote, paid_head, tuple body_paths, Py_ssize_t body_max,
                 Py_ssize_t connections_max, callers=None):
        self._answer, self._render, self._refusal, self._unquote = answer, render, refusal, unquote
        self._paid_head_of, self._body_paths, self._body_max = paid_head, body_paths, body_max
        self._connections_max, self._callers = connections_max, callers
        self._forwarding = callers.header if callers is not None else b""
        self.connections = set()

    def connect(self):
        """Return the protocol of a new connection."""
        return DirectConnection(self)

    def sweep(self, long silent_ticks_max):
        """Close connections that have brought nothing whole for so many calls of this, and wait for no answer."""
        cdef DirectConnection connection
        self._ticks += 1
        for connection in list(self.connections):
            if not connection._pending and self._ticks - connection._since > silent_ticks_max:
                connection.give_up()

    cdef bytes paid_response(self, bytes body, bint is_last):
        """Return the whole response to an accepted payment."""
        cdef bytes head, response
        cdef char line[64]
        cdef const char *form = b"%zd\r\nconnection: close\r\n\r\n" if is_last else b"%zd\r\n\r\n"
        cdef Py_ssize_t body_size = len(body)
        cdef int line_size = snprintf(line, sizeof(line), form, body_size)
        cdef time_t now = time(NULL)
        cdef char *end
        if now != self._second:
            self._second, self._paid_head = now, self._paid_head_of(now)
        head = self._paid_head
        response = PyBytes_FromStringAndSize(NULL, len(head) + line_size + body_size)
        end = PyBytes_AS_STRING(response)
        memcpy(end, PyBytes_AS_STRING(head), len(head))
        memcpy(end + len(head), line, line_size)
        memcpy(end + len(head) + line_size, PyBytes_AS_STRING(body), body_size)
        return response


cdef class DirectConnection:
    """One connection: an asyncio protocol."""

    cdef DirectDoor _door
    cdef object _transport
    cdef bytearray _rest           # of a request that is not whole, and what came after it
    cdef Py_ssize_t _seen          # of `_rest`, by the last reading of a head
    cdef Py_ssize_t _needed        # bytes of `_rest` below which nothing can be read
    cdef list _pending             # DirectRequest, unanswered or behind one that is
    cdef Py_ssize_t _pending_bytes  # of their bodies
    cdef long _since               # when it last brought something whole, in the door's ticks
    cdef bint _is_closing          # nothing more is read
    cdef bint _is_reading          # `_read_all` runs
    cdef bint _is_paused
    cdef bint _is_stuffed          # the client does not take its answers
    cdef bint _has_continued
    cdef str _host                 # of the peer; empty: it has no address, or nobody asks for it
    cdef uint64_t _address         # that the connection is counted for, 0: nobody
    cdef bint _is_proxied          # a trusted proxy's, whose clients are counted one by one
    cdef bint _is_counted          # among its address' connections

    def __init__(self, DirectDoor door not None):
        self._door = door
        self._rest, self._pending = bytearray(), []

    # --- asyncio.Protocol ---

    def connection_made(self, transport):
        self._transport, self._since = transport, self._door._ticks
        self._door.connections.add(self)
        if len(self._door.connections) > self._door._connections_max:
            self._is_closing = True
            transport.abort()
        elif self._door._callers is not None:
            self._greet(transport)

    cdef int _greet(self, transport) except -1:
        """Find out whom the connection is counted for. Raises nothing that a peer could cause."""
        callers = self._door._callers
        peer = transport.get_extra_info("peername")
        self._host = peer[0] if type(peer) is tuple else ""
        self._address, self._is_proxied = callers.peer(self._host)
        if self._address and not self._is_proxied:
            self._is_counted = callers.takes_connection(self._address)
            if not self._is_counted:
                self._refuse(callers.too_many_connections, False)
        return 0

    def connection_lost(self, _):
        """What waits goes on: a payment that was judged becomes durable, and its answer is lost."""
        self._transport = None
        self._is_closing = True
        self._door.connections.discard(self)
        if self._is_counted:
            self._is_counted = False
            self._door._callers.gives_back(self._address)

    def eof_received(self):
        """Answer what came before the end, then close."""
        self._is_closing = True
        return bool(self._pending)

    def pause_writing(self):
        self._is_stuffed = True

    def resume_writing(self):
        self._is_stuffed = False
        self._go_on()

    def data_received(self, bytes data not None):
        cdef Py_ssize_t used
        if self._is_closing:
            return
        if self._is_paused or self._is_reading or PyByteArray_GET_SIZE(self._rest):
            self._rest += data
            self._go_on()
            return
        self._since = self._door._ticks
        used = self._read_all(<const unsigned char *> PyBytes_AS_STRING(data), len(data))
        if used < len(data) and not self._is_closing:
            self._rest += data[used:]

    # --- reading ---

    cdef int _go_on(self) except -1:
        """Read what has been kept."""
        cdef Py_ssize_t used
        if self._is_reading:
            return 0
        if self._is_full():
            if not self._is_closing:
                self._pause()
            return 0
        if self._is_paused:
            self._is_paused = False
            if self._transport is not None:
                self._transport.resume_reading()
        if self._is_closing or PyByteArray_GET_SIZE(self._rest) < self._needed or not self._rest:
            return 0
        used = self._read_all(<const unsigned char *> PyByteArray_AS_STRING(self._rest), PyByteArray_GET_SIZE(self._rest))
        del self._rest[:used]
        return 0

    cdef int _pause(self) except -1:
        """Take nothing more from the transport: what is kept must not grow while nothing is read."""
        if not self._is_paused:
            self._is_paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        return 0

    cdef bint _is_full(self) noexcept:
        return self._is_stuffed or len(self._pending) >= _PIPELINED_MAX or self._pending_bytes >= _PENDING_BYTES_MAX

    cdef Py_ssize_t _read_all(self, const unsigned char *data, Py_ssize_t size) except -1:
        """Take the whole requests at `data`; return how many bytes they had."""
        cdef Py_ssize_t at = 0, used
        self._is_reading = True
        try:
            while at < size and not self._is_closing:
                if self._is_full():
                    self._pause()
                    break
                used = self._read(data + at, size - at)
                if used == 0:
                    break
                at += used
                self._since = self._door._ticks
                self._seen = self._needed = 0
        finally:
            self._is_reading = False
        return at

    cdef Py_ssize_t _read(self, const unsigned char *data, Py_ssize_t size) except -1:
        """Take the request at `data`; return how many bytes it had, 0 if it is not whole."""
        cdef RequestHead head
        cdef HttpStatus status = parse_head(data, size, self._seen, self._door._body_max, &head)
        cdef bint takes_body
        if status == INCOMPLETE:
            self._seen = size
            return 0
        if status != COMPLETE:
            self._refuse(self._door._refusal(<int> status), head.method == HEAD)
            return size
        takes_body = head.method == POST and head.path[:head.path_size] in self._door._body_paths
        if head.content_length and not takes_body:
            self._refuse(self._door._refusal(<int> COMPLETE), head.method == HEAD)
            return size
        if takes_body and not head.has_content_length:
            self._refuse(self._door._refusal(_LENGTH_REQUIRED), False)
            return size
        if size < head.head_size + head.content_length:
            self._await_body(&head)
            return 0
        self._has_continued = False
        self._take(data, &head)
        return head.head_size + head.content_length

    cdef int _await_body(self, RequestHead *head) except -1:
        self._needed = head.head_size + head.content_length
        if head.expects_continue and not self._has_continued and self._transport is not None:
            if self._pending:
                self._needed = 0  # read again once they have been answered: the client may wait for this one till then
                return 0
            self._has_continued = True
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return 0

    cdef DirectRequest _new_request(self, bytes target, Py_ssize_t path_size, bytes host, bint is_last):
        cdef DirectRequest request = DirectRequest.__new__(DirectRequest)
        request._connection, request._intake = self, self._door.intake
        request._target, request._path_size, request.host, request.is_last = target, path_size, host, is_last
        self._is_closing = is_last
        self._pending.append(request)
        return request

    cdef int _refuse(self, object reply, bint wants_no_body) except -1:
        """Refuse what was not understood. Nobody knows where the next request would start: this is the last answer."""
        cdef DirectRequest request = self._new_request(b"", 0, b"", True)
        request.wants_no_body = wants_no_body
        if not self._is_proxied and request._intake is not None:
            request.blame(reply.status)
        return request.refuse(reply)

    cdef int _take(self, const unsigned char *data, RequestHead *head) except -1:
        cdef DirectDoor door = self._door
        cdef Py_ssize_t target_size = head.path_size
        cdef DirectRequest request
        cdef bytes target
        if head.query_size:
            target_size += 1 + head.query_size
        if head.has_no_path:
            target = b"/" if head.query_size == 0 else b"/?" + head.query[:head.query_size]
        else:
            target = head.path[:target_size]
        request = self._new_request(
            target, head.path_size, head.host[:head.host_size] if head.host != NULL else b"",
            not head.keep_alive)
        if self._is_proxied:
            request._forwarded = values_of(data, head.head_size, door._forwarding)
        if head.has_escapes:
            request._decoded_path = door._unquote(request._target[:head.path_size].decode("ascii"))
        if head.method == PUT and door.intake is not None:
            return door.intake.take(request)
        if head.authorizations == 1:
            request._authorization = head.authorization[:head.authorization_size]
        request.wants_no_body = head.method == HEAD
        request._body_size = head.content_length
        self._pending_bytes += request._body_size
        body = data[head.head_size:head.head_size + head.content_length]
        door._answer(request, _METHODS[head.method], request.get_path(), request.get_query(), body)
        return 0

    # --- answering ---

    cdef int flush(self) except -1:
        """Send the answers that are ready, in the order of the requests."""
        cdef DirectRequest request
        cdef list ready = []
        cdef bint is_last = False
        while self._pending:
            request = self._pending[0]
            if request._response is None:
                break
            ready.append(request._response)
            is_last = request.is_last
            self._pending_bytes -= request._body_size
            del self._pending[0]
        if ready:
            self._since = self._door._ticks
        if ready and self._transport is not None:
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
            if is_last or (self._is_closing and not self._pending):
                self._transport.close()
        if self._is_paused or (self._rest and not self._pending):
            self._go_on()
        return 0

    def finish(self):
        """Take no more requests; close once those that wait have been answered."""
        self._is_closing = True
        if not self._pending:
            self.close()

    def close(self):
        """Close after what has been written."""
        self._is_closing = True
        if self._transport is not None:
            self._transport.close()

    cdef int give_up(self) except -1:
        """Close a connection that has been silent for too long, or too slow; who had begun a request is told so."""
        if self._rest and not self._is_closing:
            self._refuse(self._door._refusal(<int> INCOMPLETE), False)
        elif self._transport is not None:
            self._transport.abort()
        return 0
