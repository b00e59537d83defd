"""The commands beside the store: check, audit, backup, restore. They print for an operator and return an exit status."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from paychan.core.settlement import verify_payment
from paychan.parts import require_cluster
from paychan.printing import say, show
from paychan.settings.load import load_store_config
from paychan.settings.models import PostgresConfig

from .backup import BackupError, backup_store, restore_store, write_backup
from .check import Report, Verify, check_records, check_store
from .directory import hold_lock

if TYPE_CHECKING:
    from .engines.postgres.records import PostgresRecords

EXIT_PROBLEMS = 1
EPILOG = """exit statuses: 0 done, and no problem was found; 1 problems, or a failure, in one line on standard error;
  2 wrong usage; 10 done, but the result could not be written to standard output"""


def check(state_dir: str, verify: Verify | None = None) -> int:
    """Exit status 0: no problems."""
    config = _postgres_in(state_dir)
    if config is not None:
        report = _check_postgres(config, verify)
    else:
        directory = _store_in(state_dir)
        with hold_lock(directory, str(directory)):
            report = check_store(directory / "db", verify)
    show("\n".join(report.lines()))
    return EXIT_PROBLEMS if report.problem_count else 0


def audit(state_dir: str) -> int:
    """The same, and whether each channel leaves its payer what the payer has signed."""
    return check(state_dir, verify_payment)


def backup(state_dir: str, target: str) -> int:
    config = _postgres_in(state_dir)
    if config is not None:
        with _postgres_records(config) as records:
            count = write_backup(records, Path(target))
    else:
        count = backup_store(_store_in(state_dir) / "db", Path(target))
    show(f"{count} records in {target}")
    return 0


def restore(source: str, state_dir: str) -> int:
    if _postgres_in(state_dir) is not None:
        require_cluster("paychan-store")
        from .engines.postgres import restoring

        report = restoring.restore(Path(source), load_store_config(Path(state_dir) / "store.toml"))
    else:
        report = restore_store(Path(source), Path(state_dir))
    show("\n".join(report.lines()))
    show("every channel's funding output is looked at on the chain before it takes a payment")
    return 0


def _postgres_in(place: str) -> PostgresConfig | None:
    """Return where the data is if `place` is a directory of configurations, and its store keeps its data in PostgreSQL."""
    file = Path(place) / "store.toml"
    return load_store_config(file).postgres if file.is_file() else None


@contextmanager
def _postgres_records(config: PostgresConfig) -> "Iterator[PostgresRecords]":
    require_cluster("paychan-store")
    from .engines.postgres.records import PostgresRecords

    records = PostgresRecords.snapshot(config)
    try:
        yield records
    finally:
        records.close()


def _check_postgres(config: PostgresConfig, verify: Verify | None) -> Report:
    with _postgres_records(config) as records:
        report = check_records(records, verify)
        for line in records.mismatched:
            report.complain(line)
    return report


def _store_in(state_dir: str) -> Path:
    directory = Path(state_dir) / "store"
    if (directory / "postgres").exists():
        raise BackupError(f"{state_dir} belongs to a store on PostgreSQL; give the directory that has its store.toml")
    if not (directory / "db").is_dir():
        raise BackupError(f"{state_dir} holds no store; give the directory that state_dir names")
    return directory


class Command(NamedTuple):
    """function(*arguments): returns an exit status. about: what it does, for people."""

    function: Callable[..., int]
    arguments: tuple[str, ...]
    about: str


COMMANDS = {
    "check": Command(check, ("DIR",), "check the store in the state directory DIR, which no store may use; changes nothing"),
    "audit": Command(audit, ("DIR",), "the same, and check each newest payment's signature: some 100 us a channel"),
    "backup": Command(backup, ("DIR", "FILE"), "write the store in DIR to the new file FILE; the store may run"),
    "restore": Command(restore, ("FILE", "DIR"), "make a store in DIR, which has none, from a backup"),
}
_ARGUMENTS = {"DIR": "the directory that state_dir names; on PostgreSQL the one with store.toml", "FILE": "the backup"}
USAGE = "\n       ".join(["%(prog)s FILE", *(f"%(prog)s {name} {' '.join(row.arguments)}" for name, row in COMMANDS.items())])
SUMMARY = "\n".join(f"  {name:<8} {row.about}" for name, row in COMMANDS.items())


def run(name: str, arguments: list[str]) -> int:
    """Run a command; what goes wrong is one line on standard error and status 1."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"paychan-store {name}",
        description=f"{command.about[0].upper()}{command.about[1:]}.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for place, argument in enumerate(command.arguments):
        parser.add_argument(str(place), metavar=argument, help=_ARGUMENTS[argument])
    given = vars(parser.parse_args(arguments))
    try:
        return command.function(*(given[str(place)] for place in range(len(command.arguments))))
    except Exception as error:  # rocksdict has no narrower type
        say(f"paychan-store {name}: {' '.join(str(error).split())}")
        return EXIT_PROBLEMS
