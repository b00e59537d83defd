"""Aim: the model of PostgreSQL that the worlds of several machines stand on does what PostgreSQL does.

Method: random sequences of calls of the schema's functions, on the model and on a real server; every outcome and every row must be
the same. Then pairs of calls of which one waits for a standby: who waits for whom, what is seen meanwhile, what a cancelled wait
leaves.
"""

import asyncio
import random
import secrets
import time

import pytest

from paychan.settings.models import PostgresConfig
from tests import postgres

pytestmark = postgres.needed
pytest.importorskip("asyncpg")

import asyncpg  # noqa: E402

from paychan import database  # noqa: E402
from store import keys  # noqa: E402
from store.engines.postgres import command, engine, opening  # noqa: E402

from .cluster.database import CANCELLED  # noqa: E402
from .cluster.tables import READS, WRITES, Blocked, SqlError, Tables, Transaction  # noqa: E402

CALLS = 300
PAIRS = 7
NAMES = ("a", "b", "c")
SHARDS = 6
OUTPOINTS = [bytes([number]) * 36 for number in range(5)]
KEYS = [b"T" + outpoint for outpoint in OUTPOINTS] + [b"X" + OUTPOINTS[0], b"E\x00\x00\x00\x01a", b"U" + OUTPOINTS[1]]
NOTES = [keys.note_key("freeze"), keys.note_key("drain")]
IDENTITY = b"identity"
WAIT_SECONDS = 0.1
ROWS = {
    "store": """SELECT name, number, instance, fence, groups, open_value, begun_value, open_spent, owners, confirmed
        FROM paychan.store""",
    "shard": "SELECT shard, store, epoch FROM paychan.shard",
    "state": "SELECT outpoint, phase, value, revision, record FROM paychan.state",
    "record": "SELECT key, value FROM paychan.record",
    "cluster": "SELECT true, identity, highest FROM paychan.cluster",
}


@pytest.fixture
def config():
    cluster = postgres.shared()
    name = cluster.make_database()
    found = PostgresConfig(tuple(cluster.hosts()), name, "paychan_store", None, None, None, "a", 30_000)
    asyncio.run(command.init(found, "paychan_signer", postgres.SUPERUSER))
    return found


async def connected(config):
    return (await database.need_primary(config)).connection


