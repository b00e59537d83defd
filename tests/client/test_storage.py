"""Aim: a channel's lock is held by one process at a time, also while lock files come and go; and it leaves nothing where no channel
came of it. Method: the real files; the moment at which another process removes the lock file is made by hand."""

import fcntl
import os

import pytest

from paychan.client import ChannelBusy, StateError
from paychan.client.storage import ChannelFile


def test_the_lock_file_stays_with_a_channel_and_goes_without_one(tmp_path):
    path = tmp_path / "deep" / "c.json"
    ChannelFile(path, is_new=True).close()
    assert not list(path.parent.iterdir())
    file = ChannelFile(path, is_new=True)
    file.save(b"state")
    file.close()
    assert sorted(os.listdir(path.parent)) == ["c.json", "c.json.lock"]
    ChannelFile(path).close()
    assert sorted(os.listdir(path.parent)) == ["c.json", "c.json.lock"]


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """Between our opening the lock file and our locking it, its holder removes it: others would lock a new one."""
    path, lock, removed = tmp_path / "c.json", tmp_path / "c.json.lock", []

    def flock(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(lock.stat().st_ino)
            lock.unlink()
        real(descriptor, operation)

    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    file = ChannelFile(path, is_new=True)
    assert removed and os.fstat(file._lock).st_ino == lock.stat().st_ino
    with pytest.raises(ChannelBusy):
        ChannelFile(path, is_new=True)
    file.close()


def test_what_is_no_place_for_files_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="file: this directory cannot be made"):
        ChannelFile(tmp_path / "file" / "c.json", is_new=True)
    with pytest.raises(StateError, match="File name too long"):
        ChannelFile(tmp_path / ("x" * 300))
    (tmp_path / "c.json.lock").mkdir()
    with pytest.raises(StateError, match="cannot be locked"):
        ChannelFile(tmp_path / "c.json", is_new=True)
