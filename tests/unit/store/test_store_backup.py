"""A backup holds one moment, taken while the store writes; what it does not hold comes back with the payers' next payments,
each satoshi once; no settled channel opens again. With real databases and the real sequencer."""

import random
import tempfile
import threading
from pathlib import Path

import pytest

import store.backup as backup_module
import store.engines.rocksdb as engine_module
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.funding import STRIPPED_SIZE_MAX, txid_without_witness
from paychan.core.payment import Payment
from paychan.core.sharding import shard_of
from paychan.rpc.store_messages import Entry, EntryStatus, encode_commit
from store import keys, peek
from store.backup import EPOCHS_SKIPPED, BackupError, backup_store, restore_store
from store.check import StoredRecords, check_store
from store.engines.rocksdb import RocksDB
from store.identity import Identity
from store.leases import Leases
from store.mark import path_of
from store.sequencer import Sequencer
from tests.power.images import scratch
from tests.tiling import History, Operation, Outcome
from tests.tiling import check as check_tiling

SHARDS, FUNDING, PUBKEY = 4, 100_000, b"\2" * 33


class Live:
    """A store in this process, and the worker that owns all of it."""

    def __init__(self, place):
        self.engine, self._turns = RocksDB(place), []
        if self.engine.identity() is None:
            self.engine.commit({keys.IDENTITY: Identity("test", PUBKEY, SHARDS, bytes(16)).encode()})
        self.line = Sequencer(self.engine, SHARDS, self._turns.append)
        leases = Leases(SHARDS, self.engine.epochs(SHARDS))
        leases.join("w", 0)
        raised = leases.rebalance()
        self.epochs = [epoch for _, epoch in leases.table().owners]
        self.line.add(lambda group: (group.raise_epochs(raised), lambda: None)[1])
        self._turn()

    def _turn(self):
        turns, self._turns[:] = list(self._turns), []
        for turn in turns:
            turn()

    def put(self, outpoint, old, value, expected, phase=Phase.OPEN, epoch=None):
        """Send one update; return the answer once it is durable."""
        txid = b"t" * 32 if phase >= Phase.SIGNED else b""
        state = ChannelState(phase, Payment(value, b"s" * 70, 0x83), txid).serialize()
        terms = ChannelTerms(outpoint, PUBKEY, b"\3" * 33, 1_800_000_000, FUNDING, b"").serialize()
        shard = shard_of(outpoint, SHARDS)
        extra = terms if old == ABSENT else b""
        entry = Entry(shard, self.epochs[shard] if epoch is None else epoch, outpoint, old, expected, state, extra)
        answers = []

        def job(group):
            statuses = group.judge(encode_commit([entry.encode()]))
            return lambda: answers.extend(statuses)

        self.line.add(job)
        self._turn()
        return answers[0]

    def state(self, outpoint):
        (record,) = self.engine.states([outpoint])
        return ChannelState.parse(record) if record else None

    def credit(self, outpoint, value):
        """Take a payment as a worker does; return the satoshi credited, None if it is refused."""
        now = self.state(outpoint)
        phase, left = (now.phase, now.payment.change_value) if now else (ABSENT, FUNDING)
        if phase not in (ABSENT, Phase.OPEN) or value > left:
            return None
        if now and value == left:
            return 0
        assert self.put(outpoint, phase, value, left) == EntryStatus.OK
        return left - value


def outpoint(number):
    return random.Random(number).randbytes(36)


@pytest.fixture
def memory():
    """A directory in memory: a hundred stores are made, each with syncs of its own."""
    with tempfile.TemporaryDirectory(prefix="paychan-restore-", dir=scratch()) as place:
        yield Path(place)


def test_the_largest_funding_transactions_are_backed_up_and_restored(memory):
    live = Live(memory / "db")
    transactions = [random.Random(number).randbytes(STRIPPED_SIZE_MAX) for number in range(6)]
    for transaction in transactions:
        live.line.add(lambda group, transaction=transaction: (group.keep_funding(transaction), lambda: None)[1])
        live._turn()
    live.engine.close()
    backup_store(memory / "db", memory / "backup")
    assert restore_store(memory / "backup", memory / "again").problems == []
    again = Live(memory / "again" / "store" / "db")
    assert [again.engine.funding(txid_without_witness(transaction)) for transaction in transactions] == transactions
    again.engine.close()