class Draw:
    """Calls that mostly could be right, of what the model knows."""

    def __init__(self, chance, tables):
        self.chance, self.tables = chance, tables

    def place(self, name):
        row = self.tables.rows["store"].get(name)
        fence, groups = (row.fence, row.groups) if row is not None else (1, 0)
        if self.chance.random() < 0.15:
            fence += self.chance.choice((-1, 1))
        if self.chance.random() < 0.15:
            groups += self.chance.choice((-1, 1))
        return name, fence, groups + 1

    def sums(self):
        return [self.chance.randint(-5, 50) for _ in range(3)]

    def owners(self):
        return self.chance.choice((None, None, b"", b"owners"))

    def leases(self):
        return self.chance.sample(range(SHARDS + 1), self.chance.choice((0, 1, 1, 2)))

    def states(self):
        """Return columns; some rows as they are stored, some not."""
        rows = []
        for outpoint in self.chance.sample(OUTPOINTS, self.chance.choice((0, 1, 1, 2))):
            row = self.tables.rows["state"].get(outpoint)
            before = (row.phase, row.value, row.revision) if row is not None else (0, 0, 0)
            if self.chance.random() < 0.12:
                before = tuple(max(0, value + self.chance.choice((-1, 0, 1))) for value in before)
            step = self.chance.random() < 0.9
            after = (
                max(0, before[0] + (self.chance.choice((0, 0, 1)) if step else -1)) or 1,
                before[1] - self.chance.choice((0, 1)) if before[0] and step else before[1] + self.chance.randint(1, 40),
                before[2] + self.chance.choice((0, 1)),
            )
            rows.append((outpoint, *before, *after, self.chance.randbytes(8)))
        return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(8)]

    def put_group(self):
        name, leases = self.chance.choice(NAMES), self.leases() if self.chance.random() < 0.2 else []
        keys = self.chance.sample(KEYS, self.chance.choice((0, 0, 1, 2)))
        gone = self.chance.sample(KEYS, self.chance.choice((0, 0, 0, 1)))
        epochs = [self.epoch(lease) for lease in leases]
        puts = [self.chance.choice((b"", b"1", b"2")) for _ in keys]
        return engine.PUT_GROUP, (*self.place(name), *self.sums(), *self.states(), keys, puts, gone, leases, epochs, self.owners())

    def epoch(self, lease):
        row = self.tables.rows["shard"].get(lease)
        return (row.epoch if row is not None else 0) + self.chance.choice((0, 1, 1, 1, 2))

    def give(self):
        name = self.chance.choice(NAMES)
        own = [lease for lease, row in self.tables.rows["shard"].items() if row.store == name]
        leases = self.chance.sample(own, min(len(own), 2)) if self.chance.random() < 0.8 else self.leases()
        return engine.GIVE, (*self.place(name), *self.sums(), leases, self.chance.choice((*NAMES, "nobody")), self.owners())

    def take_over(self):
        name, silent = self.chance.sample((*NAMES, "d"), 2)
        _, fence, groups = self.place(silent)
        return engine.TAKE_OVER, (*self.place(name), silent, fence, groups - 1)

    def begin(self):
        name = self.chance.choice(NAMES)
        _, fence, groups = self.place(name)
        identity = IDENTITY if self.chance.random() < 0.95 else b"another"
        instance = self.chance.choice((name.encode() * 16, name.encode() * 16, b"x" * 16))
        return opening.BEGIN, (name, instance, identity, SHARDS, fence, groups - 1, self.chance.randint(0, 5))

    def highest(self):
        return engine.HIGHEST, (int(time.time()) + self.chance.choice((-1000, 100, 100_000)),)

    def events(self, least=0):
        return [self.chance.randbytes(6) for _ in range(self.chance.choice((least, 1, 2)))]

    def put_told_group(self):
        return engine.PUT_TOLD_GROUP, (*self.put_group()[1], self.events())

    def put_note(self):
        key = self.chance.choice((*NOTES, *NOTES, KEYS[0]))
        value = self.tables.rows["record"].get(key) if self.chance.random() < 0.8 else b"another"
        return engine.PUT_NOTE, (key, value, self.chance.choice((None, b"1", b"2")), self.events())

    def tell(self):
        return engine.TELL, (self.events(least=1),)

    def drop(self):
        numbers = [keys.event_number(key) for key in self.tables.rows["record"] if key.startswith(keys.EVENT)]
        return engine.DROP, (self.chance.choice(numbers or [0]) + self.chance.choice((-1, 0, 1)),)

    def call(self):
        kinds = (
            self.put_group, self.put_told_group, self.put_note, self.tell, self.drop, self.give, self.take_over, self.begin,
            self.highest,
        )  # fmt: skip
        return self.chance.choices(kinds, (10, 5, 4, 2, 1, 3, 3, 2, 1))[0]()


def beginning(name):
    return opening.BEGIN, (name, name.encode() * 16, IDENTITY, SHARDS, 0, 0, 0)


def modelled(tables, locked, statement, arguments):
    """Return what the model says, and its transaction."""
    tx = Transaction(tables, locked, now=int(time.time()))
    try:
        return [tuple(row) for row in WRITES[statement](tx, *arguments)], tx
    except SqlError as error:
        return error.sqlstate, None


async def real(connection, statement, arguments):
    try:
        rows = await connection.fetch(statement, *arguments)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    # What returns nothing gives one row with an empty text in it.
    return [tuple(None if value == "" else value for value in row) for row in rows]


async def rows_of(connection):
    return {table: {row[0]: tuple(row)[1:] for row in await connection.fetch(select)} for table, select in ROWS.items()}


def rows_in(tables):
    def columns(row):
        return (row,) if isinstance(row, bytes) else tuple(vars(row).values())

    return {table: {key: columns(row) for key, row in tables.rows[table].items()} for table in ROWS}


async def same_reads(connection, tables, chance):
    asked = (
        (engine.LOOK, ()),
        (engine.LOAD, (OUTPOINTS[:3],)),
        (engine.READ, (OUTPOINTS[1:],)),
        (engine.RECORD, (chance.choice(KEYS),)),
        (engine.SCAN, (b"A", b"V", chance.choice((1, 3, 100)))),
        (opening.ROW, (chance.choice(NAMES),)),
    )
    for statement, arguments in asked:
        found = [tuple(row) for row in await connection.fetch(statement, *arguments)]
        told = [tuple(row) for row in READS[statement](tables, *arguments)]
        assert sorted(map(repr, found)) == sorted(map(repr, told)), statement


