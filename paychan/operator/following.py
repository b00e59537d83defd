"""Keeps the books near the store, at a cost that the store does not feel: small questions, and a rest after each that is many times
as long as its answer took. A sweep reads every unsettled channel; between sweeps what was settled is asked for by its time.

On a store with few channels a sweep is over at once, and comes every two seconds; on one with a hundred thousand, it takes minutes.
What is unsettled in all is the store's own sum, told with each heartbeat, and is never that old.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from ..chain.base import ChainBackend
from ..core.channel import ChannelState, ChannelTerms, Phase
from ..core.errors import PaychanError
from ..core.outcome import Outcome
from ..core.outpoint import txid_hex
from ..core.settlement import read_settlement
from ..core.units import LOCKTIME_MAX
from ..printing import place_of
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.store_messages import MessageError, Scan, Stored, StoreMessage, Unsettled
from .books import DAY_SECONDS, Books, Row

LOADED_AT_ONCE = 64
"""Channels in one question: the store reads three records for each, and payments wait meanwhile."""

INDEXED_AT_ONCE = 512
REST_FACTOR = 99
"""So many times as long as an answer took nothing is asked: a hundredth of the store's time at most."""

FIRST_REST_FACTOR = 9
"""The same until the books are full for the first time."""

SWEEP_SECONDS_MIN = 2.0
SETTLEMENTS_SECONDS_MIN = 5.0
"""Between two looks at what is being settled and was settled, which are few, while a sweep goes on for as long as it takes."""

RETRY_SECONDS = 1.0
DAYS_KEPT = 400
"""So far back the sums of days go."""

OVERLAP_SECONDS = 3600
"""What was settled is asked for again from so long before the latest: clocks of workers differ, and a write may have waited."""

CHAIN_SECONDS_MIN = 10.0
CHAIN_PAUSE_SECONDS = 0.2
"""Between two questions to the chain source about a settlement: it has more to do."""

log = logging.getLogger("paychan.operator")
T = TypeVar("T")


class Store(Protocol):
    """What is asked of the store (rpc/store_client.py)."""

    async def page(self, kind: StoreMessage, ask: Scan) -> list[tuple[int, bytes]]: ...

    async def load_many(self, outpoints: list[bytes]) -> list[Stored | None]: ...

    def settled_since(self, time: int) -> AsyncIterator[list[tuple[int, bytes, bytes]]]: ...


