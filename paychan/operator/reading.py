"""The operator's eyes: a connection to the store that owns nothing and only reads, the books that it fills, and the chain source,
which is asked how deep settlements are."""

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

from ..chain.base import ChainBackend
from ..chain.bitcoind import BitcoindChain
from ..chain.make import make_chain
from ..core.errors import ConfigError, Unavailable
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Hello, Unsettled
from ..settings.models import ServerConfig, StoreConfig
from .books import Books
from .following import Following

KEY_PAUSE_SECONDS = 0.5
CHAIN_PAUSE_SECONDS = 10.0

log = logging.getLogger("paychan.operator")


class BooksOfStore:
    """Made and started on a running event loop."""

    def __init__(self, config: ServerConfig, store: StoreConfig) -> None:
        self._config, self._store_config = config, store
        self._task: asyncio.Task[None] | None = None
        hello = Hello(config.common.network.name, bytes(33), "")
        self.store = StoreClient(config.store, hello, lambda *_: None, self._lost, self._hear)
        self._chain = make_chain(config.chain, config.common, config.fee_per_byte)
        self.following = Following(self.store, Books(), time.time, self._chain)

    def start(self) -> None:
        """Begin: connect once the signer has said whose store this is, then follow it."""
        self._task = asyncio.get_running_loop().create_task(self._begin())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.following.stop()
        await self.store.link.stop()
        with suppress(Unavailable, OSError):
            await self._chain.stop()
        self.following.books.close()

    async def _begin(self) -> None:
        while (key := self._server_pubkey()) is None:
            await asyncio.sleep(KEY_PAUSE_SECONDS)
        self.store.greet_as(Hello(self._config.common.network.name, key, ""))
        self.store.link.start()
        self.following.start()
        while not await self._chain_is_ready(self._chain):
            await asyncio.sleep(CHAIN_PAUSE_SECONDS)
        self.following.ask_chain_too()

    async def _chain_is_ready(self, chain: ChainBackend) -> bool:
        """Connect to the chain source, changing nothing there."""
        try:
            await (chain.check() if isinstance(chain, BitcoindChain) else chain.start())
        except (Unavailable, ConfigError, OSError) as error:
            log.info("the chain source is not asked: %s", error)
            return False
        return True

    def _server_pubkey(self) -> bytes | None:
        """Return the server's public key, None while the signer has not written it."""
        if self._store_config.server_pubkey is not None:
            return self._store_config.server_pubkey
        with suppress(OSError, ValueError):
            key = bytes.fromhex(Path(self._store_config.server_pubkey_file).read_text().strip())
            return key if len(key) == 33 else None
        return None

    def _hear(self, unsettled: Unsettled) -> None:
        self.following.hear(unsettled)

    def _lost(self) -> None:
        self.following.lost()
