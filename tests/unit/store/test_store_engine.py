"""The database gives back what was committed, also after it was closed; indexes follow every transition; a store of
another network, key or shard count is refused. With a real RocksDB in a temporary directory."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from paychan._fast.group import StateCache
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.errors import ConfigError
from paychan.core.network import LIVE, TEST
from paychan.core.outcome import Outcome
from paychan.core.payment import Payment
from paychan.core.sharding import shard_of
from paychan.rpc.connection import Address
from paychan.rpc.store_messages import Entry, EntryStatus, Stored, Unsettled, encode_commit
from paychan.settings.models import Common, StoreConfig
from store import keys
from store.directory import hold_directory
from store.engines.rocksdb import RocksDB
from store.group import Group
from store.identity import establish_identity, read_server_pubkey
from store.mark import path_of

ROOT = Path(__file__).parents[3]
SHARDS = 4
PUBKEY = b"\2" * 33
NO_OUTPOINT = bytes(36)


@pytest.fixture
def engine(tmp_path):
    opened = RocksDB(tmp_path / "db")
    yield opened
    opened.close()


def outpoint(number: int) -> bytes:
    return number.to_bytes(2, "big") * 18


def commit(engine: RocksDB, number: int, old: int, new: int, value: int = 1000, expected: int = 1000, expiry: int = 0):
    txid = b"t" * 32 if new >= Phase.SIGNED else b""
    state = ChannelState(Phase(new), Payment(value, b"s" * 70, 0x83), txid).serialize()
    terms = ChannelTerms(outpoint(number), PUBKEY, b"\3" * 33, expiry or 600_000_000 + number, 1000, b"").serialize()
    ending = Outcome(600, 5, 1000, 1).serialize() if new == Phase.SETTLED else b""
    extra = terms if old == ABSENT else b"settlement" if new == Phase.SIGNED else ending
    group = Group(engine, StateCache(0), engine.epochs(SHARDS), SHARDS)
    key = outpoint(number)
    statuses = group.judge(encode_commit([Entry(shard_of(key, SHARDS), 0, key, old, expected, state, extra).encode()]))
    assert list(statuses) == [EntryStatus.OK]
    engine.commit(group.writes)
    return Stored(terms, state, b"settlement" if new >= Phase.SIGNED else b"")


def test_load_gives_what_was_committed_also_after_reopening(tmp_path):
    engine = RocksDB(tmp_path / "db")
    first = commit(engine, 1, ABSENT, Phase.OPEN)
    newest = commit(engine, 1, Phase.OPEN, Phase.OPEN, 900)
    assert engine.load([outpoint(1), outpoint(2), outpoint(1)]) == [newest, None, newest]
    assert newest != first
    engine.close()
    engine = RocksDB(tmp_path / "db")
    assert engine.load([outpoint(1)]) == [newest]
    engine.close()


def test_indexes_follow_a_channel_through_its_life(engine):
    key, expiry = outpoint(1), 600_000_001
    steps = [ABSENT, *Phase]
    for old, new in zip(steps, steps[1:], strict=False):
        stored = commit(engine, 1, old, new)
        assert engine.load([key]) == [stored]
        is_open, is_done = new == Phase.OPEN, new == Phase.SETTLED
        assert engine.scan_expiring(1 << 31, 0, NO_OUTPOINT, 10) == ([(expiry, key)] if is_open else [])
        assert engine.scan_unfinished(NO_OUTPOINT, 10) == ([] if is_open or is_done else [(new, key)])


def settle(engine: RocksDB, number: int, outcome: bytes) -> int:
    """Take the last step of a channel that is closing; return the store's answer."""
    key, txid = outpoint(number), b"t" * 32
    state = ChannelState(Phase.SETTLED, Payment(1000, b"s" * 70, 0x83), txid).serialize()
    group = Group(engine, StateCache(0), engine.epochs(SHARDS), SHARDS)
    entry = Entry(shard_of(key, SHARDS), 0, key, Phase.CLOSING, 1000, state, outcome)
    (status,) = group.judge(encode_commit([entry.encode()]))
    engine.commit(group.writes)
    return status


def test_settled_channels_are_found_by_when_they_were_with_what_became_of_them(engine):
    outcomes = {1: Outcome(600, 5, 1000, 10), 2: Outcome(500, 6, 700, missing=700, is_lost=True), 3: Outcome(600, 7, 50, 1)}
    for number, outcome in outcomes.items():
        commit(engine, number, ABSENT, Phase.CLOSING)
        assert settle(engine, number, outcome.serialize()) == EntryStatus.OK
    expected = [(outcomes[number].settled_at, outpoint(number), outcomes[number].serialize()) for number in (2, 1, 3)]
    assert engine.scan_settled(0, NO_OUTPOINT, 10) == expected
    assert engine.scan_settled(0, NO_OUTPOINT, 2) == expected[:2]
    assert engine.scan_settled(*expected[1][:2], 10) == expected[2:]
    assert engine.scan_settled(600, NO_OUTPOINT, 10) == expected[1:]


