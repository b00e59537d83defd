# Sizes and places in the payload of a COMMIT, for the worker that writes it and the store that reads it. The layout is that of
# ENTRY_HEAD and CLAIM in paychan/rpc/store_messages.py.

cdef enum:
    ENTRY_HEAD_SIZE = 68
    ENTRY_SHARD_AT = 2       # u16
    ENTRY_EPOCH_AT = 4       # u64
    ENTRY_CREDIT_AT = 60     # u64: satoshi
    CLAIM_SIZE = 18          # u16 shard, u64 epoch, u64 credited
