# What was sold on a channel, and the rules of selling: paychan/core/sales.py says what the words mean.

from libc.stdint cimport uint32_t, uint64_t

from .status cimport Status

cdef enum:
    KEY_SIZE = 16
    PURCHASE_SIZE = 44       # of a purchase in a state record: PURCHASE in paychan/core/sales.py
    PURCHASES_MAX = 4
    PURCHASES_SIZE_MAX = 176
    REVISION_BITS = 40       # of a purchase's number; above them is the attempt that made it
    ATTEMPT_MAX = 8388607    # 2^23 - 1: ATTEMPT_MAX in paychan/core/sales.py

# What a seller asks for; the numbers are part of a sale's binary form.
cdef enum SaleKind:
    SELL = 1                 # a charge, or with `until` a reservation
    SETTLE = 2               # a purchase at its real amount; at 0 it is released
    PROVE = 3                # nothing but a look at the channel for who signed a payment on it
    SELL_AGAIN = 4           # as SELL, and what this key has bought before is taken over, if `number` is still its number

# A sale that is asked for. `payment` borrows from what came in; NULL: none.
cdef struct Sale:
    SaleKind kind
    const unsigned char *outpoint    # 36
    const unsigned char *key         # KEY_SIZE
    uint64_t amount                  # satoshi
    uint64_t number                  # of the purchase that is settled, or taken over
    uint32_t until                   # unix seconds at which the reservation falls back; 0: the amount is final
    uint32_t attempt                 # what the seller calls this attempt to sell or take over; 0: nothing
    const unsigned char *payment
    Py_ssize_t payment_size

# Values in satoshi. 48 bytes.
cdef struct Purchase:
    uint64_t asked
    uint64_t held
    uint64_t number                  # attempt that made it or took it over, then the revision of that
    uint32_t until                   # unix seconds; 0: final
    unsigned char key[KEY_SIZE]

# "sent": in the group in flight or the last one; "durable": acknowledged by the store.
cdef struct Sales:
    uint64_t spent                   # satoshi, with what reservations hold
    uint64_t revision                # rises with each change
    uint64_t sent_revision
    uint64_t durable_revision
    uint32_t count
    Purchase purchases[PURCHASES_MAX]

cdef Status sell(Sales *sales, const Sale *sale, uint64_t received, uint64_t time, bint takes_over, uint32_t *place) noexcept nogil
cdef Status settle(Sales *sales, const Sale *sale, uint32_t *place) noexcept nogil
cdef void lapse(Sales *sales, uint64_t time) noexcept nogil
cdef bint are_purchases(const unsigned char *records, size_t size, uint64_t spent) noexcept nogil
cdef Sales *take_sales(object stored, uint64_t received) except NULL
cdef unsigned char *write_purchases(const Sales *sales, unsigned char *end) noexcept nogil
