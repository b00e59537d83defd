# Sizes and places in the payload of a COMMIT, for the worker that writes it and the store that reads it. The layout is that of
# ENTRY_HEAD and CLAIM in paychan/rpc/store_messages.py.

cdef enum:
    ENTRY_HEAD_SIZE = 68
    ENTRY_SALES_AT = 49      # u8: what stands between head and state record: 0, or SALES_SIZE bytes
    SALES_SIZE = 16          # u64 expected revision of the channel's sales, u64 charged (satoshi, two's complement)
    ENTRY_SHARD_AT = 2       # u16
    ENTRY_EPOCH_AT = 4       # u64
    ENTRY_CREDIT_AT = 60     # u64: satoshi
    CLAIM_SIZE = 18          # u16 shard, u64 epoch, u64 credited; or shard + CHARGED, u64 epoch, u64 charged
    CHARGED = 4096
