"""One connection to a store as a worker has it, over a blocking socket: frames are made beforehand, and sent a few ahead.

While it is connected it takes all shards, so no server may run.
"""

import os
import socket
from collections import deque
from collections.abc import Iterable

from bench.load.failure import Failed
from paychan._fast.frame import ERROR, FrameReader, encode_frame
from paychan.core.sharding import shard_of
from paychan.rpc.connection import Address, reachable_path
from paychan.rpc.store_messages import PAYLOAD_MAX, Entry, Hello, OwnerTable, StoreMessage, Welcome, encode_commit

RECEIVE_BYTES = 1 << 18


class StoreFeed:
    """Connects and says hello; on return all shards are ours. Raises Failed if the store refuses, or has another worker."""

    def __init__(self, address: Address, server_pubkey: bytes, network: str = "test") -> None:
        self._socket = _connect(address)
        self._reader = FrameReader(PAYLOAD_MAX)
        self._frames: deque[tuple[int, int, bytes]] = deque()
        self._socket.sendall(encode_frame(StoreMessage.HELLO, 1, Hello(network, server_pubkey, "load").encode()))
        welcome = Welcome.decode(self._next_frame())
        self.shard_count = welcome.shard_count
        table = OwnerTable.decode(self._next_frame())
        self._epochs = [epoch for _, epoch in table.owners]
        if any(worker != welcome.worker_id for worker, _ in table.owners):
            self.close()
            raise Failed("another worker is connected to the store: stop the server first")

    def close(self) -> None:
        self._socket.close()

    def entry(self, outpoint: bytes, phase: int, value: int, state: bytes, extra: bytes = b"") -> bytes:
        """Return one encoded update under our epoch; phase and value: what the channel must have, see `Entry`."""
        shard = shard_of(outpoint, self.shard_count)
        return Entry(shard, self._epochs[shard], outpoint, phase, value, state, extra).encode()

    @staticmethod
    def frame(entries: list[bytes]) -> bytes:
        """Return the COMMIT frame of one group."""
        return encode_frame(StoreMessage.COMMIT, 1, encode_commit(entries))

    def commit(self, frames: Iterable[bytes], ahead: int) -> int:
        """Send frames, `ahead` of them unanswered at any time; return how many updates are durable. Raises Failed."""
        updates = waiting = 0
        for frame in frames:
            self._socket.sendall(frame)
            waiting += 1
            if waiting == ahead:
                updates += self._answer()
                waiting -= 1
        return updates + sum(self._answer() for _ in range(waiting))

    def _answer(self) -> int:
        statuses = self._next_frame()
        if any(statuses):
            raise Failed(f"the store refused an update: {statuses[:40]!r}")
        return len(statuses)

    def _next_frame(self) -> bytes:
        """Return the next frame's payload. Owner tables come only at the beginning, as nobody joins or leaves."""
        while not self._frames:
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                raise Failed("the store closed the connection")
            self._frames.extend(self._reader.feed(data))
        kind, _, payload = self._frames.popleft()
        if kind == ERROR:
            raise Failed(f"the store refused: {payload!r}")
        return payload


def listens(address: Address) -> bool:
    """Return whether a process accepts connections at an address."""
    try:
        _connect(address).close()
    except OSError:
        return False
    return True


def _connect(address: Address) -> socket.socket:
    if not address.path:
        return socket.create_connection((address.host, address.port), timeout=60)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(60)
    path, handle = reachable_path(address.path)
    try:
        made.connect(path)
    finally:
        if handle >= 0:
            os.close(handle)
    return made
