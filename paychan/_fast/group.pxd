# A group of conditional updates as the store judges them: the entries of a COMMIT, the channels' states, the cache of states.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from .account cimport Accounts

cdef enum:
    STATE_HEAD_SIZE = 12     # of a state record: STATE_HEAD in paychan/core/channel.py
    SOLD_HEAD_SIZE = 28      # of one on whose channel something was sold: SOLD_HEAD there
    TERMS_HEAD_SIZE = 88     # of a terms record: TERMS_HEAD in paychan/core/channel.py
    TXID_SIZE = 32           # ends a state record from phase signed on
    WAYS = 4                 # cached states in one bucket
    SLOTS_MIN = 64           # of a group

# EntryStatus of paychan/rpc/store_messages.py.
cdef enum Answer:
    ANSWER_OK = 0
    ANSWER_STALE_EPOCH = 1
    ANSWER_CONFLICT = 2
    ANSWER_FORBIDDEN = 3
    ANSWER_STOPPED = 4

# One entry of a COMMIT. Pointers borrow from its payload.
cdef struct EntryView:
    uint64_t epoch
    uint64_t expected_change_value   # satoshi
    uint64_t credit                  # satoshi: what payers are told was received
    uint64_t expected_revision       # of the channel's sales; 0: nothing was sold
    uint64_t charge                  # satoshi, two's complement: by how much what sellers are told was spent changes
    const unsigned char *outpoint    # 36
    const unsigned char *state
    const unsigned char *extra
    uint16_t state_size
    uint16_t extra_size
    uint16_t shard
    unsigned char expected_phase

# What must be known of a channel to judge an update. 80 bytes: four of them fill five lines of a processor's cache.
# Values in satoshi: funding_value = received + change_value, and spent is at most received.
cdef struct Known:
    uint64_t change_value            # from the state record
    uint64_t funding_value           # from the terms record
    uint64_t received                # from the workers' credits, since it was read from the database
    uint64_t spent                   # from the state record
    uint64_t revision                # of the channel's sales, from the state record
    uint16_t shard                   # of the outpoint
    unsigned char phase              # 0: no such channel; in the cache: a free place
    unsigned char outpoint[36]

# A channel that the group has looked at. `record`: the state record that it will write, borrowed from a payload; NULL: none.
cdef struct Slot:
    Known known
    const unsigned char *record
    uint64_t change_value_before     # satoshi: before the group
    uint64_t spent_before            # satoshi: before the group
    uint64_t revision_before         # of the channel's sales
    uint32_t accepted                # updates
    uint16_t record_size
    unsigned char phase_before
    bint is_cached                   # not read from the database

cdef class StateCache:
    cdef readonly Accounts accounts
    cdef void *_memory
    cdef Known *_places              # buckets of WAYS, each at a multiple of 64 bytes
    cdef uint32_t _bucket_mask
    cdef uint32_t _next_victim
    cdef readonly uint64_t seed

    cdef Known *_bucket(self, const unsigned char *outpoint) noexcept nogil
    cdef Known *_find(self, const unsigned char *outpoint) noexcept nogil
    cdef int _keep(self, const Known *known) except -1
    cdef str _uneven(self, const Known *place)

cdef class PaymentGroup:
    cdef public object open_value
    cdef public object open_spent
    cdef StateCache _cache
    cdef Accounts _accounts
    cdef list _epochs
    cdef uint32_t _shard_count
    cdef list _payloads              # that the slots borrow from
    cdef Slot *_slots
    cdef uint32_t *_index            # slot number + 1; 0: free
    cdef uint32_t _slot_count
    cdef uint32_t _index_mask
    cdef public uint64_t threshold   # satoshi: received on a channel, from where on it is told; UINT64_MAX: never
    cdef readonly list crossed       # (outpoint, funding value, received) of those that reached it in this group; None: none did

    cdef uint32_t _place(self, const unsigned char *outpoint) noexcept nogil
    cdef int _grow(self) except -1
    cdef Slot *_insert(self, const Known *known) except NULL
    cdef int _learn(self, bytes payload, Py_ssize_t count) except -1
    cdef int _read_missing(self, list names) except -1
    cdef int _understand(self, bytes outpoint, object record, object terms, Known *known) except -1
    cdef int _judge_entry(self, const EntryView *entry, uint64_t *paid) except -1
    cdef bint _may_sell(self, const EntryView *entry, const Known *known, const Known *new) noexcept nogil
    cdef int _count_open(self, const Known *known, const Known *new) except -1
    cdef int _judge_money(self, const EntryView *entry, Known *known, const Known *new) except -1
    cdef int _doubt(self, const EntryView *entry) except -1
    cdef int _judge_claims(self, const unsigned char *at) except -1
    cdef int _note_crossed(self, const Slot *slot) except -1
    cdef bint _is_sound(self, const Slot *slot) except -1
