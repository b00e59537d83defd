"""Aim: two results are put side by side if they can be, and a difference is named only if it is larger than the rounds' spread.
Method: results with given numbers, written as the report writes them."""

import json
from datetime import UTC, datetime

import pytest

from bench.load.compare import BETTER, ONCE, WITHIN, WORSE, Line, compare, load
from bench.load.failure import Failed
from bench.load.measure import Slice
from bench.load.report import Result, as_json
from bench.load.rows import Row
from bench.load.scene import LONG, SHORT, Record

V = 25e-6
MACHINE = {"cpu": "A", "cores": 2, "kernel": "Linux", "python": "3.13", "versions": {"granian": "2.8.9"}, "load_average": 0.0}
LOWER, HIGHER, START = "1", "2a", "10b"


def result(monkeypatch, tmp_path, name, rows=None, verify=V, commit="0123456789ab", size=SHORT, door="own", slower=1, **changes):
    """Write a result whose one slice has the given V, and return its file. rows: values by number; slower: how many times as much
    time and CPU the payments took."""
    record = Record()
    record.granian_door = door
    for seconds in (0.9, 1.0, 1.1):
        cpu = {"workers": 0.4 * slower, "store": 0.1 * slower}
        record.add("granian 128", Slice(10_000, 10_000, seconds * slower, [], cpu, 0.0, verify))
    rows = {LOWER: [1.05, 1.06, 1.07], HIGHER: [0.5, 0.6], START: [0.5]} | (rows or {})
    made = [
        Row(LOWER, "call / V", 1.1, 1.0, rows[LOWER], is_most=True),
        Row(HIGHER, "share", 0.5, 0.6, rows[HIGHER]),
        Row(START, "start", 10, 2, rows[START], is_most=True, unit="s"),
    ]
    monkeypatch.setattr("bench.load.report.percentile", lambda *_: 0.001)
    monkeypatch.setattr(Result, "rows", made)
    measured = Result(record, size, commit, datetime(2026, 1, 2, tzinfo=UTC), 9.0, MACHINE)
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(json.loads(as_json(measured)) | changes))
    return file


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda name, **options: result(monkeypatch, tmp_path, name, **options)


def line_of(report, number):
    return next(line for line in report.splitlines() if line.startswith(f"| {number} |"))


@pytest.mark.parametrize(
    ("a", "b", "is_most", "verdict"),
    [
        ([1.0, 1.2], [1.1, 1.3], True, WITHIN),
        ([1.0, 1.2], [1.2, 1.3], True, WITHIN),
        ([1.0, 1.2], [1.21, 1.3], True, WORSE),
        ([1.0, 1.2], [1.21, 1.3], False, BETTER),
        ([1.0, 1.2], [0.8, 0.9], True, BETTER),
        ([1.0, 1.2], [0.8, 0.9], False, WORSE),
        ([1.0], [2.0, 3.0], False, ONCE),
        ([1.0, 1.0], [2.0], False, ONCE),
    ],
)
def test_a_difference_is_named_when_the_rounds_ranges_do_not_meet(a, b, is_most, verdict):
    assert Line("1", "x", a, b, is_most).verdict == verdict


def test_rows_stand_side_by_side_with_commits_and_doors(make):
    a = make("a", commit="aaaaaaaaaaaa")
    b = make("b", commit="bbbbbbbbbbbb+dirty", rows={LOWER: [1.01, 1.02, 1.03], HIGHER: [0.4, 0.55]}, door="public: it is tried")
    report = compare(a, b)
    assert "| commit | aaaaaaaaaaaa | bbbbbbbbbbbb+dirty |" in report
    assert "| granian's door | own | public: it is tried |" in report
    assert "The doors in granian differ." in report
    assert line_of(report, LOWER) == f"| 1 | call / V | 1.06 (1.05 to 1.07) | 1.02 (1.01 to 1.03) | 0.96 | {BETTER} |"
    assert line_of(report, HIGHER) == f"| 2a | share | 0.55 (0.5 to 0.6) | 0.475 (0.4 to 0.55) | 0.86 | {WITHIN} |"
    assert report.endswith(f"B differs from A by more than the rounds' spread in: 1 {BETTER}.\n")


