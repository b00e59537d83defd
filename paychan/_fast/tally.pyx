"""Counts of one process. A count is one add to memory: in a worker that of a file which others map (paychan/metrics/file.py).

The compiled path counts where it is anyway, and reads the clock once in a turn of the event loop and once for a group, never for a
payment.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef uint64_t nanoseconds() noexcept nogil:
    """Return the monotonic clock."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1_000_000_000 + <uint64_t> now.tv_nsec


cdef class Tally:
    """memory: CELLS * 8 writable bytes, aligned to 8, which must outlive this; None: memory of its own, which nobody reads."""

    def __init__(self, memory=None):
        if self.cells != NULL:
            raise ValueError("it has its memory")
        if memory is None:
            self._own = <uint64_t *> calloc(CELLS, 8)
            if self._own == NULL:
                raise MemoryError()
            self.cells = self._own
            return
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        if self._view.len != CELLS * 8 or <size_t> self._view.buf % 8:
            PyBuffer_Release(&self._view)
            raise ValueError("the memory has another size, or is not aligned")
        self._is_borrowed, self.cells = True, <uint64_t *> self._view.buf

    def __dealloc__(self):
        free(self._own)
        if self._is_borrowed:
            PyBuffer_Release(&self._view)

    # A count wraps at 2^64, as Prometheus expects of a counter; so the checked build does not check these adds.
    @cython.overflowcheck(False)
    cdef void count(self, int door, int outcome) noexcept nogil:
        """Count an answer."""
        cdef uint64_t *cell = self.cells + (OUTCOMES_AT + door * OUTCOMES + (outcome if outcome < OUTCOMES else <int> DONE))
        cell[0] = cell[0] + 1

    @cython.overflowcheck(False)
    cdef void note(self, int at, int first_power, uint64_t value) noexcept nogil:
        """Count a value in the histogram at a cell."""
        cdef int bucket = 0
        cdef uint64_t above = value >> first_power
        cdef uint64_t *cell = self.cells + at
        while above and bucket < BUCKETS - 1:
            above >>= 1
            bucket += 1
        cell[bucket] = cell[bucket] + 1
        cell[BUCKETS] = cell[BUCKETS] + value

    def add(self, int cell, uint64_t more=1):
        """Add to a cell. Raises IndexError."""
        self.cells[_checked(cell)] += more

    def set(self, int cell, uint64_t value):
        """Set a cell. Raises IndexError."""
        self.cells[_checked(cell)] = value

    def get(self, int cell):
        """Return a cell. Raises IndexError."""
        return self.cells[_checked(cell)]

    def answered(self, int door, int outcome):
        """Count an answer; an outcome without a name is DONE. Raises IndexError."""
        if not 0 <= door < DOORS:
            raise IndexError("no such door")
        self.count(door, outcome if 0 <= outcome else <int> DONE)

    def observe(self, int at, int first_power, uint64_t value):
        """Count a value in the histogram that begins at a cell. Raises IndexError."""
        _checked(at + BUCKETS)
        self.note(_checked(at), first_power, value)


cdef int _checked(int cell) except -1:
    if not 0 <= cell < CELLS:
        raise IndexError("no such cell")
    return cell
