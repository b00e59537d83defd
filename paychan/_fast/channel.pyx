"""The channel table and the one compiled call that a payment needs: `ChannelTable.pay`.

Order of the checks (the first that fails is the answer): path, query, payment's form; owner; loaded; too many failures; signature;
phase; expiry; the funding output's last look-up; order of the change values. A refused payment changes nothing. What comes after
the signature is told only to who has signed, or holds, byte for byte, the newest payment: a channel's state, and what is left in
it, are between payer and server, and a look at the chain costs more than a verification.

What sellers ask for is judged by `selling.pyx`, on the same channels.
"""

import os

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from .bytes cimport distance, write_bytes, write_u16, write_u64
from .entry cimport SALES_SIZE
from .hash cimport outpoint_hash, shard_of_outpoint
from .payment cimport (
    PAYMENT_SIZE_MAX, SIGHASH_CHANGE, SIGHASH_NO_CHANGE, TEXT_SIZE_MAX, decode_base64url, parse_payment,
)
from .purchase cimport PURCHASE_SIZE, Sales, take_sales, write_purchases
from .request cimport Parameter, find_parameters, parse_channel_path, unescape
from .secp256k1 cimport context, parse_public_key, verify
from .sighash cimport sighash_for_change
from .status cimport Status

from .payment import MAX_MONEY as _MAX_MONEY

cdef enum:
    TOMBSTONE = 0xFFFFFFFF
    INDEX_SIZE_MIN = 4096
    RECORD_VERSION = 1
    SOLD_VERSION = 2
    CHANNEL_TYPE = 1      # P2SH_V1 of paychan/core/channel.py

FAILURES_MAX = 1000
"""Verifications of one channel that may fail within one second; further payments are answered 503 until the next, unverified, but
for the newest one sent again.

A failed verification is what junk costs most: 25 us (measured; 50 where cores are slow), against 1 us when it is spared. Who
knows a channel's id (it is on the chain) could use the bound to keep its payer out, so it is high, and starts afresh with each
second: it takes more than 1000 requests a second, at this one channel, all the time; of the payer's attempts the part is judged
that the budget is of the attack (at 10 000 a second: each tenth, and clients repeat a 503), and every payment that came while
budget was left counts. That is a flood which a limit by address in front stops sooner. The payer's own good payments take
nothing from it.
"""

FAILING_PER_MILLE = 40
"""Of a worker's time, for verifications that fail, on all channels together: 4 % of a core, measured, not counted. A second's
worth of it is there at once, so five seconds take at most 5 %. (Less at once would leave too little for the channels that are
spared: then their payers are refused while others are flooded.)

Of it one half is for channels with fewer than FAILURES_SPARED failures within this second. So who floods some channels keeps the
payers of the others out only by junk for each of these too, each second.

An address of whose requests too many fail (limits.pyx) is judged only while three quarters are there, and by a channel only up to
half of FAILURES_MAX. So it takes what the time that passes brings, and never what others need; beyond that it is answered 429,
unverified. Who shares the address gets, by asking again, the part of the attempts that is judged; his good payments take nothing.
"""

cdef enum:
    _FAILURES_MAX = 1000
    FAILURES_SPARED = 8
    FAILING_WINDOW_NS = 1_000_000_000
    FAILURE_NS_MAX = 250_000  # of one verification: more is time in which something else ran

cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1_000_000_000 + now.tv_nsec

cdef Status _read_request(
    const unsigned char *path, Py_ssize_t path_size, const unsigned char *query, Py_ssize_t query_size,
    unsigned char *outpoint36, unsigned char *raw, Py_ssize_t *raw_size, bint *has_change_address
) noexcept nogil:
    """Parse path and query; write the outpoint and the payment's binary form (PAYMENT_SIZE_MAX bytes of room)."""
    cdef Py_ssize_t text_size
    cdef unsigned char plain[TEXT_SIZE_MAX]
    cdef Parameter payment, change_address
    cdef Status status = parse_channel_path(path, path_size, outpoint36)
    if status == Status.OK:
        status = find_parameters(query, query_size, &payment, &change_address)
    if status == Status.OK:
        has_change_address[0] = change_address.text != NULL
        status = unescape(payment.text, payment.size, plain, TEXT_SIZE_MAX, &text_size)
    if status == Status.OK:
        status = decode_base64url(plain, text_size, raw, raw_size)
    return status


