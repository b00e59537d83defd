"""What is on its way to the chain, and what is at risk, as figures: by the worker that settles, a few times a minute.

The settler knows nothing of it: whatever goes wrong here, or takes long, keeps nothing from being settled.
"""

import asyncio
import logging
from collections.abc import Callable

from ...core.channel import ChannelState, ChannelTerms, Phase
from ...core.units import LOCKTIME_MAX
from ...metrics import families
from ...metrics.families import Family
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.store_client import StoreClient
from ...rpc.store_messages import LOAD_MAX, Lease, Stored, StoreMessage
from ..background import Background
from ..shards.ownership import Ownership

FIGURES_SECONDS = 5.0
"""Between two looks."""

REST_FACTOR = 10
"""So many times as long as a look took nothing is looked at afterwards: on a large store that takes a tenth of the time at most."""

COUNTED_MAX = 20_000
"""Channels of each kind that one look counts; beyond it the figures are too low, and alarming anyway."""

_NAMES = {Phase.CLOSING: "closing", Phase.SIGNED: "signed", Phase.BROADCAST: "broadcast"}


log = logging.getLogger("paychan.figures")


class Figures(Background):
    """Each worker's; it counts while the worker holds the settler's lease. now(): unix seconds."""

    def __init__(self, ownership: Ownership, store: StoreClient, now: Callable[[], int]) -> None:
        self._ownership, self._store, self._now = ownership, store, now
        self._forget()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                if self._ownership.holds(Lease.SETTLER):
                    await self.look()
                else:
                    self._forget()
            except (ConnectionGone, RemoteRefusal):
                self._forget()  # the store is away, and so is our lease
            except Exception as error:
                log.error("internal error in the figures: %s", type(error).__name__)
            await asyncio.sleep(max(FIGURES_SECONDS, REST_FACTOR * (loop.time() - began)))

    def _forget(self) -> None:
        """Another worker settles now."""
        self._since: dict[bytes, tuple[int, float]] = {}
        self._counts = dict.fromkeys(families.PHASES, 0)
        self._at_risk = dict.fromkeys(families.HORIZONS, 0)

    def gauges(self) -> dict[Family, int | dict[str, int]]:
        """Return the figures of the last look."""
        return {families.UNFINISHED: self._counts, families.OLDEST: self._oldest(), families.AT_RISK: self._at_risk}

    def _oldest(self) -> dict[str, int]:
        oldest, now = dict.fromkeys(families.PHASES, 0), asyncio.get_running_loop().time()
        for phase, since in self._since.values():
            name = _NAMES[Phase(phase)]
            oldest[name] = max(oldest[name], int(now - since))
        return oldest

    async def look(self) -> None:
        """Count anew. Raises ConnectionGone, RemoteRefusal, MessageError."""
        unfinished = await self._unfinished()
        values = [*await self._open_soon(), *await self._values([outpoint for _, outpoint in unfinished])]
        now = self._now()
        self._at_risk = {
            name: sum(value for expiry, value in values if expiry - now <= seconds) for name, seconds in families.HORIZONS.items()
        }
        self._note(unfinished, asyncio.get_running_loop().time())

    def _note(self, unfinished: list[tuple[int, bytes]], now: float) -> None:
        before, self._since = self._since, {}
        self._counts = dict.fromkeys(families.PHASES, 0)
        for phase, outpoint in unfinished:
            self._counts[_NAMES[Phase(phase)]] += 1
            was_phase, since = before.get(outpoint, (phase, now))
            self._since[outpoint] = phase, since if was_phase == phase else now

    async def _unfinished(self) -> list[tuple[int, bytes]]:
        """Return (phase, outpoint) of the settlements that are not buried."""
        return await self._store.scan(StoreMessage.SCAN_UNFINISHED, most=COUNTED_MAX)

    async def _open_soon(self) -> list[tuple[int, int]]:
        """Return (expiry, satoshi received) of the open channels that expire within the longest time that is looked at."""
        before = min(self._now() + max(families.HORIZONS.values()) + 1, LOCKTIME_MAX)
        found: list[tuple[int, int]] = []
        async for page in self._store.received_before(before):
            found += [(expiry, value) for expiry, value, _ in page]
            if len(found) >= COUNTED_MAX:
                break
        return found

    async def _values(self, outpoints: list[bytes]) -> list[tuple[int, int]]:
        """Return the same of channels that are being settled."""
        found: list[tuple[int, int]] = []
        for start in range(0, len(outpoints), LOAD_MAX):
            part = outpoints[start : start + LOAD_MAX]
            rows = zip(part, await self._store.load_many(part), strict=True)
            found += [value for outpoint, stored in rows if (value := _value_of(outpoint, stored)) is not None]
        return found


def _value_of(outpoint: bytes, stored: Stored | None) -> tuple[int, int] | None:
    """Return expiry and satoshi received of a channel that is not settled; None of any other, or one whose records do not read."""
    try:
        if stored is None or (state := ChannelState.parse(stored.state)).phase == Phase.SETTLED:
            return None
        terms = ChannelTerms.parse(outpoint, stored.terms)
        return terms.exp_time, terms.funding_value - state.payment.change_value
    except ValueError:
        return None
