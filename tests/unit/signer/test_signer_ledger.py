"""Aim: what was signed is remembered, durably and for one key. Method: a real database in a temporary directory."""

import dataclasses
import os
import sqlite3

import pytest

from paychan.core.errors import ConfigError
from signer.ledger import Ledger, LedgerError, lock_directory
from signer.policy import Memory, Record

PUBKEY = b"\x02" + bytes(32)
OUTPOINT = bytes(36)
OTHER = b"\x01" * 36
RECORD = Record(change_value=1000, fee=100, versions=1, txid=bytes(32))
NOW = 1_700_000_000
DAY = 86_400


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path, "test", PUBKEY, "signer.toml")
    yield ledger
    ledger.close()


def test_a_record_is_found_again_after_reopening(tmp_path, ledger):
    assert ledger.get(OUTPOINT, NOW) == Memory()
    ledger.put(OUTPOINT, RECORD, 1_700_000_000)
    newer = Record(900, 50, 2, b"\x01" * 32)
    ledger.put(OUTPOINT, newer, 1_700_000_001)
    ledger.close()
    again = Ledger(tmp_path, "test", PUBKEY, "signer.toml")
    assert again.get(OUTPOINT, NOW) == Memory(newer)
    assert again.get(b"\x01" * 36, NOW + 1) == Memory(fees_of_the_day=100)
    again.close()


@pytest.mark.parametrize("change", [{"change_value": 1001, "versions": 2}, {"versions": 1}, {"versions": 0}], ids=str)
def test_a_row_never_moves_back(ledger, change):
    ledger.put(OUTPOINT, RECORD, 0)
    with pytest.raises(LedgerError):
        ledger.put(OUTPOINT, dataclasses.replace(RECORD, **change), 0)
    assert ledger.get(OUTPOINT, 0) == Memory(RECORD)


@pytest.mark.parametrize(("network", "pubkey"), [("live", PUBKEY), ("test", b"\x03" + bytes(32))])
def test_another_network_or_key_is_refused(tmp_path, ledger, network, pubkey):
    ledger.close()
    with pytest.raises(ConfigError, match=r"^signer\.toml: state_dir: .* another key or network"):
        Ledger(tmp_path, network, pubkey, "signer.toml")


def test_an_unknown_format_is_refused(tmp_path, ledger):
    ledger.close()
    db = sqlite3.connect(tmp_path / "signed.db")
    db.execute("PRAGMA user_version = 4")
    db.close()
    with pytest.raises(ConfigError, match="format 4"):
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
        ledger.get(OUTPOINT, NOW)
    with pytest.raises(LedgerError):
        ledger.note(OUTPOINT, 1, NOW)
    with pytest.raises(LedgerError):
        ledger.forget_note(OUTPOINT)
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


# --- what was noted -------------------------------------------------------------------------------------------------


def test_the_lowest_that_was_noted_stays_and_is_on_disk(tmp_path, ledger):
    for value, stays in ((5000, 5000), (5001, 5000), (4000, 4000), (4999, 4000), (0, 0), (700, 0)):
        ledger.note(OUTPOINT, value, NOW)
        assert ledger.get(OUTPOINT, NOW) == Memory(noted=stays)
    assert ledger.get(OTHER, NOW) == Memory()
    ledger.close()
    again = Ledger(tmp_path, "test", PUBKEY, "signer.toml")
    assert again.get(OUTPOINT, NOW) == Memory(noted=0)
    again.close()


def test_nothing_is_put_behind_what_was_noted(ledger):
    ledger.note(OUTPOINT, RECORD.change_value - 1, NOW)
    with pytest.raises(LedgerError):
        ledger.put(OUTPOINT, RECORD, NOW)
    assert ledger.get(OUTPOINT, NOW) == Memory(noted=RECORD.change_value - 1)
    ledger.note(OTHER, RECORD.change_value, NOW)
    ledger.put(OTHER, RECORD, NOW)
    ledger.put(OUTPOINT, dataclasses.replace(RECORD, change_value=RECORD.change_value - 1), NOW)


