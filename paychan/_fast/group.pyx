"""The store's hot path: a COMMIT's entries are judged and become writes without an object or a Python call for each payment.

Here stands what every update must pass: shard, epoch, the channel's present state, the form of the new record; and the rule
of a payment (open to open, the change value does not rise, nothing else comes with it) and of what is sold (only while the
channel is open, no more than was received). The rules of all other steps are Python (store/table.py) and are called for. Order of
the checks: stale epoch, conflict, forbidden; the first that fails is the answer, and only OK changes anything.

Money is held against itself on the way (`account.pyx`): in each update what the worker credited against the change values and the
funding value, in each record that is about to be written, in each shard. A shard in which something does not come out even is
stopped, and a group in which that was found must be thrown away and judged again: in a stopped shard only settlements go on, from
what is durable, and every other update is answered STOPPED.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from .account cimport SHARDS_MAX, Accounts
from .bytes cimport read_u64, wrapping_difference
from .entry cimport (
    CHARGED, CLAIM_SIZE, ENTRY_CREDIT_AT, ENTRY_EPOCH_AT, ENTRY_HEAD_SIZE, ENTRY_SALES_AT, ENTRY_SHARD_AT, SALES_SIZE,
)
from .hash cimport outpoint_hash, shard_of_outpoint
from .purchase cimport are_purchases

cdef enum:
    RECORD_VERSION = 1
    SOLD_VERSION = 2
    CHANNEL_TYPE = 1         # P2SH_V1 of paychan/core/channel.py
    ABSENT = 0
    PHASE_OPEN = 1
    PHASE_SIGNED = 3
    UNREADABLE = 255         # no phase: of a channel whose records are damaged; no step leads from here
    CACHE_LINE = 64

CACHE_BUCKETS = 1 << 19
"""Of 4 states of 80 bytes: 160 MiB when full, of which memory takes only what was written to. Room for a million busy
channels with few that displace each other; what is not found here is read from the database."""

KNOWN_SIZE, KNOWN_OUTPOINT_AT = sizeof(Known), <size_t> &(<Known *> NULL).outpoint
"""Of a cached state in memory, in bytes: for tests that damage it there."""


# --- the two formats ---

cdef const unsigned char *_entry_at(const unsigned char *at, const unsigned char *end, EntryView *entry) noexcept nogil:
    """Read the entry at `at`; return where the next one begins, or NULL if the payload ends before."""
    cdef size_t left = <size_t> end - <size_t> at
    if left < ENTRY_HEAD_SIZE:
        return NULL
    memcpy(&entry.state_size, at, 2)
    memcpy(&entry.shard, at + ENTRY_SHARD_AT, 2)
    entry.epoch = read_u64(at + ENTRY_EPOCH_AT)
    entry.outpoint = at + 12
    entry.expected_phase = at[48]
    memcpy(&entry.extra_size, at + 50, 2)
    entry.expected_change_value = read_u64(at + 52)
    entry.credit = read_u64(at + ENTRY_CREDIT_AT)
    entry.expected_revision = entry.charge = 0
    entry.state = at + ENTRY_HEAD_SIZE
    left -= ENTRY_HEAD_SIZE
    if at[ENTRY_SALES_AT]:
        if at[ENTRY_SALES_AT] != SALES_SIZE or left < SALES_SIZE:
            return NULL
        entry.expected_revision, entry.charge = read_u64(entry.state), read_u64(entry.state + 8)
        entry.state += SALES_SIZE
        left -= SALES_SIZE
    entry.extra = entry.state + entry.state_size
    if left < <size_t> entry.state_size + entry.extra_size:
        return NULL
    return entry.extra + entry.extra_size


cdef bint _read_state(const unsigned char *record, size_t size, Known *known) noexcept nogil:
    """Take phase, change value and sales from a state record; False if it is none. The phase's number is not judged."""
    cdef size_t whole
    if size < STATE_HEAD_SIZE or record[0] not in (RECORD_VERSION, SOLD_VERSION):
        return False
    whole = STATE_HEAD_SIZE + record[3] + (TXID_SIZE if record[1] >= PHASE_SIGNED else 0)
    known.phase = record[1]
    known.change_value = read_u64(record + 4)
    known.spent = known.revision = 0
    if record[0] == RECORD_VERSION:
        return size == whole
    whole += SOLD_HEAD_SIZE - STATE_HEAD_SIZE
    if size < whole or record[2] != CHANNEL_TYPE:
        return False
    known.spent, known.revision = read_u64(record + 12), read_u64(record + 20)
    return known.revision != 0 and are_purchases(record + whole, size - whole, known.spent)


