"""`paychan-store postgres init DIR`: makes the schema of a store, and the role that stores have, in the database that
DIR/store.toml names; and the ledger that signers share, with their role (DIR/signer.toml, if it names one). `look` prints what that
database is, as one JSON object, for `paychan doctor`.

`init` is run by who may do that there, once, on one machine. What is there already is left as it is; a schema of an older version
is made one of this version, in one transaction, and stores of the older one are fenced off.
"""

import argparse
import asyncio
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg

from paychan.core.errors import ConfigError
from paychan.database import connect, find_primary, need_primary, no_primary
from paychan.exits import EXIT_FAILED, status_of
from paychan.printing import say, show
from paychan.settings.load import load_signer_config, load_store_config
from paychan.settings.models import PostgresConfig

from .opening import SCHEMA_VERSION

_ADMIN_SETTINGS = {"application_name": "paychan-store postgres init", "client_min_messages": "warning"}
SCRIPTS = ("schema.sql", "cluster.sql", "signer.sql", "events.sql")
RAISES = {3: "events.sql"}
"""What makes a schema of the next version out of an older one, by that."""

_VERSION = "SELECT version FROM paychan.cluster"
_IS_REPLICATED = "SELECT current_setting('synchronous_standby_names') <> '' AND current_setting('fsync') = 'on'"
_ADDRESS = "SELECT coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'a Unix socket')"
_TOLD_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")
_STANDBYS = """SELECT application_name AS name, state, sync_state, extract(epoch FROM flush_lag)::float8 AS lag
    FROM pg_stat_replication"""
EPILOG = """The database must be there (createdb). A password comes from PGPASSWORD or the file that PGPASSFILE names.
exit statuses: 0 done; 2 wrong usage or configuration; 70 the database said no, or is not there"""


def run(arguments: list[str]) -> int:
    """Run the command; what goes wrong is one line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        config = load_store_config(options.dir / "store.toml")
        if config.postgres is None:
            raise ConfigError(f"{config.common.source}: postgres: is missing")
        if options.action == "look":
            show(json.dumps(asyncio.run(look(config.postgres))))
        else:
            show(asyncio.run(init(config.postgres, _signers_role(options.dir), options.admin, options.host)))
    except ConfigError as error:
        say(f"paychan-store postgres: {error}")
        return status_of(error)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        say(f"paychan-store postgres: {type(error).__name__}: {' '.join(str(error).split())}")
        return EXIT_FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paychan-store postgres",
        description="Make the schema of a store and its role in the database that DIR/store.toml names.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action", choices=["init", "look"], help="init: make them, or see that they are there; look: print what is there, as JSON"
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="the directory with store.toml")
    parser.add_argument("--admin", metavar="ROLE", default="postgres", help="who connects; may make roles and schemas (postgres)")
    parser.add_argument(
        "--host", metavar="HOST", help="where: a host, or the directory of a Unix socket; else the primary in store.toml"
    )
    return parser


def _signers_role(directory: Path) -> str:
    """Return what the signers are called in the database. Raises ConfigError."""
    file = directory / "signer.toml"
    postgres = load_signer_config(file).postgres if file.exists() else None
    return postgres.role if postgres is not None else "paychan_signer"


async def init(config: PostgresConfig, signer: str, admin: str, host: str | None = None) -> str:
    """Return a line that says what was done. Raises ConfigError for a schema of another version; OSError, asyncpg's errors."""
    connection = await connect_as_admin(config, admin, host)
    try:
        async with connection.transaction():
            is_new = await connection.fetchval("SELECT to_regnamespace('paychan') IS NULL")
            if is_new:
                await _make(connection, config.role, signer)
            version = before = await connection.fetchval(_VERSION)
            while version in RAISES:
                await _run_script(connection, RAISES[version], config.role, signer)
                version = await connection.fetchval(_VERSION)
        if version != SCHEMA_VERSION:
            raise ConfigError(f"the schema in {config.database} has version {version}, this paychan-store needs {SCHEMA_VERSION}")
        done = "made" if is_new else "there already:" if version == before else f"raised from version {before}:"
        line = f"{done} schema paychan, version {version}, in database {config.database}, for roles {config.role} and {signer}"
        if not await connection.fetchval(_IS_REPLICATED):
            line += "\nsynchronous_standby_names is empty, or fsync is off: stores refuse to write"
        return line
    finally:
        connection.terminate()


async def look(config: PostgresConfig) -> dict[str, Any]:
    """Return what the database is and how it replicates, as a store's role may see it. Raises OSError, asyncpg's errors."""
    node, troubles = await find_primary(config)
    if node is None:
        raise OSError(no_primary(troubles))
    connection = node.connection
    try:
        has_schema = await connection.fetchval("SELECT to_regnamespace('paychan') IS NOT NULL")
        settings = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in _TOLD_SETTINGS}
        return {
            "primary": await connection.fetchval(_ADDRESS),
            "troubles": troubles,
            "server_version": int(await connection.fetchval("SELECT current_setting('server_version_num')")),
            "schema": await connection.fetchval(_VERSION) if has_schema else None,
            "schema_wanted": SCHEMA_VERSION,
            **settings,
            "standbys": [dict(row) for row in await connection.fetch(_STANDBYS)],
        }
    finally:
        connection.terminate()


async def connect_as_admin(config: PostgresConfig, admin: str, host: str | None) -> asyncpg.Connection:
    if host is not None:
        port = next((port for name, port in config.hosts if name == host), config.hosts[0][1])
        return await connect(config, host, port, admin, _ADMIN_SETTINGS)
    return (await need_primary(config, admin, _ADMIN_SETTINGS)).connection


async def _make(connection: asyncpg.Connection, store: str, signer: str) -> None:
    """store, signer: roles, names that SQL takes as they are (paychan/settings/postgres.py)."""
    for role in (store, signer):
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
            await connection.execute(f"CREATE ROLE {role} LOGIN")
    for name in SCRIPTS:
        await _run_script(connection, name, store, signer)


async def _run_script(connection: asyncpg.Connection, name: str, store: str, signer: str) -> None:
    text = files(__package__).joinpath(name).read_text()
    for place, value in (("@ROLE@", store), ("@SIGNER@", signer), ("@VERSION@", str(SCHEMA_VERSION))):
        text = text.replace(place, value)
    await connection.execute(text)
