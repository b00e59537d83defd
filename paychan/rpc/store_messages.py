"""Messages between a worker and the store, as pure codecs. Frames carry them (`_fast/frame.pyx`); docs/ARCHITECTURE.md lists them.

The contract of COMMIT: *accepted means that the synced write has returned; no answer means unknown, so send the same payment
again; STALE_EPOCH means that the shard has another owner, so stop serving it*.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from .._fast.group import check_entries, split_entries
from ..core import outcome
from ..core.funding import STRIPPED_SIZE_MAX
from ..core.outpoint import OUTPOINT_SIZE, TXID_SIZE
from ..core.units import LOCKTIME_MAX

PAYLOAD_MAX = 4 << 20
"""Bytes; room for a group of ENTRIES_MAX entries with their settlement transactions."""

ENTRIES_MAX = 4096
"""Entries in one COMMIT: some 0.5 MB of payments, 50 ms of verifying. More waits for the next group."""


class StoreMessage(IntEnum):
    """Frame types. Replies add 128."""

    HELLO = 1  # worker -> store
    OWNERS = 2  # store -> worker, unasked
    COMMIT = 3
    LOAD = 4
    SCAN_EXPIRING = 5
    SCAN_UNFINISHED = 6
    HEARTBEAT = 7
    KEEP_FUNDING = 8
    LOAD_FUNDING = 9
    SCAN_RECEIVED = 10
    HIGHEST = 11
    EVENTS = 12  # these three: event_messages.py
    NOTE = 13
    NOTES = 14
    SCAN_SETTLED = 16
    STORES = 17  # stores_messages.py


class Lease(IntEnum):
    """What must be single besides the shards: lease number = shard count + this."""

    SETTLER = 0
    CHAIN_WATCHER = 1


LEASE_COUNT = len(Lease)


class EntryStatus(IntEnum):
    """The store's answer to one entry of a COMMIT. Only OK changes anything."""

    OK = 0
    STALE_EPOCH = 1
    CONFLICT = 2  # the channel is not in the expected state (or exists already, when it was to be created)
    FORBIDDEN = 3  # the transition table or the rule that money held never falls forbids it
    STOPPED = 4  # the shard's accounts did not come out even: it takes no payments until the store is started again


class MessageError(ValueError):
    """A payload that is not what its frame type says."""


# --- HELLO ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """Who a worker is. The store refuses (ERROR frame, text payload) one of another network or server key."""

    network: str
    server_pubkey: bytes
    peer_address: str

    def encode(self) -> bytes:
        """Return the payload: three fields, each a u16 length and bytes."""
        fields = (self.network.encode(), self.server_pubkey, self.peer_address.encode())
        return b"".join(struct.pack("<H", len(field)) + field for field in fields)

    @classmethod
    def decode(cls, payload: bytes) -> "Hello":
        """Raises MessageError."""
        fields, offset = [], 0
        for _ in range(3):
            if len(payload) < offset + 2:
                raise MessageError("HELLO is too short")
            (size,) = struct.unpack_from("<H", payload, offset)
            fields.append(payload[offset + 2 : offset + 2 + size])
            offset += 2 + size
        if len(payload) != offset:
            raise MessageError("HELLO has a wrong length")
        try:
            return cls(fields[0].decode(), fields[1], fields[2].decode())
        except UnicodeDecodeError as error:
            raise MessageError("HELLO is no text") from error


@dataclass(frozen=True)
class Welcome:
    """The answer to HELLO: this worker's number among the owners, the shard count, and the lease time in milliseconds."""

    worker_id: int
    shard_count: int
    lease_ms: int

    _FORM = struct.Struct("<III")

    def encode(self) -> bytes:
        return self._FORM.pack(self.worker_id, self.shard_count, self.lease_ms)

    @classmethod
    def decode(cls, payload: bytes) -> "Welcome":
        return cls(*_unpack_all(cls._FORM, payload))


