"""The mark says how far the database had come when a group was last acknowledged; a database that ends before it, and a
damaged mark, are refused, and reading the database for that changes nothing. With a real RocksDB in a temporary directory."""

import os
import shutil
import zlib

import pytest

from store import peek
from store.engines.rocksdb import RocksDB
from store.mark import FILE_SIZE, SLOT_OFFSETS, Mark, path_of


def fill(place, count):
    """Commit `count` groups and leave the database as kill -9 would."""
    pid = os.fork()
    if not pid:
        engine = RocksDB(place)
        for number in range(count):
            engine.commit({number.to_bytes(2, "big"): b"value"})
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_mark_is_what_was_committed_last(tmp_path):
    fill(tmp_path / "db", 7)
    mark = Mark(tmp_path / "db")
    assert mark.sequence == 7
    mark.close()
    engine = RocksDB(tmp_path / "db")
    engine.close()
    RocksDB(tmp_path / "db").close()


def newest_log(place):
    return max(place.glob("*.log"))


def content_of(place):
    return {path.name: path.read_bytes() for path in place.iterdir() if not path.name.startswith("LOG")}


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_log_that_ends_before_the_mark_is_refused_and_left_as_it_is(tmp_path, damage):
    place = tmp_path / "db"
    fill(place, 9)
    log = newest_log(place)
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(bytes(content) if damage == "flip" else content[: len(content) // 9 * 5])
    before = content_of(place)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"ends at write [3-6], and write 9 has been acknowledged"):
            RocksDB(place)
    assert content_of(place) == before
    path_of(place).unlink()  # as the message says: to go on without what is lost
    engine = RocksDB(place)
    assert engine.states([b""]) == [None]
    engine.close()


def test_a_log_that_rocksdb_never_ends_to_read_is_refused(tmp_path, monkeypatch):
    """One byte says that a record is one of a reused log, which this is not; then RocksDB looks for its end for ever."""
    place = tmp_path / "db"
    fill(place, 9)
    log = newest_log(place)
    content = bytearray(log.read_bytes())
    size = 7 + int.from_bytes(content[4:6], "little")
    at = 4 * size + 6
    assert content[at] == 1
    content[at] = 5
    log.write_bytes(content)
    monkeypatch.setattr(peek, "PEEK_SECONDS_MAX", 2.0)
    with pytest.raises(ValueError, match="damaged"):
        RocksDB(place)


def test_a_database_that_is_gone_is_not_made_anew(tmp_path):
    fill(tmp_path / "db", 1)
    shutil.rmtree(tmp_path / "db")
    with pytest.raises(ValueError, match="gone"):
        RocksDB(tmp_path / "db")


def test_an_older_copy_of_the_database_is_refused(tmp_path):
    fill(tmp_path / "db", 3)
    shutil.copytree(tmp_path / "db", tmp_path / "copy")
    fill(tmp_path / "db", 3)
    shutil.rmtree(tmp_path / "db")
    (tmp_path / "copy").rename(tmp_path / "db")
    with pytest.raises(ValueError, match="ends at write 3, and write 6"):
        RocksDB(tmp_path / "db")


def test_one_torn_slot_leaves_the_other_and_two_are_refused(tmp_path):
    mark = Mark(tmp_path / "db")
    mark.note(5)
    mark.note(6)
    mark.close()
    file = path_of(tmp_path / "db")
    assert file.stat().st_size == FILE_SIZE
    content = bytearray(file.read_bytes())
    content[SLOT_OFFSETS[0] + 5] ^= 1  # of 6, the newer one
    file.write_bytes(content)
    mark = Mark(tmp_path / "db")
    assert mark.sequence == 5
    mark.close()
    content[SLOT_OFFSETS[1]] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        Mark(tmp_path / "db")


def test_a_mark_that_cannot_be_written_fails_the_commit(tmp_path):
    engine = RocksDB(tmp_path / "db")
    os.close(engine._mark._handle)
    with pytest.raises(OSError):
        engine.commit({b"key": b"value"})
    engine._db.close()


def test_the_file_never_changes(tmp_path):
    def slot(sequence):
        head = b"PCM1" + sequence.to_bytes(8, "little")
        return head + zlib.crc32(head).to_bytes(4, "little")

    mark = Mark(tmp_path / "db")
    file = tmp_path / "db.mark"
    assert path_of(tmp_path / "db") == file
    assert mark.sequence == 0
    assert file.read_bytes() == slot(0).ljust(4096, b"\0") + slot(0).ljust(4096, b"\0")
    assert file.stat().st_mode & 0o777 == 0o600
    for sequence, at in ((7, 4096), (2**64 - 1, 0), (9, 4096)):
        mark.note(sequence)
        assert file.read_bytes()[at : at + 16] == slot(sequence)
    assert file.stat().st_size == 8192
    mark.close()


def test_the_file_and_its_name_are_synced_when_it_is_made_and_the_file_at_its_end(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    mark = Mark(tmp_path / "db")
    assert synced == [str(tmp_path / "db.mark"), str(tmp_path)]
    mark.note(1)
    assert len(synced) == 2
    handle = mark._handle
    mark.close()
    assert synced[2:] == [str(tmp_path / "db.mark")]
    with pytest.raises(OSError):
        os.fstat(handle)


def test_a_mark_that_is_refused_is_closed(tmp_path):
    path_of(tmp_path / "db").write_bytes(bytes(FILE_SIZE))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ValueError, match="damaged"):
        Mark(tmp_path / "db")
    assert set(os.listdir("/proc/self/fd")) <= set(before)
