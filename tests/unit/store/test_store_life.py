"""Aim: the store feeds its watchdog only while groups become durable. Method: a real store and engine, whose writing is held up."""

import asyncio
import socket

from paychan.core.network import TEST
from paychan.notify import Manager
from paychan.rpc.connection import Address
from paychan.settings.models import Common, StoreConfig
from store.engines.rocksdb import RocksDB
from store.identity import Identity
from store.server import StoreServer
from tests.unit.test_notify import Listener

PUBKEY = b"\2" * 33


class Held(RocksDB):
    """An engine that finishes no group while it is held, as one whose disk or standby does not confirm."""

    is_held = False

    def run(self, steps):
        if self.is_held:
            self.held = steps
        else:
            super().run(steps)


def test_a_stuck_store_does_not_feed_its_watchdog(tmp_path):
    async def go() -> None:
        listener = Listener(tmp_path)
        engine = Held(tmp_path / "db")
        config = StoreConfig(
            Common("store.toml", TEST, tmp_path, False, None), Address(path=str(tmp_path / "s")), 4, 3000, PUBKEY, tmp_path / "pub"
        )
        manager = Manager({"NOTIFY_SOCKET": str(listener.path), "WATCHDOG_USEC": "15000"})
        stop = asyncio.Event()
        server = StoreServer(config, Identity("test", PUBKEY, 4, bytes(16)), engine, manager=manager)
        serving = asyncio.create_task(server.run(stop))
        words = await until(listener, "WATCHDOG=1")
        assert words[0].startswith("READY=1\n")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))  # it was true
        engine.is_held = True
        while not hasattr(engine, "held"):
            await asyncio.sleep(0.001)
        listener.heard()
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert listener.heard() == []
        engine.is_held = False
        engine.run(engine.held)
        await until(listener, "WATCHDOG=1")
        stop.set()
        await serving
        assert "STOPPING=1" in listener.heard()
        engine.close()
        listener.socket.close()

    asyncio.run(asyncio.wait_for(go(), 60))


async def until(listener: Listener, word: str) -> list[str]:
    """Return what was heard until a word was."""
    heard: list[str] = []
    while word not in heard:
        heard += listener.heard()
        await asyncio.sleep(0.001)
    return heard