# --- OWNERS -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnerTable:
    """Who owns what: `workers` maps a worker's number to its peer address; `owners[i]` is (worker number, epoch) of shard i,
    and after the shards of each `Lease`. Worker number 0: nobody. `version` only goes up while the store runs.

    stopped: shards that take no payments, and why (which figures differ). They keep their owners, who settle their channels.
    """

    version: int
    workers: dict[int, str]
    owners: list[tuple[int, int]]
    stopped: dict[int, str] = field(default_factory=dict)

    _OWNER = struct.Struct("<IQ")

    def encode(self) -> bytes:
        parts = [struct.pack("<QHHH", self.version, len(self.workers), len(self.owners), len(self.stopped))]
        for number, address in self.workers.items():
            raw = address.encode()
            parts.append(struct.pack("<IH", number, len(raw)) + raw)
        parts += [self._OWNER.pack(worker, epoch) for worker, epoch in self.owners]
        for shard, why in self.stopped.items():
            raw = why.encode()
            parts.append(struct.pack("<HH", shard, len(raw)) + raw)
        return b"".join(parts)

    @classmethod
    def decode(cls, payload: bytes) -> "OwnerTable":
        """Raises MessageError."""
        try:
            version, worker_count, owner_count, stopped_count = struct.unpack_from("<QHHH", payload)
            workers, offset = cls._texts(payload, 14, worker_count, struct.Struct("<IH"))
            end = offset + owner_count * cls._OWNER.size
            owners = list(cls._OWNER.iter_unpack(payload[offset:end]))
            stopped, end = cls._texts(payload, end, stopped_count, struct.Struct("<HH"))
        except (struct.error, UnicodeDecodeError) as error:
            raise MessageError("OWNERS does not parse") from error
        if len(owners) != owner_count or end != len(payload):
            raise MessageError("OWNERS has a wrong length")
        return cls(version, workers, owners, stopped)

    @staticmethod
    def _texts(payload: bytes, offset: int, count: int, head: struct.Struct) -> tuple[dict[int, str], int]:
        """Return numbered texts, and where they end."""
        texts = {}
        for _ in range(count):
            number, size = head.unpack_from(payload, offset)
            offset += head.size + size
            texts[number] = payload[offset - size : offset].decode()
        return texts, offset


# --- COMMIT -----------------------------------------------------------------------------------------------------------

ENTRY_HEAD = struct.Struct("<HHQ36sBBHQQ")
"""u16 length of the state record | u16 shard | u64 epoch | 36 outpoint | u8 expected phase | u8 length of the sales |
u16 length of the extra record | u64 expected change value | u64 credit; then the sales, the state record, the extra record.
The compiled twins are `seal` in `paychan/_fast/channel.pyx`, which writes it, and `paychan/_fast/group.pyx`, which reads it."""


ENTRY_SALES = struct.Struct("<QQ")
"""u64 expected revision of the channel's sales | u64 charge. Left out while nothing was sold."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One conditional update: applied only if the channel is in the expected phase with the expected change value, and its sales
    have the expected revision.

    expected_phase 0: the channel must not exist; `extra` is then its terms record and expected_change_value its funding
    value. On the step to `signed`, `extra` is the settlement transaction; on that to `settled`, the outcome record, which a worker
    of an earlier version leaves out. Else `extra` is empty.

    credit: satoshi that payers are told were received by this update. The worker counts that apart from the change values, and the
    store stops the shard if they differ; None, where nobody is told anything: what the change values say. charge: the same of what
    sellers are told was spent, in two's complement, for it may fall.
    """

    shard: int
    epoch: int
    outpoint: bytes
    expected_phase: int
    expected_change_value: int
    state: bytes
    extra: bytes = b""
    credit: int | None = None
    expected_revision: int = 0
    charge: int = 0

    def encode(self) -> bytes:
        credit = self.credit
        if credit is None:
            credit = max(0, self.expected_change_value - int.from_bytes(self.state[4:12], "little"))
        is_sold = self.expected_revision or self.charge
        sales = ENTRY_SALES.pack(self.expected_revision, self.charge) if is_sold else b""
        head = ENTRY_HEAD.pack(
            len(self.state),
            self.shard,
            self.epoch,
            self.outpoint,
            self.expected_phase,
            len(sales),
            len(self.extra),
            self.expected_change_value,
            credit,
        )
        return head + sales + self.state + self.extra


CLAIM = struct.Struct("<HQQ")
"""u16 shard | u64 epoch | u64 satoshi: what its payers were told under that epoch, of updates that the store has acknowledged. With
4096 added to the shard: the same of what sellers were told was spent."""


def encode_commit(entries: list[bytes], claims: Iterable[tuple[int, int, int]] = ()) -> bytes:
    """Return the payload of a COMMIT: u16 count, the encoded entries, u16 count, the claims (see CLAIM) that have changed."""
    packed = [CLAIM.pack(*claim) for claim in claims]
    return b"".join([struct.pack("<H", len(entries)), *entries, struct.pack("<H", len(packed)), *packed])


def check_commit(payload: bytes) -> None:
    """Raise MessageError unless `payload` is a COMMIT. Its answer is one `EntryStatus` byte for each entry, in order."""
    try:
        check_entries(payload, ENTRIES_MAX)
    except ValueError as error:
        raise MessageError(str(error)) from None


