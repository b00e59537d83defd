"""Aim: a store never goes on as another's. Method: the identity record's bytes, written out; an engine that is a dictionary; the
signer's file as it may be found.
"""

import dataclasses
import os

import pytest

from paychan.core.errors import ConfigError
from paychan.core.network import LIVE, TEST
from paychan.rpc.connection import Address
from paychan.settings.models import Common, StoreConfig
from store import identity as identity_module
from store import keys
from store.identity import FORMAT_VERSION, Identity, establish_identity, read_server_pubkey

PUBKEY = b"\2" * 33
RECORD = b"\2\4" + b"\x02\x01" + PUBKEY + b"i" * 16 + b"test"
IDENTITY = Identity("test", PUBKEY, 0x0102, b"i" * 16)


class Engine:
    def __init__(self, record=None):
        self.record = record

    def identity(self):
        return self.record

    def commit(self, writes):
        assert self.record is None and list(writes) == [keys.IDENTITY]
        self.record = writes[keys.IDENTITY]


@pytest.fixture
def config(tmp_path) -> StoreConfig:
    common = Common("store.toml", TEST, tmp_path, False, None)
    return StoreConfig(common, Address(path="x"), 0x0102, 1000, None, tmp_path / "signer.pub")


def test_the_record_never_changes():
    assert FORMAT_VERSION == 2
    assert IDENTITY.encode() == RECORD
    assert Identity.decode(RECORD) == IDENTITY
    nameless = dataclasses.replace(IDENTITY, network="")
    assert Identity.decode(nameless.encode()) == nameless


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"\1" + RECORD[1:], "another format version"),
        (b"\3" + RECORD[1:], "another format version"),
        (b"\0" + RECORD[1:], "another format version"),
        (RECORD[:52], "another format version"),
        (RECORD[:-1], "damaged"),
        (RECORD + b"t", "damaged"),
    ],
)
def test_another_record_is_refused(config, record, why):
    with pytest.raises(ConfigError, match=f"store.toml: state_dir: the store in .* has (a )?{why}"):
        establish_identity(Engine(record), config, PUBKEY)


def test_a_new_store_gets_an_identity_of_its_own_and_keeps_it(config):
    engine = Engine()
    first = establish_identity(engine, config, PUBKEY)
    assert (first.network, first.server_pubkey, first.shard_count) == ("test", PUBKEY, 0x0102)
    assert len(first.store_id) == 16
    assert Identity.decode(engine.record) == first == establish_identity(engine, config, PUBKEY)
    assert establish_identity(Engine(), config, PUBKEY).store_id != first.store_id


def test_an_identity_of_another_is_refused_by_name(config):
    engine = Engine(RECORD)
    assert establish_identity(engine, config, PUBKEY) == IDENTITY
    live = dataclasses.replace(config, common=dataclasses.replace(config.common, network=LIVE))
    with pytest.raises(ConfigError, match="network: this store was created for network test"):
        establish_identity(engine, live, PUBKEY)
    with pytest.raises(ConfigError, match=r"store\.server_pubkey: "):
        establish_identity(engine, config, b"\3" * 33)
    with pytest.raises(ConfigError, match=r"store\.shard_count: this store was created with 258 shards"):
        establish_identity(engine, dataclasses.replace(config, shard_count=257), PUBKEY)


def test_a_configured_key_is_taken_without_a_file(config):
    assert read_server_pubkey(dataclasses.replace(config, server_pubkey=PUBKEY), wait_s=0) == PUBKEY


@pytest.mark.parametrize("prefix", [2, 3])
def test_the_signers_file_is_read(config, prefix):
    pubkey = bytes([prefix]) + b"\7" * 32
    config.server_pubkey_file.write_text(pubkey.hex() + "\n")
    assert read_server_pubkey(config, wait_s=0) == pubkey


@pytest.mark.parametrize(
    "content",
    [b"", b"00" * 33, b"02" * 32, b"02" * 34, b"01" * 33, b"04" * 33, b"zz" * 33, b"\xff" * 66],
    ids=lambda content: f"{len(content)} of {content[:2].hex()}",
)
def test_no_key_is_read_from_anything_else(config, content):
    config.server_pubkey_file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"store\.server_pubkey_file: .* after 0 s"):
        read_server_pubkey(config, wait_s=0)


def test_the_file_is_waited_for_so_long_and_no_longer(config, monkeypatch):
    now, looks = [100.0], []

    class Time:
        @staticmethod
        def monotonic():
            return now[0]

        @staticmethod
        def sleep(seconds):
            looks.append(seconds)
            now[0] += 1.0
            if len(looks) == appears:
                os.replace(config.common.state_dir / "new", config.server_pubkey_file)

    monkeypatch.setattr(identity_module, "time", Time)
    (config.common.state_dir / "new").write_text(PUBKEY.hex())
    appears = 30
    assert read_server_pubkey(config) == PUBKEY
    assert looks == [0.05] * 30
    config.server_pubkey_file.unlink()
    looks.clear()
    appears = 0
    with pytest.raises(ConfigError, match="is the signer running"):
        read_server_pubkey(config)
    assert len(looks) == 30
