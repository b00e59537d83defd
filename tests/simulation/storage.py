"""The simulated store: the production sequencer, groups, rules and leases over a dict that stands for the disk.

A crash of the store loses what it had not written; a crash of a worker, or a lost connection, loses answers only.
"""

import asyncio
import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from paychan.rpc.connection import ConnectionGone
from paychan.rpc.event_messages import NoteChange
from paychan.rpc.store_messages import (
    LEASE_COUNT,
    Hello,
    OwnerTable,
    Scan,
    Stored,
    StoreMessage,
    Unsettled,
    Welcome,
    check_commit,
)
from store import keys
from store.engines.at_once import AtOnce
from store.events import Stamp
from store.group import Group
from store.leases import Leases
from store.sequencer import Sequencer
from store.table import received

from .loop import Wire

ANSWER_SECONDS_MAX = 2.0
MOST = 1 << 32


class Disk(AtOnce):
    """What survives everything; the methods of `store.engines.rocksdb.RocksDB`.

    `on_commit(writes)` sees each write before it is one. What is told says no time: it would be that of the real clock.
    """

    stamp = Stamp(clock=lambda: 0.0)

    def __init__(self, on_commit: Callable[[Mapping[bytes, bytes | None]], None]) -> None:
        self._on_commit = on_commit
        self.data: dict[bytes, bytes] = {}
        self._indexes: dict[bytes, list[bytes]] = {keys.EXPIRING: [], keys.UNFINISHED: []}
        self.notes: dict[str, bytes] = {}

    def states(self, outpoints: list[bytes]) -> list[bytes | None]:
        return [self.data.get(keys.STATE + outpoint) for outpoint in outpoints]

    def terms(self, outpoints: list[bytes]) -> list[bytes | None]:
        return [self.data.get(keys.TERMS + outpoint) for outpoint in outpoints]

    def funding(self, txid: bytes) -> bytes | None:
        return self.data.get(keys.FUNDING + txid)

    def load(self, outpoint: bytes) -> Stored | None:
        parts = [self.data.get(prefix + outpoint) for prefix in (keys.TERMS, keys.STATE, keys.SETTLEMENT)]
        return None if parts[1] is None else Stored(parts[0] or b"", parts[1], parts[2] or b"")

    def scan_expiring(self, before: int, most: int) -> list[tuple[int, bytes]]:
        index = self._indexes[keys.EXPIRING]
        end = bisect_left(index, keys.expiring_key(before))
        return [keys.split_timed_key(key) for key in index[: min(end, most)]]

    def scan_unfinished(self, most: int) -> list[tuple[int, bytes]]:
        return [(self.data[key][0], key[1:]) for key in self._indexes[keys.UNFINISHED][:most]]

    def epochs(self, shard_count: int) -> list[int]:
        return [keys.decode_epoch(self.data.get(keys.epoch_key(lease))) for lease in range(shard_count + LEASE_COUNT)]

    def received(self) -> list[tuple[int, bytes]]:
        outpoints = [keys.split_timed_key(key)[1] for key in self._indexes[keys.EXPIRING]]
        return list(zip(map(received, self.terms(outpoints), self.states(outpoints)), outpoints, strict=True))

    def received_page(self, ask: Scan) -> list[tuple[int, int, bytes]]:
        """Return (expiry, satoshi received, outpoint) of open channels, as the store answers SCAN_RECEIVED."""
        index = self._indexes[keys.EXPIRING]
        first = bisect_right(index, keys.expiring_key(ask.after_number, ask.after))
        end = bisect_left(index, keys.expiring_key(ask.before))
        found = [keys.split_timed_key(key) for key in index[first : min(end, first + ask.limit)]]
        outpoints = [outpoint for _, outpoint in found]
        values = map(received, self.terms(outpoints), self.states(outpoints))
        return [(expiry, value, outpoint) for (expiry, outpoint), value in zip(found, values, strict=True)]

    def note(self, change: NoteChange) -> tuple[bool, bytes | None]:
        """Replace a note, if it is as expected. What is told with it is judged in tests/unit/store/test_store_told.py."""
        if self.notes.get(change.name) != change.expected:
            return False, self.notes.get(change.name)
        self.notes.pop(change.name, None)
        if change.value is not None:
            self.notes[change.name] = change.value
        return True, change.value

    def unsettled(self) -> Unsettled:
        return keys.decode_unsettled(self.data.get(keys.UNSETTLED))

    def open_spent(self) -> int:
        return keys.decode_spent(self.data.get(keys.OPEN_SPENT))

    def commit(self, writes: Mapping[bytes, bytes | None]) -> None:
        self._on_commit(writes)
        for key, value in writes.items():
            index = self._indexes.get(key[:1])
            if index is not None and (value is None) == (key in self.data):
                if value is None:
                    del index[bisect_right(index, key) - 1]
                else:
                    insort(index, key)
            if value is None:
                self.data.pop(key, None)
            else:
                self.data[key] = value


class Store:
    """One store process, which can crash and come back on the same disk."""

    def __init__(self, disk: Disk, shard_count: int, chance: random.Random) -> None:
        self.disk, self.shard_count, self._chance = disk, shard_count, chance
        self._clients: dict[MemoryStoreClient, int] = {}
        self._waiting: dict[asyncio.Future[bytes], None] = {}
        self._life = 0
        self.is_up = False
        self.start()

    def start(self) -> None:
        self._life += 1
        self.sequencer = Sequencer(self.disk, self.shard_count, self._sync_later)  # type: ignore[arg-type]
        self._leases = Leases(self.shard_count, self.disk.epochs(self.shard_count))
        self.is_up = True

    def crash(self) -> None:
        """Lose the group that is not written yet, and all connections."""
        self.is_up = False
        self._life += 1
        clients, self._clients = list(self._clients), {}
        for client in clients:
            client.lose()
        waiting, self._waiting = list(self._waiting), {}
        for answer in waiting:
            if not answer.done():
                answer.set_exception(ConnectionGone())

    def _sync_later(self, finish_group: Callable[[], None]) -> None:
        life = self._life

        def run() -> None:
            if life == self._life:
                finish_group()

        asyncio.get_running_loop().call_later(self._chance.uniform(0.001, 0.02), run)

    def join(self, client: "MemoryStoreClient") -> int:
        number = self._leases.join(client.peer_address, 0)
        self._clients[client] = number
        self._change_owners()
        return number

    def leave(self, client: "MemoryStoreClient") -> None:
        number = self._clients.pop(client, None)
        if number is not None:
            self._leases.leave(number)
            self._change_owners()

    def _change_owners(self) -> None:
        raised = self._leases.rebalance()
        table = self._leases.table()

        def job(group: Group) -> Callable[[], None]:
            group.raise_epochs(raised)
            return lambda: [client.tell_owners(table) for client in self._clients] and None

        self.sequencer.add(job)

    def commit(self, payload: bytes) -> "asyncio.Future[bytes]":
        check_commit(payload)
        return self.write(payload, lambda group: group.judge(payload))

    def write(self, payload: bytes, write: Callable[[Group], bytes | None]) -> "asyncio.Future[bytes]":
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = None
        answer.add_done_callback(lambda done: self._waiting.pop(done, None))

        def job(group: Group) -> Callable[[], None]:
            written = write(group) or b""
            return lambda: None if answer.done() else answer.set_result(written)

        self.sequencer.add(job, len(payload))
        return answer


class _Link:
    """What `Worker` asks of a link."""

    def __init__(self) -> None:
        self.is_up = False
        self.start: Callable[[], None] = lambda: None

    async def stop(self) -> None:
        """Simulated processes never stop in order."""


