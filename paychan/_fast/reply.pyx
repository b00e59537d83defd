"""The bodies of the answers to payments and sales. All other answers are made in paychan/server/protocol/replies.py."""

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


cdef bytes sale_body(const Purchase *purchase, bint is_repeated, uint64_t value_received, uint64_t received, uint64_t spent,
                     uint64_t value_left):
    """Return what a seller is told. Values in satoshi; value_received: by the payment that came with the sale. is_repeated: nothing
    was sold, settled or given back now, for that had been done before."""
    cdef char text[416]
    cdef int size = snprintf(
        text, sizeof(text),
        b'{"status":200,"repeated":%s,"purchase":{"number":%llu,"asked":%llu,"amount":%llu,"until":%llu},'
        b'"value_received":%llu,"received":%llu,"spent":%llu,"credit":%llu,"channel_value_left":%llu}\n',
        b"true" if is_repeated else b"false",
        <unsigned long long> purchase.number, <unsigned long long> purchase.asked, <unsigned long long> purchase.held,
        <unsigned long long> purchase.until, <unsigned long long> value_received, <unsigned long long> received,
        <unsigned long long> spent, <unsigned long long> (received - spent), <unsigned long long> value_left)
    return text[:size]
