# Group commit, a worker's half: what waits to become durable, and who waits for it.

from libc.stdint cimport uint32_t, uint64_t

from .channel cimport Channel, ChannelTable

cdef enum Outcome:
    LOST = -1       # the store is gone: whether the write took effect is unknown
    WRITTEN = 0     # EntryStatus.OK; what else the store answers is > 0
    STALE = 1       # EntryStatus.STALE_EPOCH
    PENDING = 100   # not known yet

cdef struct Write:
    Channel *channel             # a slot, which may have another channel by now: `serial` tells
    uint64_t serial
    int outcome
    unsigned char outpoint[36]

cdef class Waiter:
    cdef uint32_t _place         # in its group, of the write that it waits for

    cdef int finish(self, int outcome) except -1

cdef class Group:
    cdef ChannelTable _table
    cdef uint64_t number
    cdef Write *_writes
    cdef uint32_t _count
    cdef uint32_t _room
    cdef list _waiters           # Waiter, in the order in which they came
    cdef list _entries           # bytes: updates that the table does not hold
    cdef list _entry_waiters     # Waiter, one for each entry
    cdef uint32_t _sealed

    cdef int add(self, Channel *channel, Waiter waiter) except -1
    cdef bytes seal(self)
    cdef list decided(self)

cdef class CommitQueue:
    cdef ChannelTable _table
    cdef object _wake
    cdef object _report
    cdef uint32_t _entries_max
    cdef bint _is_busy
    cdef list _groups            # Group; the last one takes what comes
    cdef Group _in_flight        # or None
    cdef uint64_t _number

    cdef Group _group_of(self, const Channel *channel)
    cdef Group _open_group(self)
    cdef int _rouse(self) except -1
    cdef int add(self, Channel *channel, Waiter waiter) except -1
    cdef bint join(self, Channel *channel, Waiter waiter) except -1
    cdef int _tell(self, Group group) except -1
    cdef int _drop(self, const unsigned char *outpoint, int outcome) except -1
