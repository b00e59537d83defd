"""A pytest plugin (`-p tests.defects.verdicts`): writes what became of each test to the file that PAYCHAN_VERDICTS names.

One JSON object for each test that was run or could not be: its node id, whether it passed, and in which phase and by which kind of
exception it failed. A test that fails its claim does so by an AssertionError, or by pytest's own `Failed`, in its call.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest


def _kinds(error: BaseException) -> set[str]:
    """Return the names of what was raised: of a group, those in it."""
    if isinstance(error, BaseExceptionGroup):
        return {name for inner in error.exceptions for name in _kinds(inner)}
    if isinstance(error, AssertionError | pytest.fail.Exception):
        return {"assertion"}
    return {type(error).__name__}


def _write(node_id: str, phase: str, outcome: str, kinds: set[str]) -> None:
    with open(os.environ["PAYCHAN_VERDICTS"], "a") as file:
        file.write(json.dumps({"test": node_id, "phase": phase, "outcome": outcome, "kinds": sorted(kinds)}) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    if report.when == "call" or report.outcome != "passed":
        _write(item.nodeid, report.when, report.outcome, _kinds(call.excinfo.value) if call.excinfo else set())
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _write(report.nodeid, "collect", "failed", {"collection"})
