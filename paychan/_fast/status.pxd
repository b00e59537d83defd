# What one compiled call can answer. 0 to 19: outcomes, not refusals. From 20 on: the numbers of paychan/core/errors.py, where
# their public codes stand; tests/unit/fast/test_status.py holds the two together.

cpdef enum Status:
    OK = 0
    ACCEPTED = 1             # a better payment: must be made durable, then acknowledged
    EXHAUSTED = 2            # the same, and it gave up everything: the channel is closing now
    REPLAYED = 3             # worth no more than the newest payment: nothing to write
    NOT_LOADED = 4           # this worker owns the shard but has not read the channel
    NOT_OWNED = 5            # another worker owns the shard
    HAS_CHANGE_ADDRESS = 6   # the request names a change address, which must be judged first
    UNCHECKED = 7            # the funding output has not been looked at since the chain's tip moved

    MISSING_PARAMETER = 20
    REPEATED_PARAMETER = 21
    REQUEST_TOO_LARGE = 22
    INVALID_TXID = 24
    INVALID_VOUT = 25
    INVALID_BASE64 = 32
    INVALID_PAYMENT = 33
    INVALID_DER = 34
    HIGH_S = 35
    INVALID_SIGHASH_TYPE = 36
    CHANGE_VALUE_NOT_ZERO = 37
    DUST_CHANGE = 38
    CHANGE_VALUE_RANGE = 39
    OUT_OF_ORDER = 50
    BAD_SIGNATURE = 51
    NO_SUCH_PAYMENT = 61
    NO_SUCH_ROUTE = 62
    CHANNEL_CLOSING = 65
    CHANNEL_EXPIRING = 66
    TOO_MANY_FAILURES = 88
    SHARD_STOPPED = 89
    TOO_MANY_REFUSED = 96
    INVALID_SALE = 100
    INSUFFICIENT_CREDIT = 101
    PURCHASE_DIFFERS = 102
    NO_SUCH_PURCHASE = 103
    MORE_THAN_HELD = 104
    TOO_MANY_RESERVATIONS = 105
