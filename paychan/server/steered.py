"""What this worker obeys of what the operator has changed (`settings/steering.py`), and what it does when it is told to.

The file is looked at when the operator's process says that it has changed, at each opening, and once a second: who starts, or was
stopped while the others were told, obeys all the same. It is read only after this worker can be told, so no change falls between.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import orjson

from ..core.errors import Unavailable
from ..settings.models import ServerConfig
from ..settings.steering import SteeringFile
from .background import Background

LOOK_SECONDS = 1.0

YOUNG_SECONDS = 6.0
"""granian takes a worker that ends within 5.5 s of its start for one that crashes, and ends the server: no worker leaves before."""

log = logging.getLogger("paychan.steering")


def _end() -> None:
    """End as on SIGTERM: what is under way is answered, the shards are given away, and granian's main process makes a successor."""
    os.kill(os.getpid(), signal.SIGTERM)


class Steered(Background):
    """One worker's. on_change(config): called with what holds from now on. describe(): what is told of this worker. end(): ends
    it."""

    def __init__(
        self,
        config: ServerConfig,
        on_change: Callable[[ServerConfig], None],
        describe: Callable[[], dict[str, Any]],
        end: Callable[[], None] = _end,
    ) -> None:
        self._given, self._on_change, self._describe, self._end = config, on_change, describe, end
        self._file = SteeringFile(config.common.state_dir, lambda why: log.error("no channels are opened: %s", why))
        self._began, self._is_leaving = time.monotonic(), False
        self.has_joined = False
        """Whether this worker may own shards. Set by who lets it."""

    @property
    def config(self) -> ServerConfig:
        """The configuration with the limits as they hold now."""
        return self._file.now.tighten(self._given)

    @property
    def is_frozen(self) -> bool:
        """Whether no channel is opened."""
        return self._file.now.frozen_at is not None

    @property
    def is_drained(self) -> bool:
        """Whether this machine's workers are to own nothing."""
        return self._file.now.is_drained

    def check_opens(self) -> None:
        """Raises Unavailable while no channel is opened."""
        self.look()
        if self.is_frozen:
            raise Unavailable("opens_frozen")

    def look(self) -> None:
        """Obey what has changed, if anything has."""
        if self._file.look():
            self._on_change(self.config)
            log.info("obeys the operator's change %d", self._file.now.revision)

    async def _run(self) -> None:
        while True:
            self.look()
            if self.is_drained and self.has_joined:
                self.leave()
            await asyncio.sleep(LOOK_SECONDS)

    def leave(self) -> bool:
        """Give this worker's shards away and end, if it is old enough; return whether it does."""
        if self._is_leaving:
            return True
        if time.monotonic() - self._began < YOUNG_SECONDS:
            return False
        self._is_leaving = True
        log.info("gives its shards away and ends, as the operator wants")
        asyncio.get_running_loop().call_later(0.05, self._end)  # who asked is answered first
        return True

    async def control(self, payload: bytes) -> bytes:
        """Answer the operator's process: `look` tells of this worker, `drain` has it end. Each looks at the file first."""
        self.look()
        told = {"pid": os.getpid(), "revision": self._file.now.revision, **self._describe()}
        if payload == b"drain":
            told["is_leaving"] = self.leave()
        return orjson.dumps(told)
