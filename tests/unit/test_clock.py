"""Aim: time never goes back, whatever the wall clock does. Method: hand-set walls, random histories, files good and bad."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan import clock as clock_module
from paychan.clock import Clock, wall_clock
from paychan.server.settlement.highwater import read_highest, write_highest


class Wall:
    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def __call__(self) -> int:
        return self.seconds


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**32)), max_size=30), st.integers(0, 2**32))
def test_the_clock_is_the_latest_of_all_it_has_seen(history, highest):
    wall = Wall(0)
    clock, seen = Clock(wall, highest), highest
    for is_observed, seconds in history:
        if is_observed:
            clock.observe(seconds)
        else:
            wall.seconds = seconds
        seen = max(seen, seconds if is_observed else wall.seconds)
        assert clock.now() == seen


def test_a_wall_clock_set_back_does_not_reopen_anything():
    wall = Wall(1000)
    clock = Clock(wall)
    assert clock.now() == 1000
    wall.seconds = 10
    assert clock.now() == 1000
    wall.seconds = 1001
    assert clock.now() == 1001


def test_the_median_time_past_lifts_a_clock_that_is_behind_and_never_lowers_one():
    clock = Clock(Wall(1000))
    clock.observe(5000)
    assert clock.now() == 5000
    clock.observe(3000)  # a reorganisation
    assert clock.now() == 5000


def test_the_time_before_a_restart_is_remembered(tmp_path):
    path = tmp_path / "clock"
    first = Clock(Wall(5000), read_highest(path))
    write_highest(path, first.now())
    assert Clock(Wall(100), read_highest(path)).now() == 5000


def test_the_file_never_holds_an_earlier_time(tmp_path):
    path = tmp_path / "clock"
    for seconds, kept in ((500, 500), (400, 500), (500, 500), (600, 600)):
        write_highest(path, seconds)
        assert read_highest(path) == kept
    assert [item.name for item in tmp_path.iterdir()] == ["clock"]


@pytest.mark.parametrize("text", ["", "x", "-5", "1.5", "1 2", "²", "0x10"])
def test_a_file_that_makes_no_sense_counts_as_none_and_is_replaced(tmp_path, text):
    path = tmp_path / "clock"
    path.write_text(text)
    assert read_highest(path) == 0
    write_highest(path, 7)
    assert read_highest(path) == 7


def test_no_file_is_time_zero(tmp_path):
    assert read_highest(tmp_path / "none") == 0


def test_bytes_that_are_no_text_count_as_none(tmp_path):
    path = tmp_path / "clock"
    path.write_bytes(b"\xff\xfe\x00")
    assert read_highest(path) == 0


def test_the_debug_clock_begins_where_it_is_told_and_advances(monkeypatch):
    ticks = Wall(50)
    monkeypatch.setattr(clock_module.time, "monotonic", ticks)
    wall = wall_clock(1_500_000_000)
    assert wall() == 1_500_000_000
    ticks.seconds = 60
    assert wall() == 1_500_000_010


def test_the_wall_clock_is_the_systems(monkeypatch):
    monkeypatch.setattr(clock_module.time, "time", lambda: 1234.9)
    assert wall_clock()() == 1234


def test_a_clock_has_seen_nothing_at_first():
    assert Clock(Wall(0)).now() == 0
