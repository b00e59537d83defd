"""Several stores active at once on one database: every channel is served by exactly one of them, whatever comes and goes.

Method: two or three stores as processes of their own on a real primary and standby, a worker's connection to each
(tests/store_workers.py), and payments through whichever worker the owner table names.
"""

import random
import re
import signal
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress

import pytest

from paychan.exits import EXIT_FAILED
from paychan.rpc.store_messages import EntryStatus, StoreMessage, encode_commit
from paychan.rpc.stores_messages import Life
from tests import postgres
from tests.process.test_store_postgres import PUBKEY, stores
from tests.store_workers import FUNDING, Worker, channels, owner_of
from tests.system import wait_until
from tests.wires import Wire

pytestmark = postgres.needed

LEASE_MS = 2000
SHARDS = 8
OK, STALE = EntryStatus.OK, EntryStatus.STALE_EPOCH


@contextmanager
def active(directory, *names, lease_ms=LEASE_MS):
    """Give stores that serve, and a worker of each, once all leases are shared out among the workers."""
    with stores(directory, postgres.shared(), *names, lease_ms=lease_ms) as made:
        for store in made:
            store.start()
        workers = [Worker(store.address, PUBKEY, f"of {store.name}") for store in made]
        shared_among(workers)
        yield made, workers


def shared_among(workers):
    """Wait until these workers have all shards, as many as the others, and say the same."""

    def look():
        tables = [worker.listen() for worker in workers]
        counts = [len(worker.shards()) for worker in workers]
        is_one = all(table.owners == tables[0].owners for table in tables)
        return is_one and sum(counts) == SHARDS and max(counts) - min(counts) <= 1 and all(owner for owner, _ in tables[0].owners)

    wait_until(look, 20, "an even division")


def opened(workers, count=24):
    """Return channels, each opened by its owner."""
    made = channels(PUBKEY, count)
    for money in made:
        assert money.open(owner_of(money, workers)) is OK
    return made


def sound(store, paid):
    """Check all that is stored, and that so many satoshi were received."""
    done = store.command("check", store.directory)
    assert done.returncode == 0 and f"\n{paid} satoshi received on open ones" in done.stdout, done


# --- who has what ---


def test_active_stores_share_the_leases_and_every_worker_knows_all_owners(tmp_path):
    with active(tmp_path, "a", "b", "c") as (made, workers):
        assert {worker.number for worker in workers} == {(1 << 16) + 1, (2 << 16) + 1, (3 << 16) + 1}
        table = workers[0].listen()
        assert table.workers == {worker.number: f"of {store.name}" for worker, store in zip(workers, made, strict=True)}
        paid = 0
        for money in opened(workers):
            assert money.pay(owner_of(money, workers)) is OK
            paid += 1
        sound(made[0], paid)


def test_a_store_without_workers_gives_its_leases_to_those_that_have_some_and_keeps_them_if_none_has(tmp_path):
    with active(tmp_path, "a", "b", lease_ms=60_000) as (made, (first, second)):
        first.close()
        shared_among([second])
        held = made[0].sql("SELECT store, count(*)::int FROM paychan.shard GROUP BY store")
        assert held == [("b", SHARDS + 2)]
        second.close()
        third = Worker(made[1].address, PUBKEY, "again")
        shared_among([third])


def test_a_number_is_a_stores_own_and_stays(tmp_path):
    with active(tmp_path, "a", "b") as (made, _):
        for store in made:
            store.process.terminate()
            assert store.end() == 0
        made[1].start()
        made[0].start()
        assert made[0].sql("SELECT name, number FROM paychan.store ORDER BY name") == [("a", 1), ("b", 2)]
        assert Worker(made[1].address, PUBKEY, "again").number >> 16 == 2


# --- what is unsettled ---


def test_what_is_unsettled_is_the_sum_over_all_stores(tmp_path):
    """The limit of exposure is held against what one store tells its workers."""
    with active(tmp_path, "a", "b") as (made, workers):
        paid = 0
        for money in opened(workers):
            assert money.pay(owner_of(money, workers)) is OK
            paid += 1
        parts = [row[0] for row in made[0].sql("SELECT open_value::int FROM paychan.store")]
        assert sum(parts) == paid and all(parts)
        for worker in workers:
            wait_until(lambda worker=worker: worker.unsettled().open == paid, 20, "the whole sum")
        made[0].kill()
        wait_until(lambda: len(workers[1].shards()) == SHARDS, 20, "the take-over")
        wait_until(lambda: workers[1].unsettled().open == paid, 20, "the whole sum, with a store that is gone")
        sound(made[1], paid)


