"""Aim: the fuzzer runs on every parser, reaches what there is, and would notice. Method: some inputs for each target (the full
run is
`python -m tests.fuzz.run`), and parsers broken on purpose."""

import shutil
import sysconfig

import pytest

from paychan._fast import group
from paychan.core import channel
from tests.fuzz import calls, run
from tests.fuzz.breaks import is_found

compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
pytestmark = pytest.mark.skipif(shutil.which(compiler) is None, reason="needs the C compiler that builds the extensions")

IN_THE_SUITE = ("the last length counts", "money held may fall")
"""Of the slips: each is a compilation. `python -m tests.fuzz.breaks` tries all."""


def test_a_short_run_breaks_nothing(capfd):
    assert run.main(["--short", "--seed", "3"]) == 0
    assert "0 targets broken" in capfd.readouterr().out


@pytest.mark.parametrize("name", IN_THE_SUITE)
def test_a_slip_is_found(name, tmp_path):
    assert is_found(name, tmp_path)


# The Python ones: the slip is made here, and the target called until it notices.


def test_a_slip_in_a_message_is_found(monkeypatch):
    slip = (lambda payload: [payload[:36]], b"".join)  # what follows the first outpoint is dropped
    monkeypatch.setattr(calls, "MESSAGES", [*calls.MESSAGES[:4], slip, *calls.MESSAGES[5:]])
    with pytest.raises(AssertionError):
        calls.message_target({})(bytes((4,)) + bytes(37), 0)


def test_a_slip_in_a_terms_record_is_found(monkeypatch):
    record = calls.TERMS.serialize()
    monkeypatch.setattr(channel.ChannelTerms, "serialize", lambda self: record[:-1])
    with pytest.raises(AssertionError):
        calls.record_target({"group": group})(record, 0)


@pytest.mark.parametrize(
    "text", [b"\0a = " + b"9" * 5000, b"\0a = " + b"[" * 3000, b'\0network = "test"\nstate_dir = "x"\n"a\\nb" = 1\n']
)
def test_what_the_fuzzer_found_in_configurations_stays_found(text):
    """A number of 5000 digits and deep nesting ended in a traceback; an unknown key could make a complaint of two lines."""
    calls.config_target({})(text, 0)
