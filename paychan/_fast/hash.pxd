# Where an outpoint belongs: its place in a hash table, and its shard. One copy, for worker and store.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t paychan_mix(uint64_t x) {
        x ^= x >> 33; x *= 0xff51afd7ed558ccdULL;
        x ^= x >> 33; x *= 0xc4ceb9fe1a85ec53ULL;
        return x ^ (x >> 33);
    }
    static inline uint64_t paychan_outpoint_hash(const unsigned char *outpoint, uint64_t seed) {
        uint64_t head; uint32_t vout;
        memcpy(&head, outpoint, 8); memcpy(&vout, outpoint + 32, 4);
        return paychan_mix((head ^ seed) + vout);
    }
    static inline uint32_t paychan_shard_of(const unsigned char *outpoint, uint32_t shard_count) {
        uint64_t head; uint32_t vout;
        memcpy(&head, outpoint, 8); memcpy(&vout, outpoint + 32, 4);
        return (uint32_t) (((head + vout * 0x9E3779B97F4A7C15ULL) >> 16) % shard_count);
    }
    """
    # seed: random, so that nobody can choose outpoints that collide
    uint64_t outpoint_hash "paychan_outpoint_hash"(const unsigned char *outpoint, uint64_t seed) noexcept nogil
    # the compiled twin of paychan/core/sharding.py
    uint32_t shard_of_outpoint "paychan_shard_of"(const unsigned char *outpoint, uint32_t shard_count) noexcept nogil
