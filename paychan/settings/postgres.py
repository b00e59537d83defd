"""The table `postgres` of store.toml and signer.toml: which machines may have the database, and who store and signer are there."""

import re

from . import hosts
from .models import DatabaseConfig, PostgresConfig
from .sections import Section

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
_PORT = 5432


def read_postgres(section: Section) -> PostgresConfig:
    """Return the checked table `postgres` of store.toml."""
    database = read_database(section, "paychan_store")
    return PostgresConfig(
        **vars(database), name=_name(section, "name", None), lease_ms=section.integer("lease_ms", 1000, 600_000, 30_000)
    )


def read_database(section: Section, role: str) -> DatabaseConfig:
    """Return what the table says of the database. role: who we are there unless it says so."""
    if not section.has("hosts"):
        section.fail("hosts", "is missing")
    given = [_host(section, text) for text in section.texts("hosts")]
    config = DatabaseConfig(
        hosts=tuple(host for host in given if host is not None),
        database=_name(section, "database", "paychan"),
        role=_name(section, "role", role),
        ca_file=section.path("ca_file"),
        certificate_file=section.path("certificate_file"),
        key_file=section.path("key_file"),
    )
    if section.has("hosts") and not given:
        section.fail("hosts", "names no machine")
    if len(set(config.hosts)) < len(config.hosts):
        section.fail("hosts", "names a machine twice")
    if (config.certificate_file is None) != (config.key_file is None):
        section.fail("certificate_file", "needs key_file, and the other way round")
    if config.ca_file is None and config.certificate_file is not None:
        section.fail("ca_file", "is missing: whose database it is would not be known")
    far = [host for host, _ in config.hosts if not host.startswith("/") and not hosts.is_loopback(host)]
    if far and config.ca_file is None:
        section.fail("ca_file", f"is missing: {far[0]} is another machine, and is spoken to by TLS only")
    return config


def _host(section: Section, text: str) -> tuple[str, int] | None:
    """Return the host and port in HOST, HOST:PORT, [IPv6]:PORT, or /DIRECTORY or /DIRECTORY:PORT of a Unix socket."""
    match = re.fullmatch(r"(/[^:]*|\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", text)
    port = int(match[2] or _PORT) if match else 0
    if not match or not 0 < port < 65536:
        section.fail("hosts", f"{text} is not HOST, HOST:PORT, or the directory of a Unix socket")
        return None
    try:
        return match[1] if text.startswith("/") else hosts.host(match[1]), port
    except ValueError as error:
        section.fail("hosts", f"{match[1]} {error}")
        return None


def _name(section: Section, key: str, default: str | None) -> str:
    """Return a name that SQL takes as it is."""
    name = section.text(key, default)
    if name and not _NAME.match(name):
        section.fail(key, "must be small letters, digits and underscores, and begin with no digit")
    return name
