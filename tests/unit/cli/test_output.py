"""Aim: what people read is readable, and what programs read is not changed by it. Method: the real functions; tests/process has the
commands."""

import io
import json
from argparse import Namespace

import pytest

from paychan.cli.output import print_error, print_result, utc
from paychan.cli.qr import terminal_qr


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize(("encoding", "is_shown"), [("utf-8", True), ("cp437", True), ("iso-8859-1", False), ("ascii", False)])
def test_a_qr_code_is_shown_where_its_blocks_can_be_encoded(encoding, is_shown):
    assert bool(terminal_qr("bitcoin:address", stream(encoding))) == is_shown


def test_nor_is_there_a_qr_code_without_a_stream():
    assert terminal_qr("bitcoin:address", None) == ""


def test_times_are_utc(monkeypatch):
    assert utc(1795663567) == "2026-11-26 03:26:07 UTC"


def test_people_get_lines_and_programs_one_object(capsys):
    result = {"name": "a", "paid_value": 5, "held": None, "channels": [{"name": "x", "phase": "open"}]}
    print_result(Namespace(json=False), result, "more")
    assert capsys.readouterr().out == "name: a\npaid value: 5\nx  open\nmore\n"
    print_result(Namespace(json=True), result, "more")
    assert json.loads(capsys.readouterr().out) == result


def test_an_error_has_its_code_where_it_has_one(capsys):
    assert print_error(Namespace(json=False), "too_small", "no", 1) == 1
    assert print_error(Namespace(json=False), "", "server.toml: http.port: is missing", 2) == 2
    assert capsys.readouterr().err == "paychan: no (too_small)\npaychan: server.toml: http.port: is missing\n"
    print_error(Namespace(json=True), "", "server.toml: http.port: is missing", 2)
    assert json.loads(capsys.readouterr().err)["exit_status"] == 2
