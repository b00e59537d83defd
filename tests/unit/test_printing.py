"""Aim: what is only said ends nothing; a result that cannot be shown does show in the exit status. Method: broken streams in place
of Python's. tests/process/test_odd_worlds.py does the same with real ones."""

import ast
import errno
import io
import sys

import pytest

from paychan import printing
from paychan.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNPRINTED
from tests.unit.test_layering import SHIPPED, module_name


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.attempts = error, 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise self.error


FULL = OSError(errno.ENOSPC, "No space left on device")
ERRORS = [FULL, BrokenPipeError(errno.EPIPE, "Broken pipe"), ValueError("I/O operation on closed file"), None]


def put(monkeypatch, name: str, error: Exception | None) -> Broken | None:
    """Break a stream, or take it away: a process whose descriptor is closed at its start has none."""
    stream = Broken(error) if error else None
    monkeypatch.setattr(sys, name, stream)
    return stream


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_saying_and_announcing_raise_nothing(monkeypatch, error):
    put(monkeypatch, "stdout", error)
    put(monkeypatch, "stderr", error)
    printing.say("text")
    printing.announce("ready")

    def goes_on() -> int:
        printing.say("text")
        printing.announce("ready")
        return 7

    assert printing.run("paychan", goes_on) == 7


@pytest.mark.parametrize(("error", "status"), [(error, 0 if error is ERRORS[1] else EXIT_UNPRINTED) for error in ERRORS], ids=repr)
def test_a_result_that_cannot_be_shown_is_tried_once_and_shows_in_the_status(monkeypatch, capsys, error, status):
    stream = put(monkeypatch, "stdout", error)
    done = []

    def command() -> int:
        for line in range(1000):
            printing.show(str(line))
        done.append(True)
        return 0

    assert printing.run("paychan", command) == status
    assert done and (stream is None or stream.attempts == 1)
    said = capsys.readouterr().err
    assert said == "" if status == 0 else said.startswith("paychan: standard output cannot be written: ") and said.count("\n") == 1


def test_a_refusal_stays_a_refusal_whatever_becomes_of_the_output(monkeypatch):
    put(monkeypatch, "stdout", FULL)
    assert printing.run("paychan", lambda: printing.show("text") or 5) == 5


def test_one_run_does_not_remember_another(monkeypatch, capsys):
    with monkeypatch.context() as broken:
        put(broken, "stdout", FULL)
        assert printing.run("paychan", lambda: printing.show("text") or 0) == EXIT_UNPRINTED
    assert printing.run("paychan", lambda: printing.show("text") or 0) == 0
    assert capsys.readouterr().out == "text\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [(SystemExit(2), 2), (SystemExit(), 0), (SystemExit("text"), 1), (KeyboardInterrupt(), EXIT_INTERRUPTED)],
    ids=repr,
)
def test_ends_become_statuses(error, status):
    def command() -> int:
        raise error

    assert printing.run("paychan", command) == status


def test_a_bug_is_one_line_that_names_its_kind_and_place_and_no_value(capsys):
    def command() -> int:
        raise KeyError("5Kb8kLf9zgWQnogidDA76MzPL6TsZZY36hWXMssSzNydYXYB69KF")

    assert printing.run("paychan-signer", command) == EXIT_FAILED
    said = capsys.readouterr().err
    assert said.startswith("paychan-signer: internal error: KeyError at ") and said.count("\n") == 1
    assert "test_printing.py:" in said and "5Kb8" not in said


def test_text_beyond_an_encoding_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="strict"))
    assert printing.run("paychan", lambda: printing.show("J\u00fcrgen \udcff") or 0) == 0
    assert raw.getvalue() == b"J\\xfcrgen \\udcff\n"


PRINTERS = {"print", "basicConfig", "StreamHandler"}
HERE_ONLY = {"paychan.printing", "store.peek"}
"""Where standard streams are written to. peek's is a pipe: it is a part of the store that runs as a process of its own."""


def printing_calls(file):
    """Return where a file prints by itself."""
    calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    names = [call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls]
    whole = {ast.unparse(call) for call in calls if isinstance(call, ast.Attribute)}
    written = {f"sys.{stream}.{how}" for stream in ("stdout", "stderr") for how in ("write", "writelines", "buffer.write")}
    return sorted(PRINTERS & set(names) | whole & written)


def test_everything_else_that_is_shipped_prints_through_this_module():
    files = [file for file in SHIPPED if file.suffix == ".py" and module_name(file) not in HERE_ONLY]
    assert files and not [(module_name(file), found) for file in files if (found := printing_calls(file))]
