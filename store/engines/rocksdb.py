"""The engine that is embedded: RocksDB, in this process and on this machine's disk.

Reads see everything whose commit has returned, and nothing else: `commit` and the reads share one thread. (rocksdict
holds the interpreter's lock during a write; write without sync and `flush_wal` would release it, but show reads what is
not synced yet.)
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from paychan.durable import sync_directory
from paychan.rpc.event_messages import NOTES_MAX
from paychan.rpc.store_messages import LEASE_COUNT, SCAN_LIMIT_MAX, Stored, Unsettled

from .. import keys
from ..mark import Mark
from ..peek import peek
from ..table import received
from .at_once import AtOnce
from .interface import Kept

_MIB = 1 << 20
BLOCK_CACHE_BYTES = 128 * _MIB  # the states of some million busy channels
WAL_BYTES_MAX = 256 * _MIB  # what a start after a crash replays at most: a few seconds
MEMTABLE_BYTES = 4 * _MIB  # stays in the processor's cache: an insert into one of 64 MiB cost twice as much
MEMTABLES = 8  # that wait to be written out before commits are slowed down: a second of them
UNMERGED_FILES = 32  # of a memtable each, before they are merged into the rest: less often merged is less rewritten
LOGS_REUSED = 4  # to write over a log is cheaper to sync than to extend one: its size stays as it is
MANIFEST_BYTES_MAX = 16 * _MIB  # the list of files grows with each memtable written out, and is read at every start
LOG_FILE_BYTES_MAX = 4 * _MIB  # RocksDB's own diagnostics, of which LOG_FILES are kept
LOG_FILES = 4
BLOOM_BITS = 10  # 1 % of the looks for an unknown channel read a block


def _options() -> Options:
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    blocks.set_bloom_filter(BLOOM_BITS, False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.none())  # signatures and hashes do not compress
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_write_buffer_number(MEMTABLES)
    options.set_level_zero_file_num_compaction_trigger(UNMERGED_FILES)
    options.set_level_zero_slowdown_writes_trigger(2 * UNMERGED_FILES)
    options.set_level_zero_stop_writes_trigger(3 * UNMERGED_FILES)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())  # the one mode that knows reused logs; a torn end is dropped
    options.set_recycle_log_file_num(LOGS_REUSED)
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX)
    options.set_max_total_wal_size(WAL_BYTES_MAX)
    options.set_max_log_file_size(LOG_FILE_BYTES_MAX)
    options.set_keep_log_file_num(LOG_FILES)
    return options


def open_for_reading(directory: Path) -> Rdict:
    """Open a database to read what is in it now, also while a store writes it. It must be there."""
    return Rdict(str(directory), _options(), access_type=AccessType.read_only(False))


def hold_against_mark(directory: Path, mark: Mark) -> None:
    """Raise ValueError if the database does not read, or ends before its mark: then acknowledged writes are missing."""
    if not (directory / "CURRENT").exists():
        if mark.sequence:
            raise ValueError(f"the database is gone from {directory}, and its mark is still there")
        return
    sequence = peek(directory)
    if sequence < mark.sequence:
        raise ValueError(
            f"the log is damaged: it ends at write {sequence}, and write {mark.sequence} has been acknowledged. "
            f"Restore a backup; or remove {mark.path} to go on without what is lost"
        )


class RocksDB(AtOnce):
    """An open database. Its methods raise rocksdict's plain `Exception` when the disk fails."""

    def __init__(self, directory: Path, sync: bool = True) -> None:
        """Open or create the database. sync=False is for measuring only: it would acknowledge what a crash loses.

        Raises: Exception, also if the database is behind its mark (mark.py): acknowledged writes are missing.
        """
        self._mark = Mark(directory)
        try:
            hold_against_mark(directory, self._mark)
            self._db = Rdict(str(directory), _options())
            if not self._mark.sequence:
                sync_directory(directory.parent)  # a new database's name, before the mark says that it is there
        except BaseException:
            self._mark.close()
            raise
        self._sequence = self._db.latest_sequence_number()
        self._write_options = WriteOptions()
        self._write_options.sync = sync
        self.newest_event = self._end_of_events(is_newest=True)

    def close(self) -> None:
        """Write out what is only in the log, and close."""
        self._db.flush()
        self._db.close()
        self._mark.close()

    # one channel

    def states(self, outpoints: list[bytes]) -> list[bytes | None]:
        """Return the state records of channels, None for those that do not exist."""
        return self._get([keys.STATE + outpoint for outpoint in outpoints])

    def terms(self, outpoints: list[bytes]) -> list[bytes | None]:
        """Return the terms records of channels, None for those that do not exist."""
        return self._get([keys.TERMS + outpoint for outpoint in outpoints])

    def load(self, outpoints: list[bytes]) -> list[Stored | None]:
        """Return all records of each channel, None for those that do not exist."""
        states = self.states(outpoints)
        there = [outpoint for outpoint, state in zip(outpoints, states, strict=True) if state is not None]
        others = iter(self._get([prefix + outpoint for outpoint in there for prefix in (keys.TERMS, keys.SETTLEMENT)]))
        # The terms are asked for before the settlement, as the keys above.
        return [None if state is None else Stored(next(others) or b"", state, next(others) or b"") for state in states]

    def funding(self, txid: bytes) -> bytes | None:
        """Return a kept funding transaction without its witness, or None."""
        return self._get([keys.FUNDING + txid])[0]

    def _get(self, names: list[bytes]) -> list[bytes | None]:
        return self._db.get(names)  # type: ignore[arg-type, return-value]  # rocksdict tells of its own union, and of anything

    # indexes

    def scan_expiring(self, before: int, after_number: int, after: bytes, limit: int) -> list[tuple[int, bytes]]:
        """Return (expiry, outpoint) of open channels expiring before `before`, strictly after (after_number, after)."""
        found = self._scan(keys.expiring_key(after_number, after), keys.expiring_key(before), limit)
        return [keys.split_timed_key(key) for key, _ in found]

    def scan_unfinished(self, after: bytes, limit: int) -> list[tuple[int, bytes]]:
        """Return (phase, outpoint) of begun and unsettled settlements, with outpoints strictly after `after`."""
        end = bytes((keys.UNFINISHED[0] + 1,))
        return [(value[0], key[1:]) for key, value in self._scan(keys.UNFINISHED + after, end, limit)]

    def scan_received(self, before: int, after_number: int, after: bytes, limit: int) -> list[tuple[int, int, bytes]]:
        """Return (expiry, satoshi received, outpoint) of the channels that `scan_expiring` finds."""
        found = self.scan_expiring(before, after_number, after, limit)
        values = self._received([outpoint for _, outpoint in found])
        return [(expiry, value, outpoint) for (expiry, outpoint), value in zip(found, values, strict=True)]

    def scan_settled(self, after_number: int, after: bytes, limit: int) -> list[tuple[int, bytes, bytes]]:
        """Return (time, outpoint, outcome record) of settled channels, strictly after (after_number, after)."""
        end = bytes((keys.DONE[0] + 1,))
        return [(*keys.split_timed_key(key), value) for key, value in self._scan(keys.done_key(after_number, after), end, limit)]

    def _received(self, outpoints: list[bytes]) -> Iterator[int]:
        """Yield how many satoshi were received on each channel."""
        if outpoints:
            yield from map(received, self.terms(outpoints), self.states(outpoints))

    def _scan(self, after: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the first `limit` pairs with after < key < end."""
        bounds = ReadOptions()
        bounds.set_iterate_upper_bound(end)
        cursor = self._db.iter(bounds)
        cursor.seek(after + b"\0")  # the least key above `after`
        found: list[tuple[bytes, bytes]] = []
        while len(found) < limit and cursor.valid():
            found.append((cursor.key(), cursor.value()))
            cursor.next()
        cursor.status()  # raises what ended the walk early
        return found

    # events and notes

    def stream(self, after: int, limit: int) -> Kept:
        """Return the events whose number is above `after`, the first `limit` of them."""
        found = self._scan(keys.event_key(after), keys.NEXT_TO_EVENT, limit)
        events = [(keys.event_number(key), body) for key, body in found]
        return Kept(self._end_of_events(is_newest=False), self.newest_event, events)

    def _end_of_events(self, is_newest: bool) -> int:
        """Return the number of the newest or the oldest event, 0 if there is none."""
        cursor = self._db.iter()
        if is_newest:
            cursor.seek_for_prev(keys.NEXT_TO_EVENT)
        else:
            cursor.seek(keys.EVENT)
        key = cursor.key() if cursor.valid() else None
        cursor.status()
        return keys.event_number(key) if key is not None and key[:1] == keys.EVENT else 0

    def notes(self, prefix: str) -> dict[str, bytes]:
        """Return all notes whose name begins so."""
        start = keys.note_key(prefix)
        found = self._scan(start[:-1] + bytes((start[-1] - 1, 0xFF)), start[:-1] + bytes((start[-1] + 1,)), NOTES_MAX)
        return {key[1:].decode(): value for key, value in found}

    def note_of(self, name: str) -> bytes | None:
        """Return what a note says, None if there is none."""
        return self._get([keys.note_key(name)])[0]

    # the store itself

    def identity(self) -> bytes | None:
        """Return the identity record, or None if the database is new. Raises ValueError for data without identity."""
        (record,) = self._get([keys.IDENTITY])
        if record is None:
            cursor = self._db.iter()
            cursor.seek_to_first()
            if cursor.valid():
                raise ValueError("holds data of something else")
        return record

    def restored(self) -> bytes | None:
        """Return the record of a store that was restored from a backup (restored.py), else None."""
        return self._get([keys.RESTORED])[0]

    def epochs(self, shard_count: int) -> list[int]:
        """Return the newest epoch of each shard and then of each `Lease`."""
        names = [keys.epoch_key(lease) for lease in range(shard_count + LEASE_COUNT)]
        return [keys.decode_epoch(value) for value in self._get(names)]

    def unsettled(self) -> Unsettled:
        """Return what has been received on channels that are not settled. Raises ValueError if the record is damaged."""
        (record,) = self._get([keys.UNSETTLED])
        unsettled = keys.decode_unsettled(record)
        if record is not None and len(record) == keys.OPEN_ALONE_SIZE:
            return unsettled._replace(begun=self._sum_up_begun())
        return unsettled

    def _sum_up_begun(self) -> int:
        total, page = 0, self.scan_unfinished(b"", SCAN_LIMIT_MAX)
        while page:
            outpoints = [outpoint for _, outpoint in page]
            total += sum(self._received(outpoints))
            page = self.scan_unfinished(outpoints[-1], SCAN_LIMIT_MAX)
        return total

    def open_spent(self) -> int:
        """Return the satoshi spent on open channels."""
        return keys.decode_spent(self._get([keys.OPEN_SPENT])[0])

    def commit(self, writes: Mapping[bytes, bytes | None]) -> None:
        """Write a group, all or nothing; on return it is on disk.

        Raises: Exception if that is not sure. The process must then end: after a failed fsync the next one may succeed
        without the lost bytes. So it must if the database counts another number of writes than it was given.
        """
        batch = WriteBatch(raw_mode=True)
        for key, value in writes.items():
            if value is None:
                del batch[key]
            else:
                batch[key] = value  # half the price of `put`, which takes more arguments
        self._db.write(batch, self._write_options)
        before, self._sequence = self._sequence, self._db.latest_sequence_number()
        if self._sequence - before != len(writes):
            raise RuntimeError(f"of {len(writes)} writes the database counts {self._sequence - before}")
        self._mark.note(self._sequence)