def decode_commit(payload: bytes) -> list[Entry]:
    """Return the entries of a COMMIT. Raises MessageError."""
    check_commit(payload)
    return [Entry(*fields) for fields in split_entries(payload, ENTRIES_MAX)]


# --- LOAD -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """What the store has of one channel: the terms and state records, and the settlement transaction once it is signed."""

    terms: bytes
    state: bytes
    settlement: bytes


LOAD_MAX = 1024
"""Channels in one LOAD. The answer has some 0.6 kB for each: far below PAYLOAD_MAX."""

_LOAD_HEAD = struct.Struct("<HHI")


def encode_load(outpoints: list[bytes]) -> bytes:
    """Return the payload of a LOAD: the outpoints, 1 to LOAD_MAX."""
    return b"".join(outpoints)


def decode_load(payload: bytes) -> list[bytes]:
    """Raises MessageError."""
    if len(payload) % OUTPOINT_SIZE or not OUTPOINT_SIZE <= len(payload) <= LOAD_MAX * OUTPOINT_SIZE:
        raise MessageError(f"LOAD takes 1 to {LOAD_MAX} outpoints")
    return [payload[at : at + OUTPOINT_SIZE] for at in range(0, len(payload), OUTPOINT_SIZE)]


def encode_load_reply(found: list[Stored | None]) -> bytes:
    """Return the payload: for each channel three lengths (u16, u16, u32; all 0: no such channel) and the three records.

    Raises: MessageError if that is more than a frame may hold: ask for fewer channels.
    """
    parts: list[bytes] = []
    for stored in found:
        terms, state, settlement = (stored.terms, stored.state, stored.settlement) if stored else (b"", b"", b"")
        parts += (_LOAD_HEAD.pack(len(terms), len(state), len(settlement)), terms, state, settlement)
    payload = b"".join(parts)
    if len(payload) > PAYLOAD_MAX:
        raise MessageError("the answer to LOAD is too long")
    return payload


def decode_load_reply(payload: bytes) -> list[Stored | None]:
    """Raises MessageError."""
    found: list[Stored | None] = []
    end = 0
    while end < len(payload):
        start = end + _LOAD_HEAD.size
        if start > len(payload):
            raise MessageError("the answer to LOAD is too short")
        terms_size, state_size, settlement_size = _LOAD_HEAD.unpack_from(payload, end)
        state_at = start + terms_size
        settlement_at = state_at + state_size
        end = settlement_at + settlement_size
        stored = Stored(payload[start:state_at], payload[state_at:settlement_at], payload[settlement_at:end])
        found.append(stored if end > start else None)
    if end != len(payload):
        raise MessageError("the answer to LOAD has a wrong length")
    return found


# --- KEEP_FUNDING, LOAD_FUNDING ---------------------------------------------------------------------------------------
# A funding transaction without its witness is kept under its id, which is its hash: no two workers can mean different ones, so
# neither shard nor epoch is asked for. KEEP_FUNDING carries it and is answered, empty, once it is on disk; LOAD_FUNDING carries a
# txid and is answered with the transaction, empty if none is kept.


def check_funding(payload: bytes) -> bytes:
    """Return the transaction in a KEEP_FUNDING. Raises MessageError."""
    if not 0 < len(payload) <= STRIPPED_SIZE_MAX:
        raise MessageError("KEEP_FUNDING carries no transaction that a block can hold")
    return payload


def check_txid(payload: bytes) -> bytes:
    """Return the txid in a LOAD_FUNDING. Raises MessageError."""
    if len(payload) != TXID_SIZE:
        raise MessageError("LOAD_FUNDING takes a txid")
    return payload


# --- SCANS ------------------------------------------------------------------------------------------------------------

SCAN_LIMIT_MAX = 4096

RECEIVED_MAX = 64
"""Channels in one answer to SCAN_RECEIVED, for which the store reads two records each. Payments wait meanwhile."""


