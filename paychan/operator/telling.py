"""The events of the API's process: its connection to the store, the webhooks' deliveries, and the sums of what was sold in each
period."""

import asyncio
import json
import logging
import time

from .._fast import tally as cells
from ..core.errors import Unavailable
from ..events.event import Event, Type
from ..metrics import families
from ..metrics.exposition import outcomes
from ..metrics.file import Role, claim_or_none, in_run
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.event_messages import NoteChange
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Hello, MessageError
from ..server.background import Background
from ..settings.models import StoreConfig
from ..webhooks.delivery import Deliverer
from .context import Context
from .looking import slots

POLL_SECONDS = 0.5
KEY_SECONDS = 1.0
SALES = "told/sales/"
"""Of the note that says what was summed up, before the machine's name: {"until_at", "purchases", "charged", "returned"}."""

log = logging.getLogger("paychan.operator")


class Telling(Background):
    """One in the process. `store`: an observer's connection, None until the signer's key is known."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config = context.config.webhooks
        self._tally = claim_or_none(in_run(context.config.common.state_dir), Role.OPERATOR)
        self._store: StoreClient | None = None
        self.deliverer: Deliverer | None = None

    @property
    def store(self) -> StoreClient:
        """The connection to the store. Raises Unavailable."""
        if self._store is None or not self._store.link.is_up:
            raise Unavailable("store_unavailable")
        return self._store

    async def stop(self) -> None:
        await super().stop()
        if self.deliverer is not None:
            await self.deliverer.stop()
        if self._store is not None:
            await self._store.link.stop()

    async def _run(self) -> None:
        while (key := _public_key(self._context.store)) is None:
            await asyncio.sleep(KEY_SECONDS)
        hello = Hello(self._context.config.common.network.name, key, "")
        self._store = StoreClient(self._context.store.address, hello, lambda *_: None, lambda: None)
        self._store.link.start()
        self.deliverer = Deliverer(self._store, self._config, self._tally)
        self.deliverer.start()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._tally.set(families.BEAT_AT, time.time_ns())
            try:
                if self._store.link.is_up:
                    await self._sum_up(int(time.time()))
            except (ConnectionGone, RemoteRefusal, MessageError, Unavailable):
                pass
            except Exception as error:
                log.error("internal error while summing up sales: %s", type(error).__name__)

    async def _sum_up(self, now: int) -> None:
        """Tell what was sold in the period that has ended, if one has. What was summed up is replaced with it: each is told
        once."""
        if now < getattr(self, "_due_at", 0):
            return
        name = SALES + self._context.machine
        note = (await self.store.notes(name)).get(name)
        before = json.loads(note) if note else None
        until = now - now % self._config.sales_seconds
        if before is None or before["until_at"] < until:
            counted = self._counted()
            events = [_period(before, until, counted)] if before is not None else []
            value = json.dumps({"until_at": until, **counted}).encode()
            await self.store.note(NoteChange(name, note, value, events))
        self._due_at = until + self._config.sales_seconds

    def _counted(self) -> dict[str, int]:
        sums = [sum(row) for row in zip(*(slot.cells for slot in slots(self._context)), strict=True)] or [0] * cells.CELLS
        sold = dict(outcomes(sums, cells.SALE_DOOR, families.PAID))
        return {
            "purchases": sold["accepted"] + sold["exhausted"],
            "charged_satoshi": sums[families.CHARGED.at],
            "returned_satoshi": sums[families.RETURNED.at],
        }


def _period(before: dict[str, int], until: int, counted: dict[str, int]) -> Event:
    """Return what to tell of a period. Counts that fell were begun anew: then all of them is new."""
    is_new = any(counted[name] < before[name] for name in counted)
    sums = {name: count - (0 if is_new else before[name]) for name, count in counted.items()}
    return Event(Type.SALES, {"from_at": before["until_at"], "until_at": until, **sums})


def _public_key(config: StoreConfig) -> bytes | None:
    """Return the server's public key; None while the signer has not made it."""
    if config.server_pubkey is not None:
        return config.server_pubkey
    try:
        return bytes.fromhex(config.server_pubkey_file.read_text("ascii").strip())
    except (OSError, ValueError):
        return None


def of(context: Context) -> Telling:
    """Return the process' `Telling`. Raises Unavailable before it has begun."""
    if not isinstance(context.telling, Telling):
        raise Unavailable("store_unavailable")
    return context.telling
