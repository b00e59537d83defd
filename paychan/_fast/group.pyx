"""The store's hot path: a COMMIT's entries are judged and become writes without an object or a Python call for each payment.

Here stands what every update must pass: shard, epoch, the channel's present state, the form of the new record; and the rule
of a payment (open to open, the change value does not rise, nothing else comes with it). The rules of all other steps are
Python (store/table.py) and are called for. Order of the checks: stale epoch, conflict, forbidden; the first that fails is
the answer, and only OK changes anything.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from .bytes cimport read_u64

cdef enum:
    RECORD_VERSION = 1
    ABSENT = 0
    PHASE_OPEN = 1
    PHASE_SIGNED = 3

CACHE_BUCKETS = 1 << 19
"""Of 4 states of 48 bytes: 96 MiB when full, of which memory takes only what was written to. Room for a million busy
channels with few that displace each other; what is not found here is read from the database."""


# --- the two formats ---

cdef const unsigned char *_entry_at(const unsigned char *at, const unsigned char *end, EntryView *entry) noexcept nogil:
    """Read the entry at `at`; return where the next one begins, or NULL if the payload ends before."""
    cdef size_t left = <size_t> end - <size_t> at
    if left < HEAD_SIZE:
        return NULL
    memcpy(&entry.state_size, at, 2)
    memcpy(&entry.shard, at + 2, 2)
    entry.epoch = read_u64(at + 4)
    entry.outpoint = at + 12
    entry.expected_phase = at[48]
    memcpy(&entry.extra_size, at + 50, 2)
    entry.expected_change_value = read_u64(at + 52)
    entry.state = at + HEAD_SIZE
    entry.extra = entry.state + entry.state_size
    if left - HEAD_SIZE < <size_t> entry.state_size + entry.extra_size:
        return NULL
    return entry.extra + entry.extra_size


cdef bint _read_state(const unsigned char *record, size_t size, Known *known) noexcept nogil:
    """Take phase and change value from a state record; False if it is none. The phase's number is not judged."""
    cdef size_t whole
    if size < STATE_HEAD_SIZE or record[0] != RECORD_VERSION:
        return False
    whole = STATE_HEAD_SIZE + record[3] + (TXID_SIZE if record[1] >= PHASE_SIGNED else 0)
    if size != whole:
        return False
    known.phase = record[1]
    known.change_value = read_u64(record + 4)
    return True


cdef Py_ssize_t _count(bytes payload, unsigned long entries_max) except -1:
    """Return how many entries a COMMIT has, after a look at its whole form. Raises ValueError."""
    cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(payload)
    cdef const unsigned char *end = at + len(payload)
    cdef EntryView entry
    cdef uint16_t count, number
    if len(payload) < 2:
        raise ValueError("COMMIT is too short")
    memcpy(&count, at, 2)
    at += 2
    for number in range(count):
        at = _entry_at(at, end, &entry)
        if at == NULL:
            raise ValueError("COMMIT is too short")
    if at != end or count > entries_max:
        raise ValueError("COMMIT has a wrong length")
    return count


def check_entries(bytes payload not None, unsigned long entries_max):
    """Raise ValueError unless `payload` is a COMMIT of at most `entries_max` entries."""
    _count(payload, entries_max)


cdef tuple _fields(const EntryView *entry):
    return (
        entry.shard, entry.epoch, entry.outpoint[:36], entry.expected_phase, entry.expected_change_value,
        entry.state[:entry.state_size], entry.extra[:entry.extra_size],
    )


def split_entries(bytes payload not None, unsigned long entries_max):
    """Return the fields of each entry of a COMMIT, in the order of `store_messages.Entry`. Raises ValueError."""
    cdef Py_ssize_t number, count = _count(payload, entries_max)
    cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(payload) + 2
    cdef const unsigned char *end = <const unsigned char *> PyBytes_AS_STRING(payload) + len(payload)
    cdef EntryView entry
    cdef list entries = []
    for number in range(count):
        at = _entry_at(at, end, &entry)
        entries.append(_fields(&entry))
    return entries


def read_state(bytes record not None):
    """Return (phase, change value in satoshi) of a state record. Raises ValueError if it is none.

    The phase's number is not checked here: no transition leads to an unknown one.
    """
    cdef Known known
    if not _read_state(<const unsigned char *> PyBytes_AS_STRING(record), len(record), &known):
        raise ValueError("a state record has an unknown version or a wrong length")
    return known.phase, known.change_value


# --- the cache ---

cdef extern from *:
    """
    static inline uint64_t paychan_spread(uint64_t x) {
        x ^= x >> 33; x *= 0xff51afd7ed558ccdULL;
        x ^= x >> 33; x *= 0xc4ceb9fe1a85ec53ULL;
        return x ^ (x >> 33);
    }
    static inline uint64_t paychan_outpoint_hash(const unsigned char *outpoint, uint64_t seed) {
        uint64_t head; uint32_t vout;
        memcpy(&head, outpoint, 8); memcpy(&vout, outpoint + 32, 4);
        return paychan_spread((head ^ seed) + vout);
    }
    """
    uint64_t paychan_outpoint_hash(const unsigned char *outpoint, uint64_t seed) noexcept nogil


