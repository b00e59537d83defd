# Group commit, a worker's half: what waits to become durable, and who waits for it.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from .channel cimport SHARD_COUNT_MAX, Channel, ChannelTable
from .tally cimport Tally

cdef enum Outcome:
    LOST = -1       # the store is gone: whether the write took effect is unknown
    WRITTEN = 0     # EntryStatus.OK; what else the store answers is > 0
    STALE = 1       # EntryStatus.STALE_EPOCH
    STOPPED = 4     # EntryStatus.STOPPED
    PENDING = 100   # not known yet

cdef struct Write:
    Channel *channel             # a slot, which may have another channel by now: `serial` tells
    uint64_t serial
    uint64_t credit              # satoshi: the sum of what its waiters will tell their payers was received
    uint64_t charge              # satoshi, two's complement: by how much what they will tell was spent changes
    uint64_t epoch               # of its shard when it was sealed
    uint16_t shard
    int outcome
    unsigned char outpoint[36]

# What was acknowledged of a shard's payments, or of its sales, under one epoch. 24 bytes.
cdef struct Claim:
    uint64_t epoch
    uint64_t sum                 # satoshi; of sales, which may be given back, in two's complement
    bint is_due                  # it is another than the store has been told

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

    cdef int add(self, Channel *channel, Waiter waiter, uint64_t credit, uint64_t charge) except -1
    cdef unsigned char *seal_into(self, unsigned char *end) except NULL
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
    cdef readonly Py_ssize_t waiting
    cdef public Py_ssize_t waiting_max
    cdef Claim *_claims          # by shard: what was credited; by shard + CHARGED: what was charged
    cdef uint16_t *_due          # those that are due
    cdef uint32_t _due_count
    cdef Tally _tally
    cdef uint64_t told_at        # nanoseconds at which the group ended whose waiters are told now; 0: none are

    cdef Group _group_of(self, const Channel *channel)
    cdef Group _open_group(self)
    cdef int _rouse(self) except -1
    cdef int add(self, Channel *channel, Waiter waiter, uint64_t credit, uint64_t charge) except -1
    cdef void _claim(self, uint32_t what, uint64_t epoch, uint64_t change) noexcept
    cdef unsigned char *_claims_into(self, unsigned char *end) noexcept
    cdef bint join(self, Channel *channel, Waiter waiter) except -1
    cdef void _count_charge(self, uint64_t charge) noexcept
    cdef int _claim_entry(self, bytes entry) except -1
    cdef int _tell(self, Group group) except -1
    cdef int _drop(self, const unsigned char *outpoint, int outcome) except -1
