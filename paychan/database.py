"""Which of the cluster's machines has the database now: all are asked at once, and the primary of the highest timeline is it.

A machine that was cut off may still think that it is the primary; the one that was promoted in its place has a higher timeline. (A
driver's own list of hosts is not enough: it tries them in order within one timeout, and is content with the old primary.)
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from .settings.models import DatabaseConfig

HOST_SECONDS_MAX = 2.0  # to answer who it is; who takes longer counts as away
LOOK_SECONDS = 0.25  # between two rounds of asking
SETTINGS = {
    "application_name": "paychan",
    "search_path": "paychan, pg_temp",
    "synchronous_commit": "on",
    "client_min_messages": "warning",
    "enable_hashjoin": "off",  # else a group on a small table becomes a scan
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "statement_timeout": "0",  # what we give up is unknown, never cancelled
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "60000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_TIMELINE = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"  # pg_control_checkpoint() shows a new one only after a checkpoint
_WHO = f"""SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN '' ELSE {_TIMELINE} END,
    (SELECT system_identifier FROM pg_control_system())"""


@dataclass(frozen=True)
class Node:
    """A machine that answered. timeline: 0 for a standby. system: the identifier that initdb gave the cluster."""

    connection: asyncpg.Connection
    timeline: int
    system: int


def tls_context(config: DatabaseConfig) -> ssl.SSLContext | None:
    """Return what both sides' certificates are checked with, or None where the configuration names none. Raises OSError."""
    if config.ca_file is None:
        return None
    context = ssl.create_default_context(cafile=str(config.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.certificate_file is not None:
        context.load_cert_chain(str(config.certificate_file), str(config.key_file))
    return context


async def connect(
    config: DatabaseConfig, host: str, port: int, role: str, settings: dict[str, str] = SETTINGS
) -> asyncpg.Connection:
    """Raises OSError, TimeoutError, ssl.SSLError or asyncpg's errors."""
    context = None if host.startswith("/") else tls_context(config)
    return await asyncpg.connect(
        host=host,
        port=port,
        database=config.database,
        user=role,
        ssl=context or False,
        timeout=HOST_SECONDS_MAX,
        server_settings=settings,
    )


async def _ask(config: DatabaseConfig, host: str, port: int, role: str, settings: dict[str, str]) -> Node:
    connection = await connect(config, host, port, role, settings)
    try:
        is_standby, timeline, system = await connection.fetchrow(_WHO)
    except BaseException:
        connection.terminate()
        raise
    return Node(connection, 0 if is_standby else int(timeline, 16), system)


async def find_primary(
    config: DatabaseConfig, role: str = "", settings: dict[str, str] = SETTINGS
) -> tuple[Node | None, list[str]]:
    """Ask all machines once. Return the primary with an open connection, or None; and what went wrong, a line for each machine."""
    asked = [asyncio.create_task(_ask(config, host, port, role or config.role, settings)) for host, port in config.hosts]
    await asyncio.wait(asked, timeout=2 * HOST_SECONDS_MAX)
    nodes, troubles = [], []
    for task, (host, port) in zip(asked, config.hosts, strict=True):
        if not task.done():
            task.cancel()  # nothing that it may have asked for writes
            troubles.append(f"{host}:{port} does not answer")
        elif error := task.exception():
            troubles.append(f"{host}:{port}: {type(error).__name__}: {error}")
        else:
            nodes.append(task.result())
            if not nodes[-1].timeline:
                troubles.append(f"{host}:{port} is a standby")
    best = max(nodes, key=lambda node: node.timeline, default=None)
    if best is not None and not best.timeline:
        best = None
    for node in nodes:
        if node is not best:
            node.connection.terminate()
    return best, troubles


async def need_primary(config: DatabaseConfig, role: str = "", settings: dict[str, str] = SETTINGS) -> Node:
    """Ask all machines once; return the primary. Raises OSError, which says what went wrong with each."""
    node, troubles = await find_primary(config, role, settings)
    if node is None:
        raise OSError(no_primary(troubles))
    return node


def no_primary(troubles: list[str]) -> str:
    """Return that there is none, and what went wrong with each machine."""
    return f"no primary of the database is there: {'; '.join(troubles)}"


async def wait_for_primary(config: DatabaseConfig, say: Callable[[str], object], settings: dict[str, str] = SETTINGS) -> Node:
    """Ask until there is a primary. say: is told why there is none."""
    while True:
        node, troubles = await find_primary(config, settings=settings)
        if node is not None:
            return node
        say(no_primary(troubles))
        await asyncio.sleep(LOOK_SECONDS)


def on_warning(connection: asyncpg.Connection, end: Callable[[Exception], object]) -> Callable[[], None]:
    """Have `end(error)` called for every warning, and when the connection is closed; return what ends the latter.

    A commit whose wait for the standby was cancelled is reported as a success, with a warning; asyncpg calls this before it hands
    over the result.
    """

    def warned(_: asyncpg.Connection, message: asyncpg.PostgresLogMessage) -> None:
        end(RuntimeError(f"the database warns: {message.sqlstate}: {message}"))

    def closed(_: asyncpg.Connection) -> None:
        end(ConnectionError("the database has closed the connection"))

    connection.add_log_listener(warned)
    connection.add_termination_listener(closed)
    return lambda: connection.remove_termination_listener(closed)