@dataclass(frozen=True)
class Scan:
    """Ask for (number, outpoint) pairs in the order of an index, strictly after (after_number, after), at most `limit`.

    SCAN_EXPIRING: open channels whose expiry is before `before` (unix seconds), soonest first; the number is the expiry.
    SCAN_UNFINISHED: channels whose settlement has begun and is not settled, in the order of their outpoints; the number is
    the phase, `before` and `after_number` are 0.
    SCAN_RECEIVED: as SCAN_EXPIRING, at most RECEIVED_MAX; the answer has what was received on each, too.
    SCAN_SETTLED: settled channels in the order in which they were, at most SETTLED_MAX; the number is the time (unix seconds), and
    the answer has the outcome of each, too. `before` is 0.
    """

    limit: int
    before: int = 0
    after_number: int = 0
    after: bytes = bytes(OUTPOINT_SIZE)

    _FORM = struct.Struct("<III36s")

    def encode(self) -> bytes:
        return self._FORM.pack(self.limit, self.before, self.after_number, self.after)

    @classmethod
    def decode(cls, payload: bytes, limit_max: int = SCAN_LIMIT_MAX) -> "Scan":
        scan = cls(*_unpack_all(cls._FORM, payload))
        if not 1 <= scan.limit <= limit_max:
            raise MessageError("a scan's limit is out of range")
        return scan


_FOUND = struct.Struct("<I36s")


def encode_found(found: list[tuple[int, bytes]]) -> bytes:
    """Return a scan's answer from (number, outpoint) pairs."""
    return b"".join(_FOUND.pack(number, outpoint) for number, outpoint in found)


def decode_found(payload: bytes) -> list[tuple[int, bytes]]:
    if len(payload) % _FOUND.size:
        raise MessageError("a scan's answer has a wrong length")
    return list(_FOUND.iter_unpack(payload))


_RECEIVED = struct.Struct("<IQ36s")


def encode_received(found: list[tuple[int, int, bytes]]) -> bytes:
    """Return the answer to SCAN_RECEIVED: (expiry, satoshi received, outpoint) of open channels."""
    return b"".join(_RECEIVED.pack(*row) for row in found)


def decode_received(payload: bytes) -> list[tuple[int, int, bytes]]:
    """Raises MessageError."""
    if len(payload) % _RECEIVED.size:
        raise MessageError("a scan's answer has a wrong length")
    return list(_RECEIVED.iter_unpack(payload))


SETTLED_MAX = 512
"""Channels in one answer to SCAN_SETTLED: one walk through an index."""

_SETTLED = struct.Struct(f"<I36s{outcome.SIZE}s")


def encode_settled(found: list[tuple[int, bytes, bytes]]) -> bytes:
    """Return the answer to SCAN_SETTLED: (time, outpoint, outcome record) of settled channels. Raises MessageError for a record
    that is none."""
    if any(len(record) != outcome.SIZE for _, _, record in found):
        raise MessageError("an outcome record is damaged")
    return b"".join(_SETTLED.pack(*row) for row in found)


def decode_settled(payload: bytes) -> list[tuple[int, bytes, bytes]]:
    """Raises MessageError."""
    if len(payload) % _SETTLED.size:
        raise MessageError("a scan's answer has a wrong length")
    return list(_SETTLED.iter_unpack(payload))


# --- HEARTBEAT --------------------------------------------------------------------------------------------------------


class Unsettled(NamedTuple):
    """Satoshi received and not settled. open: on open channels; begun: on those whose settlement has begun and is not buried."""

    open: int = 0
    begun: int = 0

    @property
    def total(self) -> int:
        return self.open + self.begun


_UNSETTLED = struct.Struct("<QQ")


def encode_heartbeat_reply(unsettled: Unsettled, freeze: bytes = b"") -> bytes:
    """Return the answer to HEARTBEAT: u64 open | u64 begun | the note that says whether openings are frozen on all machines
    (settings/steering.py), empty if there is none."""
    return _UNSETTLED.pack(*unsettled) + freeze


def decode_heartbeat_reply(payload: bytes) -> tuple[Unsettled, bytes]:
    """Raises MessageError."""
    if len(payload) < _UNSETTLED.size:
        raise MessageError("a message has a wrong length")
    return Unsettled(*_UNSETTLED.unpack_from(payload)), payload[_UNSETTLED.size :]


# --- HIGHEST ----------------------------------------------------------------------------------------------------------

_SECONDS = struct.Struct("<Q")


def encode_highest(seconds: int) -> bytes:
    """Return HIGHEST, and its answer: u64 unix seconds."""
    return _SECONDS.pack(seconds)


def decode_highest(payload: bytes) -> int:
    """Raises MessageError, also for a time that no lock time can be."""
    (seconds,) = _unpack_all(_SECONDS, payload)
    if seconds > LOCKTIME_MAX:
        raise MessageError("a time is out of range")
    return int(seconds)


def _unpack_all(form: struct.Struct, payload: bytes) -> tuple[Any, ...]:
    if len(payload) != form.size:
        raise MessageError("a message has a wrong length")
    return form.unpack(payload)