cdef class StateCache:
    """The states of channels that were lately written or judged, as they are on disk: saves reading them again.

    It cannot differ from the disk: one process writes the database, all of it through groups, and a group hands its states
    over (`PaymentGroup.keep`) when its synced write has returned; a process whose write failed ends. Bounded: a bucket has
    room for WAYS states, and a new one in a full bucket takes the place of another.

    buckets: a power of two, or 0 for a cache that keeps nothing.
    """

    def __cinit__(self, uint32_t buckets=CACHE_BUCKETS):
        if buckets & (buckets - 1 if buckets else 0):
            raise ValueError("the number of buckets is no power of two")
        self.seed = int.from_bytes(os.urandom(8), "little")  # so that nobody can choose outpoints that collide
        self._bucket_mask = buckets - 1 if buckets else 0
        if buckets:
            self._places = <Known *> calloc(<size_t> buckets * WAYS, sizeof(Known))
            if self._places == NULL:
                raise MemoryError()

    def __dealloc__(self):
        free(self._places)

    cdef Known *_bucket(self, const unsigned char *outpoint) noexcept nogil:
        cdef uint32_t bucket = <uint32_t> (paychan_outpoint_hash(outpoint, self.seed) & self._bucket_mask)
        return self._places + <size_t> bucket * WAYS

    cdef Known *_find(self, const unsigned char *outpoint) noexcept nogil:
        cdef Known *bucket
        cdef int way
        if self._places == NULL:
            return NULL
        bucket = self._bucket(outpoint)
        for way in range(WAYS):
            if bucket[way].phase != ABSENT and memcmp(bucket[way].outpoint, outpoint, 36) == 0:
                return &bucket[way]
        return NULL

    cdef void _keep(self, const Known *known) noexcept nogil:
        cdef Known *place = self._find(known.outpoint)
        cdef Known *bucket
        cdef int way
        if self._places == NULL:
            return
        if place == NULL:
            bucket = self._bucket(known.outpoint)
            for way in range(WAYS):
                if bucket[way].phase == ABSENT:
                    place = &bucket[way]
                    break
        if place == NULL:
            self._next_victim = (self._next_victim + 1) % WAYS
            place = &bucket[self._next_victim]
        place[0] = known[0]

    def get(self, bytes outpoint not None):
        """Return (phase, change value in satoshi) of a channel, or None if it is not kept."""
        cdef Known *known = self._find(<const unsigned char *> PyBytes_AS_STRING(outpoint)) if len(outpoint) == 36 else NULL
        return (known.phase, known.change_value) if known != NULL else None


# --- the group ---

