"""Run our commands in odd surroundings at the price of one start: `python -m tests.process.worlds MODULE..`, rows of JSON on stdin.

A row is {"module", "arguments", "world", "output"}: a child is forked for it, which puts itself into that world and calls the
command's `main` as `python -m MODULE ARGUMENTS` would. What it writes to standard output and error goes to the files OUTPUT.1 and
OUTPUT.2, where the world lets it; its exit status is printed.
"""

import importlib
import json
import os
import pwd
import sys
import unicodedata  # noqa: F401  # urllib imports it when it is first needed, and the stranger may not read the library
from collections.abc import Callable
from typing import Any

import orjson  # noqa: F401  # nor can it begin where the library cannot be read

STRANGER = 54321
"""A user id without an account."""


def to_files(output: str) -> None:
    for number in (1, 2):
        os.dup2(os.open(f"{output}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def to_full(*numbers: int) -> None:
    for number in numbers:
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def to_nobody(*numbers: int) -> None:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    for number in numbers:
        os.dup2(writer, number)


def close(*numbers: int) -> None:
    for number in numbers:
        os.close(number)


def nowhere() -> None:
    """A working directory that was removed."""
    place = f"/tmp/paychan-nowhere-{os.getpid()}"
    os.mkdir(place)
    os.chdir(place)
    os.rmdir(place)


def without_home() -> None:
    """A user without an account or HOME, and nothing in the environment but our own variables: without those, a store of the test's
    configuration would serve the checkout's state directory. Only root can become one; others pretend."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("PAYCHAN_")}
    os.environ.clear()
    os.environ.update(ours)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(STRANGER)
        os.setuid(STRANGER)
    else:
        pwd.getpwuid = _no_account


def _no_account(uid: int) -> Any:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def encoded(encoding: str) -> Callable[[], None]:
    def change() -> None:
        os.environ["PYTHONIOENCODING"] = encoding

    return change


WORLDS: dict[str, Callable[[], None]] = {
    "plain": lambda: None,
    "ascii": encoded("ascii"),
    "stdout full": lambda: to_full(1),
    "stderr full": lambda: to_full(2),
    "stdout's reader gone": lambda: to_nobody(1),
    "both readers gone": lambda: to_nobody(1, 2),
    "stdout closed": lambda: close(1),
    "all closed": lambda: close(0, 1, 2),
    "no home": without_home,
    "nowhere": nowhere,
}


def open_streams() -> None:
    """Make Python's streams as it makes them at its start, of the descriptors that are there."""
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    for number, name, mode, errors in (
        (0, "stdin", "r", "strict"),
        (1, "stdout", "w", "strict"),
        (2, "stderr", "w", "backslashreplace"),
    ):
        is_open = os.path.exists(f"/proc/self/fd/{number}")
        setattr(sys, name, os.fdopen(number, mode, encoding=encoding, errors=errors, closefd=False) if is_open else None)


def child(main: Callable[[], int], row: dict[str, Any]) -> int:
    """Return the exit status, as the interpreter would: one whose output cannot be flushed ends with 120."""
    to_files(row["output"])
    WORLDS[row["world"]]()
    open_streams()
    sys.argv = [row["module"], *(os.fsdecode(bytes.fromhex(argument)) for argument in row["arguments"])]
    try:
        status = main()
    except SystemExit as ending:
        status = ending.code
    except BaseException:
        status = 1
        sys.excepthook(*sys.exc_info())
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return 120
    return status if isinstance(status, int) else 1


def run() -> None:
    modules = {name: f"{name}.{'__main__' if name == 'paychan' else 'serving'}" for name in sys.argv[1:]}
    mains = {name: importlib.import_module(module).main for name, module in modules.items()}
    for line in sys.stdin:
        row = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(child(mains[row["module"]], row))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    run()
