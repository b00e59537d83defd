"""Aim: time never goes back, whatever the wall clock does. Method: hand-set walls, random histories, files good and bad."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan import clock as clock_module
from paychan.clock import Clock, wall_clock
from paychan.server.settlement.highwater import read_highest, write_highest

AGE_MAX = 3 * 3600
DECADE = 10 * 365 * 86400
TRUE = 1_700_000_000


class Wall:
    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def __call__(self) -> int:
        return self.seconds


class Machine:
    """A clock, its wall clock `error` seconds wrong, and true time, which `wait` lets pass."""

    def __init__(self, error: int = 0, kept: int = 0) -> None:
        self.true, self.error = TRUE, error
        self.clock = Clock(lambda: self.true + self.error, kept, AGE_MAX, lambda: float(self.true - TRUE))

    def wait(self, seconds: int) -> None:
        self.true += seconds

    def block(self, age: int = 0) -> None:
        """See a best block; its median time past is an hour older."""
        self.clock.observe(self.true - age, self.true - age - 3600)


@given(st.lists(st.tuples(st.sampled_from(("wall", "block", "wait")), st.integers(0, 2**32)), max_size=30), st.integers(0, 2**32))
def test_what_is_sure_never_goes_back_and_now_is_never_before_it(history, kept):
    machine, before = Machine(kept=kept), 0
    for what, seconds in history:
        if what == "wall":
            machine.error = seconds - machine.true
        elif what == "block":
            machine.clock.observe(seconds, max(0, seconds - 3600))
        else:
            machine.wait(seconds)
        now, sure = machine.clock.now(), machine.clock.sure()
        assert sure >= before
        assert now >= max(sure, machine.clock._wall(), kept)
        before = sure


def test_a_wall_clock_set_back_does_not_reopen_anything():
    machine = Machine()
    machine.block()
    assert machine.clock.now() == TRUE
    machine.error = -DECADE
    assert machine.clock.now() == machine.clock.sure() == TRUE
    machine.error = 1
    assert machine.clock.now() == machine.clock.sure() == TRUE + 1


@pytest.mark.parametrize("behind", [20 * 3600, DECADE, TRUE])
def test_the_median_time_past_lifts_a_clock_that_is_behind_and_never_lowers_one(behind):
    machine = Machine(-behind)
    machine.block()
    assert machine.clock.now() == machine.clock.sure() == TRUE - 3600
    machine.wait(7200)
    machine.block(age=7200 + 600)  # a reorganisation
    assert machine.clock.now() == machine.clock.sure() == TRUE - 3600
    assert machine.clock.doubt() == ""


def test_before_a_block_was_seen_nothing_is_sure():
    machine = Machine(DECADE, kept=TRUE + 2 * DECADE)
    assert (machine.clock.sure(), machine.clock.doubt()) == (0, "")
    assert machine.clock.now() == TRUE + 2 * DECADE  # for what a late time refuses


@pytest.mark.parametrize("ahead", [AGE_MAX + 1, 86400, DECADE])
def test_a_wall_clock_far_beyond_a_fresh_block_is_doubted_and_nothing_goes_by_it(ahead):
    machine = Machine(ahead)
    machine.block()
    assert f"{ahead} seconds beyond the best block" in machine.clock.doubt()
    assert machine.clock.sure() == TRUE
    machine.wait(50_000)  # and no block comes
    assert machine.clock.sure() == TRUE + 50_000
    machine.error = 0
    assert machine.clock.doubt() == ""
    assert machine.clock.now() == machine.clock.sure() == TRUE + 50_000


@pytest.mark.parametrize("ahead", [AGE_MAX + 1, DECADE])
def test_one_that_jumps_while_running_is_doubted_at_once(ahead):
    machine = Machine()
    machine.block()
    machine.wait(4000)
    assert machine.clock.sure() == machine.true
    machine.error = ahead
    assert machine.clock.doubt() != ""
    assert machine.clock.sure() == machine.true


def test_what_is_just_believed_is_believed():
    machine = Machine(AGE_MAX)
    machine.block()
    assert machine.clock.doubt() == ""
    assert machine.clock.sure() == TRUE + AGE_MAX


def test_a_right_clock_beside_a_node_that_is_stuck_is_not_doubted():
    machine = Machine()
    machine.block()
    machine.wait(30 * 86400)
    assert machine.clock.doubt() == ""
    machine.block(age=30 * 86400)  # the same one told again, or another old one
    assert machine.clock.doubt() == ""
    assert machine.clock.sure() == machine.true


def test_a_kept_time_far_beyond_a_fresh_block_is_doubted_and_named():
    machine = Machine(kept=TRUE + DECADE)
    machine.block()
    assert "kept from an earlier run" in machine.clock.doubt()
    assert machine.clock.kept_ahead() == DECADE
    assert machine.clock.sure() == TRUE


def test_a_kept_time_that_is_little_ahead_is_believed_and_named_from_a_minute_on():
    machine = Machine(kept=TRUE + 60)
    machine.block()
    assert (machine.clock.doubt(), machine.clock.sure(), machine.clock.kept_ahead()) == ("", TRUE + 60, 60)
    machine.wait(1)
    assert machine.clock.kept_ahead() == 0


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


@pytest.mark.parametrize("text", ["", "x", "-5", "1.5", "1 2", "²", "0x10", "4294967296", "9" * 5000])
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


def test_a_time_that_another_machine_was_sure_of_is_believed_as_one_that_was_kept():
    clock = Clock(Wall(1000), beyond_max=600, elapsed=lambda: 0.0)
    clock.observe(5000, 4000)
    clock.hear(5200)
    assert (clock.now(), clock.sure(), clock.doubt()) == (5200, 5200, "")
    clock.hear(5100)
    assert clock.now() == 5200
    clock.hear(9000)
    assert clock.sure() == 5200 and "beyond the best block" in clock.doubt()
