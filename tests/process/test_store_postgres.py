"""A store on PostgreSQL: what is answered is on two machines, and whatever goes wrong ends the store, refuses it, or is told by
number.

Method: the store as a process of its own, a primary and standbys (tests/postgres.py), a worker's connection that sends groups one
by one, and faults: stopped standbys, killed primaries, a cancelled wait, a changed row, a second store.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256

import pytest
from coincurve import PrivateKey

from bench.load.failure import Failed
from bench.load.store_feed import StoreFeed
from paychan._fast.frame import encode_frame
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.payment import SIGHASH_CHANGE, Payment
from paychan.core.sales import Sales
from paychan.core.sharding import shard_of
from paychan.exits import EXIT_BAD_CONFIG, EXIT_FAILED
from paychan.rpc.connection import Address
from paychan.rpc.store_messages import Entry, StoreMessage, decode_highest, encode_highest
from store.mark import read_slots
from tests import postgres
from tests.ports import free_port
from tests.system import ROOT, STORE_VARIABLE, running, wait_until

pytestmark = postgres.needed

PUBKEY = PrivateKey(sha256(b"server").digest()).public_key.format()
FUNDING = 1_000_000
EXPIRY = 1_900_000_000
STORE_TOML = """network = "test"
state_dir = "{state}"

[debug]
enable = true

[store]
address = "unix:run/store.sock"
shard_count = {shards}
lease_ms = 60000  # workers here show no signs of life
server_pubkey = "{pubkey}"

