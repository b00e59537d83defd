"""Aim: a slot has one writer, what was counted outlives it, and a file that is not such a file is replaced, never written to.

Method: real processes claim slots of a real file, some of them at once; files are spoilt in every way.
"""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from paychan._fast import tally
from paychan._fast.tally import Tally
from paychan.metrics import families, file
from paychan.metrics.exposition import expose, names
from paychan.rpc.connection import Address
from tests.metrics import by_outcome, parse

ROOT = Path(__file__).parents[3]
CLAIMS = """
import sys
from pathlib import Path
from paychan._fast.tally import OWN, TAKEN
from paychan.metrics import families, file
counts = file.claim(file.Place(Path(sys.argv[1]) / file.NAME), file.Role.WORKER)
counts.set(families.BEAT_AT, 1)
counts.set(families.WAITING.at, 7)
print("claimed", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        counts.answered(OWN, TAKEN)
    print("counted", flush=True)
"""


class Process:
    """One that has a slot, and counts so many payments when it is told to."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-c", CLAIMS, str(directory)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def wait(self, word: str) -> None:
        assert self._process.stdout.readline() == f"{word}\n"

    def count(self, payments: int) -> None:
        self._process.stdin.write(f"{payments}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)
        self._process.stdin.close()
        self._process.stdout.close()


def shown(directory: Path) -> dict:
    return parse(expose(file.read(file.Place(directory / file.NAME)), {}).decode())


def test_processes_at_once_have_a_slot_each_and_none_loses_a_count(tmp_path):
    each = [Process(tmp_path) for _ in range(4)]
    for process in each:
        process.wait("claimed")
    assert len(file.read(file.Place(tmp_path / file.NAME))) == 4
    for number, process in enumerate(each, 1):
        process.count(1000 * number)
    for process in each:
        process.wait("counted")
    assert by_outcome(shown(tmp_path)) == {"accepted": 10_000}
    assert shown(tmp_path)["paychan_waiting_requests", ()] == 28
    for process in each:
        process.kill()
    samples = shown(tmp_path)
    assert by_outcome(samples) == {"accepted": 10_000}
    assert samples["paychan_processes", (("role", "worker"),)] == 0
    assert ("paychan_waiting_requests", ()) not in samples  # what the dead were like is not told


def test_the_next_process_goes_on_where_a_killed_one_stopped(tmp_path):
    for generation in range(1, 4):
        process = Process(tmp_path)
        process.wait("claimed")
        process.count(5)
        process.wait("counted")
        process.kill()
        assert by_outcome(shown(tmp_path)) == {"accepted": 5 * generation}
        assert len(file.read(file.Place(tmp_path / file.NAME))) == 1
    assert shown(tmp_path)["paychan_process_starts_total", (("role", "worker"),)] == 3


def spoilt(path: Path, how: str) -> None:
    path.unlink()
    good = bytearray(file.FILE_SIZE)
    good[: file._HEAD.size] = file._head()
    if how == "another version":
        good[8] = 9
    elif how == "another layout":
        good[20] ^= 1
    if how == "a directory":
        path.mkdir()
    elif how == "a link":
        (path.parent / "elsewhere").write_bytes(good)
        path.symlink_to(path.parent / "elsewhere")
    elif how == "a pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(good[:-8] if how == "shorter" else good + b"\0" if how == "longer" else b"" if how == "empty" else good)
        path.chmod(0o644 if how == "open to others" else 0o600)


HOW = ("another version", "another layout", "shorter", "longer", "empty", "open to others", "a link", "a pipe")


@pytest.mark.parametrize("how", HOW)
def test_a_file_that_is_not_such_a_file_is_replaced_and_not_trusted(tmp_path, how):
    file.claim(file.Place(tmp_path / file.NAME), file.Role.STORE)
    spoilt(tmp_path / file.NAME, how)
    before = os.lstat(tmp_path / file.NAME)
    with pytest.raises(FileNotFoundError):
        file.read(file.Place(tmp_path / file.NAME))
    file.claim(file.Place(tmp_path / file.NAME), file.Role.STORE)
    after = os.lstat(tmp_path / file.NAME)
    assert after.st_ino != before.st_ino and stat.S_ISREG(after.st_mode)
    assert stat.S_IMODE(after.st_mode) == 0o600 and after.st_size == file.FILE_SIZE
    assert len(file.read(file.Place(tmp_path / file.NAME))) == 1
    if how == "a link":
        assert not any((tmp_path / "elsewhere").read_bytes()[file.HEAD_SIZE :])


def test_where_nothing_can_be_counted_the_process_goes_on(tmp_path):
    file.claim(file.Place(tmp_path / file.NAME), file.Role.STORE)
    (tmp_path / "run").mkdir()
    file.claim(file.in_run(tmp_path), file.Role.STORE)
    spoilt(tmp_path / "run" / file.NAME, "a directory")
    counts = file.claim_or_none(file.in_run(tmp_path), file.Role.WORKER)
    counts.answered(tally.OWN, tally.TAKEN)
    assert counts.get(tally.OUTCOMES_AT + tally.OWN * tally.OUTCOMES + tally.TAKEN) == 1


def test_a_slot_has_its_blocks_before_it_is_written_to(tmp_path):
    """A write to a hole of a full disk is a SIGBUS."""
    file.claim(file.Place(tmp_path / file.NAME), file.Role.STORE)
    assert (tmp_path / file.NAME).stat().st_blocks * 512 >= file.SLOT_SIZE


def test_cells_are_checked():
    counts = Tally()
    for bad in (-1, tally.CELLS):
        with pytest.raises(IndexError):
            counts.add(bad)
        with pytest.raises(IndexError):
            counts.set(bad, 1)
    with pytest.raises(IndexError):
        counts.observe(tally.CELLS - 3, 0, 1)
    with pytest.raises(IndexError):
        counts.answered(tally.DOORS, 0)
    for size in (0, 8, tally.CELLS * 8 + 8):
        with pytest.raises(ValueError, match="another size"):
            Tally(memoryview(bytearray(size)))


@pytest.mark.parametrize("value", [0, 1, 65535, 65536, 10**9, 2**38 - 1, 2**38, 2**63])
def test_a_histogram_counts_each_value_once_below_its_bound(value):
    counts = Tally()
    counts.observe(families.COMMIT.at, families.COMMIT.first_power, value)
    cells = [counts.get(cell) for cell in range(tally.CELLS)]
    cells[families.BEAT_AT], cells[families.ROLE_AT] = 1, file.Role.WORKER
    samples = parse(expose([file.Slot(cells, True)], {}).decode())
    buckets = [(labels, count) for (name, labels), count in samples.items() if name == "paychan_commit_seconds_bucket"]
    bounds = {float(dict(labels)["le"]): count for labels, count in buckets}
    assert len(bounds) == tally.BUCKETS and bounds[float("inf")] == 1
    assert all(count == (value / 1e9 < bound or value == 0) for bound, count in bounds.items())
    assert samples["paychan_commit_seconds_sum", ()] == pytest.approx(value / 1e9)


def test_no_two_metrics_share_a_cell_or_a_name():
    taken = [cell for family in families.FAMILIES for cell in range(family.at, family.at + family.size)]
    taken += [families.ROLE_AT, families.CLAIMS_AT, families.BEAT_AT]
    assert len(taken) == len(set(taken)) and min(taken) >= tally.DOORS * tally.OUTCOMES and max(taken) < tally.CELLS
    assert len(names()) == len(families.FAMILIES) + 5
    assert max(families.OUTCOMES) < tally.OUTCOMES


# --- a store with a user of its own ---


def beside(directory, user):
    """Return the socket of a store with a user of its own."""
    return Address(path=str(directory / "store.sock"), user=user, is_shared=True)


def test_a_store_with_a_user_of_its_own_lets_its_group_read_and_nobody_else(tmp_path):
    before = os.umask(0o077)  # as the units have it
    try:
        place = file.of_store(beside(tmp_path, os.geteuid()), is_ours=True)
        file.claim(place, file.Role.STORE)
        made = place.path.stat()
        assert (place.path.name, stat.S_IMODE(made.st_mode), made.st_gid) == ("store-counts", 0o640, os.getegid())
        for mode in (0o600, 0o644, 0o660, 0o641):
            place.path.chmod(mode)
            file.claim(place, file.Role.STORE)
            assert stat.S_IMODE(place.path.stat().st_mode) == 0o640, "it is made anew"
    finally:
        os.umask(before)


def test_both_files_are_read_as_one_and_without_the_stores_the_servers_alone(tmp_path):
    store = beside(tmp_path, os.geteuid())
    file.claim_or_none(file.in_run(tmp_path), file.Role.WORKER)
    assert [slot.role for slot in file.read_all(tmp_path, store)] == [file.Role.WORKER]
    file.claim(file.of_store(store, is_ours=True), file.Role.STORE)
    assert [slot.role for slot in file.read_all(tmp_path, store)] == [file.Role.WORKER, file.Role.STORE]
    apart = Address(path=store.path)
    assert file.of_store(apart, is_ours=True) is None and len(file.read_all(tmp_path, apart)) == 1


def test_the_stores_counts_are_believed_of_the_stores_user_alone(tmp_path):
    file.claim_or_none(file.in_run(tmp_path), file.Role.WORKER)
    file.claim(file.of_store(beside(tmp_path, os.geteuid()), is_ours=True), file.Role.STORE)
    assert len(file.read_all(tmp_path, beside(tmp_path, os.geteuid() + 1))) == 1


@pytest.mark.privileged("only root can give a file away")
def test_a_group_that_was_let_in_before_is_shut_out_by_the_next_start(tmp_path):
    place = file.of_store(beside(tmp_path, os.geteuid()), is_ours=True)
    file.claim(place, file.Role.STORE)
    os.chown(place.path, -1, os.getegid() + 1)
    file.claim(place, file.Role.STORE)
    assert place.path.stat().st_gid == os.getegid()
