"""Group commit, a worker's half, compiled: the channels whose newest states wait to be written, and who waits for that.

One group is in flight; what comes meanwhile is the next one. Of a channel only the newest state is written, once in a group. A
waiter is told how the write that it waits for ended: 0 (the synced write has returned), LOST (-1: unknown), or the store's refusal
(an `EntryStatus`). After anything but 0 the channel is forgotten, and will be read from the store again.

Here is also counted what payers are told was received, and sellers was spent, apart from the states that are written: of each
write, and, when the store has acknowledged it, of its shard. Both go to the store, which holds them against what it stored
(`account.pyx`).
"""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from .bytes cimport distance, read_u64, wrapping_difference, wrapping_sum, write_bytes, write_u16, write_u64
from .channel cimport ENTRY_SIZE_MAX, Channel, ChannelTable, acknowledge, is_durable
from .entry cimport CHARGED, CLAIM_SIZE, ENTRY_CREDIT_AT, ENTRY_EPOCH_AT, ENTRY_HEAD_SIZE, ENTRY_SHARD_AT
from .tally cimport CHARGED_AT, GROUP_SIZES_AT, RECEIVED_AT, RETURNED_AT, SIZES_FROM, Tally, nanoseconds

cdef enum:
    ROOM_MIN = 64


cdef class Waiter:
    """Waits for one write. Compiled doors have kinds of their own."""

    cdef int finish(self, int outcome) except -1:
        """The write has ended. Called once."""
        raise NotImplementedError


cdef class FutureWaiter(Waiter):
    """Hands the outcome to a future; one that was cancelled meanwhile is let be."""

    cdef object _future

    def __init__(self, future):
        self._future = future

    cdef int finish(self, int outcome) except -1:
        if not self._future.done():
            self._future.set_result(outcome)
        return 0


cdef class Group:
    """What one COMMIT carries: the newest states of channels, then entries that were given whole."""

    def __cinit__(self, ChannelTable table not None, uint64_t number):
        self._table, self.number = table, number
        self._waiters, self._entries, self._entry_waiters = [], [], []

    def __dealloc__(self):
        free(self._writes)

    cdef int add(self, Channel *channel, Waiter waiter, uint64_t credit, uint64_t charge) except -1:
        """Queue a channel, once. credit: satoshi that this waiter will tell its payer was received; charge (two's complement): by
        how many it will tell its seller that more was spent.

        `serial` tells which loading of it was judged: what is loaded afresh meanwhile does not hold this waiter's payment, and must
        not be written for it.
        """
        cdef Write *write
        if channel.group != self.number:
            if self._count == self._room:
                self._grow()
            write = &self._writes[self._count]
            write.channel, write.serial, write.outcome = channel, channel.serial, PENDING
            write.credit, write.charge, write.shard = 0, 0, channel.shard
            memcpy(write.outpoint, channel.outpoint, 36)
            channel.group, channel.place = self.number, self._count
            self._count += 1
        write = &self._writes[channel.place]
        write.credit += credit
        write.charge = wrapping_sum(write.charge, charge)
        waiter._place = channel.place
        self._waiters.append(waiter)
        return 0

    def _grow(self):
        cdef uint32_t room = max(<uint32_t> ROOM_MIN, 2 * self._room)
        cdef Write *writes = <Write *> realloc(self._writes, room * sizeof(Write))
        if writes == NULL:
            raise MemoryError()
        self._writes, self._room = writes, room

    @property
    def size(self):
        """How many updates it carries."""
        return self._count + len(self._entries)

    cdef unsigned char *seal_into(self, unsigned char *end) except NULL:
        """Write the entries of a COMMIT to `end`; return where they end. What was forgotten or loaded afresh since it was queued
        cannot be written."""
        cdef Write *write
        cdef bytes entry
        cdef uint32_t i
        for i in range(self._count):
            write = &self._writes[i]
            if write.channel.serial != write.serial and write.outcome == PENDING:
                write.outcome = STALE
            if write.outcome == PENDING:
                write.epoch = self._table._epochs[write.shard]
                end = self._table.seal_into(write.channel, write.credit, write.charge, end)
                self._sealed += 1
        for entry in self._entries:
            end = write_bytes(end, entry, len(entry))
        return end

    cdef list decided(self):
        """Take out and return the waiters whose writes have an outcome, in the order in which they came."""
        cdef Waiter waiter
        cdef list decided = [], others = []
        for waiter in self._waiters:
            (others if self._writes[waiter._place].outcome == PENDING else decided).append(waiter)
        self._waiters = others
        return decided