def read_channel_request(str path not None, str query not None):
    """Return (status, outpoint, payment in binary form) of a request for a channel's resource; status 0 is good.

    For the requests off the hot path; the payment's form is not judged beyond its text. Raises UnicodeEncodeError for text
    with lone surrogates, which no HTTP server hands over.
    """
    cdef unsigned char outpoint[36]
    cdef unsigned char raw[PAYMENT_SIZE_MAX]
    cdef Py_ssize_t raw_size = 0
    cdef bint has_change_address = False
    cdef Py_ssize_t path_size = 0, query_size = 0
    cdef const unsigned char *path_text = <const unsigned char *> PyUnicode_AsUTF8AndSize(path, &path_size)
    cdef const unsigned char *query_text = <const unsigned char *> PyUnicode_AsUTF8AndSize(query, &query_size)
    cdef Status status = _read_request(
        path_text, path_size, query_text, query_size, outpoint, raw, &raw_size, &has_change_address)
    if status != Status.OK:
        return <int> status, b"", b""
    return 0, outpoint[:36], raw[:raw_size]


def shard_of(bytes outpoint not None, uint32_t shard_count):
    """Return the shard of a 36-byte outpoint: the compiled twin of paychan/core/sharding.py."""
    if len(outpoint) != 36 or not shard_count:
        raise ValueError("an outpoint has 36 bytes, and there is at least one shard")
    return shard_of_outpoint(outpoint, shard_count)


cdef unsigned char *_write_state(const Channel *channel, unsigned char *end) noexcept nogil:
    """Write a channel's state record to `end`; return where it ends."""
    cdef const Sales *sales = channel.sales
    end[0] = RECORD_VERSION if sales == NULL else SOLD_VERSION
    end[1] = channel.phase
    end[2] = channel.sighash_type if sales == NULL else CHANNEL_TYPE
    end[3] = channel.signature_size
    end = write_u64(end + 4, channel.change_value)
    if sales == NULL:
        return write_bytes(end, channel.signature, channel.signature_size)
    end = write_u64(write_u64(end, sales.spent), sales.revision)
    return write_purchases(sales, write_bytes(end, channel.signature, channel.signature_size))


