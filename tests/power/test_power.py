"""Aim: the power-loss, log-damage and failing-call campaigns in their short forms, and that each of them finds a store that is
broken on purpose. Method: tests/power/ and tests/campaign/syscalls.py, a few hundred images of fresh records."""

import random
import subprocess
import sys

import pytest

from tests.power import images
from tests.power.disk import Disk, File, leave
from tests.power.recording import ROOT, record
from tests.power.shim import Op

SEED = str(random.SystemRandom().randrange(1 << 32))


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    directory = tmp_path_factory.mktemp("lives")
    return [record(directory / f"{shape}{how}", shape, SEED, how) for shape, how in (("rotating", ""), ("settling", "crash"))]


def spread(life, count, offset=0):
    """Return image numbers all over a life: boundaries between records, and points at random."""
    last = 2 * len(life.ops)
    return range(offset % 7, last + count, max(1, (last + count) // count))


def test_every_image_of_a_power_loss_holds_what_was_answered_and_nothing_else(lives, tmp_path):
    for life in lives:
        problems = [found for found in images.try_images(life, SEED, spread(life, 80), tmp_path) if found[1].problem]
        assert not problems, (SEED, life.name, problems[:3])
        problems = [
            found
            for found in images.try_images(life, SEED, range(2 * len(life.ops), 2 * len(life.ops) + 60), tmp_path)
            if found[1].problem
        ]
        assert not problems, (SEED, life.name, problems[:3])


def test_the_database_has_its_name_on_disk_before_the_mark_says_anything(lives):
    for life in lives:
        disk, notes = Disk(life.root), 0
        for op in life.ops:
            disk.run(op)
            if op.kind == "w" and op.data[:4] == b"PCM1" and op.data[4:12] != bytes(8):
                notes += 1
                assert {f"{life.root}/store/db", f"{life.root}/store/db/CURRENT"} <= set(disk.synced_names)
        assert notes > 50


@pytest.mark.parametrize("control", images.CONTROLS)
def test_a_store_that_does_not_sync_in_time_is_caught(control, tmp_path):
    how = "" if control == "liar" else control
    life = record(tmp_path / "life", "hot", SEED, how, control == "liar")
    found = images.try_images(life, SEED, range(2 * len(life.ops), 2 * len(life.ops) + 60), tmp_path)
    assert sum(bool(finding.problem or finding.refused) for _, finding, _ in found) > 5


def run(module, *arguments):
    """Run a campaign as one does by hand. (Its forks want a parent that has no RocksDB open.)"""
    call = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_damage_anywhere_in_the_logs_end_is_noticed():
    run("tests.power.tail", "--step", 409, "--seed", SEED)


def test_without_the_mark_damage_would_go_unnoticed():
    assert "SILENT LOSS" in run("tests.power.tail", "--step", 2000, "--seed", SEED, "--unmark")


@pytest.mark.parametrize(
    ("fault", "places"),
    [
        ("write,5,once", (60, 95, 105)),
        ("write,28,sticky", (95,)),
        ("write,0,short", (80, 95)),
        ("sync,5,once", (12, 14, 30, 50)),
        ("any,0,kill", (100, 150)),
    ],
)
def test_a_failing_call_costs_nothing_that_was_answered(fault, places):
    printed = run("tests.campaign.syscalls", "--kind", fault, "--at", *places)
    assert "not reached" not in printed


# the disk itself


def disk_with(*ops):
    disk = Disk("/r")
    for op in ops:
        disk.run(Op(*op))
    return disk


CREATE, WRITE = ("o", 5, 0o100, 0, "/r/a", b""), ("w", 5, 0, 0, "", b"x" * 2000)
SYNC, OPEN_ROOT, SYNC_ROOT = ("s", 5, 0, 0, "", b""), ("o", 6, 0, 0, "/r", b""), ("s", 6, 0, 0, "", b"")


def images_of(disk):
    return [disk.image(random.Random(number)) for number in range(300)]


def test_an_unsynced_name_may_be_lost_and_a_synced_one_may_not():
    unsynced = images_of(disk_with(CREATE, WRITE, SYNC))
    assert {"/r/a" in image for image in unsynced} == {True, False}
    synced = images_of(disk_with(CREATE, WRITE, SYNC, OPEN_ROOT, SYNC_ROOT))
    assert all(image["/r/a"] == b"x" * 2000 for image in synced)


def test_unsynced_data_may_be_whole_cut_torn_holed_or_gone():
    contents = {image["/r/a"] for image in images_of(disk_with(CREATE, OPEN_ROOT, SYNC_ROOT, WRITE))}
    assert {b"", b"x" * 2000} <= contents
    assert any(0 < len(content) < 2000 and len(content) % 512 for content in contents)
    assert any(len(content) == 2000 and 0 < content.count(0) < 2000 for content in contents)
    assert any(len(content) == 2000 and content[:512].count(0) == 512 and content[-1:] == b"x" for content in contents)


def test_what_was_overwritten_and_not_synced_is_old_or_new_by_sectors():
    file = File(bytearray(b"o" * 2048), [(0, b"n" * 2048)])
    contents = {leave(file, random.Random(number), 1.0) for number in range(300)}
    assert any(content[:512] == b"o" * 512 and content[512:1024] == b"n" * 512 for content in contents)
    assert all(len(content) == 2048 and set(content) <= set(b"on") for content in contents)


def test_a_rename_that_is_not_synced_leaves_the_old_name_or_the_new():
    disk = disk_with(CREATE, WRITE, SYNC, OPEN_ROOT, SYNC_ROOT, ("r", -1, 0, 0, "/r/a", b"/r/b"))
    assert {tuple(sorted(image)) for image in images_of(disk)} == {("/r", "/r/a"), ("/r", "/r/b")}


def test_a_file_written_through_a_mapping_is_not_accepted():
    with pytest.raises(AssertionError, match="mapping"):
        disk_with(CREATE, ("m", 5, 0, 0, "", b""))
