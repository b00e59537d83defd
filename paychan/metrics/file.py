"""The file that counts lie in, STATE_DIR/run/counts: a slot for each process, mapped by who writes it and by who reads.

    magic 8 | u32 version | u32 slots | u32 cells | 32 bytes of the layout, then zeros up to HEAD_SIZE; then SLOTS times CELLS u64

A slot belongs to whoever holds the lock on its byte of the file: the kernel gives it back when that process ends, however it ends.
The next process to take it goes on counting from there, so what was counted does not vanish, and nothing is counted twice. The file
is made aside and renamed into its place, and never made shorter: who has it mapped must not lose it. One of another version, layout
or size, of another owner, or open to others, is replaced in the same way; who still has the old one mapped counts for nobody.

A store with a user of its own has a file of its own, `store-counts` beside its socket. The group that may use the socket may read
it, and nobody else; it is read with the server's, if it is the store's user's.
"""

import contextlib
import fcntl
import logging
import mmap
import os
import stat
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from .._fast.tally import CELLS, Tally
from ..durable import locked
from ..rpc.connection import Address
from . import families

NAME, STORES_NAME = "counts", "store-counts"
VERSION = 1
SLOTS = 320
"""A reload has one worker more than the 256 that there may be, and there are stores; the rest lets slots of the killed wait."""

HEAD_SIZE = 1 << 16  # the largest page that a machine has
SLOT_SIZE = CELLS * 8
FILE_SIZE = HEAD_SIZE + SLOTS * SLOT_SIZE
LOCK_SECONDS_MAX = 2.0
"""Whoever looks for a slot holds the directory's lock for milliseconds."""

log = logging.getLogger("paychan.counts")

_HEAD = struct.Struct("<8sIII32s")
_LOCK = struct.Struct("hhqqq")  # struct flock of 64-bit Linux


class Role(IntEnum):
    """What kind of process has a slot."""

    WORKER = 1
    STORE = 2
    OPERATOR = 3


@dataclass(frozen=True)
class Place:
    """Where a file of counts is. owner: user id of who writes it, None: ours. is_shared: its group may read it, too."""

    path: Path
    owner: int | None = None
    is_shared: bool = False

    @property
    def mode(self) -> int:
        return 0o640 if self.is_shared else 0o600

    def has(self, state: os.stat_result) -> bool:
        """Return whether a file is as it must be here: who else could write to it would say what is counted, and who else could
        read it would know what is received."""
        is_owners = stat.S_ISREG(state.st_mode) and state.st_uid == (os.geteuid() if self.owner is None else self.owner)
        if not self.is_shared:
            return is_owners and not state.st_mode & 0o077
        is_groups = self.owner is not None or state.st_gid == self._group()
        return is_owners and is_groups and stat.S_IMODE(state.st_mode) == self.mode

    def _group(self) -> int:
        """Return the group that the kernel gives what we make here, as to the socket beside it."""
        parent = os.stat(self.path.parent)
        return parent.st_gid if parent.st_mode & stat.S_ISGID else os.getegid()


def in_run(state_dir: Path) -> Place:
    """Return where processes of one user count."""
    return Place(state_dir / "run" / NAME)


def of_store(address: Address, is_ours: bool) -> Place | None:
    """Return where a store counts that is told from the server by its user, None: where the server does. is_ours: whether this is
    the store's process."""
    if not address.is_shared or not address.path:
        return None
    return Place(Path(address.path).parent / STORES_NAME, None if is_ours else address.user, is_shared=True)


@dataclass(frozen=True)
class Slot:
    """What one slot holds now. is_live: its process runs, so its gauges mean something."""

    cells: list[int]
    is_live: bool

    @property
    def role(self) -> int:
        return self.cells[families.ROLE_AT]


_held: list[tuple[int, mmap.mmap, memoryview]] = []
"""What keeps this process' slot: it is given back by the process' end alone."""