cdef Py_ssize_t _count(bytes payload, unsigned long entries_max) except -1:
    """Return how many entries a COMMIT has, after a look at its whole form. Raises ValueError."""
    cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(payload)
    cdef const unsigned char *end = at + len(payload)
    cdef EntryView entry
    cdef uint16_t count, claims, _
    if len(payload) < 2:
        raise ValueError("COMMIT is too short")
    memcpy(&count, at, 2)
    at += 2
    for _ in range(count):
        at = _entry_at(at, end, &entry)
        if at == NULL:
            raise ValueError("COMMIT is too short")
    if <size_t> end - <size_t> at < 2:
        raise ValueError("COMMIT is too short")
    memcpy(&claims, at, 2)
    if <size_t> end - <size_t> at != 2 + <size_t> claims * CLAIM_SIZE or count > entries_max:
        raise ValueError("COMMIT has a wrong length")
    return count


def check_entries(bytes payload not None, unsigned long entries_max):
    """Raise ValueError unless `payload` is a COMMIT of at most `entries_max` entries."""
    _count(payload, entries_max)


cdef tuple _fields(const EntryView *entry):
    return (
        entry.shard, entry.epoch, entry.outpoint[:36], entry.expected_phase, entry.expected_change_value,
        entry.state[:entry.state_size], entry.extra[:entry.extra_size], entry.credit,
        entry.expected_revision, entry.charge,
    )


cdef str _name(const unsigned char *outpoint):
    """Return an outpoint as people write it, for the log."""
    cdef uint32_t vout
    memcpy(&vout, outpoint + 32, 4)
    return f"{outpoint[:32][::-1].hex()}/{vout}"


def split_entries(bytes payload not None, unsigned long entries_max):
    """Return the fields of each entry of a COMMIT, in the order of `store_messages.Entry`. Raises ValueError."""
    cdef Py_ssize_t count = _count(payload, entries_max), _
    cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(payload) + 2
    cdef const unsigned char *end = <const unsigned char *> PyBytes_AS_STRING(payload) + len(payload)
    cdef EntryView entry
    cdef list entries = []
    for _ in range(count):
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

