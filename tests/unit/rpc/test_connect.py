"""Aim: who connects checks who listens. Method: real Unix sockets; that another user listens is what the kernel's answer is made to
say, since only root could start a process of one.
"""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from paychan.rpc import connection as connection_module
from paychan.rpc.connection import Address, FrameConnection, connect, listen
from paychan.rpc.link import Link

OTHER = os.geteuid() + 1


def make() -> FrameConnection:
    return FrameConnection(100, lambda *_: None, lambda _: None)


def connecting(directory: Path, use) -> None:
    async def whole() -> None:
        address = Address(path=str(directory / "a.sock"))
        server = await listen(address, make)
        try:
            await use(address)
        finally:
            server.close()

    asyncio.run(whole())


def test_the_kernel_tells_who_listens(tmp_path):
    async def use(address: Address) -> None:
        connection = await connect(address, make)
        assert connection.peer_uid() == os.geteuid()
        connection.close()

    connecting(tmp_path, use)


@pytest.mark.parametrize("uid", [0, OTHER])
def test_a_socket_of_another_user_is_not_spoken_to(tmp_path, monkeypatch, uid):
    monkeypatch.setattr(connection_module, "uid_at_the_other_end", lambda _: uid)

    async def use(address: Address) -> None:
        if uid == 0:
            (await connect(address, make)).close()
            return
        with pytest.raises(PermissionError, match=f"belongs to user {OTHER}"):
            await connect(address, make)
        greeted = []

        async def greet(connection: FrameConnection) -> None:
            greeted.append(connection)

        link = Link("signer", address, 100, greet)
        link.start()
        await asyncio.sleep(0.2)
        assert (greeted, link.is_up) == ([], False)
        assert f"belongs to user {OTHER}" in link.trouble
        await link.stop()

    connecting(tmp_path, use)


@pytest.mark.privileged("only root may become another user")
def test_a_process_of_another_user_is_recognised(tmp_path):
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    path = tmp_path / "b.sock"
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.setuid(OTHER)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)  # the whole path may be too long for it
            listener.listen()
            os.write(told, b"x")
            listener.settimeout(20)
            try:
                listener.accept()[0].recv(1)
            finally:
                os._exit(0)
    os.read(ready, 1)
    try:
        with pytest.raises(PermissionError, match=f"belongs to user {OTHER}"):
            asyncio.run(connect(Address(path=str(path)), make))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(ready), os.close(told)
