"""What our programs print. Nothing that is only said ends a process, no text is too strange for a terminal, and a program that
ends badly says so in one line.

`say` is for people, on standard error; `announce` is for who waits for a line of standard output; `show` prints what a command was
asked for. Whatever cannot be written is lost; if it was a command's result, its exit status tells.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from .exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNPRINTED

_unprinted: list[Exception] = []
"""Why results could not be written, the first reason first."""


def say(text: str) -> None:
    """Write a line to standard error, or lose it."""
    _write(sys.stderr, f"{text}\n")


def announce(text: str) -> None:
    """Write a line to standard output, or lose it: the process goes on, and its exit status does not tell."""
    if _write(sys.stdout, f"{text}\n"):
        _drop_unwritten(sys.stdout)


def show(text: str, end: str = "\n") -> None:
    """Write a command's result to standard output. If that fails, nothing more is written, and `run` says so in the end."""
    if not _unprinted and (why := _write(sys.stdout, text + end)):
        _unprinted.append(why)


def run(name: str, command: Callable[[], int]) -> int:
    """Run a command that is all that this process is for; return its exit status. name: what its last words begin with."""
    _unprinted.clear()
    _open_missing()
    _unbuffer_stderr()
    if hasattr(sys.stdout, "reconfigure"):  # standard error is so already
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command()
    except SystemExit as ending:  # argparse's, or of a signal's handler
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except Exception as error:
        say(f"{name}: internal error: {type(error).__name__} at {place_of(error.__traceback__)}; please report it")
        status = EXIT_FAILED
    return _finish(name, status)


def place_of(trace: TracebackType | None) -> str:
    """Return where an error came from, FILE:LINE. An error's text could hold what must not be shown; its place does not."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "nowhere"


def _write(stream: TextIO | None, text: str) -> Exception | None:
    """Return why it could not be done, or None."""
    if stream is None:  # closed before we began
        return OSError(errno.EBADF, os.strerror(errno.EBADF))
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:
        return error
    return None


def _open_missing() -> None:
    """Have something behind descriptors 0 to 2. The next file that is opened would take their place, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free


class _LosingStream(io.TextIOWrapper):
    """Loses what cannot be written: argparse up to Python 3.11.2 does not expect anything else."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)


def _unbuffer_stderr() -> None:
    """Have a standard error that keeps nothing back: what a full disk refused would be tried again whenever anybody flushes it, as
    multiprocessing does before each fork, and that would not happen. And have one at all: argparse writes to it without a look."""
    if not sys.stderr or sys.stderr is sys.__stderr__:  # none, or the interpreter's own
        encoding = sys.stderr.encoding if sys.stderr else None
        raw = io.FileIO(2, "w", closefd=False)
        sys.stderr = _LosingStream(raw, encoding, "backslashreplace", write_through=True)


def _drop_unwritten(stream: TextIO | None) -> Exception | None:
    """Leave nothing for the interpreter to write at its end, when its failure would become the exit status. Return that failure."""
    if stream is None:
        return None
    try:
        stream.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            stream.flush()
        return error
    return None


def _finish(name: str, status: int) -> int:
    """Return the status that tells what became of the output, too. A reader who went away has seen enough."""
    unflushed = _drop_unwritten(sys.stdout)
    why = _unprinted[0] if _unprinted else unflushed
    if why is not None and not isinstance(why, BrokenPipeError):
        say(f"{name}: standard output cannot be written: {why.strerror if isinstance(why, OSError) else why}")
        status = status or EXIT_UNPRINTED
    _drop_unwritten(sys.stderr)
    return status
