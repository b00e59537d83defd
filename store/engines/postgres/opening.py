"""How a store begins on PostgreSQL: find the primary, see whose the database is, raise the fence, take what is its own.

The first thing that counts is an own write that was confirmed: what is read after it is on a second machine, too.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg

from paychan.core.errors import ConfigError
from paychan.database import Node, on_warning, wait_for_primary
from paychan.rpc.store_messages import LEASE_COUNT
from paychan.settings.models import StoreConfig

from ... import keys
from ...ending import die
from ...identity import Identity, hold_against
from ...leases import NOT_HELD
from ...mark import Mark
from ...moved import Moved
from ...restored import describe_restored
from . import pinned as pins
from .engine import RECORD, Place, Postgres, look

log = logging.getLogger("paychan.store")

SCHEMA_VERSION = 4
NOT_REPLICATED = "PC003"
FENCED = "PC001"
BEGIN = "SELECT * FROM paychan.begin_store($1, $2, $3, $4, $5, $6, $7)"
ROW = "SELECT instance, fence, groups FROM paychan.store WHERE name = $1"
_UNCONFIRMED = "the database does not confirm the store's start: is a standby connected?"

Seen = tuple[int, int]
"""(fence, groups) of a store."""

Say = Callable[[str], None]


def refusal(config: StoreConfig, why: str) -> ConfigError:
    return ConfigError(f"{config.common.source}: postgres: {why}")


def lost(config: StoreConfig, name: str, groups: int, confirmed: int, mark: Mark | None) -> ConfigError:
    """mark: what says so here; None: the other store does."""
    remedy = f"remove {mark.path}" if mark is not None else f"remove the mark on the machine of store {name}, and start that one,"
    return refusal(
        config,
        f"the database has lost what was answered: it knows {groups} groups of store {name}, and {confirmed} were confirmed. "
        f"A standby was promoted that did not have them, or an old state was restored: see docs/CLUSTER.md; "
        f"{remedy} to go on without what is lost",
    )


class Opened(NamedTuple):
    """A store that has begun. number: its own among the stores. marks: of the others."""

    engine: Postgres
    identity: Identity
    number: int
    marks: "Others"


@asynccontextmanager
async def opened(config: StoreConfig, database: Path, server_pubkey: bytes, say: Say) -> AsyncIterator[Opened]:
    """Begin; give the engine when that is durable. database: path that an embedded store would have, beside its mark. say: is told
    what is waited for.

    Raises: ConfigError if this store must not run on this database, or another one uses its name. Else it waits.
    """
    assert config.postgres is not None
    pinned, mark = _read_directory(config, database)
    node = await wait_for_primary(config.postgres, say)
    release = on_warning(node.connection, die)
    with Others(database.parent) as marks:
        try:
            found = await _open(config, database.parent, server_pubkey, pinned, mark, marks, node, say)
            try:
                yield found
            finally:
                found.engine.close()
        finally:
            release()
            node.connection.terminate()  # says nothing, and so cancels nothing
            mark.close()


async def _open(
    config: StoreConfig,
    directory: Path,
    server_pubkey: bytes,
    pinned: pins.Pinned,
    mark: Mark,
    marks: "Others",
    node: Node,
    say: Say,
) -> Opened:
    """Raises ConfigError. Whatever else goes wrong ends the process."""
    try:
        identity, is_new = await _identity(node.connection, config, server_pubkey)
        if pinned.system is not None and (pinned.system, pinned.identity) != (node.system, identity.encode().hex()):
            raise refusal(config, f"this is another database than the one that {directory} belongs to")
        try:
            place, number, sent_ms = await _begin(node.connection, config, bytes.fromhex(pinned.instance), identity, mark, say)
        except ConfigError:
            if not is_new or (await _identity(node.connection, config, server_pubkey))[1]:
                raise
            say("another store began on the new database meanwhile: its identity counts")
            return await _open(config, directory, server_pubkey, pinned, mark, marks, node, say)
        if place.groups < mark.sequence:
            raise lost(config, place.store, place.groups, mark.sequence, mark)
        pins.write(directory, pins.Pinned(pinned.instance, node.system, identity.encode().hex()))
        return Opened(await _engine(config, identity, mark, marks, node, place, sent_ms), identity, number, marks)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        die(error)


async def _engine(
    config: StoreConfig, identity: Identity, mark: Mark, marks: "Others", node: Node, place: Place, sent_ms: int
) -> Postgres:
    """Return the engine of a store that has begun, if the database has all that was seen of the others. Raises ConfigError."""
    assert config.postgres is not None
    rows = {row.name: row for row in await look(node.connection.fetch)}
    own = rows.pop(place.store)
    for row in rows.values():
        if row.groups < marks.of(row.name).sequence:
            raise lost(config, row.name, row.groups, marks.of(row.name).sequence, marks.of(row.name))
        if row.groups < row.confirmed:
            raise lost(config, row.name, row.groups, row.confirmed, None)
    mark.note(place.groups)
    for record in await node.connection.fetch(RECORD, keys.RESTORED):
        log.warning("this store was %s", describe_restored(record[0]))
    epochs = [own.leases.get(lease, NOT_HELD) for lease in range(identity.shard_count + LEASE_COUNT)]
    return Postgres(node.connection, mark, place, config.postgres.lease_ms, own.sums, epochs, sent_ms)


def _read_directory(config: StoreConfig, database: Path) -> tuple[pins.Pinned, Mark]:
    directory = database.parent
    if database.exists():
        raise refusal(config, f"{directory} holds an embedded store; give this one a state_dir of its own")
    try:
        is_new = not pins.path_of(directory).exists()
        mark = Mark(database)
        if is_new and mark.sequence:
            raise ValueError(f"{pins.path_of(directory)} is gone, and the mark {mark.path} is still there")
        return pins.read_or_make(directory), mark
    except (OSError, ValueError) as error:
        raise refusal(config, str(error)) from error


async def _identity(connection: asyncpg.Connection, config: StoreConfig, server_pubkey: bytes) -> tuple[Identity, bool]:
    """Return the database's identity; or for a new one what it will be, unless another store is faster, and True. Raises
    ConfigError."""
    try:
        version, record = await connection.fetchrow("SELECT version, identity FROM paychan.cluster")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.InsufficientPrivilegeError, TypeError):
        raise refusal(config, "the database has no schema for this role; `paychan-store postgres init` makes it") from None
    if version != SCHEMA_VERSION:
        raise refusal(config, f"the database's schema has version {version}, this paychan-store needs {SCHEMA_VERSION}")
    if moved := await connection.fetchval("SELECT moved FROM paychan.cluster"):
        raise refusal(config, Moved.parse(moved).why_not(Path(config.common.source).absolute().parent))
    if record is None:
        return Identity(config.common.network.name, server_pubkey, config.shard_count, os.urandom(16)), True
    try:
        identity = Identity.decode(record)
    except ValueError as error:
        raise refusal(config, f"the database {error}") from error
    hold_against(identity, config, server_pubkey)
    return identity, False


async def _begin(
    connection: asyncpg.Connection, config: StoreConfig, instance: bytes, identity: Identity, mark: Mark, say: Say
) -> tuple[Place, int, int]:
    """Raise the fence, and tell the others what is known here; return the store's place and number, and when that was sent.
    Whatever an earlier process of this name left in flight is over when this returns."""
    assert config.postgres is not None
    name = config.postgres.name
    seen = await _seen_alone(connection, config, instance, say)
    leases = identity.shard_count + LEASE_COUNT
    say("the database has not confirmed the store's start yet")
    while True:
        sent_ms = _now_ms()
        unconfirmed = asyncio.get_running_loop().call_later(config.postgres.lease_ms / 1000, die, TimeoutError(_UNCONFIRMED))
        try:
            begin = name, instance, identity.encode(), leases, *seen, mark.sequence
            fence, groups, number = await connection.fetchrow(BEGIN, *begin)
            return Place(name, fence, groups), number, sent_ms
        except asyncpg.PostgresError as error:
            if error.sqlstate == FENCED:
                raise refusal(config, str(error)) from error
            if error.sqlstate != NOT_REPLICATED:
                raise
            say(f"{error}: the store waits (synchronous_standby_names, fsync, synchronous_commit)")
        finally:
            unconfirmed.cancel()
        await asyncio.sleep(1)


async def _seen_alone(connection: asyncpg.Connection, config: StoreConfig, instance: bytes, say: Say) -> Seen:
    """Return (fence, groups) of the store of our name. If it was another state directory's, watch it for a lease first: while it
    moves, two machines have one name. Raises ConfigError then."""
    assert config.postgres is not None
    row = await connection.fetchrow(ROW, config.postgres.name)
    if row is None or row[0] == instance:
        return (0, 0)
    say(f"the name {config.postgres.name} was another machine's; it is watched for a lease")
    await asyncio.sleep(config.postgres.lease_ms / 1000)
    again = await connection.fetchrow(ROW, config.postgres.name)
    if tuple(again) != tuple(row):
        raise refusal(config, f"name: another store uses the name {config.postgres.name}: each machine has its own")
    return again[1], again[2]


class Others:
    """Marks of other stores, as far as they were seen here: `STATE_DIR/store/seen_NAME.mark`. Whoever takes over a store whose
    machine is gone cannot ask that one's own mark."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._marks: dict[str, Mark] = {}

    def __enter__(self) -> "Others":
        return self

    def __exit__(self, *_: object) -> None:
        for mark in self._marks.values():
            mark.close()

    def of(self, name: str) -> Mark:
        """name: a store's, small letters, digits and underscores."""
        if name not in self._marks:
            self._marks[name] = Mark(self._directory / f"seen_{name}")
        return self._marks[name]


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
