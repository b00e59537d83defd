"""Aim: the table of known ways to lose money stays true. Method: each break is applied to its file's text and must fit exactly
once, the tests that it names must exist, docs/THREATS.md must say what the table says; some breaks are tried for real.
"""

import ast
import functools
import os
import stat

import pytest

from .document import PATH, ROW, evidence
from .run import caught_by
from .scratch import ROOT, CannotApply, CannotRun, break_file, copied_tree, replaced, run_tests
from .table import BREAKS, NOT_APPLICABLE, Break

IDS = (
    *(f"O{number}" for number in range(1, 19)),
    *(f"A{number}" for number in range(1, 15)),
    *(f"B{number}" for number in range(1, 19)),
    *(f"C{number}" for number in range(1, 7)),
    "D",
    *(f"E{number}" for number in range(1, 15)),
    *(f"F{number}" for number in range(1, 9)),
    *(f"R{number}" for number in range(1, 20)),
    *(f"S{number}" for number in range(1, 9)),
    *(f"M{number}" for number in range(1, 8)),
    *(f"L{number}" for number in range(1, 5)),
    *(f"P{number}" for number in range(1, 10)),
    *(f"X{number}" for number in range(1, 7)),
    *(f"V{number}" for number in range(1, 7)),
    *(f"G{number}" for number in range(1, 8)),
    *(f"N{number}" for number in range(1, 6)),
    *(f"T{number}" for number in range(1, 6)),
    *(f"J{number}" for number in range(1, 9)),
    *(f"K{number}" for number in (*range(1, 11), *range(20, 26))),
    *(f"Q{number}" for number in range(1, 10)),
    *(f"Y{number}" for number in range(1, 8)),
    *(f"Z{number}" for number in range(1, 6)),
    *(f"W{number}" for number in range(1, 6)),
    *(f"H{number}" for number in range(1, 7)),
    *(f"I{number}" for number in range(1, 10)),
    *(f"U{number}" for number in range(1, 6)),
)
TRIED = ("a settlement that was begun", "a channel opens for less than its price")
REFUND = "tests/unit/core/test_refund.py::test_refund_waits_for_the_expiry"
HARMLESS = Break((), "nothing", "paychan/core/units.py", "COIN = 100_000_000", "COIN = 100_000_000 + 0", (REFUND,))


@functools.cache
def functions(file: str) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, kinds)}


def exists(test: str) -> bool:
    file, _, name = test.partition("::")
    return (ROOT / file).is_file() and name in functions(file)


@pytest.mark.parametrize("row", BREAKS, ids=lambda row: f"{row.ids[0]}: {row.what}")
def test_each_break_fits_exactly_once_and_its_tests_exist(row):
    replaced((ROOT / row.file).read_text(), row.right, row.wrong, row.file)
    assert row.tests and [test for test in row.tests if not exists(test)] == []


def test_each_threat_has_a_break_or_a_reason_and_none_has_both():
    broken = {name for row in BREAKS for name in row.ids}
    assert broken | set(NOT_APPLICABLE) == set(IDS)
    assert broken & set(NOT_APPLICABLE) == set()


def test_the_document_says_what_the_table_says():
    rows = ROW.findall(PATH.read_text())
    assert [name for name, _, _ in rows] == list(IDS)
    assert [name for name, _, told in rows if told != evidence(name)] == []


def test_a_checkout_in_use_can_be_copied(tmp_path):
    """./runEverything.sh leaves its sockets behind, in a state directory that may lie anywhere."""
    for name in ("kept/file", "state/debug/clock", "elsewhere/run/kept"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    os.mknod(tmp_path / "elsewhere" / "run" / "signer.sock", stat.S_IFSOCK | 0o600)  # bind takes no path as long as this may be
    os.mkfifo(tmp_path / "kept" / "pipe")
    (tmp_path / "kept" / "secret").touch(mode=0o000)
    (tmp_path / "kept" / "link").symlink_to("file")
    with copied_tree(root=tmp_path) as place:
        found = {str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir()}
    assert found - {"kept/secret"} == {"kept/file", "kept/link", "elsewhere/run/kept"}  # root may read everything


@pytest.mark.parametrize("what", TRIED)
def test_a_break_is_caught(what):
    (row,) = (row for row in BREAKS if what in row.what)
    assert caught_by(row) == []


def test_a_break_that_no_test_sees_is_told():
    (problem,) = caught_by(HARMLESS)
    assert problem.endswith("1 passed, 0 failed")


def test_a_break_that_does_not_fit_is_told():
    for text in ("", "ab ab"):
        with pytest.raises(CannotApply):
            replaced(text, "ab", "cd", "here")
    with pytest.raises(CannotApply):
        replaced("ab", "ab", "ab", "here")


def test_what_fails_for_another_reason_is_not_taken_for_caught():
    with copied_tree(to_build=False) as place:
        break_file(place, "paychan/core/refund.py", "def sign_refund", "def sign_no_refund")
        with pytest.raises(CannotRun, match="collection"):
            run_tests(place, HARMLESS.tests)
