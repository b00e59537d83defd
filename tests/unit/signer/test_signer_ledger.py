"""Aim: what was signed is remembered, durably and for one key. Method: a real database in a temporary directory."""

import dataclasses
import os
import sqlite3

import pytest

from paychan.core.errors import ConfigError
from signer.ledger import Ledger, LedgerError, lock_directory
from signer.policy import Record

PUBKEY = b"\x02" + bytes(32)
OUTPOINT = bytes(36)
RECORD = Record(change_value=1000, fee=100, versions=1, txid=bytes(32))


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path, "test", PUBKEY, "signer.toml")
    yield ledger
    ledger.close()


def test_a_record_is_found_again_after_reopening(tmp_path, ledger):
    assert ledger.get(OUTPOINT) is None
    ledger.put(OUTPOINT, RECORD, 1_700_000_000)
    newer = Record(900, 50, 2, b"\x01" * 32)
    ledger.put(OUTPOINT, newer, 1_700_000_001)
    ledger.close()
    again = Ledger(tmp_path, "test", PUBKEY, "signer.toml")
    assert again.get(OUTPOINT) == newer
    assert again.get(b"\x01" * 36) is None
    again.close()


@pytest.mark.parametrize("change", [{"change_value": 1001, "versions": 2}, {"versions": 1}, {"versions": 0}], ids=str)
def test_a_row_never_moves_back(ledger, change):
    ledger.put(OUTPOINT, RECORD, 0)
    with pytest.raises(LedgerError):
        ledger.put(OUTPOINT, dataclasses.replace(RECORD, **change), 0)
    assert ledger.get(OUTPOINT) == RECORD


@pytest.mark.parametrize(("network", "pubkey"), [("live", PUBKEY), ("test", b"\x03" + bytes(32))])
def test_another_network_or_key_is_refused(tmp_path, ledger, network, pubkey):
    ledger.close()
    with pytest.raises(ConfigError, match=r"^signer\.toml: state_dir: .* another key or network"):
        Ledger(tmp_path, network, pubkey, "signer.toml")


def test_an_unknown_format_is_refused(tmp_path, ledger):
    ledger.close()
    db = sqlite3.connect(tmp_path / "signed.db")
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(ConfigError, match="format 2"):
        Ledger(tmp_path, "test", PUBKEY, "signer.toml")


@pytest.mark.parametrize("damage", [b"garbage" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_database_is_refused(tmp_path, damage):
    (tmp_path / "signed.db").write_bytes(damage)
    with pytest.raises(ConfigError, match="cannot be used"):
        Ledger(tmp_path, "test", PUBKEY, "signer.toml")


def test_commits_are_synced_before_they_return(ledger):
    (synchronous,) = ledger._db.execute("PRAGMA synchronous").fetchone()
    (journal,) = ledger._db.execute("PRAGMA journal_mode").fetchone()
    assert (synchronous, journal) == (3, "delete")  # 3: EXTRA


def test_a_closed_or_failing_database_is_an_error_and_not_an_empty_answer(ledger):
    ledger.close()
    with pytest.raises(LedgerError):
        ledger.get(OUTPOINT)
    with pytest.raises(LedgerError):
        ledger.put(OUTPOINT, RECORD, 0)


def test_a_second_lock_on_a_directory_is_refused(tmp_path):
    held = lock_directory(tmp_path / "signer", "signer.toml")
    with pytest.raises(ConfigError, match=r"^signer\.toml: state_dir: another signer"):
        lock_directory(tmp_path / "signer", "signer.toml")
    os.close(held)
    os.close(lock_directory(tmp_path / "signer", "signer.toml"))


def test_a_new_database_has_its_name_on_disk_and_an_old_one_needs_it_no_more(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("signer.ledger.sync_directory", synced.append)
    for _ in range(2):
        Ledger(tmp_path, "test", PUBKEY, "signer.toml").close()
    assert synced == [tmp_path]


def test_a_database_that_was_in_another_mode_is_brought_back(tmp_path, ledger):
    ledger.close()
    db = sqlite3.connect(tmp_path / "signed.db")
    assert db.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    db.close()
    again = Ledger(tmp_path, "test", PUBKEY, "signer.toml")
    assert again._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    again.close()


def test_the_lock_is_private_and_one_that_is_refused_leaves_nothing_open(tmp_path):
    held = lock_directory(tmp_path / "signer", "signer.toml")
    assert (tmp_path / "signer" / "lock").stat().st_mode & 0o777 == 0o600
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ConfigError):
        lock_directory(tmp_path / "signer", "signer.toml")
    assert set(os.listdir("/proc/self/fd")) <= set(before)
    os.close(held)
