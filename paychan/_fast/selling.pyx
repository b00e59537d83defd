"""What a seller asks for on a channel, judged in one compiled call: first the payment that may come with it, in the order that
`channel.pyx` has, then the sale by the rules of `purchase.pyx`. Both are taken, or nothing is.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from .bytes cimport wrapping_difference
from .channel cimport Channel, ChannelTable
from .payment cimport PaymentView, parse_payment
from .purchase cimport KEY_SIZE, PROVE, SELL, SELL_AGAIN, SETTLE, Sale, SaleKind, Sales, lapse, sell, settle
from .status cimport Status


cdef void _copy_sales(ChannelTable table, const Channel *channel, uint64_t received, Sales *copy) noexcept nogil:
    """Copy a channel's sales. Before the first one the open price is what was spent: it pays for the settlement."""
    if channel.sales != NULL:
        copy[0] = channel.sales[0]
    else:
        memset(copy, 0, sizeof(Sales))
        copy.spent = min(table.open_price, received)


cdef int _keep_sales(ChannelTable table, Channel *channel, const Sales *after) except -1:
    """Make changed sales the channel's, and note by how much what was spent has changed."""
    if channel.sales == NULL:
        channel.sales = <Sales *> calloc(1, sizeof(Sales))
        if channel.sales == NULL:
            raise MemoryError()
    table.charged = wrapping_difference(after.spent, channel.sales.spent)
    channel.sales[0] = after[0]
    return 0


cdef inline bint _can_change(Status paid) noexcept nogil:
    """Return whether a channel changes that was weighed so. An old payment buys nothing new, but shows who asks."""
    return (paid == Status.OK or paid == Status.REPLAYED or paid == Status.OUT_OF_ORDER or paid == Status.ACCEPTED
            or paid == Status.EXHAUSTED)


cdef Status _apply(ChannelTable table, const Sale *sale, const PaymentView *payment, uint64_t now, uint64_t time) except *:
    cdef Channel *channel = table.judged
    cdef Sales after
    cdef uint32_t place = 0
    cdef uint64_t revision
    cdef bint is_taken_over
    cdef Status sold = Status.REPLAYED
    cdef Status paid = table._weigh(channel, payment, now) if payment != NULL else table._weigh_channel(channel, now)
    cdef bint is_better = paid == Status.ACCEPTED or paid == Status.EXHAUSTED
    cdef bint takes_over = sale.kind == SELL_AGAIN and _can_change(paid)  # else nothing can be given back either
    if paid == Status.BAD_SIGNATURE or paid == Status.TOO_MANY_FAILURES:
        return paid
    if sale.kind == SELL_AGAIN and paid == Status.UNCHECKED:
        return paid  # it may be given back once the funding was looked at, so it must be taken over then
    if sale.kind == PROVE or not is_better:
        is_better, table.value_received, table.value_left = False, 0, channel.change_value
        table.exposure = channel.funding_value - channel.change_value
    table.charged = 0
    _copy_sales(table, channel, table.exposure, &after)
    lapse(&after, time)
    revision = after.revision
    if sale.kind == SELL or sale.kind == SELL_AGAIN:
        sold = sell(&after, sale, table.exposure, time, takes_over, &place)
    elif sale.kind == SETTLE:
        sold = settle(&after, sale, &place)
    is_taken_over = sold == Status.REPLAYED and after.revision != revision
    table.spent, table.purchase, table.is_repeated = after.spent, after.purchases[place], sold == Status.REPLAYED
    if sold == Status.REPLAYED and not is_better and not is_taken_over:
        return Status.REPLAYED
    if takes_over and sold == Status.NO_SUCH_PURCHASE:
        return sold
    if not is_better and paid != Status.OK and paid != Status.REPLAYED and not is_taken_over:
        return paid
    if sold == Status.INSUFFICIENT_CREDIT:
        table.shortfall = sale.amount + after.spent - table.exposure
    if sold != Status.OK and sold != Status.REPLAYED:
        return sold
    if sold == Status.OK or is_taken_over:
        _keep_sales(table, channel, &after)
    if is_better:
        table._accept(channel, payment)
    return paid if is_better else Status.ACCEPTED


cdef Status judge_sale(ChannelTable table, const Sale *sale, uint64_t now, uint64_t time) except *:
    """Judge what a seller asks for, with the payment that may come with it: both are taken, or nothing is.

    now: unix seconds to judge the channel's expiry by, time: those to judge reservations by. The outcome is as `pay` has it,
    and in `charged`, `spent` and `purchase`. REPLAYED: there is nothing to write. What was bought before is told whatever has
    become of the channel since.
    """
    cdef PaymentView payment
    cdef Status status = Status.OK
    memcpy(table._outpoint, sale.outpoint, 36)
    table.judged = NULL
    if sale.payment != NULL:
        status = parse_payment(sale.payment, sale.payment_size, &payment)
    if status == Status.OK:
        status = table._look_up()
    if status != Status.OK:
        return status
    return _apply(table, sale, &payment if sale.payment != NULL else NULL, now, time)


def judge(ChannelTable table not None, int kind, bytes outpoint not None, bytes key not None, uint64_t amount, uint64_t number,
          uint32_t until, bytes payment, uint64_t now, uint64_t time, uint32_t attempt=0):
    """`judge_sale`, for tests. Returns (status number, charged, spent, purchase: asked, held, number, until)."""
    cdef Sale sale
    if len(outpoint) != 36 or len(key) != KEY_SIZE:
        raise ValueError("an outpoint has 36 bytes, a key's hash 16")
    sale.kind, sale.outpoint, sale.key, sale.amount = <SaleKind> kind, outpoint, key, amount
    sale.number, sale.until, sale.attempt, sale.payment, sale.payment_size = number, until, attempt, NULL, 0
    if payment is not None:
        sale.payment, sale.payment_size = payment, len(payment)
    status = <int> judge_sale(table, &sale, now, time)
    row = table.purchase
    return status, table.charged, table.spent, (row.asked, row.held, row.number, row.until)