def claim(place: Place, role: Role) -> Tally:
    """Take a slot of a file, for as long as this process runs, and return its counts. Raises OSError.

    Its gauges start at zero, its counters where the one before stopped. It has its blocks before it is written to: a write to a
    hole in a full disk would end this process.
    """
    with _locked(place.path.parent):
        handle = _open_good(place, os.O_RDWR)
        if handle < 0:
            handle = _make(place)
        try:
            number = _lock_free_slot(handle)
            os.posix_fallocate(handle, HEAD_SIZE + number * SLOT_SIZE, SLOT_SIZE)
            memory = mmap.mmap(handle, FILE_SIZE)
        except BaseException:
            os.close(handle)
            raise
    start = HEAD_SIZE + number * SLOT_SIZE
    cells = memoryview(memory)[start : start + SLOT_SIZE]
    _held.append((handle, memory, cells))
    counts = Tally(cells)
    for family in families.FAMILIES:
        if family.kind is families.Kind.GAUGE:
            for cell in range(family.at, family.at + family.size):
                counts.set(cell, 0)
    counts.set(families.BEAT_AT, 0)
    counts.set(families.ROLE_AT, role)
    counts.set(families.PID_AT, os.getpid())
    counts.set(families.NUMBER_AT, 0)
    counts.add(families.CLAIMS_AT)
    counts.add(families.STARTS.cell(role.name.lower()))
    return counts


def claim_or_none(place: Place, role: Role) -> Tally:
    """Do the same. Where that fails (a full disk, say), say so and return counts that nobody reads: counting stops no payment."""
    try:
        place.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return claim(place, role)
    except OSError as error:
        log.warning("nothing is counted by this process: %s", error)
        return Tally()


def read_all(state_dir: Path, store: Address) -> list[Slot]:
    """Return all slots of a server's file, and of its store's, where that has one of its own that can be read. Raises as `read`."""
    found, stores = read(in_run(state_dir)), of_store(store, is_ours=False)
    if stores is not None:
        with contextlib.suppress(OSError):  # it has not begun, or keeps its counts for itself: those of the server are told
            found += read(stores)
    return found


def read(place: Place) -> list[Slot]:
    """Return all slots that were ever taken. Raises OSError, FileNotFoundError also for a file that is not to be trusted."""
    handle = _open_good(place, os.O_RDONLY)
    if handle < 0:
        raise FileNotFoundError(f"{place.path} is not there, or not of this version")
    try:
        with mmap.mmap(handle, FILE_SIZE, prot=mmap.PROT_READ) as memory, memoryview(memory).cast("Q") as cells:
            taken = [number for number in range(SLOTS) if _was_taken(cells, number)]
            return [Slot(_cells_of(cells, number), _is_held(handle, number)) for number in taken]
    finally:
        os.close(handle)


def _cells_of(cells: memoryview, number: int) -> list[int]:
    start = HEAD_SIZE // 8 + number * CELLS
    return cells[start : start + CELLS].tolist()


def _was_taken(cells: memoryview, number: int) -> bool:
    return bool(cells[HEAD_SIZE // 8 + number * CELLS + families.CLAIMS_AT])


# --- the file ---


def _head() -> bytes:
    return _HEAD.pack(b"paychan\x01", VERSION, SLOTS, CELLS, families.layout())


def _open_good(place: Place, flags: int) -> int:
    """Return a handle of the file, -1 if it is not there, or is not such a file. Raises OSError."""
    path = place.path
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, IsADirectoryError):
        return -1
    except OSError:
        if path.is_symlink() or not path.is_file():
            return -1
        raise
    state = os.fstat(handle)
    if place.has(state) and state.st_size == FILE_SIZE and os.pread(handle, _HEAD.size, 0) == _head():
        return handle
    os.close(handle)
    return -1


def _make(place: Place) -> int:
    """Put a new file in its place and return its handle. Raises OSError."""
    fresh = place.path.with_name(f"{place.path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(handle, FILE_SIZE)
        os.pwrite(handle, _head(), 0)
        os.fchmod(handle, place.mode)
        os.rename(fresh, place.path)
    except BaseException:
        os.close(handle)
        raise
    return handle


# --- locks ---


def _locked(directory: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the directory's lock. Raises OSError."""
    return locked(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), LOCK_SECONDS_MAX)


def _lock_free_slot(handle: int) -> int:
    """Lock and return the first slot that no process has. Raises OSError if there is none.

    Such a lock belongs to the open file: no other handle of this process gives it back, and no other process has it.
    """
    for number in range(SLOTS):
        with contextlib.suppress(BlockingIOError, PermissionError):
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, HEAD_SIZE + number, 1, 0))
            return number
    raise OSError(f"all {SLOTS} slots are taken")


def _is_held(handle: int, number: int) -> bool:
    asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, HEAD_SIZE + number, 1, 0)
    kind: int = _LOCK.unpack(fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK
