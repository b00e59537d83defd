"""A worker's side of the store: greeting, lease, conditional updates, reads.

The contract of `commit`: *an answer means that the synced write has returned; ConnectionGone means unknown, so the payer sends the
same payment again; STALE_EPOCH means that the shard has another owner, so stop serving it.*
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from ..core.units import LOCKTIME_MAX
from .connection import Address, ConnectionGone, FrameConnection, RemoteRefusal
from .event_messages import (
    NoteChange,
    Stream,
    decode_note_reply,
    decode_notes,
    decode_stream,
    encode_after,
)
from .link import Link
from .store_messages import (
    PAYLOAD_MAX,
    RECEIVED_MAX,
    SCAN_LIMIT_MAX,
    SETTLED_MAX,
    Hello,
    MessageError,
    OwnerTable,
    Scan,
    Stored,
    StoreMessage,
    Unsettled,
    Welcome,
    decode_found,
    decode_heartbeat_reply,
    decode_highest,
    decode_load_reply,
    decode_received,
    decode_settled,
    encode_highest,
    encode_load,
)
from .stores_messages import StoresSeen, decode_stores

ANSWER_SECONDS_MAX = 2.0
"""A store that takes longer is as good as gone: its connection is closed, and its shards are lost to the lease anyway."""


MOST = 1 << 32
"""Of a scan: everything."""


class StoreClient:
    """One worker's connection to the store. `on_owners(welcome, table)` gets each owner table; `on_lost()` ends it all;
    with each heartbeat `on_unsettled(unsettled)` hears what is unsettled, `on_freeze(note)` of a freeze of all machines."""

    def __init__(
        self,
        address: Address,
        hello: Hello,
        on_owners: Callable[[Welcome, OwnerTable], None],
        on_lost: Callable[[], None],
        on_unsettled: Callable[[Unsettled], None] = lambda _: None,
        on_freeze: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._hello, self._on_owners, self._on_lost = hello, on_owners, on_lost
        self._on_unsettled, self._on_freeze = on_unsettled, on_freeze
        self._welcome: Welcome | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self.lease_ends = 0.0
        """Loop time until which this worker's shards cannot have gone to another unless the store told us."""
        self.link = Link("store", address, PAYLOAD_MAX, self._greet, self._on_frame, self._lost)

    def greet_as(self, hello: Hello) -> None:
        """Say something else in the next greeting: before the link starts, who does not know the server's key yet."""
        self._hello = hello

    async def commit(self, payload: bytes) -> bytes:
        """Send a COMMIT, which is one group; return one `EntryStatus` byte for each entry. Raises ConnectionGone, RemoteRefusal."""
        return await self._ask(StoreMessage.COMMIT, payload)

    async def load(self, outpoint: bytes) -> Stored | None:
        """Return what the store has of a channel, or None. Raises ConnectionGone, RemoteRefusal."""
        return (await self.load_many([outpoint]))[0]

    async def load_many(self, outpoints: list[bytes]) -> list[Stored | None]:
        """Return the same of several channels (1 to LOAD_MAX), in order. Raises ConnectionGone, RemoteRefusal, MessageError."""
        found = decode_load_reply(await self._ask(StoreMessage.LOAD, encode_load(outpoints)))
        if len(found) != len(outpoints):
            raise MessageError("the answer to LOAD is not about the channels that were asked for")
        return found

    async def keep_funding(self, transaction: bytes) -> None:
        """Have a funding transaction, without its witness, kept: on return it is on disk. Raises ConnectionGone, RemoteRefusal."""
        await self._ask(StoreMessage.KEEP_FUNDING, transaction)

    async def load_funding(self, txid: bytes) -> bytes:
        """Return a kept funding transaction, empty if none is kept. Raises ConnectionGone, RemoteRefusal."""
        return await self._ask(StoreMessage.LOAD_FUNDING, txid)

    async def scan(self, kind: StoreMessage, before: int = 0, most: int = MOST) -> list[tuple[int, bytes]]:
        """Return the (number, outpoint) pairs of an index, see `Scan`; the first `most` of them. Raises ConnectionGone."""
        found: list[tuple[int, bytes]] = []
        async for page in self.pages(kind, before):
            found += page
            if len(found) >= most:
                break
        return found[:most]

    async def page(self, kind: StoreMessage, ask: Scan) -> list[tuple[int, bytes]]:
        """Return one page of an index. Raises ConnectionGone, RemoteRefusal, MessageError."""
        return decode_found(await self._ask(kind, ask.encode()))

    async def pages(self, kind: StoreMessage, before: int = 0) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Yield the pairs of an index, a page at a time: it may be long. Raises ConnectionGone."""
        ask = Scan(SCAN_LIMIT_MAX, before)
        while True:
            page = await self.page(kind, ask)
            yield page
            if len(page) < SCAN_LIMIT_MAX:
                return
            number = page[-1][0] if kind == StoreMessage.SCAN_EXPIRING else 0
            ask = Scan(SCAN_LIMIT_MAX, before, number, page[-1][1])

    async def received(self) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Yield (satoshi received, outpoint) of every open channel, a page at a time: the store reads two records for each.

        Raises ConnectionGone, RemoteRefusal, MessageError.
        """
        async for page in self.received_before(LOCKTIME_MAX):
            yield [(value, outpoint) for _, value, outpoint in page]

    async def received_before(self, before: int) -> AsyncIterator[list[tuple[int, int, bytes]]]:
        """Yield (expiry, satoshi received, outpoint) of the open channels that expire before a time (unix seconds), the first ones
        first. Raises the same."""
        ask = Scan(RECEIVED_MAX, before)
        while True:
            page = await self.received_page(ask)
            yield page
            if len(page) < RECEIVED_MAX:
                return
            ask = Scan(RECEIVED_MAX, before, page[-1][0], page[-1][2])

    async def settled_since(self, time: int) -> AsyncIterator[list[tuple[int, bytes, bytes]]]:
        """Yield (unix seconds, outpoint, outcome record) of the channels that were settled at a time or later, a page at a time.
        Raises the same."""
        ask = Scan(SETTLED_MAX, 0, time)
        while True:
            page = decode_settled(await self._ask(StoreMessage.SCAN_SETTLED, ask.encode()))
            yield page
            if len(page) < SETTLED_MAX:
                return
            ask = Scan(SETTLED_MAX, 0, page[-1][0], page[-1][1])

    async def received_page(self, ask: Scan) -> list[tuple[int, int, bytes]]:
        """Return one page of the same. Raises the same."""
        return decode_received(await self._ask(StoreMessage.SCAN_RECEIVED, ask.encode()))

    async def ask_unsettled(self) -> Unsettled:
        """Return what is unsettled now. Raises ConnectionGone, RemoteRefusal, MessageError."""
        return decode_heartbeat_reply(await self._ask(StoreMessage.HEARTBEAT, b""))[0]

    async def highest(self, seconds: int) -> int:
        """Tell of the highest time that is sure here (unix seconds); return the highest of all machines, 0 if there is no other.
        Raises ConnectionGone, RemoteRefusal, MessageError."""
        return decode_highest(await self._ask(StoreMessage.HIGHEST, encode_highest(seconds)))

    async def events(self, after: int, limit: int) -> Stream:
        """Return the events whose number is above `after`, up to EVENTS_MAX. Raises ConnectionGone, RemoteRefusal, MessageError."""
        return decode_stream(await self._ask(StoreMessage.EVENTS, encode_after(after, limit)))

    async def stores(self) -> StoresSeen:
        """Return all stores that share the channels, as this one saw them last. Raises the same."""
        return decode_stores(await self._ask(StoreMessage.STORES, b""))

    async def notes(self, prefix: str) -> dict[str, bytes]:
        """Return the notes whose name begins so. Raises the same."""
        return decode_notes(await self._ask(StoreMessage.NOTES, prefix.encode()))

    async def note(self, change: NoteChange) -> tuple[bool, bytes | None]:
        """Replace a note, if it is as expected, and write events with it; return whether that was done, and what it says now.
        Raises the same; on ConnectionGone it is not known: ask again."""
        return decode_note_reply(await self._ask(StoreMessage.NOTE, change.encode()))

    async def _ask(self, kind: int, payload: bytes) -> bytes:
        connection = self.link.connection
        sent_at = asyncio.get_running_loop().time()
        try:
            answer = await asyncio.wait_for(connection.call(kind, payload), ANSWER_SECONDS_MAX)
        except TimeoutError:
            connection.close()
            raise ConnectionGone() from None
        self._extend_lease(sent_at)
        return answer

    def _extend_lease(self, sent_at: float) -> None:
        if self._welcome:
            self.lease_ends = max(self.lease_ends, sent_at + self._welcome.lease_ms / 1000)

    async def _greet(self, connection: FrameConnection) -> None:
        self.lease_ends = 0.0
        self._welcome = None
        sent_at = asyncio.get_running_loop().time()
        self._welcome = Welcome.decode(await connection.call(StoreMessage.HELLO, self._hello.encode()))
        self._extend_lease(sent_at)
        self._heartbeat = asyncio.get_running_loop().create_task(self._beat(connection, self._welcome.lease_ms / 3000))

    async def _beat(self, connection: FrameConnection, pause: float) -> None:
        """Show signs of life. A refused or missing answer closes the connection, which ends all ownership."""
        loop = asyncio.get_running_loop()
        while connection.is_open:
            sent_at = loop.time()
            try:
                answer = await asyncio.wait_for(connection.call(StoreMessage.HEARTBEAT), 3 * pause)
                unsettled, freeze = decode_heartbeat_reply(answer)
                self._on_unsettled(unsettled)
                self._on_freeze(freeze)
                self._extend_lease(sent_at)
            except (ConnectionGone, RemoteRefusal, TimeoutError, MessageError):
                connection.close()
            await asyncio.sleep(pause)

    def _on_frame(self, connection: FrameConnection, kind: int, _: int, payload: bytes) -> None:
        if kind != StoreMessage.OWNERS:
            return
        try:
            table = OwnerTable.decode(payload)
        except MessageError:
            connection.close()
            return
        # OWNERS may come in the same packet as WELCOME, before the greeting coroutine has run on.
        asyncio.get_running_loop().call_soon(self._owners, connection, table)

    def _owners(self, connection: FrameConnection, table: OwnerTable) -> None:
        if self._welcome is not None and connection.is_open:
            self._on_owners(self._welcome, table)

    def _lost(self) -> None:
        self.lease_ends = 0.0
        if self._heartbeat:
            self._heartbeat.cancel()
        self._on_lost()
