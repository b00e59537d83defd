"""The rules of selling on a channel: what a purchase may hold, and which purchases are remembered. paychan/core/sales.py says what
the words mean.

A rule changes the `Sales` that it is given also when it refuses: the caller gives it a copy, and keeps that only if all is well.
"""

from libc.stdlib cimport calloc
from libc.string cimport memcmp, memcpy

from .bytes cimport read_u64, write_bytes, write_u32, write_u64
from .status cimport Status

cdef extern from *:
    """
    #define PAYCHAN_AMOUNT_MAX 2100000000000000ULL
    """
    const uint64_t AMOUNT_MAX "PAYCHAN_AMOUNT_MAX"  # satoshi: all bitcoins there can be

cdef enum:
    RESERVATION_SECONDS_MAX = 86400  # so far ahead a reservation may fall back at most


cdef inline uint64_t _revision_of(uint64_t number) noexcept nogil:
    return number & ((<uint64_t> 1 << REVISION_BITS) - 1)


cdef inline uint64_t _number_of(const Sales *sales, const Sale *sale) noexcept nogil:
    """Return the number of a purchase that is sold or taken over with the newest revision."""
    return <uint64_t> sale.attempt << REVISION_BITS | _revision_of(sales.revision)


cdef Purchase *_find(Sales *sales, const unsigned char *key) noexcept nogil:
    cdef uint32_t number
    for number in range(sales.count):
        if memcmp(sales.purchases[number].key, key, KEY_SIZE) == 0:
            return &sales.purchases[number]
    return NULL


cdef Purchase *_make_room(Sales *sales) noexcept nogil:
    """Return the place of a new purchase: a free one, else that of the oldest one with a final amount. NULL: all others are open
    reservations."""
    cdef Purchase *oldest = NULL
    cdef Purchase *purchase
    cdef uint32_t number
    if sales.count < PURCHASES_MAX:
        sales.count += 1
        return &sales.purchases[sales.count - 1]
    for number in range(sales.count):
        purchase = &sales.purchases[number]
        if not purchase.until and (oldest == NULL or _revision_of(purchase.number) < _revision_of(oldest.number)):
            oldest = purchase
    return oldest


