"""The shim (shim.c), compiled once per process, and the reader of what it wrote down."""

import ctypes
import functools
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
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
