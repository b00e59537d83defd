"""`paychan-store migrate FROM TO`: moves a store to another place, from this machine's disk to PostgreSQL or back.

At every moment at most one of the two is started, whatever ends the command: a place with a mark (moved.py) is not, and

    1. TO is marked "from FROM",
    2. FROM is marked "to TO",
    3. TO is filled with what FROM has, checked, and compared with it record by record,
    4. TO's mark is removed.

So the truth is at FROM until 4 is done, and said again the command begins anew with 3. Said the other way round before 4 it gives
up: the mark of 2 is removed. After 4 that is a move like any other, and what is left where the store was is written over.

Epochs go up by EPOCHS_SKIPPED on the way, as in a restore: nothing that was given out before is accepted afterwards.
"""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

from paychan.core.errors import ConfigError
from paychan.durable import sync_directory
from paychan.exits import status_of
from paychan.parts import require_cluster
from paychan.printing import say, show
from paychan.settings.load import load_store_config
from paychan.settings.models import StoreConfig

from . import keys
from .backup import BackupError, acknowledged_records, fill
from .check import Records, Report, StoredRecords, check_records
from .directory import hold_directory, need_embedded
from .identity import Identity, hold_against
from .mark import path_of
from .moved import FROM, TO, Moved, read_mark, write_mark

EXIT_PROBLEMS = 1
GROWING = "arriving"


class Place(Protocol):
    """Where a store is, or will be. Made with the lock of its directory held."""

    name: str
    """The directory of its configuration."""

    config: StoreConfig

    def holds_store(self) -> bool:
        """Return whether there is a store, whatever its mark."""

    def mark(self) -> Moved | None: ...

    def set_mark(self, mark: Moved) -> None:
        """On return no store starts here, and none that runs writes any more."""

    def records(self) -> AbstractContextManager[Records]:
        """Give all records of this moment. For a place with a mark."""

    def fill(self, source: Records) -> Report:
        """Put in what `source` has, instead of what is there; return what a check says. It stays marked, and has all or nothing.
        Raises BackupError if it is not the same afterwards."""

    def start(self) -> None:
        """Remove the mark: what was filled in is the store."""


class Embedded:
    """A `Place`: RocksDB in a state directory."""

    def __init__(self, name: str, config: StoreConfig, database: Path) -> None:
        self.name, self.config, self._database = name, config, database
        self._directory, self._growing = database.parent, database.with_name(GROWING)

    def holds_store(self) -> bool:
        return self._database.exists()

    def mark(self) -> Moved | None:
        return read_mark(self._directory)

    def set_mark(self, mark: Moved) -> None:
        write_mark(self._directory, mark)

    @contextmanager
    def records(self) -> Iterator[Records]:
        with acknowledged_records(self._database) as records:
            yield records

    def fill(self, source: Records) -> Report:
        shutil.rmtree(self._growing, ignore_errors=True)
        path_of(self._growing).unlink(missing_ok=True)
        fill(self._growing, source.walk(b""), {})
        with closing(StoredRecords(self._growing)) as records:
            report = check_records(records)
            compare(source, records)
        return report

    def start(self) -> None:
        mark = self.mark()
        if mark is not None and mark.way == FROM and self._growing.exists():  # else what was here is the store again
            shutil.rmtree(self._database, ignore_errors=True)
            path_of(self._growing).replace(path_of(self._database))
            self._growing.rename(self._database)
            sync_directory(self._directory)
        write_mark(self._directory, None)


def compare(source: Records, target: Records) -> None:
    """Raise BackupError unless both have the same records. Epochs must have gone up; sums of nothing may be missing."""
    ours, theirs = _comparable(source), _comparable(target)
    for pair in ours:
        if (found := next(theirs, None)) != pair:
            raise BackupError(f"what has arrived is not what was sent: {pair[0].hex()} became {found and found[0].hex()}")
    if (more := next(theirs, None)) is not None:
        raise BackupError(f"more has arrived than was sent: {more[0].hex()}")
    for name in (keys.UNSETTLED, keys.OPEN_SPENT):
        before, after = (_sum(name, records) for records in (source, target))
        if before != after:
            raise BackupError(f"the sums differ: {before} satoshi were sent, {after} have arrived")
    arrived = dict(target.walk(keys.EPOCH))
    for key, value in source.walk(keys.EPOCH):
        if keys.decode_epoch(arrived.get(key)) <= keys.decode_epoch(value):
            raise BackupError(f"the epoch of lease {int.from_bytes(key[1:], 'big')} has not gone up")


