# What the payer signs (spec section 4): legacy SINGLE|ANYONECANPAY or NONE|ANYONECANPAY over one input, one output at most.

from libc.stdint cimport uint64_t

cdef enum:
    REDEEM_SIZE_MAX = 81
    CHANGE_SCRIPT_SIZE_MAX = 34
    PREIMAGE_SIZE_MAX = 179

cdef void sighash_for_change(
    const unsigned char *outpoint36, const unsigned char *redeem, unsigned char redeem_size,
    const unsigned char *change_script, unsigned char change_script_size,
    uint64_t change_value, unsigned char sighash_type, unsigned char *digest32) noexcept nogil
