"""The body of an accepted payment's answer. All other answers are made in paychan/server/protocol/replies.py."""

cdef extern from "stdio.h" nogil:
    int snprintf(char *text, size_t size, const char *format, ...)


cdef bytes paid_body(uint64_t value_left, uint64_t value_received):
    cdef char text[160]
    cdef int size = snprintf(
        text, sizeof(text),
        b'{"channel_status":"open","channel_value_left":%llu,"value_received":%llu,"settlement_txid":null}\n',
        <unsigned long long> value_left, <unsigned long long> value_received)
    return text[:size]


def payment_body(uint64_t value_left, uint64_t value_received):
    """Return the PaymentResult (protocol-v1 section 6) of an open channel. Values in satoshi."""
    return paid_body(value_left, value_received)
