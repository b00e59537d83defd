"""Aim: the load run does not rot, and ends in one line where it cannot measure. Method: its tiny form, on real processes; what the
numbers are is not looked at."""

import json
import math
import os
import re
import resource
import subprocess
import sys

import pytest

from bench.load import machines
from bench.load.cores import NO_RANK, ONE_CORE, Apart
from bench.load.provenance import commit
from tests.system import ROOT, make_config

TLS = ["6b"] if machines.is_possible() else []
NUMBERS = ["1", "2a", "2b", "2c", "2d", "3a", "3b", "4", "5", "6", *TLS, "7a", "7b", "7c", "8a", "8b", "9", "10a", "10b", "11"]
NUMBERS += ["12a", "12b", "13a", "13b", "14a", "14b"]
PLOTS = ("throughput", "latency")


def bench(*arguments, seconds=900, **options):
    argv = [sys.executable, "-m", "bench.load", *map(str, arguments)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=seconds, **options)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny run that is published: its directory, and what it printed."""
    directory = tmp_path_factory.mktemp("tiny")
    result = bench("--tiny", "--publish", "--results", directory, "--json", directory / "copy")
    assert result.returncode == 0, result.stderr
    return directory, result.stdout


def test_every_row_gets_a_number(tiny):
    directory, _ = tiny
    content = json.loads((directory / "latest.json").read_text())
    assert [row["number"] for row in content["rows"]] == NUMBERS
    assert all(math.isfinite(row["median"]) for row in content["rows"])
    # So few channels may find room in memory that the worker had already.
    assert all(row["median"] > 0 for row in content["rows"] if row["number"] != "10a")


def test_a_result_names_its_commit_and_granians_door(tiny):
    directory, report = tiny
    content = json.loads((directory / "latest.json").read_text())
    assert content["commit"].removesuffix("+dirty") == commit().removesuffix("+dirty")
    assert f"commit `{content['commit']}`" in report
    assert re.match("own$|public: .", content["granian_door"])
    assert f"our door in granian: {content['granian_door']}" in report


def test_a_result_is_kept_by_its_commit_and_published_when_told(tiny):
    directory, printed = tiny
    content = json.loads((directory / "latest.json").read_text())
    (own,) = directory.glob(f"{content['commit']}-*.json")
    assert own.read_bytes() == (directory / "latest.json").read_bytes() == (directory / "copy").read_bytes()
    for name in (own.stem, "latest", "published"):
        report = (directory / f"{name}.md").read_text()
        assert all(f"| {number} |" in report for number in NUMBERS)
        for plot in PLOTS:
            assert f"({name}-{plot}.png)" in report
            assert (directory / f"{name}-{plot}.png").stat().st_size > 5000
    assert printed == (directory / f"{own.stem}.md").read_text() + "\n"


def test_a_real_result_is_compared_with_itself(tiny):
    directory, _ = tiny
    result = bench("--compare", directory / "latest.json", directory / "published.json")
    assert result.returncode == 0, result.stderr
    for number in NUMBERS:
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"| {number} |")]
        assert line.endswith(("| 1.00 | measured once |", "| 0 | 0 |  | measured once |"))  # so little is loaded here


def test_the_report_says_what_the_open_loop_lacked(tiny):
    """What this user may have, and what the report says of it, are one."""
    directory, report = tiny
    apart = Apart({})
    with apart:
        pass
    assert json.loads((directory / "latest.json").read_text())["lacks"] == apart.lacks
    for lack in (ONE_CORE, NO_RANK):
        assert (f"Not as it should be: {lack}." in report) == (lack in apart.lacks)
    assert ("all three before everybody else's threads" in report) == (not apart.lacks)


def test_without_the_right_to_go_first_a_user_has_a_core_apart_and_a_note(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    placed = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: placed.append(cores))
    apart = Apart({"workers": [os.getpid()]})
    with apart:
        assert {0} in placed and {1} in placed
    assert apart.lacks == [NO_RANK]
    assert placed[-1] == {0, 1}


def test_on_one_core_nothing_is_moved_and_a_note_says_so(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    for call in ("sched_setscheduler", "sched_setaffinity"):
        monkeypatch.setattr(os, call, None)
    apart = Apart({"workers": [os.getpid()]})
    with apart:
        assert apart.lacks == [ONE_CORE]


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["--rounds", "0"], 2, "'0' is no positive count"),
        (["--rounds", "-1"], 2, "no positive count"),
        (["--tiny", "--long"], 2, "not allowed with"),
        (["--compare", "nowhere.json"], 2, "expected 2 arguments"),
        (["--compare", "nowhere.json", "nowhere.json"], 1, "bench/run.sh: nowhere.json: No such file or directory"),
        (["--compare", "README.md", "README.md"], 1, "bench/run.sh: README.md: is no JSON"),
    ],
)
def test_a_wrong_command_ends_in_one_line(arguments, status, why):
    result = bench(*arguments)
    assert result.returncode == status
    assert result.stdout == ""
    assert why in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_place_for_results_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    result = bench("--tiny", "--results", tmp_path / "file" / "results")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"bench/run.sh: {tmp_path}/file/results: Not a directory\n"


def test_a_server_that_does_not_start_ends_it_in_one_line(tmp_path):
    """Too few files may be open: the first process that needs more ends."""
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))  # noqa: E731
    result = bench("--tiny", "--results", tmp_path, preexec_fn=few)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.match(r"bench/run\.sh: \w+ ended with status \d+: .*", result.stderr.splitlines()[-1])
    assert not list(tmp_path.iterdir())


def test_a_store_is_populated_and_what_is_wrong_is_said_in_one_line(tmp_path):
    config = make_config(tmp_path / "config")

    def populate(directory, *more):
        env = {**os.environ, "PAYCHAN_STATE_DIR": str(tmp_path / "state")}
        argv = [sys.executable, "-m", "bench.load.populate", str(directory), "--channels", "50", *more]
        return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)

    done = populate(config)
    assert re.fullmatch(r"50 channels in \d+ s\n", done.stdout), done.stderr
    for result, why in (
        (populate(tmp_path / "nowhere"), "store.toml: cannot be read"),
        (populate(config), "the store refused an update"),
        (populate(config, "--channels", "0"), "'0' is no positive count"),
        (populate(ROOT / "config" / "live"), ""),
    ):
        assert result.returncode in (1, 2) and result.stdout == ""
        assert why in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("module", "arguments", "why"),
    [
        ("bench.load", ["--tiny"], "./bench/run.sh builds and installs what is needed"),
        ("bench.load", ["--compare", "a", "b"], "bench/run.sh: a: No such file or directory"),
        ("bench.pay_channels", ["1", "1", "localhost:1"], "./bench/run.sh builds what is needed"),
    ],
)
def test_a_checkout_that_is_not_built(module, arguments, why):
    program = f"""
import runpy, sys
sys.modules["paychan._fast"] = sys.modules["bench.load.client"] = None  # cannot be imported
sys.argv[1:] = {arguments}
runpy.run_module({module!r}, run_name="__main__")
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (result.returncode, result.stdout) == (1, "")
    assert why in result.stderr and len(result.stderr.splitlines()) == 1