class MemoryStoreClient:
    """`paychan.rpc.store_client.StoreClient` without sockets: the same methods, the same errors."""

    def __init__(
        self,
        store: Store,
        wire: Wire,
        chance: random.Random,
        hello: Hello,
        on_owners: Callable[[Welcome, OwnerTable], None],
        on_lost: Callable[[], None],
        on_unsettled: Callable[[Unsettled], None],
        _: Callable[[bytes], None],
    ) -> None:
        self._on_unsettled = on_unsettled
        self._store, self._wire, self._chance = store, wire, chance
        self.peer_address, self._on_owners, self._on_lost = hello.peer_address, on_owners, on_lost
        self._number, self._tell_at = 0, 0.0
        if wire.process:
            wire.process.at_death.append(self.lose)
        self.link = _Link()
        self.link.start = lambda: asyncio.get_running_loop().create_task(self._keep()) and None

    @property
    def lease_ends(self) -> float:
        return asyncio.get_running_loop().time() + 1 if self.link.is_up else 0.0

    async def _keep(self) -> None:
        while True:
            if not self.link.is_up and self._store.is_up:
                await self._wire.cross()
                if self._store.is_up:
                    self.link.is_up = True
                    self._number = self._store.join(self)
            if self.link.is_up:  # as a heartbeat
                self._on_unsettled(self._store.sequencer.unsettled)
            await asyncio.sleep(self._chance.uniform(1, 3))

    def tell_owners(self, table: OwnerTable) -> None:
        def tell() -> None:
            if self.link.is_up and self._wire.process and self._wire.process.is_alive:
                self._on_owners(Welcome(self._number, self._store.shard_count, 3000), table)

        loop = asyncio.get_running_loop()  # one connection: what was told first comes first
        self._tell_at = max(self._tell_at + 1e-6, loop.time() + self._chance.uniform(0.001, 0.1))
        loop.call_at(self._tell_at, tell)

    def lose(self) -> None:
        """The connection is cut."""
        if self.link.is_up:
            self.link.is_up = False
            self._store.leave(self)
            if self._wire.process and self._wire.process.is_alive:
                self._on_lost()

    async def _cross(self) -> None:
        """Send or receive. Now and then the connection is cut meanwhile. Raises ConnectionGone."""
        await self._wire.cross()
        if self._chance.random() < 0.0005:
            self.lose()
        if not self.link.is_up:
            raise ConnectionGone()

    async def commit(self, payload: bytes) -> bytes:
        return await self._write(lambda: self._store.commit(payload))

    async def keep_funding(self, transaction: bytes) -> None:
        await self._write(lambda: self._store.write(transaction, lambda group: group.keep_funding(transaction)))

    async def load_funding(self, txid: bytes) -> bytes:
        if not self.link.is_up:
            raise ConnectionGone()
        await self._cross()
        found = self._store.disk.funding(txid) or b""
        await self._cross()
        return found

    async def _write(self, write: Callable[[], "asyncio.Future[bytes]"]) -> bytes:
        if not self.link.is_up:
            raise ConnectionGone()
        await self._cross()
        answer = write()
        try:
            statuses = await asyncio.wait_for(answer, ANSWER_SECONDS_MAX)
        except TimeoutError:
            self.lose()
            raise ConnectionGone() from None
        await self._cross()
        return statuses

    async def load(self, outpoint: bytes) -> Stored | None:
        (stored,) = await self.load_many([outpoint])
        return stored

    async def load_many(self, outpoints: list[bytes]) -> list[Stored | None]:
        if not self.link.is_up:
            raise ConnectionGone()
        await self._cross()
        found = [self._store.disk.load(outpoint) for outpoint in outpoints]
        await self._cross()
        return found

    async def received(self) -> AsyncIterator[list[tuple[int, bytes]]]:
        if not self.link.is_up:
            raise ConnectionGone()
        await self._cross()
        yield self._store.disk.received()

    async def received_page(self, ask: Scan) -> list[tuple[int, int, bytes]]:
        return await self._ask(lambda disk: disk.received_page(ask))

    async def notes(self, prefix: str) -> dict[str, bytes]:
        return await self._ask(lambda disk: {name: note for name, note in disk.notes.items() if name.startswith(prefix)})

    async def note(self, change: NoteChange) -> tuple[bool, bytes | None]:
        return await self._ask(lambda disk: disk.note(change))

    async def _ask(self, look: Callable[[Disk], Any]) -> Any:
        if not self.link.is_up:
            raise ConnectionGone()
        await self._cross()
        found = look(self._store.disk)
        await self._cross()
        return found

    async def ask_unsettled(self) -> Unsettled:
        if not self.link.is_up:
            raise ConnectionGone()
        await self._cross()
        return self._store.sequencer.unsettled

    async def pages(self, kind: StoreMessage, before: int = 0) -> AsyncIterator[list[tuple[int, bytes]]]:
        yield await self.scan(kind, before)

    async def scan(self, kind: StoreMessage, before: int = 0, most: int = MOST) -> list[tuple[int, bytes]]:
        if not self.link.is_up:
            raise ConnectionGone()
        await self._cross()
        if kind == StoreMessage.SCAN_EXPIRING:
            return self._store.disk.scan_expiring(before, most)
        return self._store.disk.scan_unfinished(most)
