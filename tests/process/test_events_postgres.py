"""Aim: on PostgreSQL the order of events is total, and a reader by cursor never skips one that commits late. Method: many
connections that write groups with events at once, each holding its transaction open for a while, one that is rolled back, and a
reader that goes on from the last number that it saw; and a schema of the version before, raised."""

import asyncio
import random
from contextlib import asynccontextmanager

import asyncpg
import pytest

from paychan.core.outpoint import format_outpoint
from paychan.events.event import Event, Type
from paychan.rpc.event_messages import NoteChange, decode_note_reply, decode_stream, encode_after
from paychan.rpc.store_messages import EntryStatus, StoreMessage
from store import keys
from store.engines.postgres import command
from store.engines.postgres.engine import SCAN
from store.engines.postgres.opening import SCHEMA_VERSION
from tests import postgres
from tests.process.test_store_postgres import PUBKEY, Store
from tests.store_workers import Worker, channels, owner_of

pytestmark = postgres.needed
SECONDS_MAX = 60
READ = (keys.EVENT, keys.NEXT_TO_EVENT)


def make(database, *scripts):
    """Run scripts as `paychan-store postgres init` does, as the administrator."""

    async def steps():
        connection = await asyncpg.connect(
            host="127.0.0.1", port=postgres.shared().primary.port, user=postgres.SUPERUSER, database=database
        )
        try:
            async with connection.transaction():
                for role in ("paychan_store", "paychan_signer"):
                    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
                        await connection.execute(f"CREATE ROLE {role} LOGIN")
                for name in scripts:
                    await command._run_script(connection, name, "paychan_store", "paychan_signer")
        finally:
            connection.terminate()

    asyncio.run(steps())


@asynccontextmanager
async def connections(database, count):
    port = postgres.shared().primary.port
    found = [await asyncpg.connect(host="127.0.0.1", port=port, user="paychan_store", database=database) for _ in range(count)]
    try:
        yield found
    finally:
        for connection in found:
            connection.terminate()


async def write(connection, name, chance, done):
    for number in range(12):
        bodies = [f"{name} {number} {place}".encode() for place in range(chance.randint(1, 3))]
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute("SELECT paychan.tell_events($1)", bodies)
        except asyncpg.UniqueViolationError:
            raise AssertionError("two events have one number") from None
        await asyncio.sleep(chance.uniform(0, 0.01))  # a commit that waits for its standby
        if chance.random() < 0.25:
            await transaction.rollback()
            continue
        await transaction.commit()
        done += bodies


async def read(connection, seen, is_over):
    after = b""
    while True:
        over = is_over()
        for key, body in await connection.fetch(SCAN, max(after, READ[0]), READ[1], 5):
            seen.append((keys.event_number(key), body))
            after = key
        if over and len(await connection.fetch(SCAN, max(after, READ[0]), READ[1], 1)) == 0:
            return


def test_several_stores_at_once_and_a_reader_that_skips_none():
    database = postgres.shared().make_database()
    make(database, *command.SCRIPTS)

    async def steps():
        async with connections(database, 5) as (reader, *writers):
            done, seen, chance = [], [], random.Random(5)
            tasks = [
                asyncio.create_task(write(connection, name, random.Random(chance.random()), done))
                for name, connection in enumerate(writers)
            ]
            await asyncio.wait_for(
                asyncio.gather(read(reader, seen, lambda: all(task.done() for task in tasks)), *tasks), SECONDS_MAX
            )
            numbers = [number for number, _ in seen]
            assert numbers == list(range(1, len(done) + 1))  # in order, and what was rolled back leaves no gap
            assert sorted(body for _, body in seen) == sorted(done)
            for name in range(len(writers)):
                mine = [body for _, body in seen if body.startswith(b"%d " % name)]
                assert mine == [body for body in done if body.startswith(b"%d " % name)]

    asyncio.run(steps())