def test_what_is_no_outcome_settles_nothing(engine):
    commit(engine, 1, ABSENT, Phase.CLOSING)
    for wrong in (b"", b"settlement", Outcome(600, 5, 1000).serialize()[:-1], Outcome(600, 5, 1000).serialize() + b"x"):
        assert settle(engine, 1, wrong) == EntryStatus.FORBIDDEN
    assert engine.scan_settled(0, NO_OUTPOINT, 10) == []


def test_a_channel_that_its_opening_payment_exhausts_is_unfinished_at_once(engine):
    commit(engine, 1, ABSENT, Phase.CLOSING)
    assert engine.scan_expiring(1 << 31, 0, NO_OUTPOINT, 10) == []
    assert engine.scan_unfinished(NO_OUTPOINT, 10) == [(Phase.CLOSING, outpoint(1))]


def test_expiring_scan_goes_soonest_first_and_pages(engine):
    for number, expiry in ((1, 600_000_300), (2, 600_000_100), (3, 600_000_300), (4, 600_000_400), (5, 500_000_000)):
        commit(engine, number, ABSENT, Phase.OPEN, expiry=expiry)
    expected = [(500_000_000, 5), (600_000_100, 2), (600_000_300, 1), (600_000_300, 3)]
    expected = [(expiry, outpoint(number)) for expiry, number in expected]
    assert engine.scan_expiring(600_000_400, 0, NO_OUTPOINT, 10) == expected
    found, cursor = [], (0, NO_OUTPOINT)
    while page := engine.scan_expiring(600_000_400, *cursor, 1):
        found += page
        cursor = page[-1]
    assert found == expected
    assert engine.scan_expiring((1 << 32) - 1, 600_000_300, outpoint(3), 10) == [(600_000_400, outpoint(4))]


def test_what_was_received_is_told_with_the_expiries_and_nothing_of_a_damaged_channel(engine):
    for number, value in ((1, 900), (2, 1000), (3, 0), (4, 5)):
        commit(engine, number, ABSENT, Phase.OPEN, value)
    commit(engine, 4, Phase.OPEN, Phase.CLOSING, 5, 5)
    received = [(600_000_000 + number, value, outpoint(number)) for number, value in ((1, 100), (2, 0), (3, 1000))]
    assert engine.scan_received(1 << 31, 0, NO_OUTPOINT, 10) == received
    assert engine.scan_received(1 << 31, 600_000_001, outpoint(1), 1) == received[1:2]
    assert engine.scan_received(600_000_001, 0, NO_OUTPOINT, 10) == []
    engine.commit({keys.TERMS + outpoint(1): b"?", keys.STATE + outpoint(3): None})
    assert engine.scan_received(1 << 31, 0, NO_OUTPOINT, 10) == [(*row[:1], 0, row[2]) for row in received]


def test_a_store_from_before_sums_up_what_is_being_settled(engine, monkeypatch):
    """Its record has the open value alone. The second sum is of all pages of the index, and of nothing else."""
    monkeypatch.setattr("store.engines.rocksdb.SCAN_LIMIT_MAX", 2)
    for number in range(1, 6):
        commit(engine, number, ABSENT, Phase.CLOSING, 1000 - number)
    commit(engine, 6, ABSENT, Phase.OPEN, 300)
    commit(engine, 5, Phase.CLOSING, Phase.SETTLED, 995, 995)
    assert engine.unsettled() == (0, 0)
    engine.commit({keys.UNSETTLED: (700).to_bytes(8, "little")})
    assert engine.unsettled() == (700, 1 + 2 + 3 + 4)
    engine.commit({keys.UNSETTLED: keys.encode_unsettled(Unsettled(700, 7))})
    assert engine.unsettled() == (700, 7)


def test_unfinished_scan_pages_by_outpoint(engine):
    for number in (3, 1, 2):
        commit(engine, number, ABSENT, Phase.CLOSING)
    assert engine.scan_unfinished(NO_OUTPOINT, 2) == [(Phase.CLOSING, outpoint(1)), (Phase.CLOSING, outpoint(2))]
    assert engine.scan_unfinished(outpoint(2), 2) == [(Phase.CLOSING, outpoint(3))]


def test_epochs_are_kept(tmp_path):
    engine = RocksDB(tmp_path / "db")
    epochs = engine.epochs(SHARDS)
    assert epochs == [0] * (SHARDS + 2)
    group = Group(engine, StateCache(0), epochs, SHARDS)
    group.raise_epochs({0: 1, 5: 1 << 40})
    engine.commit(group.writes)
    engine.close()
    engine = RocksDB(tmp_path / "db")
    assert engine.epochs(SHARDS) == [1, 0, 0, 0, 0, 1 << 40]
    engine.close()


