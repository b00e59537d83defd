"""The simulated disk, and the two databases on it: RocksDB's stand-in for the store, SQLite in memory for the signer's ledger.

A file is what was synced and what came since. A crash of a process leaves all of it; a power loss leaves of the rest nothing, all,
a beginning, or any of its sectors. A process can end before a write, in the midst of it, before the sync, after it; or the disk
says EIO.
"""

import random
import sqlite3
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from paychan.rpc.store_messages import LEASE_COUNT, Stored, Unsettled
from store import keys
from store.engines.at_once import AtOnce
from store.engines.interface import Kept
from store.table import received

from .kernel import Killed, Process

SECTOR = 512
STEPS = ("before", "torn", "written", "synced", "write error", "sync error")
"""Where in the midst of a durable write something happens."""


class File:
    """`content`: as processes see it. `safe`: how many of its bytes were synced. `holes`: ranges whose sync failed."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.safe = 0
        self.holes: list[tuple[int, int]] = []

    def lose_power(self, chance: random.Random) -> None:
        """Keep of what was not synced what a disk may keep."""
        content = self.content
        way = chance.random()
        end = len(content)
        if way < 0.35:
            end = self.safe
        elif way < 0.6:
            end = chance.randint(self.safe, end)
        elif way < 0.85:
            for at in range(self.safe - self.safe % SECTOR, end, SECTOR):
                low, high = max(at, self.safe), min(at + SECTOR, end)
                if chance.random() < 0.5:
                    content[low:high] = bytes(high - low) if chance.random() < 0.8 else chance.randbytes(high - low)
        del content[end:]
        for low, high in self.holes:
            if low < len(content) and chance.random() < 0.7:
                content[low:high] = bytes(min(high, len(content)) - low)
        self.safe, self.holes = len(content), []


class Disk:
    """All files of the machine. `chance` draws what a power loss leaves; `stall`: how long a sync takes, in the mean (seconds)."""

    def __init__(self, chance: random.Random, stall: float) -> None:
        self.chance, self.stall = chance, stall
        self.stall_factor = 1.0
        self.files: dict[str, File] = {}
        self.replaced: dict[str, tuple[bytes, bytes]] = {}
        """Small files that are replaced as a whole: (synced, newest)."""

    def file(self, name: str) -> File:
        file = self.files.get(name)
        if file is None:
            file = self.files[name] = File()
        return file

    def lose_power(self) -> None:
        for file in self.files.values():
            file.lose_power(self.chance)
        for name, (old, new) in self.replaced.items():
            kept = new if self.chance.random() < 0.5 else old
            self.replaced[name] = kept, kept

    def append(self, process: Process, name: str, data: bytes, on_safe: Callable[[], None], is_synced: bool = True) -> None:
        """Write at the end of a file and sync it. Raises OSError, Killed."""
        fate, file = self._begin(process), self.file(name)
        start = len(file.content)
        if fate == "torn":
            file.content += data[: self.chance.randrange(len(data))]
            self._end_process(process)
        file.content += data
        if fate == "written":
            self._end_process(process)
        process.be_busy(self.stall * self.stall_factor * (0.3 + 1.4 * self.chance.random()))
        if fate == "sync error":
            file.holes.append((start, len(file.content)))
            raise OSError(5, "Input/output error")
        if is_synced:
            file.safe = len(file.content)
            on_safe()
        if fate == "synced":
            self._end_process(process)

    def replace(self, process: Process, name: str, data: bytes, is_synced: bool = True) -> None:
        """Replace a small file, all or nothing. Raises OSError, Killed."""
        fate = self._begin(process)
        old, _ = self.replaced.get(name, (b"", b""))
        if fate == "torn":  # a journal is rolled back, a rename was not made
            self._end_process(process)
        if fate == "sync error":
            self.replaced[name] = old, data
            raise OSError(5, "Input/output error")
        self.replaced[name] = (data, data) if is_synced else (old, data)
        process.be_busy(self.stall * self.stall_factor * 0.5)
        if fate in ("written", "synced"):
            self._end_process(process)

    def _begin(self, process: Process) -> str:
        if not process.is_alive:
            raise Killed()
        process.disk_writes += 1
        fate = process.dies_how if process.disk_writes == process.dies_at_disk_write else ""
        if fate == "before":
            self._end_process(process)
        if fate == "write error":
            raise OSError(28, "No space left on device")
        return fate

    @staticmethod
    def _end_process(process: Process) -> None:
        process.die()
        raise Killed()


_HEAD = struct.Struct("<III")
_PAIR = struct.Struct("<BBxxI")


def _encode(writes: Mapping[bytes, bytes | None]) -> bytes:
    parts = []
    for key, value in writes.items():
        parts += (_PAIR.pack(value is not None, len(key), len(value or b"")), key, value or b"")
    return b"".join(parts)


def _decode(batch: bytes) -> dict[bytes, bytes | None]:
    writes: dict[bytes, bytes | None] = {}
    at = 0
    while at < len(batch):
        is_put, key_size, value_size = _PAIR.unpack_from(batch, at)
        at += _PAIR.size
        key, at = batch[at : at + key_size], at + key_size
        writes[key], at = (batch[at : at + value_size] if is_put else None), at + value_size
    return writes


class Database(AtOnce):
    """The methods of `store.engines.rocksdb.RocksDB` over a log on the simulated disk: a batch is whole or was never there.

    `on_commit(writes)` hears of each batch once it is safe.
    """

    NAME = "store.log"
    is_synced = True

    def __init__(self, disk: Disk, process: Process, on_commit: Callable[[Mapping[bytes, bytes | None]], None]) -> None:
        self._disk, self._process, self._on_commit = disk, process, on_commit
        self.data: dict[bytes, bytes] = {}
        self._indexes: dict[bytes, dict[bytes, None]] = {keys.EXPIRING: {}, keys.UNFINISHED: {}}
        self._number = 0
        self._recover()
        self.newest_event = max((keys.event_number(key) for key in self.data if key[:1] == keys.EVENT), default=0)

    def _recover(self) -> None:
        """Read the log up to the first batch that does not read; what follows was never acknowledged. What was read is synced."""
        file = self._disk.file(self.NAME)
        content = bytes(file.content)
        at = 0
        while at + _HEAD.size <= len(content):
            check, size, number = _HEAD.unpack_from(content, at)
            batch = content[at + _HEAD.size : at + _HEAD.size + size]
            if len(batch) < size or number != self._number + 1 or check != zlib.crc32(batch, number):
                break
            self._number = number
            self._apply(_decode(batch))
            at += _HEAD.size + size
        del file.content[at:]
        file.safe, file.holes = at, []

    def _apply(self, writes: Mapping[bytes, bytes | None]) -> None:
        for key, value in writes.items():
            index = self._indexes.get(key[:1])
            if value is None:
                self.data.pop(key, None)
                if index is not None:
                    index.pop(key, None)
            else:
                self.data[key] = value
                if index is not None:
                    index[key] = None

    # --- store.engines.rocksdb.RocksDB ---

    def commit(self, writes: Mapping[bytes, bytes | None]) -> None:
        batch, number = _encode(writes), self._number + 1
        record = _HEAD.pack(zlib.crc32(batch, number), len(batch), number) + batch
        self._process.kernel.note(record)
        kept = dict(writes)
        self._disk.append(self._process, self.NAME, record, lambda: self._on_commit(kept), self.is_synced)
        self._number = number
        self._apply(kept)

    def states(self, outpoints: list[bytes]) -> list[bytes | None]:
        return [self.data.get(keys.STATE + outpoint) for outpoint in outpoints]

    def funding(self, txid: bytes) -> bytes | None:
        return self.data.get(keys.FUNDING + txid)

    def terms(self, outpoints: list[bytes]) -> list[bytes | None]:
        return [self.data.get(keys.TERMS + outpoint) for outpoint in outpoints]

    def load(self, outpoints: list[bytes]) -> list[Stored | None]:
        return [self._load(outpoint) for outpoint in outpoints]

    def _load(self, outpoint: bytes) -> Stored | None:
        state = self.data.get(keys.STATE + outpoint)
        if state is None:
            return None
        return Stored(self.data.get(keys.TERMS + outpoint, b""), state, self.data.get(keys.SETTLEMENT + outpoint, b""))

    def scan_expiring(self, before: int, after_number: int, after: bytes, limit: int) -> list[tuple[int, bytes]]:
        low, high = keys.expiring_key(after_number, after), keys.expiring_key(before)
        found = sorted(key for key in self._indexes[keys.EXPIRING] if low < key < high)
        return [keys.split_timed_key(key) for key in found[:limit]]

    def scan_unfinished(self, after: bytes, limit: int) -> list[tuple[int, bytes]]:
        found = sorted(key for key in self._indexes[keys.UNFINISHED] if key > keys.UNFINISHED + after)
        return [(self.data[key][0], key[1:]) for key in found[:limit]]

    def stream(self, after: int, limit: int) -> Kept:
        found = sorted((keys.event_number(key), body) for key, body in self.data.items() if key[:1] == keys.EVENT)
        return Kept(found[0][0] if found else 0, self.newest_event, [row for row in found if row[0] > after][:limit])

    def notes(self, prefix: str) -> dict[str, bytes]:
        start = keys.note_key(prefix)
        return {key[1:].decode(): value for key, value in self.data.items() if key.startswith(start)}

    def note_of(self, name: str) -> bytes | None:
        return self.data.get(keys.note_key(name))

    def identity(self) -> bytes | None:
        return self.data.get(keys.IDENTITY)

    def epochs(self, shard_count: int) -> list[int]:
        return [keys.decode_epoch(self.data.get(keys.epoch_key(lease))) for lease in range(shard_count + LEASE_COUNT)]

    def scan_received(self, before: int, after_number: int, after: bytes, limit: int) -> list[tuple[int, int, bytes]]:
        found = self.scan_expiring(before, after_number, after, limit)
        names = [outpoint for _, outpoint in found]
        values = map(received, self.terms(names), self.states(names))
        return [(expiry, value, outpoint) for (expiry, outpoint), value in zip(found, values, strict=True)]

    def unsettled(self) -> Unsettled:
        return keys.decode_unsettled(self.data.get(keys.UNSETTLED))

    def open_spent(self) -> int:
        return keys.decode_spent(self.data.get(keys.OPEN_SPENT))


class LedgerConnection(sqlite3.Connection):
    """What `signer.ledger` gets of `sqlite3.connect`: a database in memory whose image goes to the simulated disk with each change,
    synced if the ledger has asked SQLite for that."""

    NAME = "signed.db"
    disk: Disk
    process: Process
    _is_synced = False
    _changes = 0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:  # type: ignore[override]
        cursor = super().execute(sql, *parameters)
        if sql.startswith("PRAGMA synchronous"):
            self._is_synced = sql.endswith(("FULL", "EXTRA"))
        if not self.in_transaction:
            self._save()
        return cursor

    def executescript(self, script: str) -> sqlite3.Cursor:
        cursor = super().executescript(script)
        self._changes = -1
        self._save()
        return cursor

    def _save(self) -> None:
        if self.total_changes == self._changes:
            return
        self._changes = self.total_changes
        try:
            self.disk.replace(self.process, self.NAME, self.serialize(), self._is_synced)
        except OSError as error:
            raise sqlite3.OperationalError("disk I/O error") from error


def open_ledger(disk: Disk, process: Process) -> LedgerConnection:
    """Return the ledger's database as the disk has it."""
    connection = sqlite3.connect(":memory:", factory=LedgerConnection, isolation_level=None)
    image = disk.replaced.get(LedgerConnection.NAME, (b"", b""))[1]
    if image:
        connection.deserialize(image)
    connection.disk, connection.process = disk, process
    return connection
