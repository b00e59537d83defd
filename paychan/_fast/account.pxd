# What the store's shards hold, counted twice: once from what was stored, once from what the workers told the payers.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    SHARDS_MAX = 4096

# Satoshi. The first four are of the channels whose states are cached, and each is kept without the others:
# funding = received + left, and spent is at most received. 48 bytes.
cdef struct ShardAccount:
    uint64_t funding         # from the terms
    uint64_t received        # from what the workers credited
    uint64_t left            # from the state records: the change values
    uint64_t spent           # from the state records
    uint64_t fallen          # by how much the stored change values fell under the shard's present epoch
    uint64_t charged         # by how much what was stored as spent rose under it, two's complement

cdef class Accounts:
    cdef ShardAccount *_of               # by shard
    cdef unsigned char *_is_stopped      # by shard
    cdef dict _found
    cdef readonly dict stopped           # shard: why

    cdef int stop(self, uint32_t shard, str why) except -1
    cdef bint move(self, uint32_t shard, uint64_t funding, uint64_t received, uint64_t left, uint64_t spent,
                   int sign) noexcept nogil
    cdef void forget(self, uint32_t shard) noexcept nogil
    cdef void count(self, uint32_t shard, uint64_t fallen, uint64_t charged) noexcept nogil
