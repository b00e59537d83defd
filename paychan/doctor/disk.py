"""The disk under the state directory: what a sync costs there, how much room it has, what kind it is.

A sync is measured on a file without a name, which the directory never shows; where there are none, nothing is measured.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from .machine import Machine
from .verdicts import Verdict, bad, not_asked, ok, warning

SYNCS = 64
SYNC_BYTES = 4096
SLOW_P99_SECONDS = 0.05
SLOW_P50_SECONDS = 0.02
NO_DISK_SECONDS = 0.00002
"""A median below it is no disk's: something says "synced" and keeps it in memory."""

ROOM_BAD, ROOM_WARNING = 100 << 20, 2 << 30
"""Bytes. Below the first the store may end within minutes; below the second within weeks."""

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
ELSEWHERE = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "glusterfs")
LAYERS = frozenset({"overlay", "aufs"})


@dataclass(frozen=True)
class Disk:
    """kind: of the file system, empty if unknown. room: bytes. nodes: files that may still be made, -1: no bound. syncs: seconds of
    each, sorted; empty if there is no measuring."""

    kind: str
    room: int
    nodes: int
    syncs: tuple[float, ...]
    trouble: str = ""


def ask(directory: Path) -> Disk:
    """Measure at a directory that is there. Raises OSError."""
    space = os.statvfs(directory)
    kind = kind_of(Path(os.path.realpath(directory)), Path("/proc/self/mountinfo").read_text())
    try:
        syncs, trouble = _measure(directory), ""
    except OSError as error:
        syncs, trouble = (), f"{os.strerror(error.errno or 0)}"
    return Disk(kind, space.f_bavail * space.f_frsize, space.f_favail if space.f_files else -1, syncs, trouble)


def _measure(directory: Path) -> tuple[float, ...]:
    handle = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    taken = []
    try:
        for number in range(SYNCS):
            began = time.perf_counter()
            os.pwrite(handle, os.urandom(SYNC_BYTES), number * SYNC_BYTES)
            os.fdatasync(handle)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(handle)
    return tuple(sorted(taken))


def kind_of(path: Path, mounts: str) -> str:
    """Return the kind of file system that a path without links is on. mounts: the text of /proc/self/mountinfo."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if len(words := before.split()) < 5 or not after:
            continue
        point = Path(words[4].encode().decode("unicode_escape"))
        if path.is_relative_to(point) and len(point.parts) >= best:  # of two at one place the later one is on top
            best, kind = len(point.parts), after.split()[0]
    return kind


def disk(machine: Machine) -> list[Verdict]:
    found = []
    for directory, owners in machine.state_dirs.items():
        whose = f"of {', '.join(owners)}" if len(machine.state_dirs) > 1 else ""
        if directory.is_dir():
            is_debug = machine.commons[owners[0]].debug
            found += judge(ask(directory), str(directory), is_debug, whose)
        else:
            found.append(not_asked(" ".join(("disk", whose)).strip(), f"{directory} is not there yet"))
    return found


def judge(disk: Disk, directory: str, is_debug: bool = False, whose: str = "") -> list[Verdict]:
    """is_debug: no money is lost with this directory. whose: told with each check's name, where there are several directories."""

    def name(check: str) -> str:
        return f"{check} {whose}".strip()

    return [_kind(disk.kind, directory, is_debug, name("kind")), _room(disk, directory, name("room")), _syncs(disk, name("sync"))]


def _kind(kind: str, directory: str, is_debug: bool, name: str) -> Verdict:
    if kind in IN_MEMORY:
        verdict = warning if is_debug else bad
        return verdict(
            name, f"{directory} is in memory ({kind}): all of it is lost with the power", "set state_dir to a directory on a disk"
        )
    if kind.startswith(ELSEWHERE):
        mend = "use a local disk, or a store on PostgreSQL (docs/CLUSTER.md)"
        return warning(name, f"{directory} is on {kind}: what a sync or a lock is worth there is up to others", mend)
    if kind in LAYERS:
        return warning(
            name, f"{directory} is in a container's own layer ({kind}): it goes with the container", "mount a volume there"
        )
    return ok(name, f"{directory} is on {kind or 'a file system that the kernel does not name'}")


def _room(disk: Disk, directory: str, name: str) -> Verdict:
    text = f"{disk.room >> 20} MB are free at {directory}"
    mend = "make room: without it the store ends, and nothing settles"
    if disk.room < ROOM_BAD or 0 <= disk.nodes < 100:
        return bad(name, text if disk.room < ROOM_BAD else f"only {disk.nodes} more files can be made at {directory}", mend)
    return warning(name, text, mend) if disk.room < ROOM_WARNING else ok(name, text)


def _syncs(disk: Disk, name: str) -> Verdict:
    if not disk.syncs:
        return not_asked(name, f"no file without a name can be made there: {disk.trouble}; ask as the user who runs the store")
    p50, p99 = disk.syncs[len(disk.syncs) // 2], disk.syncs[len(disk.syncs) * 99 // 100]
    text = f"of {len(disk.syncs)} syncs half took {p50 * 1000:.2f} ms, 99 % {p99 * 1000:.2f} ms"
    if p50 > SLOW_P50_SECONDS or p99 > SLOW_P99_SECONDS:
        return warning(name, text, "every payment waits for one: use a faster disk, or one that nothing else writes to")
    if p50 < NO_DISK_SECONDS and disk.kind not in IN_MEMORY:
        return warning(name, f"{text}: faster than a disk", "see that caches below are safe without power")
    return ok(name, text)
