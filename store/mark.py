"""The mark: how far the database had come when a group was last acknowledged, kept outside the database.

RocksDB's recovery takes its log up to the first record that does not read, and calls the rest torn. It cannot tell a write that
a power loss cut off, which nobody was answered for, from damage to records that were synced and answered. The mark can: a
store whose log ends before it refuses to start. (The modes that refuse by themselves, refuse torn writes too, or do not
know reused logs; and none of them sees a log that was cut between two records.)

Written after each group's sync and not synced itself: behind the disk it may be, ahead of it never. So it costs a write to
memory for each group, is exact after a crash of the process, and after a power loss as old as the kernel's writing back:
half a minute at most.

On disk two slots, each in a sector of its own, written in turn, so that one is whole; cannot change (a new layout takes a
new magic):

    4 magic "PCM1" | u64 sequence number of the newest acknowledged write, little-endian | u32 CRC-32 of the 12 bytes before
"""

import os
import struct
import zlib
from pathlib import Path

from paychan.durable import sync_directory

_FORM = struct.Struct("<4sQ")
_CHECK = struct.Struct("<I")
_MAGIC = b"PCM1"
SLOT_OFFSETS = (0, 4096)
FILE_SIZE = 8192


class Mark:
    """The mark of the database in `directory`: the file beside it, `NAME.mark`. Makes it if it is missing.

    sequence: what the file says; 0 for a new one.
    """

    def __init__(self, directory: Path) -> None:
        """Raises OSError; ValueError if the file holds no whole slot."""
        self.path = path_of(directory)
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.sequence = self._read()
        except BaseException:
            os.close(self._handle)
            raise
        self._turn = 0

    def _read(self) -> int:
        content = os.pread(self._handle, FILE_SIZE, 0)
        if content == b"":
            self._make()
            return 0
        found = read_slots(content)
        if not found:
            raise ValueError(f"the mark {self.path} is damaged: check the store, then remove the mark")
        return max(found)

    def _make(self) -> None:
        """Fill the file, so that writing to it needs no room later, and make its name durable."""
        first = _slot(0)
        content = first.ljust(SLOT_OFFSETS[1], b"\0") + first
        os.pwrite(self._handle, content.ljust(FILE_SIZE, b"\0"), 0)
        os.fsync(self._handle)
        sync_directory(self.path.parent)

    def note(self, sequence: int) -> None:
        """Note that everything up to `sequence` is durable. Raises OSError."""
        self._turn ^= 1
        os.pwrite(self._handle, _slot(sequence), SLOT_OFFSETS[self._turn])

    def close(self) -> None:
        """Make the newest note durable and close."""
        os.fsync(self._handle)
        os.close(self._handle)


def path_of(directory: Path) -> Path:
    """Return where the mark of the database in `directory` is."""
    return directory.with_name(directory.name + ".mark")


def _slot(sequence: int) -> bytes:
    head = _FORM.pack(_MAGIC, sequence)
    return head + _CHECK.pack(zlib.crc32(head))


def read_slots(content: bytes) -> list[int]:
    """Return the sequence numbers in the slots that are whole."""
    found = []
    for offset in SLOT_OFFSETS:
        slot = content[offset : offset + _FORM.size + _CHECK.size]
        if len(slot) == _FORM.size + _CHECK.size:
            magic, sequence = _FORM.unpack_from(slot)
            if magic == _MAGIC and _slot(sequence) == slot:
                found.append(sequence)
    return found
