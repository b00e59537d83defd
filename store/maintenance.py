"""The commands beside the store: check, audit, backup, restore. They print for an operator and return an exit status."""

import sys
from pathlib import Path

from paychan.core.settlement import verify_payment

from .backup import BackupError, backup_store, restore_store
from .check import Verify, check_store
from .directory import hold_lock

USAGE = """usage: paychan-store FILE                run the store with the configuration in FILE
       paychan-store check DIR           check the store in the state directory DIR, which no store may use; changes nothing
       paychan-store audit DIR           the same, and check each newest payment's signature: some 100 us a channel
       paychan-store backup DIR FILE     write the store in DIR to the new file FILE; the store may run
       paychan-store restore FILE DIR    make a store in DIR, which has none, from a backup"""
EXIT_PROBLEMS = 1


def check(state_dir: str, verify: Verify | None = None) -> int:
    """Exit status 0: no problems."""
    directory = _store_in(state_dir)
    with hold_lock(directory, str(directory)):
        report = check_store(directory / "db", verify)
    for line in report.lines():
        print(line)
    return EXIT_PROBLEMS if report.problem_count else 0


def audit(state_dir: str) -> int:
    """The same, and whether each channel leaves its payer what the payer has signed."""
    return check(state_dir, verify_payment)


def backup(state_dir: str, target: str) -> int:
    count = backup_store(_store_in(state_dir) / "db", Path(target))
    print(f"{count} records in {target}")
    return 0


def restore(source: str, state_dir: str) -> int:
    report = restore_store(Path(source), Path(state_dir))
    for line in report.lines():
        print(line)
    print("every channel's funding output is looked at on the chain before it takes a payment")
    return 0


def _store_in(state_dir: str) -> Path:
    directory = Path(state_dir) / "store"
    if not (directory / "db").is_dir():
        raise BackupError(f"{state_dir} holds no store; give the directory that state_dir names")
    return directory


COMMANDS = {"check": (check, 1), "audit": (audit, 1), "backup": (backup, 2), "restore": (restore, 2)}
"""By name: the function and how many arguments it takes."""


def run(arguments: list[str]) -> int:
    """Run a command; what goes wrong is one line on standard error and status 1."""
    function, _ = COMMANDS[arguments[0]]
    try:
        return function(*arguments[1:])
    except Exception as error:  # rocksdict has no narrower type
        print(f"paychan-store {arguments[0]}: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_PROBLEMS


def is_call(arguments: list[str]) -> bool:
    """Return whether the arguments name a command and bring what it takes."""
    return len(arguments) > 1 and arguments[0] in COMMANDS and len(arguments) - 1 == COMMANDS[arguments[0]][1]