# --- a store that goes ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_silent_store_is_taken_over_and_gets_its_share_again_when_it_is_back(tmp_path, number):
    """The lowest name of those that live takes over, and gives the rest their share. Nothing that was answered is lost, and
    what the silent one still sends is refused."""
    with active(tmp_path, "a", "b", "c") as (made, workers):
        money = opened(workers)
        for channel in money:
            assert channel.pay(owner_of(channel, workers)) is OK
        theirs = [channel for channel in money if workers[0].owns(channel.outpoint)]
        made[0].process.send_signal(number)
        with suppress(OSError):
            workers[0].send(StoreMessage.COMMIT, encode_commit([theirs[0].payment(workers[0]).encode()]))
        shared_among(workers[1:])
        for channel in money:
            assert channel.pay(owner_of(channel, workers[1:])) is OK
        told_of_silence(workers[1:], 2 * len(money))
        if number == signal.SIGSTOP:
            made[0].process.send_signal(signal.SIGCONT)
            assert made[0].end() == EXIT_FAILED
        made[0].start()
        workers[0] = Worker(made[0].address, PUBKEY, "again")
        shared_among(workers)
        for channel in money:
            assert channel.pay(owner_of(channel, workers)) is OK
        sound(made[0], 3 * len(money))


def told_of_silence(workers, paid):
    """Check what the stores b and c tell of all: a is silent, and each of the others has what its worker serves."""

    def look():
        both = [worker.stores() for worker in workers]
        return all(told["a"].life is Life.SILENT and sum(one.open for one in told.values()) == paid for told in both)

    wait_until(look, 20, "a silence, and what was paid, to be told of")
    for worker, name in zip(workers, "bc", strict=True):
        told = worker.stores()
        assert told[name].is_this and not told["a"].owners and {told["b"].life, told["c"].life} == {Life.ALIVE}
        assert [set(told[other].owners.values()) for other in "bc"] == [{each.number} for each in workers]
        assert told[name].workers == {worker.number: f"of {name}"}


def test_a_store_that_is_cut_off_from_the_database_ends_and_what_it_had_sent_is_refused(tmp_path):
    """The wire is mended when others have taken over: what was under way arrives then, and changes nothing."""
    with ExitStack() as stack:
        made = stack.enter_context(stores(tmp_path, postgres.shared(), "a", "b", lease_ms=LEASE_MS))
        file = made[1].directory / "store.toml"
        wire = stack.enter_context(Wire(postgres.shared().primary.port))
        hosts = re.compile(r"(?m)^hosts = .*$")
        file.write_text(hosts.sub(f'hosts = ["127.0.0.1:{wire.port}"]', file.read_text()))
        for store in made:
            store.start()
        workers = [Worker(store.address, PUBKEY, f"of {store.name}") for store in made]
        shared_among(workers)
        money = opened(workers)
        for channel in money:
            assert channel.pay(owner_of(channel, workers)) is OK
        theirs = next(channel for channel in money if workers[1].owns(channel.outpoint))
        late = encode_commit([theirs.payment(workers[1]).encode()])
        wire.cut()
        workers[1].send(StoreMessage.COMMIT, late)
        assert made[1].end() == EXIT_FAILED and made[1].says("has confirmed nothing for")
        wait_until(lambda: len(workers[0].shards()) == SHARDS, 20, "the take-over")
        wire.mend()
        for channel in money:
            assert channel.pay(workers[0]) is OK
        made[1].start()
        workers[1] = Worker(made[1].address, PUBKEY, "again")
        shared_among(workers)
        sound(made[0], 2 * len(money))