def test_a_machine_that_is_slower_in_everything_is_no_difference(make):
    """Twice the V, and twice the time for everything."""
    report = compare(make("a"), make("b", verify=2 * V, slower=2, rows={START: [1.0]}))
    assert line_of(report, START) == f"| 10b | start, in V | 20000 | 20000 | 1.00 | {ONCE} |"
    assert f"|  | granian 128 | 2 (2 to 2) | 2 (2 to 2) | 1.00 | {WITHIN} |" in report
    assert f"|  | granian 128 | 0.25 (0.227 to 0.278) | 0.25 (0.227 to 0.278) | 1.00 | {WITHIN} |" in report
    assert report.endswith("No row differs by more than the rounds' spread.\n")


def test_loads_are_compared_in_v(make):
    report = compare(make("a"), make("b", verify=2 * V))
    assert f"|  | granian 128 | 2 (2 to 2) | 1 (1 to 1) | 0.50 | {BETTER} |" in report
    assert f"|  | granian 128 | 0.25 (0.227 to 0.278) | 0.5 (0.455 to 0.556) | 2.00 | {BETTER} |" in report


def test_one_round_tells_nothing(make):
    once = {LOWER: [1.0], HIGHER: [0.5]}
    assert "One round has no spread" in compare(make("a", rows=once), make("b", rows=once))


def test_a_row_of_another_meaning_is_not_compared(make):
    a, b = make("a"), make("b")
    other = json.loads(b.read_text())
    other["rows"][0]["what"] = "another thing"
    other["lacks"] = ["it lacks something"]
    b.write_text(json.dumps(other))
    report = compare(a, b)
    assert "Not in both, or not of the same: 1." in report
    assert "B: it lacks something." in report


def test_results_of_other_sizes_are_refused(make):
    with pytest.raises(Failed, match=r"a.json and .*b.json: are of different sizes \(loaded 50000 and 200000"):
        compare(make("a"), make("b", size=LONG))
    with pytest.raises(Failed, match="one was measured with sync"):
        compare(make("a"), make("b", sync=False))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "is no result"),
        (b'{"rows": []}', "is no result"),
        (b'{"rows": [], "slices": {}, "size": {}}', "form none"),
        (b'{"rows": [], "slices": {}, "size": {}, "format": 99}', "form 99"),
        (b'{"rows": [], "slices": {}, "size": {}, "format": 1}', "is damaged"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path, content, why):
    file = tmp_path / "x.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Failed, match=why) as raised:
        load(file)
    assert str(raised.value).startswith(f"{file}: ") and "\n" not in str(raised.value)


def test_what_was_too_little_to_be_measured_has_no_ratio(make):
    file = make("a")
    content = json.loads(file.read_text())
    content["slices"]["granian 128"].update(cpu_in_v=[0.0])
    file.write_text(json.dumps(content))
    assert "| granian 128 | 0 | 0 |  | measured once |" in compare(file, file)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("verify"),
        lambda content: content.update(verify=0),
        lambda content: content.update(verify="fast"),
        lambda content: content.update(machine=[]),
        lambda content: content.update(lacks=7),
        lambda content: content["rows"].append(5),
        lambda content: content["rows"][0].update(values=[]),
        lambda content: content["rows"][0].update(values=[True, True]),
        lambda content: content["rows"][0].update(values=[float("nan"), 1.0]),
        lambda content: content["rows"][0].pop("unit"),
        lambda content: content["slices"]["granian 128"].pop("cpu_in_v"),
        lambda content: content.update(size=5),
    ],
)
def test_a_damaged_result_is_refused_in_one_line(make, spoil):
    file = make("a")
    content = json.loads(file.read_text())
    spoil(content)
    file.write_text(json.dumps(content))
    with pytest.raises(Failed, match="is damaged") as raised:
        load(file)
    assert "\n" not in str(raised.value)