{table}"""


class Store:
    """A store's directory, and its process while it runs."""

    def __init__(self, directory, cluster, database, name="a", lease_ms=30_000, shard_count=8):
        self.directory, self.log, self.name = directory, directory / "log", name
        directory.mkdir(exist_ok=True)
        self.state = directory / "state"
        table = cluster.table(database, name, lease_ms)
        text = STORE_TOML.format(state=self.state, shards=shard_count, pubkey=PUBKEY.hex(), table=table)
        (directory / "store.toml").write_text(text)
        self.address = Address(path=str(self.state / "run" / "store.sock"))
        self.process = None

    def command(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "store", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def spawn(self):
        """Start it, and leave it to itself."""
        self._lives = self._times_ready()
        with self.log.open("ab") as log:
            file = str(self.directory / "store.toml")
            self.process = subprocess.Popen([sys.executable, "-m", "store", file], cwd=ROOT, stdout=log, stderr=log)

    def start(self):
        """Start it, and return when it serves."""
        self.spawn()
        wait_until(lambda: self.is_over or self.is_ready, 20, "the store's start")
        assert not self.is_over, self.log.read_text()

    def _times_ready(self):
        return self.log.read_text().count(" ready at ") if self.log.exists() else 0

    @property
    def is_ready(self):
        """Whether this life of it serves: before, it listens, too, and says what it waits for."""
        return self._times_ready() > self._lives

    @property
    def is_over(self):
        return self.process.poll() is not None

    def says(self, text):
        return text in self.log.read_text()

    def end(self):
        """Wait until it has ended by itself; return its exit status."""
        wait_until(lambda: self.is_over, 20, "the store's end")
        return self.process.returncode

    def kill(self):
        if self.process is not None and not self.is_over:
            self.process.kill()
            self.process.wait()


class Channel:
    """A worker's connection, and one channel that it pays a satoshi by each group. `value`: what is left as far as was answered."""

    def __init__(self, store, number=0):
        self.outpoint, self.value = bytes([number]) * 32 + bytes(4), FUNDING
        self.feed = StoreFeed(store.address, PUBKEY)

    def open(self):
        terms = ChannelTerms(self.outpoint, PUBKEY, b"\3" * 33, EXPIRY, FUNDING, b"")
        self.feed.commit([self._frame(ABSENT, FUNDING, terms.serialize())], 1)
        return self

    def pay(self):
        self.send()
        return self.feed._answer()

    def send(self):
        """Send a payment, and wait for nothing."""
        self.value -= 1
        self.feed._socket.sendall(self._frame(Phase.OPEN, self.value + 1))

    def _frame(self, phase, expected, extra=b""):
        state = ChannelState(Phase.OPEN, Payment(self.value, bytes(70), SIGHASH_CHANGE)).serialize()
        return self.feed.frame([self.feed.entry(self.outpoint, phase, expected, state, extra)])

    def is_answered(self):
        """Return whether anything has come that was not read yet."""
        self.feed._socket.setblocking(False)
        try:
            return bool(self.feed._frames) or self.feed._socket.recv(1, 2) != b""  # MSG_PEEK
        except BlockingIOError:
            return False
        finally:
            self.feed._socket.settimeout(60)


@contextmanager
def stores(directory, cluster, *names, lease_ms=30_000, shard_count=8):
    """Give stores of these names, each with a state directory of its own, on one new database."""
    database = cluster.make_database()
    made = [Store(directory / f"{number}", cluster, database, name, lease_ms, shard_count) for number, name in enumerate(names)]
    try:
        done = made[0].command("postgres", "init", made[0].directory)
        assert done.returncode == 0, done.stderr
        for store in made:
            store.sql = lambda *statements, database=database: cluster.primary.sql(*statements, database=database)
        yield made
    finally:
        for store in made:
            store.kill()


@pytest.fixture
def store(tmp_path):
    """A store that has begun, on the cluster of this process, which a test leaves as it is."""
    with stores(tmp_path, postgres.shared(), "a") as (made,):
        made.start()
        yield made


@contextmanager
def own_cluster(standbys=1):
    """Give a cluster that may be broken."""
    cluster = postgres.Cluster(standbys)
    try:
        yield cluster
    finally:
        cluster.stop()


def waits_for_standby(store):
    """Return the pids of those who wait for a standby's answer."""
    rows = store.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'paychan_store'")
    return [row[0] for row in rows]


def stored(store, channel):
    """Return (groups of the active store, satoshi that its channel leaves)."""
    active = "name = (SELECT store FROM paychan.shard WHERE shard = 0)"
    text = f"SELECT groups, value FROM paychan.store, paychan.state WHERE {active} AND outpoint = '\\x{channel.outpoint.hex()}'"
    ((groups, value),) = store.sql(text)
    return groups, value


def send_without_a_standby(cluster, store):
    """Return a channel with a payment under way that no standby confirms."""
    channel = Channel(store).open()
    cluster.standbys[0].signal(signal.SIGSTOP)
    channel.send()
    wait_until(lambda: waits_for_standby(store), 20, "a commit that waits")
    return channel


# --- what is answered ---


def test_a_group_is_answered_when_a_standby_has_it_and_not_before(tmp_path):
    with own_cluster() as cluster, stores(tmp_path, cluster, "a") as (store,):
        store.start()
        channel = send_without_a_standby(cluster, store)
        assert not channel.is_answered()
        assert stored(store, channel)[1] == FUNDING
        cluster.standbys[0].signal(signal.SIGCONT)
        assert channel.feed._answer() == 1
        assert stored(store, channel)[1] == FUNDING - 1


def test_nothing_is_lost_with_the_primary_and_the_number_tells_of_the_group_in_flight(tmp_path):
    with own_cluster(2) as cluster, stores(tmp_path, cluster, "a", lease_ms=600_000) as (store,):  # no beat counts
        store.start()
        channel = Channel(store).open()
        for life in range(2):
            before, value = stored(store, channel)
            killer = threading.Timer(0.2, cluster.primary.kill)
            killer.start()
            acknowledged = 0
            with pytest.raises((Failed, OSError)):
                while True:
                    channel.pay()
                    acknowledged += 1
            killer.join()
            assert store.end() == EXIT_FAILED
            store.spawn()  # it waits for a primary
            cluster.fail_over()
            wait_until(lambda: store.is_over or store.is_ready, 30, "the store's start")
            groups, left = stored(store, channel)
            assert value - left == groups - before, f"life {life}: the number tells another story than the channel"
            assert acknowledged <= value - left <= acknowledged + 1
            channel = Channel(store)
            channel.value = left
            assert channel.pay() == 1


# --- who may not write ---


def test_a_store_whose_fence_was_raised_writes_nothing_more_and_ends(store):
    channel = Channel(store).open()
    groups, value = stored(store, channel)
    store.sql("UPDATE paychan.store SET fence = fence + 1")
    with pytest.raises((Failed, OSError)):
        channel.pay()
    assert store.end() == EXIT_FAILED and store.says("is not at fence")
    assert stored(store, channel) == (groups, value)
    store.start()
    assert Channel(store, 1).open().pay() == 1


def test_two_stores_of_one_name_do_not_both_run(tmp_path):
    with stores(tmp_path, postgres.shared(), "a", "a", lease_ms=2000) as (first, second):
        first.start()
        channel = Channel(first).open()
        second.spawn()
        assert second.end() == EXIT_BAD_CONFIG and second.says("another store uses the name a")
        assert channel.pay() == 1 and not first.is_over
        first.kill()
        second.start()  # the machine was replaced: nobody uses the name any more
        channel = Channel(second)
        channel.value = FUNDING - 1
        assert channel.pay() == 1


ALL_BEGIN = """DO $$ BEGIN
    PERFORM FROM paychan.cluster FOR UPDATE;
    FOR look IN 1..1000 LOOP
        PERFORM pg_stat_clear_snapshot();
        EXIT WHEN (SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()) = 3;
        PERFORM pg_sleep(0.02);
    END LOOP;
END $$"""
"""Holds stores up in their beginning until three of them are there."""


def test_stores_may_begin_on_a_new_database_at_once(tmp_path):
    with stores(tmp_path, postgres.shared(), "a", "b", "c") as made:
        holding = threading.Thread(target=made[0].sql, args=(ALL_BEGIN,))
        holding.start()
        for store in made:
            store.spawn()
        for store in made:
            wait_until(lambda store=store: store.is_ready or store.is_over, 60, "a store")
        holding.join()
        assert all(store.is_ready for store in made)
        assert sum(store.says("another store began on the new database meanwhile") for store in made) == 2
        assert made[0].sql("SELECT count(DISTINCT number)::int FROM paychan.store") == [(3,)]


def test_a_second_store_takes_over_when_the_first_is_silent(tmp_path):
    """What was received stays where it was counted: only the total means something."""
    with stores(tmp_path, postgres.shared(), "a", "b", lease_ms=2000) as (first, second):
        first.start()
        channel = Channel(first).open()
        second.start()
        assert channel.pay() == 1
        first.kill()
        wait_until(lambda: second.says("store a was silent: its 10 leases are ours now"), 30, "taking over")
        parts = "SELECT name, open_value::int FROM paychan.store ORDER BY name"
        assert second.sql(parts) == [("a", 1), ("b", 0)]
        first.start()
        channel = Channel(second)
        channel.value = FUNDING - 1
        assert channel.pay() == 1 and stored(second, channel)[1] == FUNDING - 2
        assert second.sql(parts) == [("a", 1), ("b", 1)]


def test_a_store_that_was_away_for_a_lease_finds_its_shards_taken_and_writes_nothing(tmp_path):
    with stores(tmp_path, postgres.shared(), "a", "b", lease_ms=2000) as (first, second):
        first.start()
        channel = Channel(first).open()
        second.start()
        first.process.send_signal(signal.SIGSTOP)
        channel.send()
        wait_until(lambda: second.says("store a was silent"), 30, "taking over")
        assert stored(second, channel)[1] == FUNDING
        first.process.send_signal(signal.SIGCONT)
        assert first.end() == EXIT_FAILED
        assert stored(second, channel)[1] == FUNDING


# --- never alone without knowing it ---


def set_names(cluster, names):
    cluster.primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
    cluster.primary.wait_until(f"SELECT current_setting('synchronous_standby_names') = '{names}'", "does not take the setting")


def test_without_names_of_standbys_nothing_is_written(tmp_path):
    with own_cluster() as cluster, stores(tmp_path, cluster, "a") as (store,):
        store.start()
        channel = Channel(store).open()
        names = cluster.primary.sql("SHOW synchronous_standby_names")[0][0]
        set_names(cluster, "")
        with pytest.raises((Failed, OSError)):
            channel.pay()
        assert store.end() == EXIT_FAILED and store.says("the database does not replicate synchronously")
        assert stored(store, channel)[1] == FUNDING
        store.spawn()
        wait_until(lambda: store.says("the database does not replicate synchronously: the store waits"), 20, "being refused")
        assert not store.is_ready
        with pytest.raises(Failed, match="the database does not replicate synchronously"):  # what /readyz says
            Channel(store)
        set_names(cluster, names)
        wait_until(lambda: store.is_ready, 20, "the store's start")
        channel = Channel(store)
        assert channel.pay() == 1


def test_a_cancelled_wait_for_the_standby_is_no_success(tmp_path):
    with own_cluster() as cluster, stores(tmp_path, cluster, "a") as (store,):
        store.start()
        channel = send_without_a_standby(cluster, store)
        store.sql(f"SELECT pg_cancel_backend({waits_for_standby(store)[0]})")
        assert store.end() == EXIT_FAILED and store.says("the database warns")
        with pytest.raises((Failed, OSError)):
            channel.feed._answer()
        cluster.standbys[0].signal(signal.SIGCONT)
        store.start()
        groups, value = stored(store, channel)
        assert value == FUNDING - 1  # it became durable after all, and the payer will hear it when it asks again


def test_a_database_that_confirms_nothing_ends_the_store_within_a_lease(tmp_path):
    with own_cluster() as cluster, stores(tmp_path, cluster, "a", lease_ms=1500) as (store,):
        store.start()
        cluster.standbys[0].signal(signal.SIGSTOP)
        assert store.end() == EXIT_FAILED and store.says("has confirmed nothing for")
        store.spawn()
        assert store.end() == EXIT_FAILED and store.says("is a standby connected?")
        cluster.standbys[0].signal(signal.SIGCONT)
        store.start()


def test_a_store_that_is_stopped_ends_well_whatever_the_database_does(tmp_path):
    """A beat that waits for a standby is left alone, and nobody waits for it."""
    with own_cluster() as cluster, stores(tmp_path, cluster, "a", lease_ms=6000) as (store,):
        text = (store.directory / "store.toml").read_text()
        address = f"tcp:127.0.0.1:{free_port()}"  # a port is free again for the store's own door when it was waited for
        (store.directory / "store.toml").write_text(text.replace("unix:run/store.sock", address))
        store.start()
        cluster.standbys[0].signal(signal.SIGSTOP)
        wait_until(lambda: waits_for_standby(store), 20, "a beat that waits")
        store.process.terminate()
        assert store.end() == 0, store.log.read_text()
        cluster.standbys[0].signal(signal.SIGCONT)


# --- a database that is not what it was ---


def test_a_database_that_has_lost_what_was_answered_is_refused(store):
    channel = Channel(store).open()
    assert channel.pay() == 1
    store.kill()
    store.sql("UPDATE paychan.store SET groups = groups - 1", "UPDATE paychan.state SET value = value + 1")
    store.spawn()
    assert store.end() == EXIT_BAD_CONFIG and store.says("has lost what was answered")
    store.sql("UPDATE paychan.store SET groups = groups + 1", "UPDATE paychan.state SET value = value - 1")
    store.start()


def test_who_takes_over_refuses_a_database_that_has_lost_what_it_has_seen_of_the_other(tmp_path):
    """The machine whose own mark knows is gone."""
    with stores(tmp_path, postgres.shared(), "a", "b", lease_ms=20_000) as (first, second):
        first.start()
        channel = Channel(first).open()
        second.start()
        assert channel.pay() == 1
        seen = second.state / "store" / "seen_a.mark"
        wait_until(
            lambda: seen.exists() and max(read_slots(seen.read_bytes()), default=0) >= stored(first, channel)[0], 20, "seeing it"
        )
        first.kill()
        second.kill()
        second.sql("UPDATE paychan.store SET groups = groups - 1 WHERE name = 'a'")
        second.spawn()
        assert second.end() == EXIT_BAD_CONFIG and second.says("groups of store a, and")
        second.sql("UPDATE paychan.store SET groups = groups + 1 WHERE name = 'a'")
        second.start()


def test_a_store_that_finds_less_than_it_was_answered_tells_the_others_and_they_refuse_too(tmp_path):
    """What another has seen of it may be older than what was lost."""
    with stores(tmp_path, postgres.shared(), "a", "b", lease_ms=20_000) as (first, second):
        first.start()
        second.start()
        second.kill()
        channel = Channel(first).open()
        assert channel.pay() == 1
        first.kill()
        first.sql("UPDATE paychan.store SET groups = groups - 1 WHERE name = 'a'")
        first.spawn()
        assert first.end() == EXIT_BAD_CONFIG and first.says("groups of store a, and")
        second.spawn()
        assert second.end() == EXIT_BAD_CONFIG and second.says("remove the mark on the machine of store a")
        first.sql("UPDATE paychan.store SET groups = groups + 1 WHERE name = 'a'")
        second.start()


def test_another_database_is_refused(store, tmp_path):
    store.kill()
    (tmp_path / "other").mkdir()
    with stores(tmp_path / "other", postgres.shared(), "a") as (other,):
        other.start()
        other.kill()
        text = (other.directory / "store.toml").read_text()
        (store.directory / "store.toml").write_text(text.replace(str(other.state), str(store.state)))
        store.spawn()
        assert store.end() == EXIT_BAD_CONFIG and store.says("this is another database")


@pytest.mark.parametrize("change", ["value = value - 5", "revision = revision + 1", "phase = 2"])
def test_what_is_stored_must_be_what_was_judged(store, change):
    """The cache knows better than the database: one of them is wrong, and the group is not written."""
    channel = Channel(store).open()
    assert channel.pay() == 1
    store.sql(f"UPDATE paychan.state SET {change}")
    row = store.sql("SELECT * FROM paychan.state")
    with pytest.raises((Failed, OSError)):
        channel.pay()
    assert store.end() == EXIT_FAILED and store.says("states are as expected")
    assert store.sql("SELECT * FROM paychan.state") == row


def test_a_channel_is_not_opened_twice_and_an_update_is_judged_on_what_is_stored(store):
    channel = Channel(store).open()
    channel.feed.close()
    store.kill()
    store.start()  # with a cold cache
    again = Channel(store)
    with pytest.raises(Failed, match="refused an update"):
        again.open()
    again.value = FUNDING
    assert again.pay() == 1
    again.value -= 5
    with pytest.raises(Failed, match="refused an update"):
        again.pay()


def test_a_conflict_with_a_cached_channel_is_looked_up_and_the_rest_of_the_group_goes_on(store):
    """The judge doubts its cache, asks for a channel that was not read, and judges the group again."""
    channel = Channel(store).open()
    assert channel.pay() == 1
    good = channel._frame(Phase.OPEN, FUNDING - 1)
    state = ChannelState(Phase.OPEN, Payment(3, bytes(70), SIGHASH_CHANGE)).serialize()
    bad = channel.feed.frame([channel.feed.entry(channel.outpoint, Phase.OPEN, 7, state)])
    channel.feed._socket.sendall(bad + good)
    assert [list(channel.feed._next_frame()) for _ in range(2)] == [[2], [0]]
    assert not store.is_over


def test_sales_are_written_with_their_revision(store):
    channel = Channel(store).open()
    assert channel.pay() == 1
    state = ChannelState(Phase.OPEN, Payment(FUNDING - 1, bytes(70), SIGHASH_CHANGE), sales=Sales(1, 1)).serialize()
    shard = shard_of(channel.outpoint, 8)
    entry = Entry(shard, channel.feed._epochs[shard], channel.outpoint, Phase.OPEN, FUNDING - 1, state, credit=0, charge=1)
    assert channel.feed.commit([channel.feed.frame([entry.encode()])], 1) == 1
    assert store.sql("SELECT revision, (SELECT open_spent FROM paychan.store) FROM paychan.state") == [(1, 1)]
    with pytest.raises(Failed, match="refused an update"):  # judged on older sales
        channel.feed.commit([channel.feed.frame([replace(entry, charge=0).encode()])], 1)


# --- the highest time ---


def highest(store, feed, seconds):
    feed._socket.sendall(encode_frame(StoreMessage.HIGHEST, 1, encode_highest(int(seconds))))
    return decode_highest(feed._next_frame())


def test_the_highest_time_of_all_machines_is_told_and_one_from_far_ahead_is_not_believed(store):
    feed, now = Channel(store).feed, int(time.time())
    assert highest(store, feed, 0) == 0
    assert highest(store, feed, now - 50) == now - 50
    assert highest(store, feed, now - 100) == now - 50
    assert highest(store, feed, now + 300) == now + 300
    assert highest(store, feed, time.time() + 700) == now + 300
    feed._socket.sendall(encode_frame(StoreMessage.HIGHEST, 1, encode_highest(1 << 32)))
    with pytest.raises(Failed, match="a time is out of range"):
        feed._next_frame()


# --- the schema ---


def test_a_schema_of_another_version_is_refused_and_none_is_told_of(tmp_path):
    cluster = postgres.shared()
    store = Store(tmp_path / "a", cluster, cluster.make_database())
    store.spawn()
    assert store.end() == EXIT_BAD_CONFIG and store.says("`paychan-store postgres init` makes it")
    for expected in ("made schema", "there already"):
        done = store.command("postgres", "init", store.directory)
        assert done.returncode == 0 and done.stdout.startswith(expected), done
    database = (store.directory / "store.toml").read_text().split('database = "')[1].split('"')[0]
    cluster.primary.sql("UPDATE paychan.cluster SET version = 7", database=database)
    store.spawn()
    assert store.end() == EXIT_BAD_CONFIG and store.says("has version 7")
    assert store.command("postgres", "init", store.directory).returncode == EXIT_BAD_CONFIG


def test_a_stores_role_may_call_the_functions_and_write_nothing_by_itself(store):
    for statement in ("UPDATE paychan.state SET value = 0", "DELETE FROM paychan.record", "SELECT paychan.restored()"):
        with pytest.raises(Exception, match="permission denied"):
            store.sql("SET ROLE paychan_store", statement)


def test_a_state_directory_belongs_to_one_engine(store):
    store.kill()
    text = (store.directory / "store.toml").read_text()
    (store.directory / "store.toml").write_text(text[: text.index("[postgres]")])
    store.spawn()
    assert store.end() == EXIT_BAD_CONFIG and store.says("belongs to a store on PostgreSQL")
    (store.directory / "store.toml").write_text(text)
    (store.state / "store" / "db").mkdir()
    store.spawn()
    assert store.end() == EXIT_BAD_CONFIG and store.says("holds an embedded store")


def test_a_store_stops_at_once_while_it_waits_for_a_database(tmp_path):
    cluster = postgres.shared()
    store = Store(tmp_path / "a", cluster, "nowhere")
    text = (store.directory / "store.toml").read_text()
    (store.directory / "store.toml").write_text(text.replace("hosts = [", 'hosts = ["127.0.0.1:1"] # '))
    store.spawn()
    wait_until(lambda: store.says("no primary of the database is there: 127.0.0.1:1: ConnectionRefusedError"), 20, "the complaint")
    time.sleep(0.1)
    store.process.terminate()
    assert store.end() == 0


# --- the commands beside it ---


def test_a_store_is_checked_and_backed_up_while_it_runs(store, tmp_path):
    channel = Channel(store).open()
    assert channel.pay() == 1
    done = store.command("check", store.directory)
    assert done.returncode == 0 and "1 satoshi received on open ones" in done.stdout, done
    done = store.command("audit", store.directory)
    assert done.returncode == 1 and "its newest payment is not signed by its payer" in done.stdout, done  # nobody's key signed it
    done = store.command("backup", store.directory, tmp_path / "backup")
    assert done.returncode == 0, done
    done = store.command("restore", tmp_path / "backup", tmp_path / "restored")
    assert done.returncode == 0 and "1 satoshi received on open ones" in done.stdout, done
    done = store.command("check", store.state)
    assert done.returncode == 1 and "give the directory that has its store.toml" in done.stderr
    done = store.command("restore", tmp_path / "backup", store.directory)
    assert done.returncode == 1 and "another paychan-store uses this directory" in done.stderr
    return_to_postgres(store, tmp_path)


def return_to_postgres(store, tmp_path):
    """The backup of the restored, embedded store goes into a new database, and the channel is paid on there."""
    done = store.command("backup", tmp_path / "restored", tmp_path / "second")
    assert done.returncode == 0, done
    (tmp_path / "other").mkdir()
    with stores(tmp_path / "other", postgres.shared(), "z") as (other,):
        done = other.command("restore", tmp_path / "second", other.directory)
        assert done.returncode == 0 and "no problems" in done.stdout and "1 satoshi received on open ones" in done.stdout, done
        again = other.command("restore", tmp_path / "second", other.directory)
        assert again.returncode == 1 and "belongs to a store already" in again.stderr, again
        other.start()
        assert other.says("this store was restored at")
        assert min(epoch for (epoch,) in other.sql("SELECT epoch FROM paychan.shard")) > 1 << 33
        channel = Channel(other)
        channel.value = FUNDING - 1
        assert channel.pay() == 1
        channel.feed.close()
        assert other.command("check", other.directory).returncode == 0
        (other.state / "store" / "postgres").unlink()
        other.kill()
        again = other.command("restore", tmp_path / "second", other.directory)
        assert again.returncode == 1 and "holds a store already" in again.stderr, again


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("UPDATE paychan.store SET open_value = open_value + 1", "the record of the open value says 2"),
        ("UPDATE paychan.state SET value = value + 1", "are [1, 999999, 0] in its record, and [1, 1000000, 0] in its row"),
        ("DELETE FROM paychan.record WHERE key < 'P'", "open, and not in the index of expiries"),
        ("UPDATE paychan.state SET record = 'x'", "state record"),
    ],
)
def test_a_check_finds_what_does_not_fit(store, change, complaint):
    channel = Channel(store).open()
    assert channel.pay() == 1
    store.kill()  # else a beat may set its sums right
    store.sql(change)
    done = store.command("check", store.directory)
    assert done.returncode == 1 and complaint in done.stdout, done


