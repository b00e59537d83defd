"""Everything that is missing or wrong in a configuration directory, in one round: for `paychan config check` and `paychan doctor`.

The files are read as the three processes read them. Then comes what those do not look at when they start: whether the files agree,
and whether the files that they name are there.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..core.errors import ConfigError
from .agreement import disagreements
from .cluster import trouble_with_end
from .load import load_server_config, load_signer_config, load_store_config
from .models import ServerConfig, SignerConfig, StoreConfig

Config = TypeVar("Config")


@dataclass(frozen=True)
class Directory:
    """What the three files say, each as far as it can be read, and what is wrong with them: lines that name file and key."""

    server: ServerConfig | None
    store: StoreConfig | None
    signer: SignerConfig | None
    problems: list[str]


def check_directory(directory: Path) -> list[str]:
    """Return the problems of server.toml, store.toml and signer.toml in a directory, a line each, naming file and key."""
    return read_directory(directory).problems


def read_directory(directory: Path) -> Directory:
    """Return what is in a directory, and all that is wrong with it."""
    problems: list[str] = []
    server = _read(load_server_config, directory / "server.toml", problems)
    store = _read(load_store_config, directory / "store.toml", problems)
    signer = _read(load_signer_config, directory / "signer.toml", problems)
    found = [
        *(_trouble_with_key(signer) if signer is not None else []),
        *disagreements(server, store, signer),
        *(_files_of_server(server, makes_cookie=(directory / "node.sh").exists()) if server is not None else []),
        *(_trouble_with_certificate(server) if server is not None else []),
    ]
    told = {_key(line, directory) for line in problems}
    return Directory(server, store, signer, problems + [line for line in found if _key(line, directory) not in told])


def _read(load: Callable[[Path], Config], file: Path, problems: list[str]) -> Config | None:
    """Return a configuration, as far as it can be read, and note what is wrong with it."""
    try:
        return load(file)
    except ConfigError as error:
        problems.extend(error.problems)
        config: Config | None = error.config
        return config


def _key(line: str, directory: Path) -> str:
    """Return the key that a problem names, whichever file it is in: what is wrong with a value already, is not compared."""
    return line.removeprefix(f"{directory}/").split(": ", 2)[1]


def _trouble_with_key(config: SignerConfig) -> list[str]:
    """Return what is wrong with the signer's key file, by its mode alone: its content is nobody's business but the signer's."""
    file = config.key_file
    if config.common.debug and not file.exists():
        return []  # it is made
    why = _trouble_with_file(file)
    with suppress(OSError):
        if not why and file.stat().st_mode & 0o077:
            why = "is open to group or others; its mode must be 0600"
    hint = "" if file.exists() else f"; `paychan-signer --init {file}` makes one"
    return [f"{config.common.source}: signer.key_file: {file}: {why}{hint}"] if why else []


def _files_of_server(config: ServerConfig, *, makes_cookie: bool) -> list[str]:
    """Return what is wrong with the files that the server will read. makes_cookie: a node is started beside it, and makes one."""
    chain = config.chain
    files = {
        "chain.fixture_file": chain.fixture_file if chain.backend == "fixture" else None,
        "bitcoind.password_file": chain.bitcoind_password_file if chain.backend == "bitcoind" else None,
        "sell.tls_certificate": config.sell.tls_certificate,
        "sell.tls_key": config.sell.tls_key,
        "bitcoind.cookie_file": chain.bitcoind_cookie_file if chain.backend == "bitcoind" and not makes_cookie else None,
    }
    hint = {"bitcoind.cookie_file": "; a Bitcoin node makes it when it starts"}
    return [
        f"{config.common.source}: {key}: {path}: {why}{hint.get(key, '')}"
        for key, path in files.items()
        if path is not None and (why := _trouble_with_file(path))
    ]


def _trouble_with_certificate(config: ServerConfig) -> list[str]:
    """Return that the cluster's certificate ends soon, or has ended: the server starts all the same."""
    cluster = config.cluster
    if cluster is None or not cluster.certificate_ends or not (why := trouble_with_end(cluster.certificate_ends, time.time())):
        return []
    return [f"{config.common.source}: cluster.certificate: {cluster.files.certificate}: {why}"]


def _trouble_with_file(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return os.strerror(error.errno or errno.EIO)
    except ValueError:
        return "cannot be the name of a file"
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    return "" if os.access(path, os.R_OK) else "cannot be read by this user; the user of the process that needs it must"
