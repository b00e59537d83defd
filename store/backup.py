"""`paychan-store backup DIR FILE` and `paychan-store restore FILE DIR`.

A backup is every record of one moment, in one file. It can be taken while the store runs, and holds at least what had been
acknowledged when it began.

A restored store is older than what its payers know, and that is safe: a payment says the whole, so the next one of each payer
brings back what is missing. Four things need care, and get it here or by what a worker does anyway:

- Epochs go up by EPOCHS_SKIPPED, so that none that was given out after the backup is given out again.
- A channel that was settled after the backup is open again in the records. Every worker looks at a channel's funding output
  before the first payment after it loaded the channel (paychan/server/channels/funding.py), and finds it spent.
- Events' numbers go up by NUMBERS_SKIPPED in the same way, with an event that says so.
- The mark (mark.py) is made for the new database; the old one's would refuse it.

The file, little-endian; cannot change (a new layout takes a new version):

    8 "PAYCHANB" | u32 version | u64 when taken, unix seconds | u64 sequence number of the newest write
    each record: u32 length of key | u32 length of value | key | value
    u32 0xffffffff | u64 number of records | 32 SHA-256 of all bytes before it
"""

import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Protocol

from paychan.durable import sync_directory
from paychan.events.event import NUMBERS_SKIPPED, Event, Type

from . import keys
from .check import Records, Report, StoredRecords, check_records
from .directory import hold_lock, make_durable
from .engines.rocksdb import RocksDB
from .events import Stamp
from .mark import path_of, read_slots
from .restored import encode_restored

_MAGIC = b"PAYCHANB"
_VERSION = 1
_HEAD = struct.Struct("<8sIQQ")
_SIZES = struct.Struct("<II")
_END = struct.Struct("<IQ")
_NO_MORE = 0xFFFFFFFF
_DIGEST_SIZE = 32
RECORD_BYTES_MAX = 1 << 20  # of a key or a value: above the greatest funding transaction
ATTEMPTS = 100  # to open a database that is being written to, between two of its changes of files
EPOCHS_SKIPPED = 1 << 32  # more than a store ever gives out after a backup
GROUP_BYTES = 4 << 20  # restored in one write


class NumberedRecords(Records, Protocol):
    """All records of one moment. sequence: number of the newest write, 0 if the engine does not count so."""

    sequence: int


class BackupError(Exception):
    """A backup cannot be taken, or is none, or has no place to go to. The text is for the operator."""


def backup_store(directory: Path, target: Path) -> int:
    """Write all records of the database in `directory` to the new file `target`; return how many.

    Raises: BackupError; OSError; rocksdict's plain Exception for a database that does not read.
    """
    with acknowledged_records(directory) as records:
        return write_backup(records, target)


@contextmanager
def acknowledged_records(directory: Path) -> Iterator[StoredRecords]:
    """Give all records of the database in `directory`, at least what has been acknowledged by now. Raises BackupError; rocksdict's
    plain Exception."""
    acknowledged = _acknowledged(directory)
    with closing(_open_between_changes(directory)) as records:
        if records.sequence < acknowledged:
            raise BackupError(f"the log is damaged: it ends at write {records.sequence}, {acknowledged} has been acknowledged")
        yield records


def write_backup(records: NumberedRecords, target: Path) -> int:
    """Write all records to the new file `target`; return how many. Raises BackupError; OSError."""
    if target.exists():
        raise BackupError(f"{target} is there already")
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            count = _write(file, records)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, target)  # unlike a rename it overwrites nothing
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(target.absolute().parent)
    return count


def _acknowledged(directory: Path) -> int:
    mark = path_of(directory)
    return max(read_slots(mark.read_bytes()), default=0) if mark.exists() else 0


def _open_between_changes(directory: Path) -> StoredRecords:
    """Open a database that a store may be writing to.

    The list of its files and the logs are not read in one moment: a memtable that was written out in between would be
    missing. Then the list has changed, and the opening is repeated.
    """
    for _ in range(ATTEMPTS):
        before = _list_of_files(directory)
        try:
            records = StoredRecords(directory)
        except Exception:
            if _list_of_files(directory) == before:
                raise
            continue
        if _list_of_files(directory) == before:
            return records
        records.close()
        time.sleep(0.01)
    raise BackupError("the store changes its files too fast")


def _list_of_files(directory: Path) -> tuple[str, int, int]:
    try:
        name = (directory / "CURRENT").read_text().strip()
        status = (directory / name).stat()
    except OSError as error:
        raise BackupError(f"{directory} holds no store: {error.strerror}") from error
    return name, status.st_size, status.st_mtime_ns


