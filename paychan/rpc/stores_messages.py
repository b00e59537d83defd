"""The answer to STORES, as a pure codec: all stores that share the channels, as the one that is asked saw them last.

A store that keeps its data on its own machine's disk is the only one. On PostgreSQL each looks at all
(store/engines/postgres/sharing.py). It is for who operates: nothing is decided by it.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from .store_messages import MessageError

_HEAD = struct.Struct("<IIH")
_STORE = struct.Struct("<HB?BQQQqqHH")
_WORKER = struct.Struct("<IH")
_OWNER = struct.Struct("<HI")


class Life(IntEnum):
    """What another store's row shows of it. UNKNOWN: it has not been watched for long enough."""

    UNKNOWN = 0
    ALIVE = 1
    SILENT = 2


@dataclass(frozen=True)
class StoreSeen:
    """One store. name, number: empty and 0 where it is the only one. unmoved_ms: how long its row was the same at the last look, by
    the clock of who looked. fence, groups: as its row has them. open, begun: its parts of what was received on open channels and on
    those being settled (satoshi); a part may be negative. workers: number -> peer address. owners: each lease that it holds -> the
    worker who serves it, 0: nobody."""

    name: str
    number: int
    is_this: bool
    life: Life
    unmoved_ms: int
    fence: int
    groups: int
    open: int
    begun: int
    workers: dict[int, str]
    owners: dict[int, int]


class StoresSeen(NamedTuple):
    """age_ms: how long ago the look was. stores: in the order of their names; none before the first look."""

    age_ms: int
    shard_count: int
    stores: list[StoreSeen]


def encode_stores(seen: StoresSeen) -> bytes:
    """Return the answer: u32 age in ms, u32 shard count, u16 count; each store: u16 number, u8 length of its name, u8 is this,
    u8 life, u64 ms unmoved, u64 fence, u64 groups, i64 open, i64 begun, u16 workers, u16 leases, name; each worker: u32 number,
    u16 length, address; each lease: u16, u32 worker."""
    parts = [_HEAD.pack(min(seen.age_ms, 0xFFFFFFFF), seen.shard_count, len(seen.stores))]
    for one in seen.stores:
        name, figures = one.name.encode(), (one.unmoved_ms, one.fence, one.groups, one.open, one.begun)
        parts.append(_STORE.pack(one.number, len(name), one.is_this, one.life, *figures, len(one.workers), len(one.owners)) + name)
        for number, address in one.workers.items():
            raw = address.encode()
            parts.append(_WORKER.pack(number, len(raw)) + raw)
        parts += [_OWNER.pack(*owner) for owner in one.owners.items()]
    return b"".join(parts)


def decode_stores(payload: bytes) -> StoresSeen:
    """Raises MessageError."""
    try:
        age_ms, shard_count, count = _HEAD.unpack_from(payload)
        stores, at = [], _HEAD.size
        for _ in range(count):
            store, at = _decode_store(payload, at)
            stores.append(store)
    except (struct.error, ValueError) as error:
        raise MessageError("the answer to STORES does not parse") from error
    if at != len(payload):
        raise MessageError("the answer to STORES has a wrong length")
    return StoresSeen(age_ms, shard_count, stores)


def _decode_store(payload: bytes, at: int) -> tuple[StoreSeen, int]:
    """Return a store, and where the next one begins. Raises struct.error, ValueError."""
    number, size, is_this, life, unmoved_ms, fence, groups, opened, begun, worker_count, owner_count = _STORE.unpack_from(
        payload, at
    )
    at += _STORE.size + size
    name = payload[at - size : at].decode()
    workers, owners = {}, {}
    for _ in range(worker_count):
        worker, length = _WORKER.unpack_from(payload, at)
        at += _WORKER.size + length
        workers[worker] = payload[at - length : at].decode()
    for _ in range(owner_count):
        lease, worker = _OWNER.unpack_from(payload, at)
        at += _OWNER.size
        owners[lease] = worker
    return StoreSeen(name, number, is_this, Life(life), unmoved_ms, fence, groups, opened, begun, workers, owners), at