cdef class ChannelTable:
    """The channels of this worker's shards. Not thread-safe: one event loop owns it.

    shard_count: 1 to 4096. settlement_period: seconds before expiry from which on payments are refused. failing_per_mille: of a
    worker's time, for verifications that fail.
    """

    def __cinit__(self, uint32_t shard_count, uint32_t settlement_period, uint32_t failing_per_mille=FAILING_PER_MILLE):
        if not 0 < shard_count <= SHARD_COUNT_MAX:
            raise ValueError("the shard count is out of range")
        self._shard_count = shard_count
        self._settlement_period = settlement_period
        self._free_slots = []
        self._failing_per_mille = min(failing_per_mille, 1000)
        self._failing_ns = self._failing_ns_max = self._failing_per_mille * (FAILING_WINDOW_NS // 1000)
        self._refilled_at = monotonic_ns()
        self.chain_generation = 1
        self.watch_above = _MAX_MONEY
        self._seed = int.from_bytes(os.urandom(8), "little")
        memset(self._epochs, 0, sizeof(self._epochs))
        memset(self._is_stopped, 0, sizeof(self._is_stopped))
        self._resize_index(INDEX_SIZE_MIN)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self._chunk_count):
            self._free_sales(i)
            free(self._chunks[i])
        free(self._chunks)
        free(self._index)

    cdef void _free_sales(self, uint32_t chunk) noexcept:
        cdef int slot
        for slot in range(CHUNK_SLOTS):
            free(self._chunks[chunk][slot].sales)

    def __len__(self):
        return self._count

    @property
    def shard_count(self):
        return self._shard_count

    # --- the index ---

    cdef Channel *_slot(self, uint32_t number) noexcept nogil:
        return &self._chunks[number // CHUNK_SLOTS][number % CHUNK_SLOTS]

    cdef uint32_t _place(self, const unsigned char *outpoint) noexcept nogil:
        """Return the place in the index that holds `outpoint`, else the free place that ends its probe sequence."""
        cdef uint32_t number
        cdef uint32_t place = <uint32_t> outpoint_hash(outpoint, self._seed) & self._index_mask
        while True:
            number = self._index[place]
            if number == 0:
                return place
            if number != TOMBSTONE and memcmp(self._slot(number - 1).outpoint, outpoint, 36) == 0:
                return place
            place = (place + 1) & self._index_mask

    cdef Channel *_find(self, const unsigned char *outpoint) noexcept nogil:
        cdef uint32_t number = self._index[self._place(outpoint)]
        return self._slot(number - 1) if number else NULL

    cdef Channel *_get(self, bytes outpoint) except NULL:
        cdef Channel *channel = self._find(outpoint) if len(outpoint) == 36 else NULL
        if channel == NULL:
            raise KeyError("no such channel is loaded")
        return channel

    cdef int _resize_index(self, uint32_t size) except -1:
        """Rebuild the index with `size` places (a power of two), without its tombstones."""
        cdef uint32_t *index = <uint32_t *> calloc(size, sizeof(uint32_t))
        cdef uint32_t number
        if index == NULL:
            raise MemoryError()
        free(self._index)
        self._index = index
        self._index_mask = size - 1
        self._index_used = 0
        for number in range(self._slot_count):
            if self._slot(number).in_use:
                self._index[self._place(self._slot(number).outpoint)] = number + 1
                self._index_used += 1
        return 0

    cdef Channel *_insert(self, const unsigned char *outpoint) except NULL:
        """Return a zeroed slot for a new outpoint, entered in the index."""
        cdef uint32_t number
        cdef Channel *channel
        cdef Channel **chunks
        if (self._index_used + 1) * 4 > (self._index_mask + 1) * 3:
            self._resize_index((self._index_mask + 1) * (2 if self._count * 2 > self._index_mask else 1))
        if self._free_slots:
            number = self._free_slots.pop()
        else:
            number = self._slot_count
            if number // CHUNK_SLOTS >= self._chunk_count:
                chunks = <Channel **> realloc(self._chunks, (self._chunk_count + 1) * sizeof(Channel *))
                if chunks == NULL:
                    raise MemoryError()
                self._chunks = chunks
                self._chunks[self._chunk_count] = <Channel *> calloc(CHUNK_SLOTS, sizeof(Channel))
                if self._chunks[self._chunk_count] == NULL:
                    raise MemoryError()
                self._chunk_count += 1
            self._slot_count += 1
        channel = self._slot(number)
        memset(channel, 0, sizeof(Channel))
        memcpy(channel.outpoint, outpoint, 36)
        channel.in_use = 1
        self._index[self._place(outpoint)] = number + 1
        self._index_used += 1
        self._count += 1
        return channel

    cdef void _remove(self, uint32_t place) noexcept:
        cdef uint32_t number = self._index[place]
        self._slot(number - 1).in_use = 0
        self._slot(number - 1).serial = 0
        free(self._slot(number - 1).sales)
        self._slot(number - 1).sales = NULL
        self._index[place] = TOMBSTONE
        self._free_slots.append(number - 1)
        self._count -= 1

    # --- loading and dropping ---

    def load(self, terms not None, state not None):
        """Enter a channel as the store has it (`ChannelTerms`, `ChannelState`), replacing what was known of it.

        Raises ValueError for records that no honest store holds.
        """
        cdef bytes outpoint = terms.outpoint, redeem = terms.redeem_script, change_script = terms.change_script
        cdef bytes client_key = terms.client_pubkey, signature = state.payment.signature
        cdef PublicKey key
        cdef Channel *channel
        cdef Sales *sales = NULL
        if len(outpoint) != 36 or len(redeem) > REDEEM_SIZE_MAX or len(change_script) > CHANGE_SCRIPT_SIZE_MAX:
            raise ValueError("the terms of a channel are malformed")
        if (len(signature) > DER_SIZE_MAX or state.payment.sighash_type not in (SIGHASH_CHANGE, SIGHASH_NO_CHANGE)
                or not PHASE_OPEN <= state.phase <= PHASE_SETTLED
                or not 0 <= state.payment.change_value <= terms.funding_value <= _MAX_MONEY):
            raise ValueError("the state of a channel is malformed")
        if len(client_key) != 33 or not parse_public_key(context, &key, client_key, 33):
            raise ValueError("the payer's key is no public key")
        # Everything that can fail comes before the old entry goes and the new one is in the index.
        cdef uint64_t funding_value = terms.funding_value, change_value = state.payment.change_value
        cdef uint32_t exp_time = terms.exp_time
        if state.sales.revision:
            sales = take_sales(state.sales, funding_value - change_value)
        self.drop(outpoint)
        channel = self._insert(outpoint)
        self._serial += 1
        channel.serial = self._serial
        channel.client_key = key
        channel.funding_value = funding_value
        channel.watched_above = self.watch_above
        channel.exp_time = exp_time
        channel.shard = <uint16_t> shard_of_outpoint(outpoint, self._shard_count)
        channel.redeem_size = <unsigned char> len(redeem)
        memcpy(channel.redeem, <const unsigned char *> redeem, len(redeem))
        channel.change_script_size = <unsigned char> len(change_script)
        memcpy(channel.change_script, <const unsigned char *> change_script, len(change_script))
        channel.signature_size = <unsigned char> len(signature)
        memcpy(channel.signature, <const unsigned char *> signature, len(signature))
        channel.sighash_type = state.payment.sighash_type
        channel.change_value = channel.sent_change_value = channel.durable_change_value = change_value
        channel.phase = channel.sent_phase = channel.durable_phase = state.phase
        channel.sales = sales

    def drop(self, bytes outpoint not None):
        """Forget a channel; nothing happens if it is not loaded. It will be read from the store again."""
        if len(outpoint) == 36:
            self.forget(outpoint)

    cdef void forget(self, const unsigned char *outpoint) noexcept:
        cdef uint32_t place = self._place(outpoint)
        if self._index[place]:
            self._remove(place)

    def own(self, list epochs not None):
        """Take the epochs of all shards, 0 where another worker is the owner; forget the channels of shards that changed."""
        cdef uint32_t shard
        cdef bint changed = False
        cdef uint64_t[SHARD_COUNT_MAX] new_epochs
        cdef unsigned char[SHARD_COUNT_MAX] is_changed
        if len(epochs) != self._shard_count:
            raise ValueError("there must be one epoch for each shard")
        for shard in range(self._shard_count):
            new_epochs[shard] = epochs[shard]  # what is no epoch raises here, before anything has changed
        for shard in range(self._shard_count):
            is_changed[shard] = new_epochs[shard] != self._epochs[shard]
            changed = changed or is_changed[shard]
            self._epochs[shard] = new_epochs[shard]
        if changed:
            self._forget_shards(is_changed)

    cdef void _forget_shards(self, const unsigned char *is_forgotten) noexcept:
        cdef uint32_t place, number
        if not self._count:
            return
        for place in range(self._index_mask + 1):
            number = self._index[place]
            if number and number != TOMBSTONE and is_forgotten[self._slot(number - 1).shard]:
                self._remove(place)

    def stop(self, shards not None):
        """Take the numbers of the shards that the store has stopped: exactly they take no payments. What was known of their
        channels is in doubt, and forgotten."""
        cdef uint32_t shard
        cdef unsigned char[SHARD_COUNT_MAX] is_new
        cdef set stopped = set(shards)
        for shard in range(self._shard_count):
            is_new[shard] = shard in stopped and not self._is_stopped[shard]
            self._is_stopped[shard] = shard in stopped
        if stopped:
            self._forget_shards(is_new)

    cdef void stop_one(self, uint32_t shard) noexcept:
        """The same of one more shard, before the store's list comes."""
        cdef unsigned char[SHARD_COUNT_MAX] is_new
        if shard < self._shard_count and not self._is_stopped[shard]:
            memset(is_new, 0, SHARD_COUNT_MAX)
            is_new[shard] = self._is_stopped[shard] = 1
            self._forget_shards(is_new)

    def is_stopped(self, bytes outpoint not None):
        """Return whether an outpoint's shard has been stopped by the store."""
        return self._is_stopped[shard_of(outpoint, self._shard_count)] != 0

    # --- paying ---

    def pay(self, str path not None, str query not None, uint64_t now, bint ignore_change_address=False):
        """Judge one payment request and, if it is accepted, update the channel in memory. Returns a status number.

        now: unix seconds. The outcome is in `value_received`, `value_left` and `exposure` (received in all; satoshi) for ACCEPTED,
        EXHAUSTED and REPLAYED, in `shortfall` (satoshi) for OUT_OF_ORDER, in `shard` for NOT_OWNED; `outpoint` tells the channel.
        HAS_CHANGE_ADDRESS: judge that parameter, then call again with `ignore_change_address`.
        """
        cdef Py_ssize_t path_size = 0, query_size = 0
        cdef const unsigned char *path_text = <const unsigned char *> PyUnicode_AsUTF8AndSize(path, &path_size)
        cdef const unsigned char *query_text = <const unsigned char *> PyUnicode_AsUTF8AndSize(query, &query_size)
        return <int> self.judge(path_text, path_size, query_text, query_size, now, ignore_change_address)

    cdef Status judge(self, const unsigned char *path, Py_ssize_t path_size, const unsigned char *query, Py_ssize_t query_size,
                      uint64_t now, bint ignore_change_address) noexcept:
        """`pay`, for compiled callers."""
        cdef unsigned char raw[PAYMENT_SIZE_MAX]
        cdef Py_ssize_t raw_size = 0
        cdef bint has_change_address = False
        cdef PaymentView payment
        cdef Status status = _read_request(
            path, path_size, query, query_size, self._outpoint, raw, &raw_size, &has_change_address)
        self.judged = NULL
        if status == Status.OK:
            status = parse_payment(raw, raw_size, &payment)
        if status != Status.OK:
            return status
        if has_change_address and not ignore_change_address:
            return Status.HAS_CHANGE_ADDRESS
        return self._judge_payment(&payment, now)

    cdef Status judge_binary(self, const unsigned char *outpoint, const unsigned char *raw, Py_ssize_t raw_size,
                             uint64_t now) noexcept:
        """Judge a payment that came in binary form for an outpoint of 36 bytes, else as `pay`."""
        cdef PaymentView payment
        cdef Status status = parse_payment(raw, raw_size, &payment)
        memcpy(self._outpoint, outpoint, 36)
        self.judged = NULL
        return self._judge_payment(&payment, now) if status == Status.OK else status

    cdef Status _look_up(self) noexcept:
        """Find the channel of `_outpoint`, if it is ours to judge."""
        self.shard = shard_of_outpoint(self._outpoint, self._shard_count)
        if not self._epochs[self.shard]:
            return Status.NOT_OWNED
        if self._is_stopped[self.shard]:
            return Status.SHARD_STOPPED
        self.judged = self._find(self._outpoint)
        return Status.OK if self.judged != NULL else Status.NOT_LOADED

    cdef Status _judge_payment(self, const PaymentView *payment, uint64_t now) noexcept:
        cdef Status status = self._look_up()
        if status == Status.OK:
            self.charged = 0
            status = self._weigh(self.judged, payment, now)
            if status == Status.ACCEPTED or status == Status.EXHAUSTED:
                self._accept(self.judged, payment)
        return status

    cdef Status _weigh(self, Channel *channel, const PaymentView *payment, uint64_t now) noexcept nogil:
        """Judge a payment; nothing is changed."""
        cdef Status status
        cdef bint is_newest = (
            payment.change_value == channel.change_value and payment.der_size == channel.signature_size
            and payment.sighash_type == channel.sighash_type
            and memcmp(payment.der, channel.signature, payment.der_size) == 0)
        if not is_newest:
            status = self._verify(channel, payment, now)
            if status != Status.OK:
                return status
        status = self._weigh_channel(channel, now)
        if status != Status.OK:
            return status
        if payment.change_value > channel.change_value:
            self.shortfall = payment.change_value - channel.change_value
            return Status.OUT_OF_ORDER
        self.value_received = channel.change_value - payment.change_value
        self.value_left = payment.change_value
        self.exposure = channel.funding_value - payment.change_value
        if self.value_received == 0:
            return Status.REPLAYED
        return Status.EXHAUSTED if payment.sighash_type == SIGHASH_NO_CHANGE else Status.ACCEPTED

    cdef Status _weigh_channel(self, const Channel *channel, uint64_t now) noexcept nogil:
        """Return OK if the channel takes payments now."""
        if channel.phase != PHASE_OPEN:
            return Status.NO_SUCH_PAYMENT if channel.phase == PHASE_SETTLED else Status.CHANNEL_CLOSING
        if now + self._settlement_period >= channel.exp_time:
            return Status.CHANNEL_EXPIRING
        return Status.OK if channel.chain_generation == self.chain_generation else Status.UNCHECKED

    cdef void _accept(self, Channel *channel, const PaymentView *payment) noexcept nogil:
        """Take a payment that was weighed and found better."""
        channel.change_value = payment.change_value
        channel.sighash_type = payment.sighash_type
        channel.signature_size = payment.der_size
        memcpy(channel.signature, payment.der, payment.der_size)
        if payment.sighash_type == SIGHASH_NO_CHANGE:
            channel.phase = PHASE_CLOSING

    cdef Status _verify(self, Channel *channel, const PaymentView *payment, uint64_t now) noexcept nogil:
        """Return OK if the payer signed this payment, else BAD_SIGNATURE; TOO_MANY_FAILURES or TOO_MANY_REFUSED if it was not
        looked at."""
        cdef unsigned char digest[32]
        cdef int64_t refill, began = monotonic_ns()
        cdef uint16_t failures = channel.failures if channel.failure_second == <uint32_t> now else 0
        cdef int64_t floor = 0 if failures < FAILURES_SPARED else self._failing_ns_max // 2
        cdef Status refusal = Status.TOO_MANY_FAILURES
        if self.is_from_failing:
            floor, refusal = self._failing_ns_max // 4 * 3, Status.TOO_MANY_REFUSED
        if failures >= (_FAILURES_MAX // 2 if self.is_from_failing else _FAILURES_MAX):
            return refusal
        if self._failing_ns <= floor:
            refill = min(began - self._refilled_at, FAILING_WINDOW_NS) * self._failing_per_mille // 1000
            self._failing_ns = min(self._failing_ns + refill, self._failing_ns_max)
            self._refilled_at = began
            if self._failing_ns <= floor:
                return refusal
        sighash_for_change(
            channel.outpoint, channel.redeem, channel.redeem_size, channel.change_script, channel.change_script_size,
            payment.change_value, payment.sighash_type, digest)
        if verify(context, &payment.signature, digest, &channel.client_key):
            return Status.OK
        channel.failure_second, channel.failures = <uint32_t> now, failures + 1
        self._failing_ns = self._failing_ns - min(monotonic_ns() - began, FAILURE_NS_MAX)
        return Status.BAD_SIGNATURE

    @property
    def outpoint(self):
        """The 36-byte outpoint of the last `pay`."""
        return self._outpoint[:36]

    def mark_checked(self, bytes outpoint not None, uint32_t generation):
        """Note that a loaded channel's funding output was found well under this generation of the tip. Raises KeyError."""
        self._get(outpoint).chain_generation = generation

    # --- what the committer needs ---

    def owns(self, bytes outpoint not None):
        """Return whether this worker owns the outpoint's shard."""
        return self._epochs[shard_of(outpoint, self._shard_count)] != 0

    def epoch_of(self, uint32_t shard):
        """Return the epoch under which this worker owns a shard, 0 if it does not."""
        if shard >= self._shard_count:
            raise ValueError("no such shard")
        return self._epochs[shard]

    def is_loaded(self, bytes outpoint not None):
        return len(outpoint) == 36 and self._find(outpoint) != NULL

    def serial(self, bytes outpoint not None):
        """Return a number that tells this loading of a channel from any other, 0 if it is not loaded."""
        cdef Channel *channel = self._find(outpoint) if len(outpoint) == 36 else NULL
        return channel.serial if channel != NULL else 0

    def is_durable(self, bytes outpoint not None):
        """Return whether the newest state of a loaded channel has been acknowledged by the store. Raises KeyError."""
        return is_durable(self._get(outpoint))

    def phase(self, bytes outpoint not None):
        """Return the phase number of a loaded channel. Raises KeyError."""
        return <int> self._get(outpoint).phase

    def received(self, bytes outpoint not None):
        """Return what was received on a loaded channel, satoshi. Raises KeyError."""
        cdef Channel *channel = self._get(outpoint)
        return channel.funding_value - channel.change_value

    def watch(self, bytes outpoint not None, uint64_t above):
        """Have the rules hear of payments on a loaded channel that has received more than so many satoshi. Raises KeyError."""
        self._get(outpoint).watched_above = above

    def newest_payment(self, bytes outpoint not None):
        """Return the newest payment of a loaded channel in binary form. Raises KeyError."""
        cdef Channel *channel = self._get(outpoint)
        cdef unsigned char value[8]
        write_u64(value, channel.change_value)
        return value[:8] + channel.signature[:channel.signature_size] + bytes((channel.sighash_type,))

    def redeem_script(self, bytes outpoint not None):
        """Return the redeem script of a loaded channel's funding output. Raises KeyError."""
        cdef Channel *channel = self._get(outpoint)
        return channel.redeem[:channel.redeem_size]

    def begin_closing(self, bytes outpoint not None):
        """Let an open channel take no more payments. Raises KeyError; ValueError if it is not open."""
        cdef Channel *channel = self._get(outpoint)
        if channel.phase != PHASE_OPEN:
            raise ValueError("only an open channel can begin to close")
        channel.phase = PHASE_CLOSING

    cdef unsigned char *seal_into(self, Channel *channel, uint64_t credit, uint64_t charge, unsigned char *end) noexcept nogil:
        """Write the COMMIT entry that carries a channel's newest state (at most ENTRY_SIZE_MAX bytes) to `end`, remember it
        as sent, and return where it ends. credit: satoshi that payers will be told were received since what was sent before;
        charge (two's complement): by how much what sellers will be told was spent has changed.
        """
        cdef const Sales *sales = channel.sales
        cdef uint16_t state_size = <uint16_t> (12 + channel.signature_size)
        if sales != NULL:
            state_size += <uint16_t> (16 + sales.count * PURCHASE_SIZE)
        end = write_u16(end, state_size)
        end = write_u16(end, channel.shard)
        end = write_u64(end, self._epochs[channel.shard])
        end = write_bytes(end, channel.outpoint, 36)
        end[0] = channel.sent_phase
        end[1] = 0 if sales == NULL else SALES_SIZE
        end = write_u16(end + 2, 0)
        end = write_u64(end, channel.sent_change_value)
        end = write_u64(end, credit)
        if sales != NULL:
            end = write_u64(write_u64(end, sales.sent_revision), charge)
        end = _write_state(channel, end)
        channel.sent_phase = channel.phase
        channel.sent_change_value = channel.change_value
        if sales != NULL:
            channel.sales.sent_revision = sales.revision
        return end

    def seal(self, bytes outpoint not None, uint64_t credit=0, uint64_t charge=0):
        """Return the COMMIT entry that carries a channel's newest state, and remember it as sent. Raises KeyError."""
        cdef unsigned char entry[ENTRY_SIZE_MAX]
        cdef unsigned char *end = self.seal_into(self._get(outpoint), credit, charge, entry)
        return entry[:distance(entry, end)]

    def acknowledge(self, bytes outpoint not None):
        """Note that what `seal` last returned for this channel is durable. Raises KeyError."""
        acknowledge(self._get(outpoint))
