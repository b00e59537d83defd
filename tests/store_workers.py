"""A worker as several stores see it: a connection to one of them, and the newest owner table that it was told."""

import select
import socket
from collections import deque
from hashlib import sha256

from bench.load.store_feed import _connect
from paychan._fast.frame import ERROR, FrameReader, encode_frame
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.payment import SIGHASH_CHANGE, Payment
from paychan.core.sharding import shard_of
from paychan.rpc.connection import Address
from paychan.rpc.store_messages import (
    PAYLOAD_MAX,
    Entry,
    EntryStatus,
    Hello,
    OwnerTable,
    StoreMessage,
    Unsettled,
    Welcome,
    decode_heartbeat_reply,
    encode_commit,
)
from paychan.rpc.stores_messages import StoreSeen, decode_stores
from tests.system import wait_until

FUNDING = 1_000_000
EXPIRY = 1_900_000_000
REPLY = 128


class Worker:
    """Joins a store. `table`: the newest owner table, after `listen` or any question."""

    def __init__(self, address: Address, server_pubkey: bytes, name: str) -> None:
        self._socket: socket.socket = _connect(address)
        self._reader = FrameReader(PAYLOAD_MAX)
        self._answers: deque[bytes] = deque()
        self.table: OwnerTable | None = None
        hello = Hello("test", server_pubkey, name)
        self.welcome = Welcome.decode(self._ask(StoreMessage.HELLO, hello.encode()))
        self.number = self.welcome.worker_id

    def close(self) -> None:
        self._socket.close()

    def listen(self) -> OwnerTable:
        """Take what has come; return the newest owner table. Raises OSError if the store has closed the connection."""
        while self.table is None or select.select([self._socket], [], [], 0)[0]:
            self._take()
        return self.table

    def _take(self) -> None:
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the store closed the connection")
        for kind, _, payload in self._reader.feed(data):
            if kind == StoreMessage.OWNERS:
                self.table = OwnerTable.decode(payload)
            else:
                assert kind != ERROR, payload
                self._answers.append(payload)

    def send(self, kind: int, payload: bytes) -> None:
        self._socket.sendall(encode_frame(kind, 1, payload))

    def answer(self) -> bytes:
        while not self._answers:
            self._take()
        return self._answers.popleft()

    def _ask(self, kind: int, payload: bytes) -> bytes:
        self.send(kind, payload)
        return self.answer()

    def stores(self) -> dict[str, StoreSeen]:
        """Return all stores as this worker's saw them last, by name."""
        return {store.name: store for store in decode_stores(self._ask(StoreMessage.STORES, b"")).stores}

    def shards(self) -> set[int]:
        """Return which shards are this worker's."""
        owners = self.listen().owners[: self.welcome.shard_count]
        return {shard for shard, (worker, _) in enumerate(owners) if worker == self.number}

    def epoch_of(self, outpoint: bytes) -> int:
        return self.listen().owners[shard_of(outpoint, self.welcome.shard_count)][1]

    def owns(self, outpoint: bytes) -> bool:
        return shard_of(outpoint, self.welcome.shard_count) in self.shards()

    def unsettled(self) -> Unsettled:
        """Return what the store says is unsettled in all."""
        return decode_heartbeat_reply(self._ask(StoreMessage.HEARTBEAT, b""))[0]

    def commit(self, entry: Entry) -> EntryStatus:
        (status,) = self._ask(StoreMessage.COMMIT, encode_commit([entry.encode()]))
        return EntryStatus(status)


class Money:
    """A channel that any worker may write to. `value`: what is left, as far as was answered."""

    def __init__(self, number: int, server_pubkey: bytes) -> None:
        self.outpoint, self.value = sha256(bytes([number])).digest() + bytes(4), FUNDING
        self._pubkey = server_pubkey

    def open(self, worker: Worker) -> EntryStatus:
        terms = ChannelTerms(self.outpoint, self._pubkey, b"\3" * 33, EXPIRY, FUNDING, b"").serialize()
        return worker.commit(self._entry(worker, ABSENT, self.value, terms))

    def pay(self, worker: Worker, epoch: int = 0) -> EntryStatus:
        """Pay a satoshi through a worker. epoch: instead of the one that it was told."""
        status = worker.commit(self.payment(worker, epoch))
        self.value -= status is EntryStatus.OK
        return status

    def payment(self, worker: Worker, epoch: int = 0) -> Entry:
        return self._entry(worker, Phase.OPEN, self.value - 1, b"", epoch)

    def _entry(self, worker: Worker, phase: int, left: int, extra: bytes, epoch: int = 0) -> Entry:
        state = ChannelState(Phase.OPEN, Payment(left, bytes(70), SIGHASH_CHANGE)).serialize()
        shard = shard_of(self.outpoint, worker.welcome.shard_count)
        return Entry(shard, epoch or worker.epoch_of(self.outpoint), self.outpoint, phase, self.value, state, extra)


def channels(server_pubkey: bytes, count: int = 24) -> list[Money]:
    """Return channels in many shards."""
    return [Money(number, server_pubkey) for number in range(1, count + 1)]


def owner_of(money: Money, workers: list[Worker]) -> Worker:
    """Return the worker that owns a channel, once there is one, and every worker knows it."""
    found: list[Worker] = []

    def look() -> bool:
        found[:] = [worker for worker in workers if worker.owns(money.outpoint)]
        return len(found) == 1

    wait_until(look, 20, "an owner of the channel")
    return found[0]
