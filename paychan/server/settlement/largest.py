"""Who is settled early: open channels that hold more than one may, and the largest ones while all together hold too much.

The store keeps no order by value, for each payment would have to move its channel in it. So the open channels are ranked when that
is needed, by a walk through the store, a page at a time. What a channel received only grows while it is open, so an older ranking
says too little of some, and too much of none.
"""

import asyncio
from heapq import heappush, heappushpop

from ...core.channel import ChannelState, ChannelTerms, Phase
from ...rpc.store_client import StoreClient
from ...rpc.store_messages import Stored

EARLY_MAX = 16
"""Channels that one sweep settles early; the next one sees what that brought."""

RANKED_MAX = 1024
"""Channels that a ranking remembers. Once all have been settled, the next ranking finds the others."""

REST_FACTOR = 4
"""A ranking is used so many times as long as its walk took: on a large store walks take a fifth of the time at most."""

RANKING_SECONDS_MAX = 3600.0
"""Without need the channels are ranked so often, and whenever the settler's lease was taken over: by a payment just before a crash,
or by a limit that was lowered, a channel may hold more than it may, and nobody pays on it again."""


class Largest:
    """Owned by the settler. channel_max, total_max: satoshi, what may be received on one open channel, and on all."""

    def __init__(self, store: StoreClient, channel_max: int, total_max: int) -> None:
        self._store, self._channel_max, self._total_max = store, channel_max, total_max
        self.forget()

    def limit(self, channel_max: int, total_max: int) -> None:
        """Have other limits from now on, for channels that are open too."""
        if (channel_max, total_max) != (self._channel_max, self._total_max):
            self._channel_max, self._total_max = channel_max, total_max
            self.forget()

    def forget(self) -> None:
        """Another worker settles now: rank anew before anything else."""
        self._ranking: list[tuple[int, bytes]] = []
        self._is_cut = False
        self._ranked_at, self._took = float("-inf"), 0.0

    async def due(self) -> list[bytes]:
        """Return the open channels to settle now, the largest first, EARLY_MAX at most. What is being settled already counts as on
        its way. Raises ConnectionGone, RemoteRefusal, MessageError."""
        excess = (await self._store.ask_unsettled()).open - self._total_max
        if self._is_outdated(excess > 0):
            await self._rank()
        return await self._choose(excess)

    def _is_outdated(self, is_needed: bool) -> bool:
        age = asyncio.get_running_loop().time() - self._ranked_at
        is_used_up = self._is_cut and not self._ranking
        return age > RANKING_SECONDS_MAX or ((is_needed or is_used_up) and age > REST_FACTOR * self._took)

    async def _rank(self) -> None:
        loop = asyncio.get_running_loop()
        began, heap = loop.time(), list[tuple[int, bytes]]()
        async for page in self._store.received():
            for row in page:
                if len(heap) < RANKED_MAX:
                    heappush(heap, row)
                else:
                    heappushpop(heap, row)
        self._ranking, self._is_cut = sorted(heap, reverse=True), len(heap) == RANKED_MAX
        self._ranked_at = loop.time()
        self._took = self._ranked_at - began

    async def _choose(self, excess: int) -> list[bytes]:
        """Return the largest channels that are still open, until so many satoshi less are open and none holds more than it may."""
        chosen: list[bytes] = []
        kept, rest = list[tuple[int, bytes]](), self._ranking

        def is_due(received: int) -> bool:
            return len(chosen) < EARLY_MAX and (excess > 0 or received > self._channel_max)

        while rest and is_due(rest[0][0]):
            part, rest = rest[:EARLY_MAX], rest[EARLY_MAX:]
            found = await self._store.load_many([outpoint for _, outpoint in part])
            for (_, outpoint), stored in zip(part, found, strict=True):
                received = _received_if_open(outpoint, stored)
                if received is None:
                    continue
                kept.append((received, outpoint))
                if is_due(received):
                    chosen.append(outpoint)
                    excess -= received
        self._ranking = sorted(kept + rest, reverse=True)
        return chosen


def _received_if_open(outpoint: bytes, stored: Stored | None) -> int | None:
    """Return the satoshi received on an open channel, None for any other, or one whose records do not read."""
    try:
        if stored is None or (state := ChannelState.parse(stored.state)).phase != Phase.OPEN:
            return None
        return ChannelTerms.parse(outpoint, stored.terms).funding_value - state.payment.change_value
    except ValueError:
        return None