# --- the fence, as the database keeps it ---


def test_a_name_is_not_taken_from_a_store_that_has_moved(store):
    """Whoever would begin as `a` elsewhere has looked at its row a lease ago."""
    channel = Channel(store).open()
    fence, groups, identity = store.sql("SELECT fence, groups, (SELECT identity FROM paychan.cluster) FROM paychan.store")[0]
    assert channel.pay() == 1
    begin = f"SELECT paychan.begin_store('a', '\\x{bytes(16).hex()}', '\\x{identity.hex()}', 10, {fence}, {groups}, 0)"
    with pytest.raises(Exception, match="another store uses the name a"):
        store.sql(begin)
    assert channel.pay() == 1


def test_shards_are_not_taken_from_a_store_that_has_moved(store):
    """A store that would take over has looked at the pair a lease ago. The living one goes on, and loses nothing."""
    channel = Channel(store).open()
    store.sql("INSERT INTO paychan.store (name, number, instance, fence, groups) VALUES ('b', 2, '', 1, 0)")
    fence, groups = store.sql("SELECT fence, groups FROM paychan.store WHERE name = 'a'")[0]
    assert channel.pay() == 1
    taken = store.sql(f"SELECT paychan.take_over('b', 1, 1, 'a', {fence}, {groups})")[0][0]
    assert taken == 0
    assert channel.pay() == 1
    fence, groups = store.sql("SELECT fence, groups FROM paychan.store WHERE name = 'a'")[0]
    assert store.sql(f"SELECT paychan.take_over('b', 1, 1, 'a', {fence}, {groups})")[0][0] == 10
    with pytest.raises((Failed, OSError)):
        channel.pay()
    assert store.end() == EXIT_FAILED
    assert stored(store, channel)[1] == FUNDING - 2
    assert store.sql("SELECT open_value FROM paychan.store ORDER BY name") == [(2,), (0,)]