cdef class PaymentGroup:
    """The updates that become durable in one write, judged one after the other, also against each other.

    A subclass has `read(outpoints)`: (state record or None, shard) of each; and `judge_step(*fields)`: the rule of
    what is no payment, called when the common checks are passed; on True it has noted the step's other writes.

    open_value: satoshi received on open channels. epochs: of the shards, now; the caller may change the list in place.
    """

    def __cinit__(self, *_, **__):
        self._payloads = []
        self._grow()

    def __init__(self, StateCache cache not None, list epochs not None, uint32_t shard_count, open_value):
        if len(epochs) < shard_count:
            raise ValueError("a shard has no epoch")
        self._cache, self._epochs, self._shard_count, self.open_value = cache, epochs, shard_count, open_value

    def __dealloc__(self):
        free(self._slots)
        free(self._index)

    cdef uint32_t _place(self, const unsigned char *outpoint) noexcept nogil:
        """Return the place in the index that holds `outpoint`, else the free place that ends its probe sequence."""
        cdef uint32_t place = <uint32_t> (paychan_outpoint_hash(outpoint, self._cache.seed) & self._index_mask)
        while self._index[place] and memcmp(self._slots[self._index[place] - 1].known.outpoint, outpoint, 36) != 0:
            place = (place + 1) & self._index_mask
        return place

    cdef int _grow(self) except -1:
        """Make room for twice as many slots; the index has twice as many places as there are slots."""
        cdef uint32_t number, room = self._index_mask + 1 if self._index != NULL else SLOTS_MIN
        cdef Slot *slots = <Slot *> realloc(self._slots, room * sizeof(Slot))
        cdef uint32_t *index
        if slots == NULL:
            raise MemoryError()
        self._slots = slots
        index = <uint32_t *> calloc(2 * room, sizeof(uint32_t))
        if index == NULL:
            raise MemoryError()
        free(self._index)
        self._index = index
        self._index_mask = 2 * room - 1
        for number in range(self._slot_count):
            self._index[self._place(self._slots[number].known.outpoint)] = number + 1
        return 0

    cdef Slot *_insert(self, const Known *known) except NULL:
        """Enter a channel that is not in the group yet."""
        cdef Slot *slot
        if 2 * self._slot_count > self._index_mask:
            self._grow()
        slot = &self._slots[self._slot_count]
        slot.known, slot.record, slot.record_size = known[0], NULL, 0
        self._slot_count += 1
        self._index[self._place(known.outpoint)] = self._slot_count
        return slot

    cdef int _learn(self, bytes payload, Py_ssize_t count) except -1:
        """Take every channel that a COMMIT names into the group: from the cache, or read all that are missing at once."""
        cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(payload) + 2
        cdef const unsigned char *end = <const unsigned char *> PyBytes_AS_STRING(payload) + len(payload)
        cdef EntryView entry
        cdef Known fresh
        cdef Known *cached
        cdef bytes outpoint, record
        cdef dict missing = {}
        cdef list names
        cdef Py_ssize_t number
        memset(&entry, 0, sizeof(EntryView))
        for number in range(count):
            at = _entry_at(at, end, &entry)
            if self._index[self._place(entry.outpoint)]:
                continue
            cached = self._cache._find(entry.outpoint)
            if cached != NULL:
                self._insert(cached)
            else:
                missing[entry.outpoint[:36]] = None
        if not missing:
            return 0
        names = list(missing)
        for outpoint, (record, shard) in zip(names, self.read(names), strict=True):
            memset(&fresh, 0, sizeof(Known))
            memcpy(fresh.outpoint, PyBytes_AS_STRING(outpoint), 36)
            fresh.shard = shard
            if record is not None:
                fresh.phase, fresh.change_value = read_state(record)
                if fresh.phase == ABSENT:
                    raise ValueError("a state record has no phase")
            self._insert(&fresh)
        return 0

    def read(self, list outpoints not None):
        raise NotImplementedError

    def judge_step(
        self, shard, epoch, bytes outpoint, expected_phase, expected_change_value, bytes state, bytes extra
    ):
        raise NotImplementedError

    def judge(self, bytes payload not None):
        """Judge one COMMIT (that passed `check_entries`) and take the good entries in; return a byte of status for each."""
        cdef Py_ssize_t number, count = _count(payload, 0xFFFF)
        cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(payload) + 2
        cdef const unsigned char *end = <const unsigned char *> PyBytes_AS_STRING(payload) + len(payload)
        cdef EntryView entry
        cdef uint64_t paid = 0
        cdef bytes answers = PyBytes_FromStringAndSize(NULL, count)
        cdef char *statuses = PyBytes_AS_STRING(answers)
        self._payloads.append(payload)
        self._learn(payload, count)
        for number in range(count):
            at = _entry_at(at, end, &entry)
            statuses[number] = <char> self._judge_entry(&entry, &paid)
        self.open_value += paid
        return answers

    cdef int _judge_entry(self, const EntryView *entry, uint64_t *paid) except -1:
        """Return the answer to one entry; add what a payment pays to `paid` (satoshi)."""
        cdef Slot *slot = &self._slots[self._index[self._place(entry.outpoint)] - 1]
        cdef Known *known = &slot.known
        cdef Known new
        if entry.shard >= self._shard_count:
            return ANSWER_FORBIDDEN
        if entry.epoch != <uint64_t> self._epochs[entry.shard]:
            return ANSWER_STALE_EPOCH
        if entry.expected_phase != known.phase:
            return ANSWER_CONFLICT
        if known.phase != ABSENT and entry.expected_change_value != known.change_value:
            return ANSWER_CONFLICT
        if entry.shard != known.shard or not _read_state(entry.state, entry.state_size, &new):
            return ANSWER_FORBIDDEN
        if (known.phase == PHASE_OPEN and new.phase == PHASE_OPEN and new.change_value <= known.change_value
                and entry.extra_size == 0):
            if known.change_value - new.change_value > UINT64_MAX - paid[0]:
                self.open_value += paid[0]
                paid[0] = 0
            paid[0] += known.change_value - new.change_value
        elif not self.judge_step(*_fields(entry)):
            return ANSWER_FORBIDDEN
        known.phase, known.change_value = new.phase, new.change_value
        slot.record, slot.record_size = entry.state, entry.state_size
        return ANSWER_OK

    def put_states(self, dict writes not None, bytes prefix not None):
        """Add the newest state record of each channel that the group changes, under `prefix` and the outpoint."""
        cdef uint32_t number
        cdef Slot *slot
        for number in range(self._slot_count):
            slot = &self._slots[number]
            if slot.record != NULL:
                writes[prefix + slot.known.outpoint[:36]] = slot.record[:slot.record_size]

    def keep(self):
        """Hand the states over to the cache. Only when the group's write has returned."""
        cdef uint32_t number
        for number in range(self._slot_count):
            if self._slots[number].known.phase != ABSENT:
                self._cache._keep(&self._slots[number].known)
