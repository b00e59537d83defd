"""Payments that come through granian, without a coroutine or a future for each of them.

granian hands requests over in a thread of its own. `RsgiDoor.schedule` collects them there, and wakes the event loop once for all
that came since it last looked; in the loop each payment goes straight to the intake. Everything else goes granian's usual way.
"""

from libc.stdint cimport uint64_t

from .intake cimport Intake, PaymentRequest


cdef class RsgiRequest(PaymentRequest):
    """A payment whose answer goes to granian's protocol object."""

    cdef RsgiDoor _door
    cdef object _proto
    cdef str _path
    cdef str _query
    cdef object _scope

    cdef str get_path(self):
        return self._path

    cdef str get_query(self):
        return self._query

    cdef uint64_t address(self) except? 0:
        return self._door._address_of(self._scope)

    cdef int relay(self, bytes body) except -1:
        self._proto.response_bytes(200, self._door._paid_headers, body)
        return 0

    cdef int refuse(self, object reply) except -1:
        self._door._respond(self._scope, self._proto, reply)
        return 0


cdef class RsgiDoor:
    """Owned by one event loop, `call_soon_threadsafe` is its.

    usual(watcher): has granian run the application's coroutine. respond(scope, proto, reply): sends a `Reply`.
    paid_headers: of an accepted payment's answer. address_of(scope): whom a request is counted for (paychan/core/addresses.py).
    `intake` is None until the worker has joined the store.
    """

    cdef public Intake intake
    cdef object _call_soon_threadsafe
    cdef object _usual
    cdef object _respond
    cdef list _paid_headers
    cdef object _address_of
    cdef list _waiting
    cdef bint _is_woken

    def __init__(self, call_soon_threadsafe not None, usual not None, respond not None, list paid_headers not None,
                 address_of not None):
        self._call_soon_threadsafe, self._usual, self._respond = call_soon_threadsafe, usual, respond
        self._paid_headers, self._address_of = paid_headers, address_of
        self._waiting = []

    def schedule(self, watcher):
        """Take a request over from granian, in granian's thread, which holds the interpreter's lock."""
        self._waiting.append(watcher)
        if not self._is_woken:
            self._is_woken = True
            self._call_soon_threadsafe(self._drain)

    def _drain(self):
        # In this order: what is appended after the swap wakes the loop again.
        self._is_woken = False
        waiting, self._waiting = self._waiting, []
        for watcher in waiting:
            try:
                self._take(watcher)
            except Exception:
                self._usual(watcher)  # which answers a bug of ours, and logs it; the others are not kept waiting

    cdef int _take(self, object watcher) except -1:
        cdef RsgiRequest request
        cdef object scope = watcher.scope
        if self.intake is None or scope.method != "PUT" or _has_body(scope.headers):
            self._usual(watcher)
            return 0
        request = RsgiRequest.__new__(RsgiRequest)
        request._intake, request._door = self.intake, self
        request._scope, request._proto = scope, watcher.proto
        request._path, request._query = scope.path, scope.query_string
        return self.intake.take(request)


cdef bint _has_body(object headers) except -1:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def has_body(headers not None):
    """Return whether a request's headers (granian's) announce a body."""
    return _has_body(headers)
