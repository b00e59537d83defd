"""Aim: with users of their own the processes let in whom they must, and nobody else. Method: real files, and real sockets between
two users, where the test may change its user.
"""

import asyncio
import os
import pwd
import stat

import pytest

from paychan.core.errors import ConfigError
from paychan.rpc.connection import Address, FrameConnection, bind, connect
from paychan.settings.directory import check_directory
from paychan.settings.load import load_signer_config, load_store_config
from paychan.supervisor import Supervisor
from signer.server import SignerServer
from tests.system import make_config

ROOT_NAME, OTHER = "root", "nobody"
USERS = f'\n[users]\nserver = "{ROOT_NAME}"\nstore = "{ROOT_NAME}"\nsigner = "{OTHER}"\n'
FILES = ("server.toml", "store.toml", "signer.toml")


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("PAYCHAN_STATE_DIR", str(tmp_path / "state"))
    made = make_config(tmp_path / "config")
    for name in FILES:
        with (made / name).open("a") as file:
            file.write(USERS)
    return made


def test_the_three_files_must_name_the_same_users(config):
    assert check_directory(config) == []
    file = config / "store.toml"
    file.write_text(file.read_text().replace(f'store = "{ROOT_NAME}"', f'store = "{OTHER}"'))
    assert any("store.toml: users: differs" in line for line in check_directory(config))


@pytest.mark.parametrize(
    ("users", "key"),
    [
        ('server = "nobody-has-this-name"\nstore = "root"\nsigner = "nobody"', "users.server"),
        ('server = "root"\nstore = "root"', "users.signer"),
        ('server = "root"\nstore = "root"\nsigner = "root"', "users.signer"),
        ('server = "root"\nstore = "root"\nsigner = "nobody"\ngateway = "root"', "users.gateway"),
    ],
)
def test_a_table_that_helps_nobody_is_refused(config, users, key):
    file = config / "signer.toml"
    file.write_text(file.read_text().partition("\n[users]")[0] + f"\n[users]\n{users}\n")
    with pytest.raises(ConfigError, match=key):
        load_signer_config(file)


def test_a_socket_may_be_elsewhere_only_if_its_user_is_known(config, tmp_path):
    file = config / "store.toml"
    moved = file.read_text().replace("unix:run/store.sock", f"unix:{tmp_path}/store.sock")
    file.write_text(moved)
    assert load_store_config(file).address.is_shared
    file.write_text(moved.partition("\n[users]")[0])
    with pytest.raises(ConfigError, match=r"store\.address: must be below"):
        load_store_config(file)


def test_processes_that_are_started_together_have_one_user(config):
    with pytest.raises(ConfigError, match="users: is for processes that are started apart"):
        Supervisor(config)


def test_the_signer_lets_in_its_servers_user_root_and_nobody_else():
    class Peer:
        def __init__(self, uid) -> None:
            self.uid, self.is_open = uid, True

        def peer_uid(self):
            return self.uid

        def close(self):
            self.is_open = False

    server = SignerServer(None, None, None, None, user=4242)
    peers = [Peer(uid) for uid in (0, 4242, 4243, os.geteuid() or 1)]
    for peer in peers:
        server.check_peer(peer)
    assert [peer.is_open for peer in peers] == [True, True, False, False]


@pytest.mark.parametrize(("is_shared", "mode"), [(False, 0o600), (True, 0o660)])
def test_a_shared_socket_is_its_groups_too(tmp_path, is_shared, mode):
    bind(Address(path=str(tmp_path / "a.sock"), is_shared=is_shared)).close()
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play two users")
@pytest.mark.parametrize(("user", "is_believed"), [(pwd.getpwnam(OTHER).pw_uid, True), (4242, False), (None, False)])
def test_a_listener_is_believed_only_if_it_is_the_expected_user(tmp_path, user, is_believed):
    address = Address(path=str(tmp_path / "a.sock"), user=user)

    async def go() -> bool:
        try:
            connection = await connect(address, lambda: FrameConnection(100, lambda *_: None, lambda _: None))
        except PermissionError:
            return False
        connection.close()
        return True

    with bind(address) as sock:
        os.seteuid(pwd.getpwnam(OTHER).pw_uid)
        try:
            sock.listen()  # by whom is what the kernel tells
        finally:
            os.seteuid(0)
        assert asyncio.run(go()) is is_believed
