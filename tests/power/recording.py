"""A recorded life: the shim's records, and the store's content after each group."""

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .disk import Disk, is_diary
from .history import SHAPES
from .shim import Op, environment, read_log

ROOT = Path(__file__).parents[2]


@dataclass
class Recording:
    """One life. contents: fingerprint of the whole database after each number of groups; `groups`: what each wrote."""

    name: str
    root: str
    ops: list[Op]
    groups: list[dict[bytes, bytes | None]]
    numbers: dict[int, int]

    def content(self, count: int) -> dict[bytes, bytes]:
        """Return the database's content after `count` groups."""
        now: dict[bytes, bytes] = {}
        for writes in self.groups[:count]:
            take(now, writes)
        return now


def take(content: dict[bytes, bytes], writes: dict[bytes, bytes | None]) -> None:
    for key, value in writes.items():
        if value is None:
            content.pop(key, None)
        else:
            content[key] = value


def fingerprint(content: dict[bytes, bytes]) -> int:
    return hash(frozenset(content.items()))


def record(directory: Path, shape: str, seed: str, how: str = "", no_sync: bool = False) -> Recording:
    """Run a life in `directory` (which must not be there) and return its record. AssertionError if the record is not complete."""
    directory.mkdir()
    state, log = directory / "state", directory / "log"
    env = environment(state, log, no_sync)
    runs = [[shape, f"{seed}-{i}", "crash"] for i in range(4)] if how == "crash" else [[shape, seed, *([how] if how else [])]]
    for run in runs:
        done = subprocess.run(
            [sys.executable, "-m", "tests.power.history", str(directory), *run],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    ops = list(read_log(log))
    disk = Disk(str(state))
    for op in ops:
        disk.run(op)
    there = {os.path.join(base, name) for base, dirs, files in os.walk(state) for name in (*dirs, *files)}
    assert there | {str(state)} == set(disk.names)
    for name, content in disk.living().items():
        if content is None:
            assert os.path.isdir(name), name
        elif not is_diary(name):
            assert Path(name).read_bytes() == content, f"the record of {name} is not complete"
    return understand(f"{shape}{'-' + how if how else ''}", str(state), ops)


def understand(name: str, root: str, ops: list[Op]) -> Recording:
    """Return a recording from records: the groups that took effect, in order.

    A group that was begun and not answered when the process ended may or may not have been kept. The next life says which:
    its own groups were written on top of what it found. Scripts end between groups, so that question does not come up.
    """
    groups = [pickle.loads(op.data[1:]) for op in ops if op.kind == "k" and op.data[:1] == b"G"]
    content: dict[bytes, bytes] = {}
    numbers = {fingerprint(content): 0}
    for count, writes in enumerate(groups, 1):
        take(content, writes)
        numbers[fingerprint(content)] = count
    return Recording(name, root, ops, groups, numbers)


def names() -> list[tuple[str, str]]:
    """Return the lives of a campaign: (shape, how)."""
    return [*((shape, "") for shape in SHAPES), ("rotating", "crash"), ("settling", "crash")]