cdef class StateCache:
    """The states of channels that were lately written or judged, as they are on disk: saves reading them again.

    It cannot differ from the disk: one process writes the database, all of it through groups, and a group hands its states
    over (`PaymentGroup.keep`) when its synced write has returned; a process whose write failed ends. Bounded: a bucket has
    room for WAYS states, and a new one in a full bucket takes the place of another.

    All the same it is doubted: a state must add up to its funding value whenever it is used, its shard's states in all must, and
    one that an update contradicts is compared with the database (`PaymentGroup`).

    accounts: of the shards; they live as long as the cache.
    buckets: a power of two, or 0 for a cache that keeps nothing.
    """

    def __cinit__(self, uint32_t buckets=CACHE_BUCKETS):
        if buckets & (buckets - 1 if buckets else 0):
            raise ValueError("the number of buckets is no power of two")
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.accounts = Accounts()
        self._bucket_mask = buckets - 1 if buckets else 0
        if buckets:
            self._memory = calloc(<size_t> buckets * WAYS * sizeof(Known) + CACHE_LINE, 1)
            if self._memory == NULL:
                raise MemoryError()
            self._places = <Known *> (<size_t> self._memory + CACHE_LINE - <size_t> self._memory % CACHE_LINE)

    def __dealloc__(self):
        free(self._memory)

    cdef Known *_bucket(self, const unsigned char *outpoint) noexcept nogil:
        cdef uint32_t bucket = <uint32_t> (outpoint_hash(outpoint, self.seed) & self._bucket_mask)
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

    cdef int _keep(self, const Known *known) except -1:
        cdef Known *place = self._find(known.outpoint)
        cdef Known *bucket
        cdef int way
        if self._places == NULL:
            return 0
        if place == NULL:
            bucket = self._bucket(known.outpoint)
            for way in range(WAYS):
                if bucket[way].phase == ABSENT:
                    place = &bucket[way]
                    break
        if place == NULL:
            self._next_victim = (self._next_victim + 1) % WAYS
            place = &bucket[self._next_victim]
        if place.phase != ABSENT and not self.accounts.move(
                place.shard % SHARDS_MAX, place.funding_value, place.received, place.change_value, place.spent, -1):
            self.accounts.stop(place.shard, self._uneven(place))
        place[0] = known[0]
        if not self.accounts.move(place.shard, place.funding_value, place.received, place.change_value, place.spent, 1):
            self.accounts.stop(place.shard, self._uneven(place))
        return 0

    def forget(self, shards):
        """Forget all channels of these shards, and begin their accounts anew: another process may have written them since. Looks at
        every state that is kept: some 20 ms for a full cache. No group may be under way."""
        cdef unsigned char is_forgotten[SHARDS_MAX]
        cdef size_t number, count = <size_t> (self._bucket_mask + 1) * WAYS if self._places != NULL else 0
        memset(is_forgotten, 0, SHARDS_MAX)
        for shard in shards:
            is_forgotten[<uint32_t> shard % SHARDS_MAX] = 1
            self.accounts.forget(<uint32_t> shard % SHARDS_MAX)
        with nogil:
            for number in range(count):
                if self._places[number].phase != ABSENT and is_forgotten[self._places[number].shard % SHARDS_MAX]:
                    memset(&self._places[number], 0, sizeof(Known))

    cdef str _uneven(self, const Known *place):
        funding, received, left, spent, _, _ = self.accounts.of(place.shard % SHARDS_MAX)
        return (f"shard: its cached channels hold {funding} satoshi, of which {received} were received and {left} are left; "
                f"{spent} were spent (found at {_name(place.outpoint)})")

    def get(self, bytes outpoint not None):
        """Return (phase, change value in satoshi) of a channel, or None if it is not kept."""
        cdef Known *known = self._find(<const unsigned char *> PyBytes_AS_STRING(outpoint)) if len(outpoint) == 36 else NULL
        return (known.phase, known.change_value) if known != NULL else None

    def add_missing(self, dict missing not None, bytes payload not None, bint is_all=False):
        """Add the outpoints whose records a group asks for when it judges this COMMIT (that passed `check_entries`).

        They are of channels that are not cached or whose shard is stopped, and of those that take a step: that needs the terms.
        is_all: every one.
        """
        cdef Py_ssize_t count = _count(payload, 0xFFFF), _
        cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(payload) + 2
        cdef const unsigned char *end = <const unsigned char *> PyBytes_AS_STRING(payload) + len(payload)
        cdef EntryView entry
        memset(&entry, 0, sizeof(EntryView))
        for _ in range(count):
            at = _entry_at(at, end, &entry)
            if (is_all or self.accounts._is_stopped[entry.shard % SHARDS_MAX] or self._find(entry.outpoint) == NULL
                    or entry.extra_size or entry.state_size < STATE_HEAD_SIZE or entry.state[1] != PHASE_OPEN):
                missing[entry.outpoint[:36]] = None