class Following:
    """Fills and refreshes books. now(): unix seconds."""

    def __init__(self, store: Store, books: Books, now: Callable[[], float], chain: ChainBackend | None = None) -> None:
        self.books, self.unsettled = books, Unsettled()
        self._store, self._now, self._chain = store, now, chain
        self._look = 0
        self._settled_at = 0
        self._hashes: dict[bytes, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_up = False
        self.is_complete = False
        """Whether every channel has been read once."""
        self.as_of: float | None = None
        """When the last whole sweep began, unix seconds: no row is older. None: there was none."""
        self.asked_seconds = 0.0
        """Time that answers of the store took, in all."""

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._keep_on(self.sweep, SWEEP_SECONDS_MIN)),
            loop.create_task(self._keep_on(self.look_at_settlements, SETTLEMENTS_SECONDS_MIN)),
        ]

    def ask_chain_too(self) -> None:
        """From now on ask the chain source about settlements, too: it is ready."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._keep_on(self.ask_chain, CHAIN_SECONDS_MIN)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hear(self, unsettled: Unsettled) -> None:
        """Note what is unsettled now, by the store's own sums."""
        self.unsettled, self._is_up = unsettled, True

    def lost(self) -> None:
        """The store is away."""
        self._is_up = False

    @property
    def is_up(self) -> bool:
        """Whether the store is connected, and has told its sums."""
        return self._is_up

    async def _keep_on(self, look: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            seconds = pause
            try:
                await look()
            except (ConnectionGone, RemoteRefusal, MessageError, OSError):
                seconds = RETRY_SECONDS
            except PaychanError as error:
                log.info("the chain source was asked in vain: %s", error)
            except Exception as error:
                log.error("internal error in the books: %s at %s", type(error).__name__, place_of(error.__traceback__))
                seconds = 10 * RETRY_SECONDS
            await asyncio.sleep(seconds)

    # --- the store ---

    async def sweep(self) -> None:
        """Look at every unsettled channel, and at what was settled. Raises ConnectionGone, RemoteRefusal, MessageError."""
        began = self._now()
        self._look += 1
        await self._read_outcomes()
        for kind, before in ((StoreMessage.SCAN_EXPIRING, LOCKTIME_MAX), (StoreMessage.SCAN_UNFINISHED, 0)):
            async for outpoints in self._indexed(kind, before):
                for start in range(0, len(outpoints), LOADED_AT_ONCE):
                    await self._read(outpoints[start : start + LOADED_AT_ONCE])
        gone = self.books.unseen(self._look)
        for start in range(0, len(gone), LOADED_AT_ONCE):
            await self._read(gone[start : start + LOADED_AT_ONCE])
        self.books.drop_old()
        self.is_complete, self.as_of = True, began

    async def look_at_settlements(self) -> None:
        """Look at the settlements that are under way, and at what was settled, once all is known. Raises as `sweep`."""
        if not self.is_complete:
            return
        await self._read_outcomes()
        async for outpoints in self._indexed(StoreMessage.SCAN_UNFINISHED, 0):
            for start in range(0, len(outpoints), LOADED_AT_ONCE):
                await self._read(outpoints[start : start + LOADED_AT_ONCE])

    async def _indexed(self, kind: StoreMessage, before: int) -> AsyncIterator[list[bytes]]:
        """Yield the outpoints of an index of the store, some at a time."""
        ask = Scan(INDEXED_AT_ONCE, before)
        while True:
            page = await self._rest_after(self._store.page(kind, ask))
            yield [outpoint for _, outpoint in page]
            if len(page) < INDEXED_AT_ONCE:
                return
            ask = Scan(INDEXED_AT_ONCE, before, page[-1][0] if kind == StoreMessage.SCAN_EXPIRING else 0, page[-1][1])

    async def _rest_after(self, answer: Awaitable[T]) -> T:
        """Await an answer of the store, then give it time."""
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        found = await answer
        took = loop.time() - sent_at
        self.asked_seconds += took
        await asyncio.sleep(took * (REST_FACTOR if self.is_complete else FIRST_REST_FACTOR))
        return found

    async def _read(self, outpoints: list[bytes]) -> None:
        stored = await self._rest_after(self._store.load_many(outpoints)) if outpoints else []
        same: list[bytes] = []
        for outpoint, found in zip(outpoints, stored, strict=True):
            if found is None:
                self._hashes.pop(outpoint, None)
                self.books.remove(outpoint)
            elif self._hashes.get(outpoint) == (known := hash((found.state, found.settlement))):
                same.append(outpoint)
            else:
                self._put(outpoint, found, known)
        self.books.saw(same, self._look)

    def _put(self, outpoint: bytes, stored: Stored, known: int) -> None:
        try:
            row = read_row(outpoint, stored, int(self._now()))
        except ValueError:
            log.warning("a channel's records do not read: its shard will be stopped")
            return
        self.books.put(row, self._look)
        if row.phase == Phase.SETTLED:
            self._hashes.pop(outpoint, None)
        else:
            self._hashes[outpoint] = known

    async def _read_outcomes(self) -> None:
        """Count what was settled since the last time, and give the latest of them rows."""
        since = self._settled_at - OVERLAP_SECONDS if self._settled_at else int(self._now()) - DAYS_KEPT * DAY_SECONDS
        news: deque[tuple[bytes, Outcome]] = deque(maxlen=self.books.kept)
        pages = self._store.settled_since(max(0, since))
        while page := await self._rest_after(_next(pages)):
            for settled_at, outpoint, record in page:
                outcome = _outcome(record)
                self._settled_at = max(self._settled_at, settled_at)
                if outcome is not None and self.books.count_outcome(outpoint, outcome, self._settled_at - 2 * OVERLAP_SECONDS):
                    news.append((outpoint, outcome))
        while news:
            part = [news.popleft() for _ in range(min(LOADED_AT_ONCE, len(news)))]
            stored = await self._rest_after(self._store.load_many([outpoint for outpoint, _ in part]))
            for (outpoint, outcome), found in zip(part, stored, strict=True):
                if found is not None:
                    self.books.put(read_row(outpoint, found, int(self._now()), outcome), self._look)
                    self._hashes.pop(outpoint, None)

    # --- the chain ---

    async def ask_chain(self) -> None:
        """Look how deep the settlements are that are on their way. Raises Unavailable."""
        assert self._chain is not None
        for row in self.books.on_their_way():
            (found,) = await self._store.load_many([row.outpoint])
            if found is not None:
                terms, state = ChannelTerms.parse(row.outpoint, found.terms), ChannelState.parse(found.state)
                status = await self._chain.funding_status(terms, state.settlement_txid)
                depth = status.spent_confirmations if status.is_spent else None
                self.books.confirmed(row.outpoint, txid_hex(state.settlement_txid), depth)
            await asyncio.sleep(CHAIN_PAUSE_SECONDS)


async def _next(pages: AsyncIterator[list[tuple[int, bytes, bytes]]]) -> list[tuple[int, bytes, bytes]]:
    """Return the next page, an empty one at the end."""
    return await anext(pages, [])


def _outcome(record: bytes) -> Outcome | None:
    """Return what a record says, None if it does not read: the others are counted all the same."""
    try:
        return Outcome.parse(record)
    except ValueError as error:
        log.warning("what became of a channel is not told: %s", error)
        return None


def read_row(outpoint: bytes, stored: Stored, now: int, outcome: Outcome | None = None) -> Row:
    """Return the row of a channel's records. now: unix seconds. Raises ValueError."""
    terms, state = ChannelTerms.parse(outpoint, stored.terms), ChannelState.parse(stored.state)
    paid = read_settlement(stored.settlement, terms) if stored.settlement else None
    return Row(
        outpoint,
        state.phase,
        terms.funding_value,
        terms.funding_value - state.payment.change_value,
        state.sales.spent,
        terms.exp_time,
        terms.opened_at,
        now,
        txid_hex(state.settlement_txid) if state.settlement_txid else None,
        outcome.fee if outcome is not None else paid.fee if paid is not None else None,
        paid.size if paid is not None else None,
        None,
        outcome.settled_at if outcome is not None else None,
        outcome.missing if outcome is not None else None,
        outcome.is_lost if outcome is not None else None,
    )