cdef class CommitQueue:
    """The groups that wait and the one in flight.

    `wake()` is called when something waits and nobody is writing; `report(error)` gets what a waiter raised, which is a bug: nobody
    else is kept from his answer by it. entries_max: of one group; more waits for the next. waiting: how many waiters have not been
    told yet; doors take no payment while they are `waiting_max`. tally: where it is counted.
    """

    def __init__(self, ChannelTable table not None, wake not None, report not None, uint32_t entries_max, Tally tally=None):
        self._table, self._wake, self._report, self._entries_max = table, wake, report, entries_max
        self._groups, self._tally = [], Tally() if tally is None else tally
        self.waiting_max = 0x7FFFFFFFFFFFFFFF

    def __cinit__(self, *_, **__):
        self._claims = <Claim *> calloc(2 * SHARD_COUNT_MAX, sizeof(Claim))
        self._due = <uint16_t *> calloc(2 * SHARD_COUNT_MAX, sizeof(uint16_t))
        if self._claims == NULL or self._due == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self._claims)
        free(self._due)

    # --- queueing ---

    cdef Group _open_group(self):
        cdef Group group
        if self._groups:
            group = self._groups[len(self._groups) - 1]
            if group._count + len(group._entries) < self._entries_max:
                return group
        self._number += 1
        group = Group(self._table, self._number)
        self._groups.append(group)
        return group

    cdef Group _group_of(self, const Channel *channel):
        """Return the group that holds the channel's newest write, None if it has none that is not answered."""
        cdef Group group
        if channel.group == 0:
            return None
        for group in self._groups:
            if group.number == channel.group:
                return group
        group = self._in_flight
        return group if group is not None and group.number == channel.group else None

    cdef int _rouse(self) except -1:
        if not self._is_busy:
            self._is_busy = True
            self._wake()
        return 0

    cdef int add(self, Channel *channel, Waiter waiter, uint64_t credit, uint64_t charge) except -1:
        """Have a channel's newest state written in the next group. credit, charge: satoshi that the waiter will tell of."""
        cdef Group group = self._group_of(channel)
        if group is None or group is self._in_flight:
            group = self._open_group()
        group.add(channel, waiter, credit, charge)
        self.waiting += 1
        return self._rouse()

    cdef bint join(self, Channel *channel, Waiter waiter) except -1:
        """Wait for the newest write of a channel. Return False, and do not wait, if its newest state is durable."""
        cdef Group group
        if is_durable(channel):
            return False
        group = self._group_of(channel)
        if group is None:
            return False
        waiter._place = channel.place
        group._waiters.append(waiter)
        self.waiting += 1
        return True

    def make_durable(self, bytes outpoint not None, Waiter waiter not None):
        """Have a loaded channel's newest state written in the next group. Raises KeyError."""
        self.add(self._table._get(outpoint), waiter, 0, 0)

    def wait_for(self, bytes outpoint not None, Waiter waiter not None):
        """Wait for the newest write of a channel. Return False, and do not wait, if there is none that is not answered."""
        cdef Channel *channel = self._table._find(outpoint) if len(outpoint) == 36 else NULL
        return channel != NULL and self.join(channel, waiter)

    def write(self, bytes entry not None, Waiter waiter not None):
        """Have one encoded update written that the table does not hold: a creation, or a step of a settlement."""
        cdef Group group = self._open_group()
        group._entries.append(entry)
        group._entry_waiters.append(waiter)
        self.waiting += 1
        self._rouse()

    # --- writing ---

    def take(self):
        """Return the next group, which is now in flight, or None if nothing waits."""
        if not self._groups:
            return None
        self._in_flight = self._groups.pop(0)
        return self._in_flight

    def seal(self, Group group not None):
        """Return the payload of the group in flight, b"" if nothing is left of it to be written. Whose channel was forgotten
        meanwhile is told now."""
        cdef size_t room = 4 + group._count * ENTRY_SIZE_MAX + self._due_count * CLAIM_SIZE + sum(map(len, group._entries))
        cdef unsigned char *payload = <unsigned char *> malloc(room)
        cdef unsigned char *end
        if payload == NULL:
            raise MemoryError()
        try:
            end = group.seal_into(payload + 2)
            if group._sealed != group._count:
                self._tell(group)
            if not group._sealed and not group._entries:
                return b""
            write_u16(payload, <unsigned short> (group._sealed + len(group._entries)))
            end = self._claims_into(end)
            return payload[:distance(payload, end)]
        finally:
            free(payload)

    cdef void _claim(self, uint32_t what, uint64_t epoch, uint64_t change) noexcept:
        """Count what payers (`what` is a shard) or sellers (shard + CHARGED) are told now; a new epoch begins at zero, as it does
        in the store."""
        cdef Claim *claim = &self._claims[what]
        if epoch < claim.epoch:
            return
        if epoch > claim.epoch:
            claim.epoch, claim.sum = epoch, 0
        claim.sum = wrapping_sum(claim.sum, change)
        if not claim.is_due:
            claim.is_due = True
            self._due[self._due_count] = <uint16_t> what
            self._due_count += 1

    cdef unsigned char *_claims_into(self, unsigned char *end) noexcept:
        cdef uint32_t i
        cdef Claim *claim
        end = write_u16(end, <uint16_t> self._due_count)
        for i in range(self._due_count):
            claim = &self._claims[self._due[i]]
            claim.is_due = False
            end = write_u64(write_u64(write_u16(end, self._due[i]), claim.epoch), claim.sum)
        self._due_count = 0
        return end

    def rest(self):
        """The writer has gone: whoever comes next wakes it."""
        self._is_busy = False

    def complete(self, Group group not None, bytes statuses not None):
        """The store has answered the group in flight, an `EntryStatus` for each entry of its payload. Raises ValueError if that
        is another number of them: then nothing is known, and `fail` is right."""
        cdef Write *write
        cdef uint32_t i, answered = 0
        cdef const unsigned char *status = statuses
        if len(statuses) != group._sealed + len(group._entries):
            raise ValueError("the store answered another number of entries")
        for i in range(group._count):
            write = &group._writes[i]
            if write.outcome != PENDING:
                continue
            write.outcome = status[answered]
            answered += 1
            if write.outcome != WRITTEN:
                self._drop(write.outpoint, write.outcome)
                if write.outcome == STOPPED:
                    self._table.stop_one(write.shard)
                continue
            self._claim(write.shard, write.epoch, write.credit)
            self._tally.cells[RECEIVED_AT] += write.credit
            if write.charge:
                self._claim(write.shard + CHARGED, write.epoch, write.charge)
                self._count_charge(write.charge)
            if write.channel.serial == write.serial:
                acknowledge(write.channel)
        for i in range(len(group._entries)):
            if status[answered + i] == WRITTEN:
                self._claim_entry(group._entries[i])
        self._end(group, [status[answered + place] for place in range(len(group._entries))])

    cdef void _count_charge(self, uint64_t charge) noexcept:
        """Count what sellers are told of one channel. What is given back in the same write counts against it."""
        if charge >> 63:
            self._tally.cells[RETURNED_AT] += wrapping_difference(0, charge)
        else:
            self._tally.cells[CHARGED_AT] += charge

    cdef int _claim_entry(self, bytes entry) except -1:
        """Count what an update brings that was given whole."""
        cdef const unsigned char *head = entry
        cdef uint16_t shard
        if len(entry) < ENTRY_HEAD_SIZE:
            return 0
        memcpy(&shard, head + ENTRY_SHARD_AT, 2)
        if shard < SHARD_COUNT_MAX:
            self._claim(shard, read_u64(head + ENTRY_EPOCH_AT), read_u64(head + ENTRY_CREDIT_AT))
            self._tally.cells[RECEIVED_AT] += read_u64(head + ENTRY_CREDIT_AT)
        return 0

    def fail(self, Group group not None):
        """Nobody knows what became of the group in flight."""
        cdef uint32_t i
        for i in range(group._count):
            if group._writes[i].outcome == PENDING:
                group._writes[i].outcome = LOST
                self._drop(group._writes[i].outpoint, LOST)
        self._end(group, [LOST] * len(group._entries))

    def _end(self, Group group, list outcomes):
        cdef Waiter waiter
        self._in_flight = None
        self._tally.note(GROUP_SIZES_AT, SIZES_FROM, group._count + len(group._entries))
        self.told_at = nanoseconds()
        self._tell(group)
        self.told_at = 0
        self.waiting -= len(group._entry_waiters)
        for waiter, outcome in zip(group._entry_waiters, outcomes):
            waiter.finish(outcome)

    cdef int _tell(self, Group group) except -1:
        cdef Waiter waiter
        cdef list decided = group.decided()
        self.waiting -= len(decided)
        for waiter in decided:
            try:
                waiter.finish(group._writes[waiter._place].outcome)
            except Exception as error:
                self._report(error)
        return 0

    cdef int _drop(self, const unsigned char *outpoint, int outcome) except -1:
        """Forget a channel, and fail what was judged on the state that did not become durable."""
        cdef Channel *channel = self._table._find(outpoint)
        cdef Group group
        if channel == NULL:
            return 0
        group = self._group_of(channel)
        if group is not None and group is not self._in_flight:
            group._writes[channel.place].outcome = outcome
        self._table.forget(outpoint)
        return 0