# --- what must come out even ---

cdef inline bint _is_even(const Known *known) noexcept nogil:
    return (known.change_value <= known.funding_value and known.funding_value - known.change_value == known.received
            and known.spent <= known.received)


cdef str _why_uneven(const Known *known):
    return (f"channel: {_name(known.outpoint)} of shard {known.shard}: of {known.funding_value} satoshi {known.change_value} are "
            f"left, and {known.received} were received; {known.spent} were spent")


cdef str _why_unwritten(const Slot *slot, const Known *written):
    if slot.record == NULL:
        return f"lost: {_name(slot.known.outpoint)}: {slot.accepted} updates were accepted, and none would be written"
    return (f"record: {_name(slot.known.outpoint)}: {slot.known.change_value} of {slot.known.funding_value} satoshi are left, "
            f"and {written.change_value} would be written; {slot.known.spent} are spent, and {written.spent} would be written")


cdef bint _is_settlement_step(const EntryView *entry) noexcept nogil:
    """Whether an update pays nothing and takes a channel on towards its settlement: what a stopped shard still does."""
    cdef Known new
    return (entry.expected_phase != ABSENT and entry.credit == 0 and entry.charge == 0
            and _read_state(entry.state, entry.state_size, &new)
            and new.phase != PHASE_OPEN and new.change_value == entry.expected_change_value)


# --- the group ---

