"""Aim: 70 where the machine failed, 2 where a configuration must be changed. Method: errors as the system calls, RocksDB and SQLite
raise them; RocksDB's and SQLite's are real ones where they can be had."""

import errno
import os
import sqlite3
import subprocess
import sys

import pytest

from paychan.core.errors import ConfigError
from paychan.exits import EXIT_BAD_CONFIG, EXIT_FAILED, status_of


def of(cause: BaseException | None) -> int:
    try:
        raise ConfigError("store.toml: state_dir: it cannot be used") from cause
    except ConfigError as error:
        return status_of(error)


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE])
def test_what_may_pass_is_the_machine_s(number):
    assert of(system_error(number)) == EXIT_FAILED
    text = f"IO error: {os.strerror(number)}: While appending to file: db/000008.sst: {os.strerror(number)}"
    assert of(Exception(text)) == EXIT_FAILED


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EADDRINUSE, errno.EROFS])
def test_what_stays_is_the_configuration_s(number):
    assert of(system_error(number)) == EXIT_BAD_CONFIG


def test_a_complaint_without_a_cause_is_about_the_configuration():
    assert of(None) == of(ValueError("the log is damaged: it ends at write 5")) == EXIT_BAD_CONFIG


def test_sqlite_s_full_disk_is_known(tmp_path):
    database = sqlite3.connect(tmp_path / "db")
    database.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as full:
        for number in range(100):
            database.execute(f"CREATE TABLE t{number} (a)")
    assert of(full.value) == EXIT_FAILED


def test_rocksdb_s_lack_of_descriptors_is_known(tmp_path):
    script = (
        "import resource, sys; from pathlib import Path; from store.engines.rocksdb import RocksDB\n"
        "from paychan.exits import may_pass\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6))\n"
        "try: RocksDB(Path(sys.argv[1]) / 'db')\n"
        "except Exception as error: print(may_pass(error), error)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("True "), done.stdout + done.stderr
