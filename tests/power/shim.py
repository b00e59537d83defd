"""The shim (shim.c), compiled once per process, and the reader of what it wrote down."""

import ctypes
import functools
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
_SWITCH_SIZE = 64
_SWITCH_SECONDS_MAX = 10.0
_HEAD = struct.Struct("<B3xiqqII")


@functools.cache
def library() -> Path:
    """Compile the shim and return it. It lives as long as this process."""
    place = tempfile.TemporaryDirectory(prefix="paychan-shim-")
    library.place = place  # type: ignore[attr-defined]
    made = Path(place.name) / "shim.so"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(made), str(SOURCE), "-ldl", "-lpthread"], check=True
    )
    return made


def environment(directory: Path, log: Path | None = None, no_sync: bool = False, fail: str = "") -> dict[str, str]:
    """Return the environment of a process that is looked at; see shim.c."""
    env = {**os.environ, "LD_PRELOAD": str(library()), "POWER_DIR": str(directory)}
    if log:
        env["POWER_LOG"] = str(log)
    if no_sync:
        env["POWER_NOSYNC"] = "1"
    if fail:
        env["POWER_FAIL"] = fail
    return env


class Switch:
    """Makes calls of processes fail while they run. `environment` goes into theirs; the directory must be theirs to write."""

    def __init__(self, place: Path, directory: Path) -> None:
        """place: where the switches of all processes are; directory: only what they do to files below it fails."""
        place.mkdir(exist_ok=True)
        self._place = place
        self.environment = {"LD_PRELOAD": str(library()), "POWER_DIR": str(directory), "POWER_SWITCH": str(place)}

    def fail(self, pid: int, what: str) -> None:
        """Arm a process' switch: "KINDS,1,ERRNO,MODE", or "" to have all calls work again. "KINDS,1,MILLISECONDS,slow": they
        only take longer. Nothing happens to one that has none."""
        if self._has_one(pid):
            with (self._place / str(pid)).open("r+b") as file:
                file.write(what.encode().ljust(_SWITCH_SIZE - 1, b"\0"))

    def fail_next(self, what: str) -> None:
        """Arm the switches of all processes that start from now on; "": none."""
        passing = self._place / "passing"
        passing.write_text(what)
        passing.rename(self._place / "next")

    def failures(self, pid: int) -> int:
        """Return how many calls of a process have failed, or were slow (modulo 256)."""
        return (self._place / str(pid)).read_bytes()[_SWITCH_SIZE - 1] if self._has_one(pid) else 0

    def _has_one(self, pid: int) -> bool:
        """Wait until a process that has just begun has made its switch; False if it ended before, or could not."""
        file, deadline = self._place / str(pid), time.monotonic() + _SWITCH_SECONDS_MAX
        while not file.exists() or file.stat().st_size < _SWITCH_SIZE:
            if time.monotonic() > deadline or not Path(f"/proc/{pid}").exists():
                return False
            time.sleep(0.005)
        return True


def mark(data: bytes) -> None:
    """Put a mark into the record. Only in a process that has the shim loaded."""
    ctypes.CDLL(None).power_mark(data, ctypes.c_size_t(len(data)))


@dataclass(frozen=True, slots=True)
class Op:
    """One record. kind: o open, c close, w write, t truncate, a allocate, s sync, r rename, l link, u unlink, d mkdir,
    m writable mapping, k mark, f injected failure."""

    kind: str
    fd: int
    offset: int
    size: int
    path: str
    data: bytes


def read_log(log: Path) -> Iterator[Op]:
    raw = log.read_bytes()
    at = 0
    while at < len(raw):
        kind, fd, offset, size, first, second = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        path = raw[at : at + first].decode()
        yield Op(chr(kind), fd, offset, size, path, raw[at + first : at + first + second])
        at += first + second
