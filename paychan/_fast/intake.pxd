# Payments on their way in, from any door: judged at once, answered when they are durable.

from libc.stdint cimport uint32_t, uint64_t

from .channel cimport ChannelTable
from .commit cimport CommitQueue, Waiter
from .limits cimport AddressLimits
from .status cimport Status
from .tally cimport Tally

# Types of the frames between workers; paychan/server/doors/peers.py has the others.
cdef enum:
    PAYMENT = 2
    SALE = 3
    FAILING_PAYMENT = 4             # from an address of whose requests too many fail

cdef class PaymentRequest(Waiter):
    cdef Intake _intake
    cdef int _status                # of its judgement, while it waits for the write
    cdef uint64_t _value_left       # satoshi
    cdef uint64_t _value_received   # satoshi
    cdef bytes outpoint             # while it waits on another worker, or if its channel is exhausted or holds more than it should
    cdef uint64_t _arrived          # nanoseconds, at the turn of the event loop in which it was first judged
    cdef readonly int attempts
    cdef public bint ignore_change_address
    cdef bint is_marked             # another worker says that it comes from an address of whose requests too many fail

    cdef str get_path(self)
    cdef str get_query(self)
    cdef bytes get_target(self)
    cdef unsigned char frame_kind(self)
    cdef int door(self) noexcept
    cdef uint64_t address(self) except? 0
    cdef bint is_from_failing(self) except -1
    cdef int blame(self, int status) except -1
    cdef bint brings_money(self)
    cdef Status judge(self, ChannelTable table, uint64_t now) except *
    cdef int paid(self) except -1
    cdef int exhausted(self) except -1
    cdef int relay(self, bytes body) except -1
    cdef int refuse(self, object reply) except -1
    cdef int tell(self, object reply) except -1
    cdef int _end(self, int outcome) except -1
    cdef int elsewhere(self, bytes outpoint, uint32_t shard) except -1

cdef class Intake:
    cdef ChannelTable _table
    cdef CommitQueue _queue
    cdef object _rules
    cdef list _refusals             # by status: the answer to what is refused by its form alone
    cdef uint64_t _exposure_max     # satoshi
    cdef public list links          # by shard: the open ForwardLink to its owner, or None
    cdef object _trouble            # the answer while nothing can be taken, or None
    cdef public object no_money     # the answer to what brings money while no more may come, or None
    cdef uint64_t _now              # unix seconds
    cdef uint64_t _time             # unix seconds that reservations are judged by
    cdef bint _has_time
    cdef bint _has_looked
    cdef uint64_t _turn             # nanoseconds, when it was looked
    cdef Tally _tally
    cdef AddressLimits _limits

    cdef uint64_t time(self) except? 0
    cdef int take(self, PaymentRequest request) except -1
    cdef int _take(self, PaymentRequest request) except -1
    cdef int _await_write(self, PaymentRequest request, Status status) except -1
