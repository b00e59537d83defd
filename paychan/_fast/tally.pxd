# Counts of one process, as u64 cells in memory that others may read: each cell is written by its own process alone.

from libc.stdint cimport uint64_t

# Where the counts lie that compiled code makes, in cells. paychan/metrics/families.py gives them names, and has the cells after
# COMPILED_END; a change there or here is another layout, and the file of an older one is replaced.
cpdef enum:
    OUTCOMES_AT = 0            # DOORS times OUTCOMES counts of answers
    LATENCY_AT = 960           # histogram: nanoseconds from a payment's arrival to its durable answer
    GROUP_SIZES_AT = 992       # histogram: updates in one group of the worker
    RECEIVED_AT = 1024         # satoshi that payers were told were received
    CHARGED_AT = 1025          # satoshi that sellers were told were spent
    RETURNED_AT = 1026         # satoshi that sellers gave back
    LIMITED_AT = 1027          # requests that were refused for their address: payments, opens, connections
    COMPILED_END = 1030
    CELLS = 2048               # of one process: 16 KiB

# Whence a request came. What another worker sent is counted where it is judged, and once.
cpdef enum:
    SHARED = 0                 # granian's port
    OWN = 1                    # the worker's own
    BATCH = 2
    FORWARDED = 3              # another worker's
    SALE_DOOR = 4              # the sellers'
    REQUESTS = 5               # no payment: opens, closes, looks
    DOORS = 6

# How a request ended. From 20 on: the numbers of paychan/core/errors.py.
cpdef enum:
    DONE = 0                   # answered in another way, as who closed a channel is, or asked for something
    TAKEN = 1                  # a payment or a sale; as Status.ACCEPTED
    EMPTIED = 2                # the same, and the channel is closing now; as Status.EXHAUSTED
    AGAIN = 3                  # taken before; as Status.REPLAYED
    PASSED_ON = 4              # another worker has answered, and counted
    OUTCOMES = 160

# A histogram: BUCKETS counts of values below 2^(first power), below its double and so on, the last of all above; then their sum.
cpdef enum:
    BUCKETS = 24
    HISTOGRAM_CELLS = 25
    NANOSECONDS_FROM = 16      # the first bucket ends at 2^16 ns, 66 us; the last but one at 2^38, 275 s
    SIZES_FROM = 0

cdef class Tally:
    cdef uint64_t *cells
    cdef Py_buffer _view         # of memory that somebody else owns
    cdef bint _is_borrowed
    cdef uint64_t *_own

    cdef void count(self, int door, int outcome) noexcept nogil
    cdef void note(self, int at, int first_power, uint64_t value) noexcept nogil

cdef uint64_t nanoseconds() noexcept nogil
