"""What keeps a measurement from its numbers."""

from collections.abc import Callable

from tests.system import wait_until


class Failed(Exception):
    """Said in one line; the command ends with status 1."""


class WrongAnswer(Failed):
    """A server's answer was not what it must be: whatever was measured is worth nothing."""


def await_(is_true: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `is_true()`. Raises Failed, naming `what`, if it takes far longer than `seconds`."""
    try:
        wait_until(is_true, seconds, what)
    except AssertionError as error:
        raise Failed(str(error)) from error