def make_config(tmp_path: Path) -> StoreConfig:
    common = Common("store.toml", TEST, tmp_path, False, None)
    return StoreConfig(common, Address(path="x"), SHARDS, 1000, PUBKEY, tmp_path / "signer.pub")


def test_identity_is_made_once_and_kept(engine, tmp_path):
    config = make_config(tmp_path)
    first = establish_identity(engine, config, PUBKEY)
    assert (first.network, first.server_pubkey, first.shard_count) == ("test", PUBKEY, SHARDS)
    assert establish_identity(engine, config, PUBKEY) == first


def test_another_network_key_or_shard_count_is_refused(engine, tmp_path):
    config = make_config(tmp_path)
    establish_identity(engine, config, PUBKEY)
    live = dataclasses.replace(config, common=dataclasses.replace(config.common, network=LIVE))
    with pytest.raises(ConfigError, match=r"^store\.toml: network: "):
        establish_identity(engine, live, PUBKEY)
    with pytest.raises(ConfigError, match=r"^store\.toml: store\.server_pubkey: "):
        establish_identity(engine, config, b"\3" * 33)
    with pytest.raises(ConfigError, match=r"^store\.toml: store\.shard_count: "):
        establish_identity(engine, dataclasses.replace(config, shard_count=SHARDS + 1), PUBKEY)


@pytest.mark.parametrize("writes", [{b"I": b"\2" + bytes(60)}, {b"I": b"\1"}, {b"Sx": b"orphan"}])
def test_another_format_or_data_without_identity_is_refused(engine, tmp_path, writes):
    engine.commit(writes)
    with pytest.raises(ConfigError, match=r"^store\.toml: state_dir: "):
        establish_identity(engine, make_config(tmp_path), PUBKEY)


def test_server_key_comes_from_the_signers_file(tmp_path):
    config = dataclasses.replace(make_config(tmp_path), server_pubkey=None)
    with pytest.raises(ConfigError, match=r"store\.server_pubkey_file"):
        read_server_pubkey(config, wait_s=0)
    config.server_pubkey_file.write_text("0303\n")
    with pytest.raises(ConfigError, match=r"store\.server_pubkey_file"):
        read_server_pubkey(config, wait_s=0)
    config.server_pubkey_file.write_text("03" * 33 + "\n")
    assert read_server_pubkey(config, wait_s=0) == b"\3" * 33


def test_one_store_holds_a_directory_and_it_is_private(tmp_path):
    config = make_config(tmp_path / "deep" / "state")
    with hold_directory(config) as database:
        assert database.parent.stat().st_mode & 0o777 == 0o700
        assert database.parent.parent.stat().st_mode & 0o777 == 0o700
        with pytest.raises(ConfigError, match="another paychan-store uses this directory"), hold_directory(config):
            pass
    with hold_directory(config):
        pass


WRITER = """
import os, sys
from pathlib import Path
from store.engines.rocksdb import RocksDB
from store.mark import path_of
engine = RocksDB(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    mark = os.urandom(16)
    engine.commit({b"S" + bytes([n]) * 36: number.to_bytes(4, "big") + 250 * mark for n in range(64)})
    print(number, mark.hex(), flush=True)
sys.stdin.read()
"""
GROUPS = 120  # of 256 kB: seven memtables, so that the last logs are written over the first ones


@pytest.mark.parametrize("torn", [False, True])
def test_after_kill_9_all_acknowledged_groups_are_there_also_in_logs_that_were_written_over(tmp_path, torn):
    """torn: the last group did not reach the disk whole. It is then lost whole, and nothing before it."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "db"), str(GROUPS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        marks = [bytes.fromhex(writer.stdout.readline().split()[1]) for _ in range(GROUPS)]
        writer.kill()
    if torn:
        tear(tmp_path / "db", marks[-1])
        with pytest.raises(ValueError, match="the log is damaged"):
            RocksDB(tmp_path / "db")  # it had been acknowledged, and the mark knows
        path_of(tmp_path / "db").unlink()
    engine = RocksDB(tmp_path / "db")
    newest = GROUPS - 2 if torn else GROUPS - 1
    expected = newest.to_bytes(4, "big") + 250 * marks[newest]
    assert set(engine.states([bytes([n]) * 36 for n in range(64)])) == {expected}
    engine.close()


def tear(directory: Path, mark: bytes) -> None:
    """Spoil the end of the group that holds `mark`."""
    (log,) = [log for log in directory.glob("*.log") if mark in log.read_bytes()]
    assert max(log.stat().st_size for log in directory.glob("*.log")) < 8 << 20, "logs have not changed"
    at = log.read_bytes().rindex(mark)
    with log.open("r+b") as file:
        file.seek(at - 1000)
        file.write(bytes(1000 + len(mark)))
