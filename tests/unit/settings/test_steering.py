"""Aim: what an operator changes at run time is kept durably, and loosens nothing whatever the file says. Method: the file, changed,
damaged, and read by who obeys it."""

import json
import os
import threading
from dataclasses import replace

import pytest

from paychan import durable
from paychan.core.errors import ConfigError
from paychan.settings.load import load_server_config
from paychan.settings.steering import (
    DAMAGED,
    DAMAGED_FREEZE,
    LIMITS,
    Freeze,
    Steering,
    SteeringFile,
    change_steering,
    read_freeze,
    read_steering,
    steering_file,
)
from tests.system import ROOT


@pytest.fixture
def config(tmp_path):
    loaded = load_server_config(ROOT / "config" / "debug" / "server.toml", {"PAYCHAN_STATE_DIR": str(tmp_path)})
    return replace(loaded, funding_value_max=1000, total_exposure_max=2000, funding_tx_min_conf=3, duration_max=10 * 3600)


@pytest.mark.parametrize("name", LIMITS)
def test_the_stricter_of_file_and_configuration_holds(config, name):
    limit = LIMITS[name]
    configured = limit.of(config)
    tighter, looser = (configured + 1, configured - 1) if limit.is_floor else (configured - 1, configured + 1)
    assert limit.of(Steering(limits={name: tighter}).tighten(config)) == tighter
    assert limit.of(Steering(limits={name: looser}).tighten(config)) == configured
    others = [other for other in LIMITS if other != name]
    tightened = Steering(limits={name: tighter}).tighten(config)
    assert [LIMITS[other].of(tightened) for other in others] == [LIMITS[other].of(config) for other in others]


def test_a_change_is_whole_synced_and_has_a_higher_revision(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(durable.os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")) or sync(handle))
    first = change_steering(tmp_path, lambda before: replace(before, frozen_at=5, why="x"))
    assert (first.revision, read_steering(steering_file(tmp_path))) == (1, first)
    assert [os.path.basename(path) for path in synced] == ["steering.tmp", tmp_path.name]
    assert change_steering(tmp_path, lambda before: before) == first and len(synced) == 2, "nothing changed, nothing is written"
    assert change_steering(tmp_path, lambda before: replace(before, is_drained=True)).revision == 2
    assert steering_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_change_that_is_refused_changes_nothing(tmp_path):
    change_steering(tmp_path, lambda before: replace(before, frozen_at=5))

    def refuse(_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        change_steering(tmp_path, refuse)
    assert read_steering(steering_file(tmp_path)).revision == 1


def test_changes_at_once_are_made_one_after_the_other(tmp_path):
    def raise_it():
        done = 0
        while done < 5:
            try:
                change_steering(tmp_path, lambda before: replace(before, frozen_at=(before.frozen_at or 0) + 1))
            except BlockingIOError:
                continue  # on a slow disk the others hold it for long; then nothing was changed
            done += 1

    threads = [threading.Thread(target=raise_it) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_steering(steering_file(tmp_path))
    assert found.frozen_at == found.revision == 15


GOOD = {"version": 1, "revision": 1, "frozen_at": None, "why": "", "is_drained": False, "limits": {}}
BAD = (
    b"", b"x", b"[]", b"[" * 10_000, json.dumps({**GOOD, "version": 2}).encode(), json.dumps({**GOOD, "more": 1}).encode(),
    json.dumps({**GOOD, "limits": {"no_such": 1}}).encode(), json.dumps({**GOOD, "limits": {"funding_tx_min_conf": True}}).encode(),
    json.dumps({**GOOD, "frozen_at": "x"}).encode(), json.dumps({**GOOD, "is_drained": 1}).encode(),
)  # fmt: skip


@pytest.mark.parametrize("raw", BAD, ids=lambda raw: repr(raw[:40]))
def test_a_file_that_does_not_read_opens_no_channel_and_is_not_written_over(tmp_path, raw):
    path, told = steering_file(tmp_path), []
    path.write_bytes(raw)
    watched = SteeringFile(tmp_path, told.append)
    assert watched.now.frozen_at is not None and watched.now.why == DAMAGED and not watched.now.is_drained
    assert watched.now.revision == 0, "nobody is told that it obeys"
    assert len(told) == 1 and not watched.look() and len(told) == 1
    with pytest.raises(ConfigError):
        change_steering(tmp_path, lambda before: before)
    assert path.read_bytes() == raw


def test_a_watched_file_is_read_when_it_has_changed(tmp_path):
    watched = SteeringFile(tmp_path, pytest.fail)
    assert not watched.look() and watched.now == Steering()
    made = change_steering(tmp_path, lambda before: replace(before, limits={"funding_value_max_satoshi": 5}))
    assert watched.look() and watched.now == made and not watched.look()
    steering_file(tmp_path).unlink()
    assert watched.look() and watched.now == Steering()


# --- a freeze of all machines ---

NOTE = {"version": 1, "revision": 3, "frozen_at": None, "why": ""}


def test_a_note_says_what_was_written_and_without_one_nothing_is_frozen():
    for freeze in (Freeze(), Freeze(7, 1_790_000_000, "a trial"), Freeze(8)):
        assert read_freeze(freeze.encode()) == freeze
    assert read_freeze(b"") == Freeze() and read_freeze(json.dumps(NOTE).encode()) == Freeze(3)


@pytest.mark.parametrize(
    "note",
    [b"x", b"[]", b"[" * 10_000, *(json.dumps({**NOTE, **change}).encode() for change in (
        {"version": 2}, {"more": 1}, {"revision": True}, {"frozen_at": False}, {"frozen_at": "x"}, {"why": None},
    ))],
    ids=lambda note: repr(note[:60]),
)  # fmt: skip
def test_a_note_that_does_not_read_opens_no_channel(note):
    assert read_freeze(note) == DAMAGED_FREEZE and DAMAGED_FREEZE.frozen_at is not None
