"""A command's look at the store of a directory of configurations, on the spot."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Hello, MessageError
from ..settings.load import load_store_config
from ..settings.models import StoreConfig
from .output import CommandError

CONNECT_SECONDS_MAX = 5.0
T = TypeVar("T")


async def ask_store(
    directory: Path, ask: Callable[[StoreClient], Coroutine[Any, Any, T]], seconds: float = CONNECT_SECONDS_MAX
) -> T:
    """Connect to the store within some seconds, as an observer, which owns nothing, and return what `ask` makes of it. Raises
    CommandError, ConfigError."""
    config = load_store_config(directory / "store.toml")
    hello = Hello(config.common.network.name, _server_pubkey(config), "")
    store = StoreClient(config.address, hello, lambda *_: None, lambda: None)
    store.link.start()
    try:
        async with asyncio.timeout(seconds):
            while not store.link.is_up:
                await asyncio.sleep(0.02)
        return await ask(store)
    except (TimeoutError, ConnectionGone, RemoteRefusal, MessageError) as error:
        raise CommandError(f"the store at {config.address} does not answer ({store.link.trouble or error})") from error
    finally:
        await store.link.stop()


def _server_pubkey(config: StoreConfig) -> bytes:
    if config.server_pubkey is not None:
        return config.server_pubkey
    try:
        return bytes.fromhex(config.server_pubkey_file.read_text().strip())
    except (OSError, ValueError) as error:
        raise CommandError(f"{config.server_pubkey_file} cannot be read: has the signer been started?") from error