def test_notes_are_replaced_by_who_knows_them_and_events_are_kept_by_the_rule():
    database = postgres.shared().make_database()
    make(database, *command.SCRIPTS)

    async def steps():
        async with connections(database, 2) as (one, other):
            put, name = "SELECT * FROM paychan.put_note($1, $2, $3, $4)", keys.note_key("a")
            assert tuple(await one.fetchrow(put, name, None, b"1", [b"e1"])) == (True, b"1")
            both = await asyncio.gather(
                *(row.fetchrow(put, name, b"1", value, [value]) for row, value in ((one, b"2"), (other, b"3")))
            )
            assert sorted(row[0] for row in both) == [False, True]
            assert both[0][1] == both[1][1]  # both know now what it says
            assert [body for _, body in await one.fetch(SCAN, *READ, 10)] == [b"e1", both[0][1]]
            with pytest.raises(asyncpg.PostgresError, match="no note"):
                await one.fetchrow(put, keys.STATE + b"x", None, b"", [])
            for function in ("put_events(ARRAY['x'::bytea])", "restored()"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await one.fetchval(f"SELECT paychan.{function}")
            await one.execute("SELECT paychan.drop_events(9)")
            assert [keys.event_number(key) for key, _ in await one.fetch(SCAN, *READ, 10)] == [2]

    asyncio.run(steps())
    postgres.shared().primary.sql("SELECT paychan.restored()", database=database)
    rows = postgres.shared().primary.sql(
        "SELECT key, value FROM paychan.record WHERE key >= '\\x4c' AND key < '\\x4d'", database=database
    )
    assert sorted(keys.event_number(row[0]) for row in rows) == [2, 2 + 2**32]


def test_a_schema_of_the_version_before_is_raised(tmp_path):
    cluster, database = postgres.shared(), postgres.shared().make_database()
    make(database, *command.SCRIPTS[:-1])
    cluster.primary.sql(
        "UPDATE paychan.cluster SET version = 3",
        "INSERT INTO paychan.store (name, number, instance, fence, groups) VALUES ('old', 1, '', 5, 3)",
        database=database,
    )
    state = tmp_path / "state"
    (tmp_path / "store.toml").write_text(
        f'network = "test"\nstate_dir = "{state}"\n[store]\naddress = "unix:run/store.sock"\n{cluster.table(database)}'
    )
    done = [command.run(["init", str(tmp_path)]) for _ in range(2)]
    assert done == [0, 0]
    assert cluster.primary.sql("SELECT version FROM paychan.cluster", database=database)[0][0] == SCHEMA_VERSION
    assert (
        cluster.primary.sql("SELECT fence FROM paychan.store", database=database)[0][0] == 6
    )  # once: the old store writes no more


def test_two_stores_that_run_write_one_stream(tmp_path):
    """With real stores: each opens channels of its own, both answer the same events in the same order, and a note of one is the
    other's."""
    cluster, database = postgres.shared(), postgres.shared().make_database()
    stores = [Store(tmp_path / name, cluster, database, name) for name in "ab"]
    assert stores[0].command("postgres", "init", stores[0].directory).returncode == 0
    try:
        for store in stores:
            store.start()
        workers = [Worker(store.address, PUBKEY, f"unix:/{store.name}") for store in stores]
        opened = channels(PUBKEY, 10)
        for money in opened:
            assert money.open(owner_of(money, workers)) is EntryStatus.OK
            assert money.pay(owner_of(money, workers)) is EntryStatus.OK
        change = NoteChange("told/chain", None, b"doubtful", [Event(Type.CHAIN_DOUBTFUL, {"why": "x"})])
        told = [decode_note_reply(worker._ask(StoreMessage.NOTE, change.encode())) for worker in workers]
        assert told == [(True, b"doubtful"), (False, b"doubtful")]
        both = [decode_stream(worker._ask(StoreMessage.EVENTS, encode_after(0, 100))) for worker in workers]
        assert both[0].events == both[1].events and [stream.is_ours for stream in both].count(True) == 1
        events = [Event.parse(body) for _, body in both[0].events]
        assert [number for number, _ in both[0].events] == list(range(1, 12))
        assert [event.outpoint for event in events[:-1]] == [format_outpoint(money.outpoint) for money in opened]
        assert {event.machine for event in events[:-1]} == {"a", "b"} and events[-1].type == Type.CHAIN_DOUBTFUL
    finally:
        for store in stores:
            store.kill()