def test_every_call_has_the_outcome_and_leaves_the_rows_that_the_model_says(config):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance, tables = random.Random(seed), Tables()
    outcomes = set()

    async def compare():
        connection = await connected(config)
        try:
            draw = Draw(chance, tables)
            for number in range(CALLS):
                statement, arguments = draw.call() if number >= len(NAMES) else beginning(NAMES[number])
                told, tx = modelled(tables, {}, statement, arguments)
                assert await real(connection, statement, arguments) == told, (number, statement, arguments)
                outcomes.add((statement, str(told)[:5]))
                if tx is not None:
                    tables.apply(tx.changes)
                if number % 10 == 9:
                    assert await rows_of(connection) == rows_in(tables), number
                    await same_reads(connection, tables, chance)
        finally:
            connection.terminate()

    asyncio.run(compare())
    assert {"PC001", "PC002"} <= {outcome for _, outcome in outcomes}
    assert len({statement for statement, _ in outcomes}) == len(WRITES)


class Waits:
    """While this lasts, no commit is confirmed."""

    def __init__(self, node):
        self._node = node

    def _set(self, names):
        self._node.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
        self._node.wait_until(f"SELECT current_setting('synchronous_standby_names') = '{names}'", "does not take the names")

    def begin(self):
        self._set("ANY 1 (nobody)")

    def end(self):
        self._set("ANY 1 (n1, n2, n3)")


def test_who_waits_for_whom_what_is_seen_meanwhile_and_what_a_cancelled_wait_leaves(config):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance, tables = random.Random(seed), Tables()
    waits = Waits(postgres.shared().primary)
    seen = {"waited for": 0, "refused at once": 0, "beside": 0, "cancelled": 0}

    async def apply(connection, statement, arguments):
        told, tx = modelled(tables, {}, statement, arguments)
        assert await real(connection, statement, arguments) == told
        if tx is not None:
            tables.apply(tx.changes)

    async def committing(connection, draw):
        """Return a call that writes something now."""
        while True:
            statement, arguments = draw.call()
            told, tx = modelled(tables, {}, statement, arguments)
            if tx is not None and tx.changes:
                return statement, arguments, told, tx

    async def pair(one, other, third, number):
        draw = Draw(chance, tables)
        statement, arguments, told, first = await committing(one, draw)
        warnings = []
        noted = lambda _, message: warnings.append(message.sqlstate)  # noqa: E731  # must be taken away again
        one.add_log_listener(noted)
        pid = one.get_server_pid()
        await asyncio.to_thread(waits.begin)
        try:
            waiting = asyncio.ensure_future(real(one, statement, arguments))
            is_there = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'"
            admin = await database.connect(config, *config.hosts[0], postgres.SUPERUSER)
            while not (await admin.fetchval(is_there, pid)):
                assert not waiting.done(), (statement, arguments)
                await asyncio.sleep(0.01)
            assert await rows_of(third) == rows_in(tables)  # nothing of it is seen
            beside, asked = draw.call()
            try:
                outcome, second = modelled(tables, first.held, beside, asked)
            except Blocked:
                outcome, second = None, None
                seen["waited for"] += 1
            later = asyncio.ensure_future(real(other, beside, asked))
            if outcome is not None and (second is None or not second.is_logged):
                assert await later == outcome, (beside, asked)
                seen["refused at once"] += second is None
            else:
                seen["beside"] += outcome is not None
                await asyncio.wait([later], timeout=WAIT_SECONDS)
                assert not later.done(), (beside, asked, later.result())
            if number % 3 == 2:
                await admin.fetchval("SELECT pg_cancel_backend($1)", pid)
                assert await waiting == told
                assert warnings == [CANCELLED[0]]
                tables.apply(first.changes)
                if outcome is None or second is None or not second.is_logged:
                    assert await rows_of(third) == rows_in(tables)  # on one machine's disk, and seen
                seen["cancelled"] += 1
            admin.terminate()
        finally:
            await asyncio.to_thread(waits.end)
            one.remove_log_listener(noted)
        assert await waiting == told
        tables.apply(first.changes)
        if outcome is None:
            outcome, second = modelled(tables, {}, beside, asked)
        assert await later == outcome, (beside, asked)
        if second is not None:
            tables.apply(second.changes)
        assert await rows_of(third) == rows_in(tables)

    async def compare():
        one, other, third = [await connected(config) for _ in range(3)]
        try:
            for name in NAMES:
                await apply(one, *beginning(name))
            for _ in range(30):
                await apply(one, *Draw(chance, tables).call())
            for number in range(10 * PAIRS):
                await pair(one, other, third, number)
                if number + 1 >= PAIRS and seen["waited for"] and seen["cancelled"]:
                    break
        finally:
            for connection in (one, other, third):
                connection.terminate()

    asyncio.run(compare())
    assert seen["waited for"] and seen["cancelled"], seen
