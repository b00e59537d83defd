"""Which store this is: network, server key and shard count, written at creation and compared at each start.

A store that is opened for another network or key would settle channels that it does not hold; with another shard count
each channel would change its owner's epoch under way. So any difference refuses to start.
"""

import os
import struct
import time
from dataclasses import dataclass

from paychan.core.errors import ConfigError
from paychan.settings.models import StoreConfig

from . import keys
from .engines.rocksdb import RocksDB

FORMAT_VERSION = 2
"""2: funding transactions are kept (key "F"). A store without them could not settle its channels, and is refused."""

PUBKEY_WAIT_S = 30.0  # the signer makes its key at its first start, beside ours
PUBKEY_POLL_S = 0.05


@dataclass(frozen=True)
class Identity:
    """The identity record. On disk, little-endian; cannot change (a new layout takes a new version byte):

    u8 version | u8 length of the network's name | u16 shard count | 33 server key | 16 store id | network's name
    """

    network: str
    server_pubkey: bytes
    shard_count: int
    store_id: bytes

    _HEAD = struct.Struct("<BBH33s16s")

    def encode(self) -> bytes:
        name = self.network.encode()
        return self._HEAD.pack(FORMAT_VERSION, len(name), self.shard_count, self.server_pubkey, self.store_id) + name

    @classmethod
    def decode(cls, record: bytes) -> "Identity":
        """Raises ValueError for a record of another version."""
        if len(record) < cls._HEAD.size or record[0] != FORMAT_VERSION:
            raise ValueError(f"has another format version than {FORMAT_VERSION}")
        _, name_size, shard_count, server_pubkey, store_id = cls._HEAD.unpack_from(record)
        name = record[cls._HEAD.size :]
        if len(name) != name_size:
            raise ValueError("has a damaged identity record")
        return cls(name.decode(), server_pubkey, shard_count, store_id)


def establish_identity(engine: RocksDB, config: StoreConfig, server_pubkey: bytes) -> Identity:
    """Return the store's identity; a new store gets one, synced. Raises ConfigError if the store is another's."""
    source, name = config.common.source, config.common.network.name
    try:
        record = engine.identity()
        stored = Identity.decode(record) if record else None
    except ValueError as error:
        raise ConfigError(f"{source}: state_dir: the store in {config.common.state_dir} {error}") from error
    if stored is None:
        stored = Identity(name, server_pubkey, config.shard_count, os.urandom(16))
        engine.commit({keys.IDENTITY: stored.encode()})
    hold_against(stored, config, server_pubkey)
    return stored


def hold_against(stored: Identity, config: StoreConfig, server_pubkey: bytes) -> None:
    """Raise ConfigError if the store is another's than this configuration's."""
    source, name = config.common.source, config.common.network.name
    if stored.network != name:
        raise ConfigError(f"{source}: network: this store was created for network {stored.network}")
    if stored.server_pubkey != server_pubkey:
        raise ConfigError(f"{source}: store.server_pubkey: this store was created for another server key")
    if stored.shard_count != config.shard_count:
        raise ConfigError(f"{source}: store.shard_count: this store was created with {stored.shard_count} shards")


def read_server_pubkey(config: StoreConfig, wait_s: float = PUBKEY_WAIT_S) -> bytes:
    """Return the server's public key (33 bytes) from the config, or from the signer's file once that is there.

    Raises: ConfigError if no valid file has appeared after `wait_s` seconds.
    """
    if config.server_pubkey is not None:
        return config.server_pubkey
    deadline = time.monotonic() + wait_s
    while True:
        pubkey = _read_pubkey_file(config)
        if pubkey is not None:
            return pubkey
        if time.monotonic() >= deadline:
            raise ConfigError(
                f"{config.common.source}: store.server_pubkey_file: {config.server_pubkey_file} "
                f"holds no compressed public key after {wait_s:g} s; is the signer running?"
            )
        time.sleep(PUBKEY_POLL_S)


def _read_pubkey_file(config: StoreConfig) -> bytes | None:
    """Return the key, or None while the file is missing or half written."""
    try:
        text = config.server_pubkey_file.read_text("ascii").strip()
        pubkey = bytes.fromhex(text)
    except (OSError, ValueError):
        return None
    return pubkey if len(pubkey) == 33 and pubkey[0] in (2, 3) else None
