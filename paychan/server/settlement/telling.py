"""What is told that comes of no write: channels that will expire, and whether the chain can be trusted. By the worker that settles.

What was told last is a note in the store, which is replaced together with the event: whoever dies, whoever takes the lease over,
each is told once. (A store that answers too late has told, and is asked again: the note says so.) Nothing waits for it.
"""

import asyncio
import logging
from collections.abc import Callable

from ...core.outpoint import OUTPOINT_SIZE, format_outpoint
from ...core.units import LOCKTIME_MAX
from ...events.event import Event, Type
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.event_messages import NoteChange
from ...rpc.store_client import StoreClient
from ...rpc.store_messages import RECEIVED_MAX, Lease, MessageError, Scan
from ..background import Background
from ..shards.ownership import Ownership
from .tip import TipFollower

LOOK_SECONDS = 5.0

EXPIRING, CHAIN = "told/expiring", "told/chain"
"""Notes: the expiry (u32, big-endian) and outpoint of the last channel that was told of; `doubtful` or `trusted`."""

log = logging.getLogger("paychan.telling")


class Telling(Background):
    """Each worker's; it tells while the worker holds the settler's lease. notice: seconds before expiry at which a channel is
    told of. now(): unix seconds."""

    def __init__(self, ownership: Ownership, store: StoreClient, tip: TipFollower, notice: int, now: Callable[[], int]) -> None:
        self._ownership, self._store, self._tip, self._notice, self._now = ownership, store, tip, notice, now
        self._was_doubtful = False

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self._ownership.holds(Lease.SETTLER):
                    await self._tell_of_the_chain()
                    await self._tell_of_expiries()
            except (ConnectionGone, RemoteRefusal, MessageError):
                pass  # the store is away
            except Exception as error:
                log.error("internal error while telling: %s", type(error).__name__)

    async def _tell_of_expiries(self) -> None:
        before = min(self._now() + self._notice + 1, LOCKTIME_MAX)
        while True:
            note = (await self._store.notes(EXPIRING)).get(EXPIRING)
            number, outpoint = (int.from_bytes(note[:4], "big"), note[4:]) if note else (0, bytes(OUTPOINT_SIZE))
            page = await self._store.received_page(Scan(RECEIVED_MAX, before, number, outpoint))
            if not page:
                return
            events = [
                Event(Type.EXPIRING, {"received_satoshi": value, "expires_at": expiry}, format_outpoint(name))
                for expiry, value, name in page
            ]
            last = page[-1][0].to_bytes(4, "big") + page[-1][2]
            await self._store.note(NoteChange(EXPIRING, note, last, events))

    async def _tell_of_the_chain(self) -> None:
        """Tell what has changed for two looks: what passes at once is no trouble."""
        is_doubtful, was = self._tip.is_doubtful, self._was_doubtful
        self._was_doubtful = is_doubtful
        if is_doubtful != was:
            return
        note = (await self._store.notes(CHAIN)).get(CHAIN)
        if is_doubtful != (note == b"doubtful"):
            event = Event(Type.CHAIN_DOUBTFUL, {"why": self._tip.doubt}) if is_doubtful else Event(Type.CHAIN_TRUSTED)
            await self._store.note(NoteChange(CHAIN, note, b"doubtful" if is_doubtful else b"trusted", [event]))
