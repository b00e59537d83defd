# The channels that this worker has read, each in one fixed-size slot, and what a payment does to one.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from .payment cimport DER_SIZE_MAX, PaymentView
from .purchase cimport Purchase, Sales
from .secp256k1 cimport PublicKey
from .sighash cimport CHANGE_SCRIPT_SIZE_MAX, REDEEM_SIZE_MAX
from .status cimport Status

cdef enum:
    CHUNK_SLOTS = 1024
    SHARD_COUNT_MAX = 4096
    STATE_SIZE_MAX = 276      # a state record without a txid: 28 bytes, the signature, PURCHASES_SIZE_MAX
    ENTRY_SIZE_MAX = 360      # of a COMMIT entry with such a record; its head is ENTRY_HEAD of paychan/rpc/store_messages.py

# The phases of paychan/core/channel.py.
cdef enum Phase:
    PHASE_OPEN = 1
    PHASE_CLOSING = 2
    PHASE_SETTLED = 5

# Values in satoshi. "sent": in the group in flight or the last one; "durable": acknowledged by the store.
cdef struct Channel:
    uint64_t funding_value
    uint64_t change_value            # of the newest verified payment
    uint64_t sent_change_value
    uint64_t durable_change_value
    uint64_t serial                  # of this loading; no two are the same; 0 in a free slot
    uint64_t watched_above           # satoshi received above which the rules hear of each payment; see intake.pyx
    uint64_t group                   # number of the commit group that it was last queued in, 0: none; see commit.pyx
    uint32_t place                   # of its write in that group
    uint32_t chain_generation        # of the chain's tip when the funding output was last found well; 0: never
    uint32_t exp_time                # unix seconds
    uint32_t failure_second          # unix seconds: in which `failures` were counted
    uint16_t failures                # verifications that failed in that second
    uint16_t shard
    unsigned char phase
    unsigned char sent_phase
    unsigned char durable_phase
    unsigned char sighash_type
    unsigned char signature_size
    unsigned char redeem_size
    unsigned char change_script_size
    unsigned char in_use
    unsigned char outpoint[36]       # txid in internal order, index little-endian
    unsigned char signature[DER_SIZE_MAX]
    unsigned char redeem[REDEEM_SIZE_MAX]
    unsigned char change_script[CHANGE_SCRIPT_SIZE_MAX]
    PublicKey client_key             # parsed once, when the channel is loaded
    Sales *sales                     # ours; NULL: nothing was sold on it

cdef inline bint is_durable(const Channel *channel) noexcept nogil:
    """Whether the newest state of a channel has been acknowledged by the store."""
    return (channel.change_value == channel.durable_change_value and channel.phase == channel.durable_phase
            and (channel.sales == NULL or channel.sales.revision == channel.sales.durable_revision))


cdef inline void acknowledge(Channel *channel) noexcept nogil:
    """Note that what was last sealed of this channel is durable."""
    channel.durable_phase = channel.sent_phase
    channel.durable_change_value = channel.sent_change_value
    if channel.sales != NULL:
        channel.sales.durable_revision = channel.sales.sent_revision


cdef class ChannelTable:
    # slots in chunks that never move; `_index` maps a hash to slot number + 1 (0: free, TOMBSTONE: removed)
    cdef Channel **_chunks
    cdef uint32_t _chunk_count
    cdef uint32_t *_index
    cdef uint32_t _index_mask
    cdef uint32_t _index_used        # occupied and removed places
    cdef uint32_t _slot_count        # slots ever handed out
    cdef list _free_slots
    cdef uint64_t _seed
    cdef uint64_t _serial
    cdef uint64_t[SHARD_COUNT_MAX] _epochs   # 0: not ours
    cdef unsigned char[SHARD_COUNT_MAX] _is_stopped
    cdef uint32_t _shard_count
    cdef uint32_t _settlement_period         # seconds
    cdef unsigned char[36] _outpoint
    cdef Py_ssize_t _count
    cdef int64_t _failing_ns                 # what is left of the time for verifications that fail
    cdef int64_t _failing_ns_max
    cdef int64_t _failing_per_mille
    cdef int64_t _refilled_at
    # rises with every new best block: what was checked before must be checked again
    cdef public uint32_t chain_generation
    cdef public uint64_t watch_above         # satoshi: `watched_above` of channels when they are loaded
    cdef public uint64_t open_price          # satoshi: spent with the first sale on a channel
    # the outcome of the last pay()
    cdef readonly uint32_t shard
    cdef readonly uint64_t value_received
    cdef readonly uint64_t value_left
    cdef readonly uint64_t shortfall
    cdef readonly uint64_t exposure
    cdef Channel *judged             # the channel of the last judgement, NULL if it was not found
    cdef bint is_from_failing        # whether what is judged now comes from an address whose requests fail; see limits.pxd
    cdef uint64_t charged            # satoshi, two's complement: by how much it changed what was spent
    cdef uint64_t spent              # satoshi: after the last sale
    cdef Purchase purchase           # that the last sale made, settled or found
    cdef bint is_repeated            # the last sale changed nothing of what is sold: that had been done before

    cdef void _free_sales(self, uint32_t chunk) noexcept
    cdef Channel *_slot(self, uint32_t number) noexcept nogil
    cdef uint32_t _place(self, const unsigned char *outpoint) noexcept nogil
    cdef Channel *_find(self, const unsigned char *outpoint) noexcept nogil
    cdef Status judge(self, const unsigned char *path, Py_ssize_t path_size, const unsigned char *query, Py_ssize_t query_size,
                      uint64_t now, bint ignore_change_address) noexcept
    cdef Status judge_binary(self, const unsigned char *outpoint, const unsigned char *raw, Py_ssize_t raw_size,
                             uint64_t now) noexcept
    cdef Status _look_up(self) noexcept
    cdef Status _judge_payment(self, const PaymentView *payment, uint64_t now) noexcept
    cdef Status _weigh(self, Channel *channel, const PaymentView *payment, uint64_t now) noexcept nogil
    cdef Status _weigh_channel(self, const Channel *channel, uint64_t now) noexcept nogil
    cdef void _accept(self, Channel *channel, const PaymentView *payment) noexcept nogil
    cdef Status _verify(self, Channel *channel, const PaymentView *payment, uint64_t now) noexcept nogil
    cdef Channel *_get(self, bytes outpoint) except NULL
    cdef unsigned char *seal_into(self, Channel *channel, uint64_t credit, uint64_t charge, unsigned char *end) noexcept nogil
    cdef void _forget_shards(self, const unsigned char *is_forgotten) noexcept
    cdef void stop_one(self, uint32_t shard) noexcept
    cdef void forget(self, const unsigned char *outpoint) noexcept
    cdef Channel *_insert(self, const unsigned char *outpoint) except NULL
    cdef void _remove(self, uint32_t place) noexcept
    cdef int _resize_index(self, uint32_t size) except -1
