"""What keeps a measurement from its numbers, and what the benches' commands have in common."""

import argparse
from collections.abc import Callable
from pathlib import Path


class Failed(Exception):
    """Said in one line; the command ends with status 1."""


class WrongAnswer(Failed):
    """A server's answer was not what it must be: whatever was measured is worth nothing."""


def await_(is_true: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `is_true()`. Raises Failed, naming `what`, if it takes far longer than `seconds`."""
    from tests.system import wait_until  # needs what is compiled, and who only says that it failed does not

    try:
        wait_until(is_true, seconds, what)
    except AssertionError as error:
        raise Failed(str(error)) from error


def last_line(log: Path) -> str:
    """Return the last thing that a process said, empty if it said nothing."""
    said = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(said) if line.strip()), "")


def positive(text: str) -> int:
    """Return the whole number above 0 that an argument is. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive count")
    return int(text)