cdef inline uint32_t _place_of(const Sales *sales, const Purchase *purchase) noexcept nogil:
    return <uint32_t> ((<size_t> purchase - <size_t> &sales.purchases[0]) // sizeof(Purchase))


cdef void _take_over(Sales *sales, Purchase *purchase, const Sale *sale) noexcept nogil:
    """Give a purchase a new number: who knows the old one can neither settle nor release it any more, and who made it sees that it
    is another attempt's. A reservation that is open ends no sooner than it would have, or than is asked for now; a final amount
    stays final."""
    sales.revision += 1
    purchase.number = _number_of(sales, sale)
    if purchase.until:
        purchase.until = max(purchase.until, sale.until)


cdef Status sell(Sales *sales, const Sale *sale, uint64_t received, uint64_t time, bint takes_over, uint32_t *place) noexcept nogil:
    """Charge an amount, or reserve it. OK: `place` is that of the new purchase; REPLAYED: of the one that this key has made before,
    which has a new number if `takes_over`.

    received: satoshi. A purchase that was given back as a whole is as if it had not been, so that its key buys anew.
    """
    cdef Purchase *purchase = _find(sales, sale.key)
    if not 0 < sale.amount <= AMOUNT_MAX or (sale.until and not time < sale.until <= time + RESERVATION_SECONDS_MAX):
        return Status.INVALID_SALE
    if purchase != NULL:
        place[0] = _place_of(sales, purchase)
        if purchase.asked != sale.amount:
            return Status.PURCHASE_DIFFERS
        if purchase.held or purchase.until:
            if sale.kind == SELL_AGAIN and purchase.number != sale.number:
                return Status.NO_SUCH_PURCHASE
            if takes_over:
                _take_over(sales, purchase, sale)
            return Status.REPLAYED
    if sales.spent > received or sale.amount > received - sales.spent:
        return Status.INSUFFICIENT_CREDIT
    if purchase == NULL:
        purchase = _make_room(sales)
    if purchase == NULL:
        return Status.TOO_MANY_RESERVATIONS
    sales.revision += 1
    sales.spent += sale.amount
    memcpy(purchase.key, sale.key, KEY_SIZE)
    purchase.asked = purchase.held = sale.amount
    purchase.number, purchase.until = _number_of(sales, sale), sale.until
    place[0] = _place_of(sales, purchase)
    return Status.OK


cdef Status settle(Sales *sales, const Sale *sale, uint32_t *place) noexcept nogil:
    """Make a purchase's amount final, and give the rest of what it holds back. REPLAYED: that has been done."""
    cdef Purchase *purchase = _find(sales, sale.key)
    if purchase == NULL or purchase.number != sale.number:
        return Status.NO_SUCH_PURCHASE
    place[0] = _place_of(sales, purchase)
    if sale.amount > purchase.held:
        return Status.MORE_THAN_HELD
    if sale.amount == purchase.held and not purchase.until:
        return Status.REPLAYED
    sales.revision += 1
    sales.spent -= purchase.held - sale.amount
    purchase.held, purchase.until = sale.amount, 0
    return Status.OK


cdef void lapse(Sales *sales, uint64_t time) noexcept nogil:
    """Give back what reservations hold whose time is over (unix seconds)."""
    cdef Purchase *purchase
    cdef uint32_t number
    for number in range(sales.count):
        purchase = &sales.purchases[number]
        if purchase.until and purchase.until <= time:
            sales.spent -= purchase.held
            purchase.held = purchase.until = 0


# --- in a state record ---

cdef bint are_purchases(const unsigned char *records, size_t size, uint64_t spent) noexcept nogil:
    """Return whether these bytes are purchases that hold no more than was spent."""
    cdef size_t at = 0
    cdef uint64_t held, left = spent
    if size > PURCHASES_SIZE_MAX or size % PURCHASE_SIZE:
        return False
    while at < size:
        held = read_u64(records + at + KEY_SIZE + 8)
        if held > left or held > read_u64(records + at + KEY_SIZE):
            return False
        left -= held
        at += PURCHASE_SIZE
    return True


cdef Sales *take_sales(object stored, uint64_t received) except NULL:
    """Return a channel's sales (`paychan.core.sales.Sales`), to be freed. Raises ValueError if more was spent than received."""
    cdef bytes records = stored.serialize()
    cdef uint64_t spent = stored.spent, revision = stored.revision
    cdef Sales *sales
    if spent > received or not are_purchases(<const unsigned char *> records, len(records), spent):
        raise ValueError("the sales of a channel are malformed")
    sales = <Sales *> calloc(1, sizeof(Sales))
    if sales == NULL:
        raise MemoryError()
    sales.spent, sales.revision, sales.sent_revision, sales.durable_revision = spent, revision, revision, revision
    _read_purchases(records, len(records), sales)
    return sales


cdef void _read_purchases(const unsigned char *records, size_t size, Sales *sales) noexcept nogil:
    """Take purchases that passed `are_purchases`."""
    cdef Purchase *purchase
    cdef uint32_t number
    sales.count = min(<uint32_t> (size // PURCHASE_SIZE), <uint32_t> PURCHASES_MAX)
    for number in range(sales.count):
        purchase = &sales.purchases[number]
        memcpy(purchase.key, records, KEY_SIZE)
        purchase.asked, purchase.held = read_u64(records + KEY_SIZE), read_u64(records + KEY_SIZE + 8)
        purchase.number = read_u64(records + KEY_SIZE + 16)
        memcpy(&purchase.until, records + KEY_SIZE + 24, 4)
        records += PURCHASE_SIZE


cdef unsigned char *write_purchases(const Sales *sales, unsigned char *end) noexcept nogil:
    cdef const Purchase *purchase
    cdef uint32_t number
    for number in range(sales.count):
        purchase = &sales.purchases[number]
        end = write_bytes(end, purchase.key, KEY_SIZE)
        end = write_u64(write_u64(write_u64(end, purchase.asked), purchase.held), purchase.number)
        end = write_u32(end, purchase.until)
    return end
