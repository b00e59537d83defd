# A group of conditional updates as the store judges them: the entries of a COMMIT, the channels' states, the cache of states.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef enum:
    HEAD_SIZE = 60           # of an entry: ENTRY_HEAD in paychan/rpc/store_messages.py
    STATE_HEAD_SIZE = 12     # of a state record: STATE_HEAD in paychan/channel.py
    TXID_SIZE = 32           # ends a state record from phase signed on
    WAYS = 4                 # cached states in one bucket
    SLOTS_MIN = 64           # of a group

# EntryStatus of paychan/rpc/store_messages.py.
cdef enum Answer:
    ANSWER_OK = 0
    ANSWER_STALE_EPOCH = 1
    ANSWER_CONFLICT = 2
    ANSWER_FORBIDDEN = 3

# One entry of a COMMIT. Pointers borrow from its payload.
cdef struct EntryView:
    uint64_t epoch
    uint64_t expected_change_value   # satoshi
    const unsigned char *outpoint    # 36
    const unsigned char *state
    const unsigned char *extra
    uint16_t state_size
    uint16_t extra_size
    uint16_t shard
    unsigned char expected_phase

# What must be known of a channel to judge an update. 48 bytes.
cdef struct Known:
    uint64_t change_value            # satoshi
    uint16_t shard                   # of the outpoint
    unsigned char phase              # 0: no such channel; in the cache: a free place
    unsigned char outpoint[36]

# A channel that the group has looked at. `record`: the state record that it will write, borrowed from a payload; NULL: none.
cdef struct Slot:
    Known known
    const unsigned char *record
    uint16_t record_size

cdef class StateCache:
    cdef Known *_places              # buckets of WAYS
    cdef uint32_t _bucket_mask
    cdef uint32_t _next_victim
    cdef readonly uint64_t seed

    cdef Known *_bucket(self, const unsigned char *outpoint) noexcept nogil
    cdef Known *_find(self, const unsigned char *outpoint) noexcept nogil
    cdef void _keep(self, const Known *known) noexcept nogil

cdef class PaymentGroup:
    cdef public object open_value
    cdef StateCache _cache
    cdef list _epochs
    cdef uint32_t _shard_count
    cdef list _payloads              # that the slots borrow from
    cdef Slot *_slots
    cdef uint32_t *_index            # slot number + 1; 0: free
    cdef uint32_t _slot_count
    cdef uint32_t _index_mask

    cdef uint32_t _place(self, const unsigned char *outpoint) noexcept nogil
    cdef int _grow(self) except -1
    cdef Slot *_insert(self, const Known *known) except NULL
    cdef int _learn(self, bytes payload, Py_ssize_t count) except -1
    cdef int _judge_entry(self, const EntryView *entry, uint64_t *paid) except -1