def _comparable(records: Records) -> Iterator[tuple[bytes, bytes]]:
    own = (keys.UNSETTLED, keys.OPEN_SPENT)
    return (pair for pair in records.walk(b"") if pair[0][:1] != keys.EPOCH and pair[0] not in own)


def _sum(name: bytes, records: Records) -> tuple[int, ...]:
    (value,) = records.get([name])
    return tuple(keys.decode_unsettled(value)) if name == keys.UNSETTLED else (keys.decode_spent(value),)


def migrate(source: Place, target: Place) -> list[str]:
    """Move, go on with a move, or give up the one the other way round. Return lines that say what was done. Raises BackupError if
    neither is to be done, or it did not work; what engines raise."""
    at_source, at_target = source.mark(), target.mark()
    if at_source == Moved(FROM, target.name) and at_target in (None, Moved(TO, source.name)) and target.holds_store():
        if at_target is not None:
            target.start()
        return [f"given up: the store is in {target.name} as before"]
    if at_source == Moved(TO, target.name) and at_target is None and target.holds_store():
        return [f"done already: the store is in {target.name}"]
    if at_source not in (None, Moved(TO, target.name)):
        raise BackupError(f"{source.name}: {at_source.why_not(Path(source.name))}")
    if not source.holds_store():
        raise BackupError(f"{source.name} holds no store")
    if at_target is None and target.holds_store():
        raise BackupError(f"{target.name} holds a store already")
    if at_target not in (None, Moved(FROM, source.name), Moved(TO, source.name)):
        raise BackupError(f"{target.name}: {at_target.why_not(Path(target.name))}")
    if at_source is not None and at_target == Moved(TO, source.name):
        raise BackupError(f"{source.name} and {target.name} both say that the store is at the other")
    report = _move(source, target)
    return [*report.lines(), f"moved: the store is in {target.name}; back: paychan-store migrate {target.name} {source.name}"]


def _move(source: Place, target: Place) -> Report:
    with source.records() as records:
        (identity,) = records.get([keys.IDENTITY])
    stored = Identity.decode(identity or b"")
    hold_against(stored, target.config, target.config.server_pubkey or stored.server_pubkey)
    target.set_mark(Moved(FROM, source.name))
    source.set_mark(Moved(TO, target.name))
    try:
        with source.records() as records:
            report = target.fill(records)
        if report.problem_count:
            raise BackupError(f"the store is not consistent: {report.problems[0]}")
        target.start()
    except Exception as error:
        on = f"it is in {source.name} still: say this again, or give it up by paychan-store migrate {target.name} {source.name}"
        raise BackupError(f"{error}; {on}") from error
    return report


# --- the command ---


def run(arguments: list[str]) -> int:
    """Run the command; what goes wrong is one line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        with ExitStack() as stack:
            source, target = (_open(stack, directory, options) for directory in (options.source, options.target))
            if source.config.common.state_dir.absolute() == target.config.common.state_dir.absolute():
                raise ConfigError(f"{target.config.common.source}: state_dir: is the other's, too; give it one of its own")
            show("\n".join(migrate(source, target)))
    except ConfigError as error:
        say(f"paychan-store migrate: {error}")
        return status_of(error)
    except Exception as error:  # rocksdict has no narrower type
        say(f"paychan-store migrate: {' '.join(str(error).split()) or type(error).__name__}")
        return EXIT_PROBLEMS
    return 0


def _open(stack: ExitStack, directory: Path, options: argparse.Namespace) -> Place:
    config = load_store_config(directory / "store.toml")
    database = stack.enter_context(hold_directory(config))
    if config.postgres is None:
        need_embedded(config, database)
        return Embedded(str(directory.absolute()), config, database)
    require_cluster("paychan-store migrate")
    from .engines.postgres.moving import Database

    return stack.enter_context(closing(Database(str(directory.absolute()), config, database, options.admin, options.host, compare)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paychan-store migrate",
        description="Move a store to another place: from this machine's disk to PostgreSQL, or back. Said again it goes on with "
        "what was interrupted; said the other way round it goes back. Stop the system before.",
        epilog="exit statuses: 0 done; 1 a failure, in one line on standard error; 2 wrong usage or configuration",
    )
    parser.add_argument("source", metavar="FROM", type=Path, help="the directory with the store.toml of where the store is")
    parser.add_argument("target", metavar="TO", type=Path, help="the directory with the store.toml of where it shall be")
    parser.add_argument(
        "--admin", metavar="ROLE", default="postgres", help="who connects to PostgreSQL, the schema's owner (postgres)"
    )
    parser.add_argument("--host", metavar="HOST", help="where, if not to the primary in store.toml")
    return parser