def test_a_hundred_prefixes_come_back_with_the_payers(memory, monkeypatch):
    """The history is a hundred times interrupted by a backup; each is restored, and every payer sends its newest payment."""
    tmp_path = memory
    monkeypatch.setattr(engine_module, "peek", peek.read_sequence)  # hundreds of processes would take most of the time
    rng = random.Random(5)
    live, backups = Live(tmp_path / "db"), []
    channels = [outpoint(number) for number in range(12)]
    payments = {key: [] for key in channels}  # (left, credited) in order
    settled = []
    for step in range(400):
        key = rng.choice([key for key in channels if key not in settled])
        if payments[key] and rng.random() < 0.02 and len(settled) < 8:
            left = payments[key][-1][0]
            assert live.put(key, Phase.OPEN, left, left, Phase.CLOSING) == EntryStatus.OK
            settled.append(key)
        else:
            left = (payments[key][-1][0] if payments[key] else FUNDING) - rng.randint(1, 200)
            payments[key].append((left, live.credit(key, left)))
        if step % 4 == 3:
            file = tmp_path / f"{step}.backup"
            backup_store(tmp_path / "db", file)
            backups.append((file, {key: len(done) for key, done in payments.items()}, list(settled)))
    last_epochs = live.engine.epochs(SHARDS)
    live.engine.close()
    assert len(backups) == 100
    for number, (file, counts, closed) in enumerate(backups):
        restore_store(file, tmp_path / f"{number}")
        again = Live(tmp_path / f"{number}" / "store" / "db")
        missing = 0
        for key in channels:
            before, after = payments[key][: counts[key]], payments[key][counts[key] :]
            wanted = 0 if key in closed else sum(credited for _, credited in after)
            now = again.state(key)
            assert (now.payment.change_value if now else FUNDING) == (before[-1][0] if before else FUNDING)
            if key in closed:
                assert now.phase == Phase.CLOSING
                assert again.credit(key, payments[key][-1][0] - 1) is None
                assert again.put(key, Phase.OPEN, 1, payments[key][-1][0]) == EntryStatus.CONFLICT
                assert again.put(key, ABSENT, 1, FUNDING) == EntryStatus.CONFLICT
                continue
            resent = [(left, again.credit(key, left)) for left, _ in (before[-1:] + payments[key][-1:])]
            assert sum(credited or 0 for _, credited in resent) == wanted  # what is missing, and nothing twice
            missing += wanted
            operations = [Operation(left, Outcome.ACKNOWLEDGED, credited, left) for left, credited in before]
            operations += [Operation(left, Outcome.ACKNOWLEDGED, credited, left, lost=1) for left, credited in resent]
            final = payments[key][-1][0] if payments[key] else FUNDING
            assert check_tiling(History("c", FUNDING, operations, final, final)).problems == []
        assert min(again.epochs) > max(last_epochs)
        assert again.put(channels[0], Phase.OPEN, 0, 0, epoch=last_epochs[0]) == EntryStatus.STALE_EPOCH
        again.engine.close()
        assert check_store(tmp_path / f"{number}" / "store" / "db").problems == []


def test_a_backup_under_load_holds_all_that_was_answered_before(tmp_path, monkeypatch):
    """Small memtables: logs and tables come and go while backups are taken."""
    real = engine_module._options

    def small():
        options = real()
        options.set_write_buffer_size(1 << 16)
        options.set_level_zero_file_num_compaction_trigger(2)
        return options

    monkeypatch.setattr(engine_module, "_options", small)
    live, stop, answered = Live(tmp_path / "db"), threading.Event(), [FUNDING]

    def pay():
        others = [outpoint(number) for number in range(1, 200)]
        for key in others:
            live.credit(key, FUNDING - 1)
        while not stop.is_set():
            live.credit(outpoint(0), answered[0] - 1)
            answered[0] -= 1
            for key in others[:20]:
                live.credit(key, live.state(key).payment.change_value - 1)

    thread = threading.Thread(target=pay)
    thread.start()
    try:
        for number in range(15):
            least = answered[0]
            backup_store(tmp_path / "db", tmp_path / f"{number}.backup")
            report = restore_store(tmp_path / f"{number}.backup", tmp_path / f"{number}")
            assert report.problems == []
            again = RocksDB(tmp_path / f"{number}" / "store" / "db")
            (record,) = again.states([outpoint(0)])
            assert (ChannelState.parse(record).payment.change_value if record else FUNDING) <= least
            again.close()
    finally:
        stop.set()
        thread.join()
        live.engine.close()
    assert len(list((tmp_path / "db").glob("*.sst"))) > 0