def test_of_two_primaries_the_one_that_was_promoted_last_is_taken(tmp_path):
    """The old one still takes connections, and can confirm nothing."""
    with own_cluster(2) as cluster, stores(tmp_path, cluster, "a", lease_ms=2000) as (store,):
        store.start()
        assert Channel(store).open().pay() == 1
        old, new, third = cluster.nodes
        new.promote()
        third.follow(new)
        cluster.primary = new
        cluster.wait_for_standbys(1)
        assert store.end() == EXIT_FAILED and store.says("has confirmed nothing for")
        assert old.sql("SELECT pg_is_in_recovery()") == [(False,)]
        store.start()
        channel = Channel(store)
        channel.value = FUNDING - 1
        assert channel.pay() == 1
        assert stored(store, channel)[1] == FUNDING - 2


# --- over TLS ---


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def make_authority(place, name):
    key, certificate = place / f"{name}.key", place / f"{name}.crt"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    use = ("-addext", "keyUsage=critical,keyCertSign")  # which Python 3.13 asks for
    openssl("req", "-x509", *curve, "-days", 2, "-subj", f"/CN={name}", *use, "-keyout", key, "-out", certificate)
    return key, certificate


def make_certificate(place, authority, name, more=""):
    """Return the files of a key and of its certificate. more: the extension subjectAltName, if it is a machine's."""
    key, request, certificate = (place / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-new", *curve, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    extensions = place / f"{name}.ext"
    extensions.write_text(f"subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n{more}\n")
    signed = ("-CA", authority[1], "-CAkey", authority[0], "-CAcreateserial", "-days", 2, "-extfile", extensions)
    openssl("x509", "-req", "-in", request, *signed, "-out", certificate)
    key.chmod(0o600)
    return key, certificate


def test_over_tls_both_sides_know_each_other_by_certificate(tmp_path):
    ours = make_authority(tmp_path, "ours")
    server = make_certificate(tmp_path, ours, "db", "subjectAltName=IP:127.0.0.1")
    elsewhere = make_certificate(tmp_path, ours, "elsewhere", "subjectAltName=IP:127.0.0.2")
    client = make_certificate(tmp_path, ours, "paychan_store")
    stranger = make_certificate(tmp_path, make_authority(tmp_path, "theirs"), "paychan_store_")
    with own_cluster() as cluster:
        cluster.primary.use_tls(*server, ours[1], "paychan_store")
        with stores(tmp_path, cluster, "a") as (store,):
            plain = (store.directory / "store.toml").read_text()

            def refused(key, certificate, authority, why):
                files = {"ca_file": authority, "certificate_file": certificate, "key_file": key}
                lines = "".join(f'{name} = "{file}"\n' for name, file in files.items() if file)
                (store.directory / "store.toml").write_text(plain + lines)
                store.spawn()
                wait_until(lambda: store.is_ready or store.says(why), 20, f"saying {why}")
                assert not store.is_ready or not why
                store.kill()

            refused(None, None, None, "pg_hba.conf rejects connection")
            refused(None, None, ours[1], "connection requires a valid client certificate")
            refused(*stranger, ours[1], "ConnectionDoesNotExistError")
            refused(*client, tmp_path / "theirs.crt", "certificate verify failed")
            store.log.unlink()
            cluster.primary.use_tls(*elsewhere, ours[1], "paychan_store")
            refused(*client, ours[1], "IP address mismatch")
            cluster.primary.use_tls(*server, ours[1], "paychan_store")
            store.log.unlink()
            store.start()
            assert Channel(store).open().pay() == 1


def test_a_database_of_another_key_network_or_shard_count_is_refused(store):
    store.kill()
    file = store.directory / "store.toml"
    text = file.read_text()
    other_key = PrivateKey(sha256(b"other").digest()).public_key.format().hex()
    for right, wrong, why in (
        ("shard_count = 8", "shard_count = 16", "store.shard_count: this store was created with 8 shards"),
        (PUBKEY.hex(), other_key, "store.server_pubkey: this store was created for another server key"),
        ('network = "test"', 'network = "regtest"', "network: this store was created for network test"),
    ):
        file.write_text(text.replace(right, wrong))
        store.spawn()
        assert store.end() == EXIT_BAD_CONFIG and store.says(why)
    file.write_text(text)
    store.start()


def test_readyz_says_what_the_store_waits_for(tmp_path, monkeypatch):
    with own_cluster() as cluster:
        monkeypatch.setattr(postgres, "_shared", [cluster])
        monkeypatch.setenv(STORE_VARIABLE, "postgres")
        with running(tmp_path) as system:
            assert system.payer("one").open().status == 201
            names = cluster.primary.sql("SHOW synchronous_standby_names")[0][0]
            set_names(cluster, "")
            client = system.client()

            def waits() -> bool:
                answer = client.request("GET", "/readyz")
                return answer.status == 503 and b"the database does not replicate synchronously" in answer.body

            wait_until(waits, 20, "being told why")
            refused = system.payer("two").open()
            assert (refused.status, refused.code) == (503, "store_unavailable")
            set_names(cluster, names)
            wait_until(lambda: system.ready_workers() == 1, 20, "being ready again")
            assert system.payer("three").open().status == 201


@pytest.mark.privileged("PostgreSQL refuses root: it runs in a user namespace then")
def test_a_system_of_roots_goes_on_when_the_primary_and_its_own_store_are_killed(tmp_path, monkeypatch):
    with own_cluster(standbys=2) as cluster:
        monkeypatch.setattr(postgres, "_shared", [cluster])
        monkeypatch.setenv(STORE_VARIABLE, "postgres")
        with running(tmp_path) as system:
            payer = system.payer("one")
            assert payer.open().status == 201
            cluster.primary.kill()
            cluster.fail_over()
            wait_until(lambda: payer.pay().status == 200, 30, "a payment on another primary")
            os.kill(system.child_pid("store"), signal.SIGKILL)
            wait_until(lambda: payer.pay().status == 200, 30, "a payment by another life of the store")