def _write(file: BinaryIO, records: NumberedRecords) -> int:
    digest, count = sha256(), 0

    def put(part: bytes) -> None:
        digest.update(part)
        file.write(part)

    put(_HEAD.pack(_MAGIC, _VERSION, int(time.time()), records.sequence))
    for key, value in records.walk(b""):
        put(_SIZES.pack(len(key), len(value)) + key + value)
        count += 1
    put(_END.pack(_NO_MORE, count))
    file.write(digest.digest())
    return count


def read_backup(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of a backup; first (b"", u64 when it was taken). Raises BackupError for any other file.

    What was yielded counts only once the end has been reached: the digest stands there.
    """
    digest = sha256()

    def take(size: int) -> bytes:
        part = file.read(size)
        if len(part) != size:
            raise BackupError("the backup ends early")
        digest.update(part)
        return part

    magic, version, taken_at, _ = _HEAD.unpack(take(_HEAD.size))
    if magic != _MAGIC or version != _VERSION:
        raise BackupError("this is no backup, or one of another version")
    yield b"", taken_at.to_bytes(8, "little")
    count = 0
    while True:
        first = take(4)
        if first == _NO_MORE.to_bytes(4, "little"):
            break
        key_size, value_size = _SIZES.unpack(first + take(4))
        if not 0 < key_size <= RECORD_BYTES_MAX or value_size > RECORD_BYTES_MAX:
            raise BackupError("the backup is damaged")
        key = take(key_size)
        yield key, take(value_size)
        count += 1
    if int.from_bytes(take(8), "little") != count:
        raise BackupError("the backup is damaged: it has another number of records than it says")
    wanted = digest.digest()
    if file.read() != wanted:
        raise BackupError("the backup is damaged: its digest is another")


def restore_store(backup: Path, state_dir: Path) -> Report:
    """Make a store from a backup, in a state directory that holds none; return what a check of it says.

    Raises: BackupError, and leaves no store behind; OSError; ConfigError if the directory is in use.
    """
    directory = state_dir / "store"
    with open(backup, "rb") as file:
        newest = newest_event(read_backup(file))  # all of it, before anything is written
        if (directory / "db").exists() or path_of(directory / "db").exists():
            raise BackupError(f"{directory} holds a store already")
        make_durable(directory)
        with hold_lock(directory, "restore"):
            file.seek(0)
            growing = directory / "restoring"
            if growing.exists():
                raise BackupError(f"{growing} is left from a restore that did not end: remove it")
            pairs = read_backup(file)
            _, taken_at = next(pairs)
            fill(growing, pairs, restored_records(int.from_bytes(taken_at, "little"), newest))
            with closing(StoredRecords(growing)) as records:
                report = check_records(records)
            if report.problem_count:
                raise BackupError(f"the backup is not consistent; what is in {growing} has these problems: {report.problems[0]}")
            path_of(growing).rename(path_of(directory / "db"))
            growing.rename(directory / "db")
            sync_directory(directory)
    return report


def newest_event(pairs: Iterator[tuple[bytes, bytes]]) -> int:
    """Return the highest number of an event among all pairs, 0 if there is none."""
    return max((keys.event_number(key) for key, _ in pairs if key[:1] == keys.EVENT), default=0)


def restored_records(taken_at: int, newest: int) -> dict[bytes, bytes]:
    """Return what a restored store has besides its backup. taken_at: unix seconds; newest: number of the backup's newest event.
    Readers of events are told of the restore, with a number beyond all that were given out since."""
    now = int(time.time())
    event = Event(Type.RESTORED, {"taken_at": taken_at, "restored_at": now})
    (body,) = Stamp().encode([event])
    return {keys.RESTORED: encode_restored(taken_at, now), keys.event_key(newest + NUMBERS_SKIPPED): body}


def fill(place: Path, pairs: Iterator[tuple[bytes, bytes]], more: Mapping[bytes, bytes]) -> None:
    """Make a database of all pairs, and then of `more`; epochs go up. Raises what the engine raises."""
    engine = RocksDB(place)
    try:
        group: dict[bytes, bytes | None] = {}
        size = 0
        for key, value in pairs:
            group[key] = _raised(value) if key[:1] == keys.EPOCH else value
            size += len(key) + len(value)
            if size >= GROUP_BYTES:
                engine.commit(group)
                group.clear()
                size = 0
        engine.commit({**group, **more})
    finally:
        engine.close()


def _raised(epoch: bytes) -> bytes:
    return keys.encode_epoch(keys.decode_epoch(epoch) + EPOCHS_SKIPPED)