def test_a_store_that_is_stopped_gives_its_leases_away_first(tmp_path):
    with active(tmp_path, "a", "b", lease_ms=600_000) as (made, workers):
        money = opened(workers)
        made[0].process.terminate()
        assert made[0].end() == 0
        assert made[1].sql("SELECT DISTINCT store FROM paychan.shard") == [("b",)]
        wait_until(lambda: len(workers[1].shards()) == SHARDS, 20, "their new owner")
        for channel in money:
            assert channel.pay(workers[1]) is OK
        made[0].start()
        again = Worker(made[0].address, PUBKEY, "again")
        shared_among([again, workers[1]])


# --- leases that wander ---


def test_channels_wander_there_and_back_and_no_store_remembers_them_as_they_were(tmp_path):
    with active(tmp_path, "a", "b", lease_ms=60_000) as (made, workers):
        money = opened(workers)
        for _ in range(3):
            for channel in money:
                assert channel.pay(owner_of(channel, workers)) is OK
            for at, store in enumerate(made):
                workers[at].close()
                shared_among(workers[:at] + workers[at + 1 :])
                for channel in money:
                    assert channel.pay(workers[1 - at]) is OK
                workers[at] = Worker(store.address, PUBKEY, "again")
                shared_among(workers)
        assert not any(worker.listen().stopped for worker in workers)
        sound(made[0], sum(FUNDING - channel.value for channel in money))


def test_a_lease_that_went_is_refused_as_stale_whatever_epoch_is_said(tmp_path):
    with active(tmp_path, "a", "b", lease_ms=60_000) as (_, (first, second)):
        money = next(channel for channel in opened([first, second]) if first.owns(channel.outpoint))
        epoch = first.epoch_of(money.outpoint)
        wait_until(lambda: second.listen() and second.epoch_of(money.outpoint) == epoch, 20, "knowing it")
        assert money.pay(second) is STALE, "the other store does not hold it"
        assert money.pay(second, epoch=epoch + 1) is STALE
        assert money.pay(second, epoch=(1 << 64) - 1) is STALE
        assert money.pay(first) is OK


def test_giving_under_load_loses_and_doubles_nothing(tmp_path):
    """Payments go on while workers join and leave; what is refused is paid again at whoever owns it."""
    with active(tmp_path, "a", "b", lease_ms=20_000) as (made, workers):
        money, rng, answers = opened(workers), random.Random(7), Counter()
        for turn in range(600):
            if turn % 25 == 0:
                workers.append(Worker(rng.choice(made).address, PUBKEY, "one more"))
                if len(workers) > 4:
                    workers.pop(rng.randrange(len(workers))).close()
            channel = money[turn % len(money)]
            owner = next((worker for worker in workers if worker.owns(channel.outpoint)), None)
            answers[channel.pay(owner) if owner else None] += 1
        print(answers)
        assert set(answers) <= {OK, STALE, None} and answers[OK] > 200
        rows = dict(made[0].sql("SELECT outpoint, value FROM paychan.state"))
        assert {channel.outpoint: channel.value for channel in money} == rows
        sound(made[0], answers[OK])


# --- as the database keeps it ---


def test_nobody_gives_what_is_not_his(tmp_path):
    with stores(tmp_path, postgres.shared(), "a", "b") as (first, second):
        first.start()
        second.start()
        fence, groups = first.sql("SELECT fence, groups FROM paychan.store WHERE name = 'b'")[0]
        give = f"SELECT paychan.give('b', {fence}, {groups} + 1, 0, 0, 0, ARRAY[3], '%s', NULL)"
        with pytest.raises(Exception, match="0 of 1 leases are ours"):
            first.sql(give % "b")
        fence, groups = first.sql("SELECT fence, groups FROM paychan.store WHERE name = 'a'")[0]
        with pytest.raises(Exception, match="to be given to nobody"):
            first.sql(f"SELECT paychan.give('a', {fence}, {groups} + 1, 0, 0, 0, ARRAY[3], 'nobody', NULL)")
        assert first.sql("SELECT DISTINCT store FROM paychan.shard") == [("a",)]


def test_a_store_notices_that_the_database_has_lost_what_was_seen_of_another(tmp_path):
    with active(tmp_path, "a", "b") as (made, _):
        made[1].kill()
        made[0].sql("UPDATE paychan.store SET groups = groups - 1 WHERE name = 'b'")
        assert made[0].end() == EXIT_FAILED and made[0].says("has lost what was answered")
