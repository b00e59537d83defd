"""Several systems on one machine: what they must not share."""

import filecmp
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from ..rpc.connection import Address
from .models import DatabaseConfig, ServerConfig, SignerConfig, StoreConfig

NAME = re.compile(r"[A-Za-z0-9._-]{1,40}\Z")
"""It stands in log lines and in the ready line."""

FOR_ONE = ("PORT", "PAYCHAN_STATE_DIR")
"""Variables that would give all of them the same."""


@dataclass(frozen=True)
class Instance:
    """One of several systems: its name, that of its directory, and what the three files say, as far as they can be read."""

    name: str
    server: ServerConfig | None
    store: StoreConfig | None
    signer: SignerConfig | None


@dataclass(frozen=True)
class _Thing:
    """What one of them has for itself: a value that no other may have, the key by which it is configured, and of a port the address
    on which it is listened at."""

    kind: str
    value: object
    key: str
    host: str = ""

    def is_of(self, other: "_Thing") -> bool:
        """Return whether it is the same as the other one's."""
        is_everywhere = {self.host, other.host} & {"0.0.0.0", "::"}
        return (self.kind, self.value) == (other.kind, other.value) and (self.host == other.host or bool(is_everywhere))


def name_of(directory: Path) -> str:
    """Return what a system is called."""
    return directory.resolve().name


def trouble_with_names(directories: Sequence[Path]) -> list[str]:
    """Return why these directories cannot be told apart by their names, a line each."""
    names = [name_of(directory) for directory in directories]
    why = "its name must be of letters, digits, '.', '_' and '-', 40 at most: logs have it"
    odd = [f"{directory}: {why}" for directory, name in zip(directories, names, strict=True) if not NAME.match(name)]
    twice = sorted({name for name in names if names.count(name) > 1})
    return odd + [f"{name}: two of the directories are called so; their logs could not be told apart" for name in twice]


def conflicts(instances: Sequence[Instance]) -> list[str]:
    """Return what two of them share that each must have for itself, a line each that names both."""
    found: list[str] = []
    for one, other in combinations(instances, 2):
        things = list(_things(other))
        for mine in _things(one):
            found += [
                f"{one.name} and {other.name} share {mine.kind} {mine.value} ({mine.key}; {its.key})"
                for its in things
                if mine.is_of(its)
            ]
        found += _same_key(one, other)
    return found


def _things(instance: Instance) -> Iterator[_Thing]:
    server, store, signer = instance.server, instance.store, instance.signer
    if server is not None:
        source = server.common.source
        yield _Thing("the state directory", os.path.realpath(server.common.state_dir), f"{source}: state_dir")
        yield _Thing("port", server.http_port, f"{source}: http.port", server.http_host)
        for number in range(server.workers):
            if server.direct_base_port:
                yield _Thing("port", server.direct_base_port + number, f"{source}: direct.base_port", server.http_host)
            if (cluster := server.cluster) is not None:
                yield _Thing("port", cluster.peer_port + number, f"{source}: cluster.peer_port", cluster.listen_host)
        for key, place in (("metrics.listen", server.metrics), ("sell", server.sell)):
            yield from _listens(Address(str(place.socket or ""), place.host, place.port), f"{source}: {key}")
        if server.chain.backend == "bitcoind":
            wallet = f"{server.chain.bitcoind_wallet} of {server.chain.bitcoind_host}:{server.chain.bitcoind_port}"
            yield _Thing("the node's wallets", wallet, f"{source}: bitcoind.wallet")
    if store is not None:
        yield from _listens(store.address, f"{store.common.source}: store.address")
        yield from _database(store.postgres, store.common.source)
    if signer is not None:
        yield from _listens(signer.address, f"{signer.common.source}: signer.address")
        yield _Thing("the key", os.path.realpath(signer.key_file), f"{signer.common.source}: signer.key_file")


def _listens(address: Address, key: str) -> Iterator[_Thing]:
    if address.path:
        yield _Thing("socket", os.path.realpath(address.path), key)
    if address.port:
        yield _Thing("port", address.port, key, address.host)


def _database(config: DatabaseConfig | None, source: str) -> Iterator[_Thing]:
    if config is not None:
        hosts = ", ".join(f"{host}:{port}" for host, port in config.hosts)
        yield _Thing("the database", f"{config.database} at {hosts}", f"{source}: postgres")


def _same_key(one: Instance, other: Instance) -> list[str]:
    """Return that two key files hold the same: a payer could open its channel on both, and be paid out of each."""
    if one.signer is None or other.signer is None:
        return []
    mine, its = one.signer, other.signer
    for kind, paths in (("", (mine.key_file, its.key_file)), ("public ", (mine.public_key_file, its.public_key_file))):
        if os.path.realpath(paths[0]) == os.path.realpath(paths[1]):
            continue  # told already
        with suppress(OSError):
            if filecmp.cmp(*paths, shallow=False):
                where = f"{mine.common.source} and {its.common.source}"
                return [f"{one.name} and {other.name} have the same {kind}key in two files ({where}: signer.key_file)"]
    return []
