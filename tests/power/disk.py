"""A disk as the kernel may leave it: what was synced is there, of the rest any part.

A file is what has been synced of it and a list of changes since. A directory is the names that have been synced and a list of
changes of names since. An image takes, for each file by itself, none, all, a beginning or any subset of its sectors; and of the
names a beginning of the list (a journal, as ext4's) or any subset.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from .shim import Op

SECTOR = 512


@dataclass
class File:
    """One inode. `pending`: (offset, data) written, or (size, None) cut or extended, in order, none of it synced."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.pending:
            apply(self.synced, *change)
        self.pending.clear()

    def content(self) -> bytes:
        """Return the content as the living system sees it."""
        now = bytearray(self.synced)
        for change in self.pending:
            apply(now, *change)
        return bytes(now)


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if offset < len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def is_diary(path: str) -> bool:
    """Return whether a file is RocksDB's own log of what it does. It is never synced, and taken as lost always."""
    return os.path.basename(path).startswith("LOG")


class Disk:
    """All files below a root, from records of the shim. `names`: as the living system sees them; `synced_names`: on disk.

    A directory is a name with None for its file.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.names: dict[str, File | None] = {root: None}
        self.synced_names: dict[str, File | None] = {root: None}
        self.changes: list[tuple[str, list[tuple[str, File | None | bool]]]] = []
        """Of names, not synced: (directory, [(name, file, None for a directory, or False for gone)]), in order."""
        self._open: dict[int, tuple[str, File | None]] = {}

    def run(self, op: Op) -> None:
        """Take one record."""
        getattr(self, f"_{op.kind}")(op)

    def _o(self, op: Op) -> None:
        if op.path not in self.names:
            assert op.offset & os.O_CREAT, f"opened and not there: {op.path}"
            self._rename([(op.path, File())])
        file = self.names[op.path]
        if op.offset & os.O_TRUNC and file is not None and file.content():
            file.pending.append((0, None))
        self._open[op.fd] = (op.path, file)

    def _c(self, op: Op) -> None:
        self._open.pop(op.fd, None)

    def _file(self, op: Op) -> File:
        file = self._open[op.fd][1]
        assert file is not None
        return file

    def _w(self, op: Op) -> None:
        if is_diary(self._open[op.fd][0]):
            return
        self._file(op).pending.append((op.offset, op.data))

    def _t(self, op: Op) -> None:
        self._file(op).pending.append((op.size, None))

    def _a(self, op: Op) -> None:
        file = self._file(op)
        file.pending.append((max(len(file.content()), op.offset + op.size), None))

    def _s(self, op: Op) -> None:
        path, file = self._open[op.fd]
        if file is not None:
            file.sync()
            return
        kept = [change for change in self.changes if change[0] != path]
        for change in self.changes:
            if change[0] == path:
                self._settle(self.synced_names, change)
        self.changes = kept

    def _rename(self, change: list[tuple[str, File | None | bool]]) -> None:
        directory = os.path.dirname(change[0][0])
        self._settle(self.names, (directory, change))
        self.changes.append((directory, change))

    @staticmethod
    def _settle(names: dict, change: tuple[str, list]) -> None:
        for name, file in change[1]:
            if file is False:
                names.pop(name, None)
            else:
                names[name] = file

    def _r(self, op: Op) -> None:
        self._rename([(op.data.decode(), self.names[op.path]), (op.path, False)])

    def _l(self, op: Op) -> None:
        self._rename([(op.data.decode(), self.names[op.path])])

    def _u(self, op: Op) -> None:
        self._rename([(op.path, False)])

    def _d(self, op: Op) -> None:
        if op.path == self.root:
            return
        self._rename([(op.path, None)])

    def _k(self, op: Op) -> None:
        pass

    _f = _k

    def _m(self, op: Op) -> None:
        raise AssertionError("a file of the store is written through a mapping: the record is not complete")

    # images

    def living(self) -> dict[str, bytes | None]:
        """Return everything as the living system sees it: what kill -9 leaves."""
        return {name: file and file.content() for name, file in self.names.items()}

    def image(self, rng: random.Random) -> dict[str, bytes | None]:
        """Return what a power loss now may leave."""
        names = dict(self.synced_names)
        way = rng.random()
        if way < 0.3:
            kept = self.changes
        elif way < 0.8:
            kept = self.changes[: rng.randint(0, len(self.changes))]
        else:
            kept = [change for change in self.changes if rng.random() < 0.5]
        for change in kept:
            self._settle(names, change)
        whole = rng.random()
        return {name: file and leave(file, rng, whole) for name, file in self._reachable(names).items()}

    def least(self) -> dict[str, bytes | None]:
        """Return what is there even if nothing unsynced is kept."""
        return {name: file and bytes(file.synced) for name, file in self._reachable(self.synced_names).items()}

    def _reachable(self, names: dict[str, File | None]) -> dict[str, File | None]:
        """Leave out what lies in a directory whose own name is lost."""
        found: dict[str, File | None] = {self.root: None}
        for name in sorted(names):
            if os.path.dirname(name) in found:
                found[name] = names[name]
        return found


def leave(file: File, rng: random.Random, whole: float) -> bytes:
    """Return what a power loss may leave of one file. whole: below 0.15 nothing unsynced of any file, below 0.3 all of it."""
    content = bytearray(file.synced)
    pending = file.pending
    if not pending or whole < 0.15:
        return bytes(content)
    if whole < 0.3:
        return file.content()
    way = rng.random()
    if way < 0.15:  # nothing
        return bytes(content)
    if way < 0.25:  # all
        return file.content()
    if way < 0.65:  # a beginning; the last write torn at a sector or at any byte
        count = rng.randint(0, len(pending) - 1)
        for change in pending[:count]:
            apply(content, *change)
        offset, data = pending[count]
        if data:
            end = offset + rng.randint(0, len(data))
            if rng.random() < 0.5:
                end = max(offset, end // SECTOR * SECTOR)
            apply(content, offset, data[: end - offset])
            if rng.random() < 0.4:  # the size is there, the data is not
                size = max(len(content), offset + len(data))
                filler = rng.randbytes(size - len(content)) if rng.random() < 0.1 else bytes(size - len(content))
                content.extend(filler)
        return bytes(content)
    if way < 0.75:  # whole writes, any subset
        for change in pending:
            if rng.random() < 0.5:
                apply(content, *change)
        return bytes(content)
    # any subset of the sectors; the size of all, or what the kept ones need
    final = file.content()
    now = bytearray(content)
    if rng.random() < 0.6:
        apply(now, len(final), None) if len(final) > len(now) else None
    touched = sorted(
        {sector for offset, data in pending if data for sector in range(offset // SECTOR, (offset + len(data) - 1) // SECTOR + 1)}
    )
    share = rng.choice((0.1, 0.5, 0.9))
    for sector in touched:
        if rng.random() < share:
            piece = final[sector * SECTOR : (sector + 1) * SECTOR]
            if piece:
                apply(now, sector * SECTOR, piece)
    return bytes(now)


def write_out(image: dict[str, bytes | None], root: str, target: Path) -> None:
    """Write an image, whose names lie below `root`, to the directory `target`."""
    base = str(target)
    os.mkdir(base)
    for name in sorted(image):
        if name == root:
            continue
        path, content = base + name[len(root) :], image[name]
        if content is None:
            os.mkdir(path, 0o700)
        else:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if content:
                os.write(handle, content)
            os.close(handle)