def test_a_backup_that_began_between_two_lists_of_files_begins_again(tmp_path, monkeypatch):
    """While the first attempt opens the database, what is in its log goes to a table: the attempt may have seen neither."""
    live, opened = Live(tmp_path / "db"), []
    live.credit(outpoint(1), 5)

    def slowly(directory):
        records = StoredRecords(directory)
        if not opened:
            live.engine._db.flush()
        opened.append(records)
        return records

    monkeypatch.setattr(backup_module, "StoredRecords", slowly)
    backup_store(tmp_path / "db", tmp_path / "backup")
    live.engine.close()
    assert len(opened) == 2


@pytest.fixture
def backup(tmp_path):
    live = Live(tmp_path / "db")
    live.credit(outpoint(1), 5)
    backup_store(tmp_path / "db", tmp_path / "backup")
    live.engine.close()
    return tmp_path / "backup"


def test_a_restore_says_so_and_raises_every_epoch(tmp_path, backup):
    before = RocksDB(tmp_path / "db")
    restore_store(backup, tmp_path / "new")
    after = RocksDB(tmp_path / "new" / "store" / "db")
    assert before.restored() is None
    assert after.restored() is not None
    used = zip(after.epochs(SHARDS), before.epochs(SHARDS), strict=True)
    assert all(new == old + EPOCHS_SKIPPED for new, old in used)
    assert after.identity() == before.identity()
    before.close()
    after.close()
    assert "restored at 20" in check_store(tmp_path / "new" / "store" / "db").restored


def test_a_backup_with_any_bit_flipped_or_any_end_is_refused_and_leaves_no_store(tmp_path, backup):
    raw = backup.read_bytes()
    broken = [raw[:end] for end in range(len(raw))]
    broken += [raw[:at] + bytes((raw[at] ^ 1 << at % 8,)) + raw[at + 1 :] for at in range(len(raw))]
    for content in [*broken, raw + b"x"]:
        backup.write_bytes(content)
        with pytest.raises(BackupError):
            restore_store(backup, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_neither_a_store_nor_a_backup_is_overwritten(tmp_path, backup):
    restore_store(backup, tmp_path / "new")
    with pytest.raises(BackupError, match="holds a store already"):
        restore_store(backup, tmp_path / "new")
    with pytest.raises(BackupError, match="there already"):
        backup_store(tmp_path / "db", backup)
    assert backup.stat().st_mode & 0o777 == 0o600


def test_no_backup_is_taken_of_a_store_that_has_lost_something(tmp_path, backup):
    place = tmp_path / "db"
    restored = path_of(place).read_bytes()
    engine = RocksDB(place)
    engine.commit({b"Zmore": b""})
    mark = path_of(place).read_bytes()
    engine.close()
    for file in place.glob("*.sst"):
        file.rename(tmp_path / file.name)
        break
    path_of(place).write_bytes(mark)
    with pytest.raises(Exception, match=r"log is damaged|No such file|Corruption"):
        backup_store(place, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert restored != mark
    assert not list(tmp_path.glob("*.tmp"))


def test_a_restore_of_inconsistent_records_stops_before_it_becomes_a_store(tmp_path):
    engine = RocksDB(tmp_path / "db")
    engine.commit({keys.IDENTITY: Identity("test", PUBKEY, SHARDS, bytes(16)).encode(), keys.STATE + bytes(36): b"bad"})
    backup_store(tmp_path / "db", tmp_path / "backup")
    engine.close()
    with pytest.raises(BackupError, match="not consistent"):
        restore_store(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new" / "store" / "db").exists()
    with pytest.raises(BackupError, match="remove it"):
        restore_store(tmp_path / "backup", tmp_path / "new")