def test_a_note_is_forgotten_by_its_outpoint_alone(ledger):
    ledger.note(OUTPOINT, 1, NOW)
    ledger.note(OTHER, 2, NOW)
    assert ledger.forget_note(OUTPOINT) and not ledger.forget_note(OUTPOINT)
    assert ledger.get(OUTPOINT, NOW).noted is None and ledger.get(OTHER, NOW).noted == 2


# --- the day's fees -------------------------------------------------------------------------------------------------


def put(ledger, number: int, fee: int, at: int, version: int = 1) -> None:
    ledger.put(bytes([number]) * 36, Record(1000, fee, version, bytes([number, version]) * 16), at)


def test_a_days_fees_are_those_of_the_last_day_of_other_channels(ledger):
    put(ledger, 1, 100, NOW)
    put(ledger, 2, 20, NOW + 10)
    assert ledger.get(b"\x03" * 36, NOW + 10).fees_of_the_day == 120
    assert ledger.get(b"\x02" * 36, NOW + 10).fees_of_the_day == 100
    assert ledger.get(b"\x03" * 36, NOW + DAY - 1).fees_of_the_day == 120
    assert ledger.get(b"\x03" * 36, NOW + DAY).fees_of_the_day == 20
    assert ledger.get(b"\x03" * 36, NOW + DAY + 10).fees_of_the_day == 0


def test_of_several_versions_the_dearest_of_the_day_counts(ledger):
    put(ledger, 1, 100, NOW)
    put(ledger, 1, 40, NOW + DAY // 2, version=2)
    assert ledger.get(OTHER[:-1] + b"\x02", NOW + DAY - 1).fees_of_the_day == 100
    assert ledger.get(OTHER[:-1] + b"\x02", NOW + DAY).fees_of_the_day == 40
    put(ledger, 1, 30, NOW + DAY, version=3)
    assert ledger.get(OTHER[:-1] + b"\x02", NOW + DAY).fees_of_the_day == 40
    assert ledger.get(OTHER[:-1] + b"\x02", NOW + DAY * 3 // 2).fees_of_the_day == 30


def test_what_a_clock_that_was_ahead_has_stamped_does_not_count(ledger):
    put(ledger, 1, 100, NOW + 10 * 365 * DAY)
    assert ledger.get(OTHER[:-1] + b"\x02", NOW).fees_of_the_day == 0
    put(ledger, 2, 20, NOW)
    assert ledger.get(OTHER[:-1] + b"\x03", NOW).fees_of_the_day == 20


def test_only_a_days_fees_are_kept(ledger):
    for number in range(50):
        put(ledger, number, 1, NOW + number * DAY // 10)
    assert ledger._db.execute("SELECT count(*) FROM fees").fetchone() == (10,)


# --- formats --------------------------------------------------------------------------------------------------------

FORMAT_1 = """
CREATE TABLE identity (network TEXT NOT NULL, pubkey BLOB NOT NULL) STRICT;
CREATE TABLE signed (
    outpoint BLOB PRIMARY KEY, change_value INTEGER NOT NULL, fee INTEGER NOT NULL, versions INTEGER NOT NULL,
    txid BLOB NOT NULL, signed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def test_a_ledger_of_format_1_keeps_what_it_has_and_notes_from_now_on(tmp_path):
    db = sqlite3.connect(tmp_path / "signed.db")
    db.executescript(FORMAT_1)
    db.execute("INSERT INTO identity VALUES ('test', ?)", (PUBKEY,))
    db.execute("INSERT INTO signed VALUES (?, 1000, 100, 1, ?, ?)", (OUTPOINT, bytes(32), NOW))
    db.commit()
    db.close()
    for _ in range(2):
        ledger = Ledger(tmp_path, "test", PUBKEY, "signer.toml")
        assert ledger.get(OUTPOINT, NOW).signed == RECORD
        ledger.note(OUTPOINT, 900, NOW)
        assert ledger.get(OUTPOINT, NOW).noted == 900
        assert ledger._db.execute("PRAGMA user_version").fetchone() == (3,)
        ledger.close()