cdef class PaymentGroup:
    """The updates that become durable in one write, judged one after the other, also against each other.

    A subclass has `read(outpoints)`: the durable (state record, terms record) of each, None for what is not there; and
    `judge_step(*fields)`: the rule of what is no payment, called when the common checks are passed; on True it has noted the step's
    other writes.

    open_value: satoshi received on open channels; open_spent: how many of them were spent. epochs: of the shards, now; the caller
    may change the list in place. threshold, crossed: see group.pxd.
    """

    def __cinit__(self, *_, **__):
        self._payloads = []
        self.threshold = UINT64_MAX
        self._grow()

    def __init__(self, StateCache cache not None, list epochs not None, uint32_t shard_count, open_value, open_spent=0):
        if len(epochs) < shard_count or shard_count > SHARDS_MAX:
            raise ValueError("a shard has no epoch, or there are too many")
        self._accounts = cache.accounts
        self._cache, self._epochs, self._shard_count, self.open_value = cache, epochs, shard_count, open_value
        self.open_spent = open_spent

    def __dealloc__(self):
        free(self._slots)
        free(self._index)

    cdef uint32_t _place(self, const unsigned char *outpoint) noexcept nogil:
        """Return the place in the index that holds `outpoint`, else the free place that ends its probe sequence."""
        cdef uint32_t place = <uint32_t> (outpoint_hash(outpoint, self._cache.seed) & self._index_mask)
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
        memset(slot, 0, sizeof(Slot))
        slot.known, slot.change_value_before, slot.spent_before = known[0], known.change_value, known.spent
        slot.phase_before, slot.revision_before = known.phase, known.revision
        self._slot_count += 1
        self._index[self._place(known.outpoint)] = self._slot_count
        return slot

    cdef int _learn(self, bytes payload, Py_ssize_t count) except -1:
        """Take every channel that a COMMIT names into the group: from the cache, or read all that are missing at once."""
        cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(payload) + 2
        cdef const unsigned char *end = <const unsigned char *> PyBytes_AS_STRING(payload) + len(payload)
        cdef EntryView entry
        cdef Known *cached
        cdef dict missing = {}
        cdef Py_ssize_t _
        cdef uint32_t shard
        memset(&entry, 0, sizeof(EntryView))
        for _ in range(count):
            at = _entry_at(at, end, &entry)
            if self._index[self._place(entry.outpoint)]:
                continue
            cached = self._cache._find(entry.outpoint)
            if cached != NULL and not self._accounts._is_stopped[entry.shard % SHARDS_MAX]:
                shard = shard_of_outpoint(entry.outpoint, self._shard_count)
                if cached.shard != shard or not _is_even(cached):
                    self._accounts.stop(shard, _why_uneven(cached))
                self._insert(cached).is_cached = True
            else:
                missing[entry.outpoint[:36]] = None
        return self._read_missing(list(missing)) if missing else 0

    cdef int _read_missing(self, list names) except -1:
        cdef Known known
        for outpoint, (record, terms) in zip(names, self.read(names), strict=True):
            self._understand(outpoint, record, terms, &known)
            self._insert(&known)
        return 0

    cdef int _understand(self, bytes outpoint, object record, object terms, Known *known) except -1:
        """Take what is durable of a channel. Records that do not read, or do not fit each other, stop the shard."""
        cdef bytes name
        memset(known, 0, sizeof(Known))
        memcpy(known.outpoint, PyBytes_AS_STRING(outpoint), 36)
        known.shard = <uint16_t> shard_of_outpoint(known.outpoint, self._shard_count)
        if record is None:
            return 0
        name = terms
        known.funding_value = read_u64(<const unsigned char *> name + 6) if name is not None and len(name) >= TERMS_HEAD_SIZE else 0
        if (not _read_state(<const unsigned char *> PyBytes_AS_STRING(record), len(record), known) or known.phase == ABSENT
                or known.change_value > known.funding_value):
            why = f"record: {_name(known.outpoint)}: of {known.funding_value} satoshi {known.change_value} would be left"
            self._accounts.stop(known.shard, why)
            known.phase = UNREADABLE
        known.received = known.funding_value - known.change_value if known.change_value <= known.funding_value else 0
        return 0

    def read(self, list outpoints not None):
        raise NotImplementedError

    def judge_step(
        self, shard, epoch, bytes outpoint, expected_phase, expected_change_value, bytes state, bytes extra, credit,
        expected_revision, charge
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
            if statuses[number] == ANSWER_CONFLICT or statuses[number] == ANSWER_FORBIDDEN:
                self._doubt(&entry)
        self._judge_claims(at)
        self.open_value += paid
        return answers

    cdef int _judge_entry(self, const EntryView *entry, uint64_t *paid) except -1:
        """Return the answer to one entry; add what a payment pays to `paid` (satoshi)."""
        cdef Slot *slot = &self._slots[self._index[self._place(entry.outpoint)] - 1]
        cdef Known *known = &slot.known
        cdef Known new
        if entry.shard >= self._shard_count:
            return ANSWER_FORBIDDEN
        if entry.epoch != <uint64_t> self._epochs[entry.shard] or entry.epoch == UINT64_MAX:  # which is of what is not held here
            return ANSWER_STALE_EPOCH
        if self._accounts._is_stopped[entry.shard] and not _is_settlement_step(entry):
            return ANSWER_STOPPED
        if entry.expected_phase != known.phase:
            return ANSWER_CONFLICT
        if known.phase != ABSENT and entry.expected_change_value != known.change_value:
            return ANSWER_CONFLICT
        if entry.expected_revision != known.revision:
            return ANSWER_CONFLICT
        if entry.shard != known.shard or not _read_state(entry.state, entry.state_size, &new):
            return ANSWER_FORBIDDEN
        if not self._may_sell(entry, known, &new):
            return ANSWER_FORBIDDEN
        if (known.phase == PHASE_OPEN and new.phase == PHASE_OPEN and new.change_value <= known.change_value
                and entry.extra_size == 0):
            if not self._judge_money(entry, known, &new):
                return ANSWER_STOPPED
            if known.change_value - new.change_value > UINT64_MAX - paid[0]:
                self.open_value += paid[0]
                paid[0] = 0
            paid[0] += known.change_value - new.change_value
        elif not self.judge_step(*_fields(entry)):
            return ANSWER_FORBIDDEN
        elif not self._judge_money(entry, known, &new):
            return ANSWER_STOPPED
        if known.phase == ABSENT:
            slot.change_value_before = known.funding_value
        if new.revision:
            self._count_open(known, &new)
        known.phase, known.change_value = new.phase, new.change_value
        known.spent, known.revision = new.spent, new.revision
        slot.record, slot.record_size = entry.state, entry.state_size
        slot.accepted += 1
        return ANSWER_OK

    cdef bint _may_sell(self, const EntryView *entry, const Known *known, const Known *new) noexcept nogil:
        """Return whether an update may bring these sales: changed ones only to an open channel, with a higher revision."""
        if new.revision == known.revision:
            return new.spent == known.spent
        return known.phase == PHASE_OPEN and new.revision > known.revision

    cdef int _count_open(self, const Known *known, const Known *new) except -1:
        """Keep the sum of what was spent on open channels."""
        if known.phase == PHASE_OPEN:
            self.open_spent += (<object> new.spent if new.phase == PHASE_OPEN else 0) - <object> known.spent
        return 0

    cdef int _judge_money(self, const EntryView *entry, Known *known, const Known *new) except -1:
        """Take the worker's credit into what was received, if it is what the change value falls by and the funding value bears
        it out; else stop the shard and return False. The rule has been asked: the change value does not rise."""
        if known.phase == ABSENT:
            known.funding_value = known.change_value = entry.expected_change_value
        if known.change_value - new.change_value != entry.credit:
            self._accounts.stop(known.shard, f"credit: {_name(known.outpoint)}: {known.change_value - new.change_value} satoshi "
                                             f"less are left, and the worker credited {entry.credit}")
            return False
        if wrapping_difference(new.spent, known.spent) != entry.charge:
            self._accounts.stop(known.shard, f"charge: {_name(known.outpoint)}: {known.spent} satoshi were spent, and now "
                                             f"{new.spent}; the worker charged {entry.charge} (modulo 2^64)")
            return False
        if not _is_even(known):
            self._accounts.stop(known.shard, _why_uneven(known))
            return False
        if new.spent > known.received + entry.credit:
            self._accounts.stop(known.shard, f"spent: {_name(known.outpoint)}: {new.spent} satoshi, and "
                                             f"{known.received + entry.credit} were received")
            return False
        known.received += entry.credit
        return True

    cdef int _doubt(self, const EntryView *entry) except -1:
        """An update contradicts a channel's state. If that came from the cache, it must be what the database has."""
        cdef Slot *slot = &self._slots[self._index[self._place(entry.outpoint)] - 1]
        cdef Known *cached
        cdef Known durable
        if not slot.is_cached:
            return 0
        slot.is_cached = False  # once is enough for a group
        cached = self._cache._find(entry.outpoint)
        ((record, terms),) = self.read([entry.outpoint[:36]])
        self._understand(entry.outpoint[:36], record, terms, &durable)
        if (cached.phase != durable.phase or cached.change_value != durable.change_value or cached.shard != durable.shard
                or cached.funding_value != durable.funding_value or cached.spent != durable.spent
                or cached.revision != durable.revision):
            why = (f"cache: {_name(entry.outpoint)}: phase {cached.phase} with {cached.change_value} of {cached.funding_value} "
                   f"satoshi left, {cached.spent} spent, is cached, phase {durable.phase} with {durable.change_value} of "
                   f"{durable.funding_value}, {durable.spent} spent, is stored")
            self._accounts.stop(durable.shard, why)
        return 0

    cdef int _judge_claims(self, const unsigned char *at) except -1:
        """Hold what a worker has told the payers and sellers of its shards against what was stored for them. (No update of this
        group is in either: a worker sends what was acknowledged.)"""
        cdef uint16_t count, what, _
        cdef uint32_t shard
        cdef uint64_t stored, told
        memcpy(&count, at, 2)
        at += 2
        for _ in range(count):
            memcpy(&what, at, 2)
            shard = what - CHARGED if what >= CHARGED else what
            if shard < self._shard_count and read_u64(at + 2) == <uint64_t> self._epochs[shard]:
                stored = self._accounts._of[shard].charged if what >= CHARGED else self._accounts._of[shard].fallen
                told = read_u64(at + 10)
                if stored != told:
                    done = ("spent", "charged") if what >= CHARGED else ("received", "credited")
                    self._accounts.stop(shard, f"shard: {stored} satoshi were stored as {done[0]} under epoch "
                                               f"{self._epochs[shard]}, and its worker {done[1]} {told}")
            at += CLAIM_SIZE
        return 0

    cdef bint _is_sound(self, const Slot *slot) except -1:
        """Return whether what is about to be written of a channel is what was judged; else the shard is stopped."""
        cdef Known written = slot.known
        if (slot.record == NULL or not _read_state(slot.record, slot.record_size, &written) or not _is_even(&written)
                or written.phase != slot.known.phase or written.spent != slot.known.spent
                or written.revision != slot.known.revision):
            self._accounts.stop(slot.known.shard, _why_unwritten(slot, &written))
            return False
        return True

    cdef int _note_crossed(self, const Slot *slot) except -1:
        """More than the threshold was received on a channel. If that came with this group, it is to be told."""
        if slot.known.funding_value - slot.change_value_before < self.threshold:
            if self.crossed is None:
                self.crossed = []
            self.crossed.append((slot.known.outpoint[:36], slot.known.funding_value, slot.known.received))
        return 0

    def put_states(self, dict writes not None, bytes prefix not None):
        """Add the newest state record of each channel that the group changes, under `prefix` and the outpoint. What is about to
        be written must be what was judged; else the shard is stopped."""
        cdef uint32_t number
        cdef Slot *slot
        self.crossed = None
        for number in range(self._slot_count):
            slot = &self._slots[number]
            if slot.accepted and self._is_sound(slot):
                if slot.known.received >= self.threshold:
                    self._note_crossed(slot)
                writes[prefix + slot.known.outpoint[:36]] = slot.record[:slot.record_size]

    def put_columns(self):
        """Return the same as columns: outpoints; phases, change values (satoshi) and revisions of the sales before the group; the
        same after it; records. A channel that the group opens has phase 0 before, and its funding value. What is after is taken
        from the record itself."""
        cdef uint32_t number
        cdef Slot *slot
        cdef list outpoints = [], phases_before = [], values_before = [], revisions_before = []
        cdef list phases = [], values = [], revisions = [], records = []
        self.crossed = None
        for number in range(self._slot_count):
            slot = &self._slots[number]
            if slot.accepted and self._is_sound(slot):
                if slot.known.received >= self.threshold:
                    self._note_crossed(slot)
                outpoints.append(slot.known.outpoint[:36])
                phases_before.append(slot.phase_before)
                values_before.append(slot.change_value_before)
                revisions_before.append(slot.revision_before)
                phases.append(slot.record[1])
                values.append(read_u64(slot.record + 4))
                revisions.append(slot.known.revision)
                records.append(slot.record[:slot.record_size])
        return outpoints, phases_before, values_before, revisions_before, phases, values, revisions, records

    def keep(self):
        """Hand the states over to the cache, and count what was stored. Only when the group's write has returned."""
        cdef uint32_t number
        cdef Slot *slot
        for number in range(self._slot_count):
            slot = &self._slots[number]
            if slot.known.phase == ABSENT or self._accounts._is_stopped[slot.known.shard]:
                continue
            if slot.accepted:
                self._accounts.count(slot.known.shard, wrapping_difference(slot.change_value_before, read_u64(slot.record + 4)),
                                     wrapping_difference(slot.known.spent, slot.spent_before))
            self._cache._keep(&slot.known)
