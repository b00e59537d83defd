"""Accounts of the store's shards, and which shards have been stopped because theirs did not come out even.

Every satoshi that a worker tells a payer was received must be one by which a stored change value has fallen. The figures come by
two ways: what is *received* from the workers' own counting (`commit.pyx`), what is *left* from the state records, and the funding
value that both must add up to from the durable terms. What was *spent* comes from the state records, and how
that changes comes from the workers again. `group.pyx` holds them against each other in each group, for each channel that the group
touches and for its shard.

A shard whose figures differ is stopped: one of two memories is wrong, and nothing here can know which. It takes no more payments
until the store is started again, from what is durable.
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memset


cdef class Accounts:
    """All shards' accounts, empty at the store's start. `stopped`: shard -> which invariant was violated, with the figures."""

    def __cinit__(self):
        self._of = <ShardAccount *> calloc(SHARDS_MAX, sizeof(ShardAccount))
        self._is_stopped = <unsigned char *> calloc(SHARDS_MAX, 1)
        if self._of == NULL or self._is_stopped == NULL:
            raise MemoryError()
        self.stopped, self._found = {}, {}

    def __dealloc__(self):
        free(self._of)
        free(self._is_stopped)

    cdef int stop(self, uint32_t shard, str why) except -1:
        """Stop a shard. Only the first reason counts: what follows from it says nothing new."""
        if shard < SHARDS_MAX and not self._is_stopped[shard]:
            self._is_stopped[shard] = 1
            self.stopped[shard] = self._found[shard] = why
        return 0

    def take_found(self):
        """Return the shards (and why) that were stopped since the last call."""
        found, self._found = self._found, {}
        return found

    @cython.overflowcheck(False)
    cdef bint move(self, uint32_t shard, uint64_t funding, uint64_t received, uint64_t left, uint64_t spent,
                   int sign) noexcept nogil:
        """Add a channel to its shard's account, or with sign -1 take it out; return whether the account is even. Sums may wrap."""
        cdef ShardAccount *account = &self._of[shard]
        account.funding += sign * funding
        account.received += sign * received
        account.left += sign * left
        account.spent += sign * spent
        return account.funding == account.received + account.left and account.spent <= account.received

    @cython.overflowcheck(False)
    cdef void count(self, uint32_t shard, uint64_t fallen, uint64_t charged) noexcept nogil:
        """A channel's stored change value has fallen, and what was stored as spent has changed (two's complement)."""
        cdef ShardAccount *account = &self._of[shard]
        account.fallen += fallen
        account.charged += charged

    def begin_epoch(self, uint32_t shard):
        """A shard (or another lease, which has no account) has a new owner, who starts to count from zero."""
        if shard < SHARDS_MAX:
            self._of[shard].fallen = self._of[shard].charged = 0

    cdef void forget(self, uint32_t shard) noexcept nogil:
        """Nothing of a shard is cached any more. Whether it is stopped stays: this process's memory is in doubt."""
        memset(&self._of[shard], 0, sizeof(ShardAccount))

    def of(self, uint32_t shard):
        """Return (funding, received, left, spent, fallen, charged) of a shard, satoshi."""
        cdef ShardAccount account = self._of[shard]
        return account.funding, account.received, account.left, account.spent, account.fallen, account.charged
