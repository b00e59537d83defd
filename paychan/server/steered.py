"""What this worker obeys of what the operator has changed (`settings/steering.py`), and what it does when it is told to.

The file is looked at when the operator's process says that it has changed, at each opening, and once a second: who starts, or was
stopped while the others were told, obeys all the same. It is read only after this worker can be told, so no change falls between.

A freeze of all machines is a note in the store. Its heartbeats tell of it, and it is asked for before each opening: from the moment
that the note is durable on, whatever machine begins to open a channel finds it.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import orjson

from ..core.errors import Unavailable
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import MessageError
from ..settings.models import ServerConfig
from ..settings.steering import DAMAGED_FREEZE, FREEZE_NOTE, Freeze, SteeringFile, read_freeze
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
        self._store: StoreClient | None = None
        self._freeze = Freeze()
        self.has_joined = False
        """Whether this worker may own shards. Set by who lets it."""

    @property
    def config(self) -> ServerConfig:
        """The configuration with the limits as they hold now."""
        return self._file.now.tighten(self._given)

    @property
    def is_frozen(self) -> bool:
        """Whether no channel is opened, as far as this worker knows."""
        return self._file.now.frozen_at is not None or self._freeze.frozen_at is not None

    @property
    def is_drained(self) -> bool:
        """Whether this machine's workers are to own nothing."""
        return self._file.now.is_drained

    def check_opens(self) -> None:
        """Raises Unavailable while no channel is opened."""
        self.look()
        if self.is_frozen:
            raise Unavailable("opens_frozen")

    # --- a freeze of all machines ---

    def follow(self, store: StoreClient) -> None:
        """Have this store asked from now on."""
        self._store = store

    def hear(self, note: bytes) -> None:
        """Note what the store has of a freeze of all machines. What it told earlier may come later."""
        found = read_freeze(note)
        is_newer = found.revision >= self._freeze.revision or found is DAMAGED_FREEZE
        if found != self._freeze and is_newer:
            log.info("openings are %s on all machines", "opened" if found.frozen_at is None else "frozen")
            self._freeze = found

    def forget_revision(self) -> None:
        """The store is away; the next one may have been restored from a backup, and is believed."""
        self._freeze = replace(self._freeze, revision=0)

    async def ask_opens(self) -> None:
        """As `check_opens`, when the store has said what it has of a freeze of all machines. Raises Unavailable."""
        await self._ask()
        self.check_opens()

    async def _ask(self) -> None:
        """Raises Unavailable: it is not known."""
        if self._store is not None:
            try:
                self.hear((await self._store.notes(FREEZE_NOTE)).get(FREEZE_NOTE, b""))
            except (ConnectionGone, RemoteRefusal, MessageError) as error:
                raise Unavailable("store_unavailable") from error

    # --- this machine ---

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
        """Answer the operator's process: `look` tells of this worker, `ask` has it ask the store about a freeze of all machines
        before, `drain` has it end. Each looks at the file first."""
        self.look()
        if payload == b"ask":
            with suppress(Unavailable):  # then the revision tells
                await self._ask()
        told = {"pid": os.getpid(), "revision": self._file.now.revision, "freeze": asdict(self._freeze), **self._describe()}
        if payload == b"drain" and (self.has_joined or not self.is_drained):  # who waits to serve has nothing to give away
            told["is_leaving"] = self.leave()
        return orjson.dumps(told)
