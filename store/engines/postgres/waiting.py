"""The store's door while it waits for its database: whoever comes is told why, and /readyz of each worker says it.

The log has all of it; the door only what stands before the first colon, for /readyz is public, and machines' names are not."""

import asyncio
import logging
import time
from collections.abc import Callable

from paychan.core.errors import ConfigError
from paychan.rpc.connection import FrameConnection, listen
from paychan.rpc.store_messages import PAYLOAD_MAX
from paychan.settings.models import StoreConfig

log = logging.getLogger("paychan.store")

REPEAT_SECONDS = 10.0  # between two lines that say the same
LINGER_SECONDS = 0.2  # between a refusal and the close, so that the text arrives


class Waiting:
    """Listens at the store's address until it is closed. `say` tells the log and whoever comes what is waited for."""

    def __init__(self, config: StoreConfig, tell: Callable[[str], None] = lambda _: None) -> None:
        """tell: is told the same, for the service manager."""
        self._tell = tell
        self._config, self._why, self._said_at = config, "the store begins", 0.0
        self._listener: asyncio.AbstractServer | None = None
        self._connections: set[FrameConnection] = set()

    async def open(self) -> None:
        """Raises ConfigError if the address is no good."""
        config = self._config
        try:
            self._listener = await listen(config.address, self._make)
        except OSError as error:
            raise ConfigError(f"{config.common.source}: store.address: {config.address}: {error.strerror}") from error

    def _make(self) -> FrameConnection:
        return FrameConnection(PAYLOAD_MAX, self._refuse, self._connections.discard, self._connections.add)

    def _refuse(self, connection: FrameConnection, _: int, request_id: int, __: bytes) -> None:
        connection.refuse(request_id, self._why.partition(":")[0].encode())
        asyncio.get_running_loop().call_later(LINGER_SECONDS, connection.close)

    def say(self, why: str) -> None:
        if why != self._why or time.monotonic() - self._said_at > REPEAT_SECONDS:
            self._said_at = time.monotonic()
            log.warning("%s", why)
            self._tell(why)
        self._why = why

    async def close(self) -> None:
        """Leave the address to the store's own door."""
        for connection in list(self._connections):
            connection.close()
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()
