"""A group: the updates of all workers that become durable in one synced write, judged one after the other.

It holds what it will write in memory, so that two updates of one channel in one group are judged against each other.
"""

from collections.abc import Mapping
from typing import Protocol

from paychan.channel import ChannelTerms
from paychan.rpc.store_messages import Entry, EntryStatus
from paychan.sharding import shard_of

from . import keys, table


class Reader(Protocol):
    """What a group needs to read; `engine.Engine` has it."""

    def states(self, outpoints: list[bytes]) -> list[bytes | None]: ...

    def terms(self, outpoint: bytes) -> bytes | None: ...


class Group:
    """One group. `writes` is what it puts (or with None deletes), each key once with its newest value.

    open_value: satoshi received on open channels, before this group and then after it.
    epochs: of the shards and then the other leases, now; `raise_epochs` changes this list in place, so that it stays
    true for the next group.
    """

    def __init__(self, reader: Reader, epochs: list[int], shard_count: int, open_value: int = 0) -> None:
        self.open_value = open_value
        self._reader, self._epochs, self._shard_count = reader, epochs, shard_count
        self._states: dict[bytes, bytes | None] = {}
        self.writes: dict[bytes, bytes | None] = {}

    def judge(self, entries: list[Entry]) -> bytes:
        """Judge one frame's entries, take the good ones into the group; return a byte of `EntryStatus` for each."""
        states = self._states
        new = list({entry.outpoint for entry in entries if entry.outpoint not in states})
        states.update(zip(new, self._reader.states(new), strict=True))
        return bytes(map(self._judge_one, entries))

    def _judge_one(self, entry: Entry) -> EntryStatus:
        outpoint, shard_count = entry.outpoint, self._shard_count
        if entry.shard >= shard_count:
            return EntryStatus.FORBIDDEN
        status = table.judge(entry, self._states[outpoint], self._epochs[entry.shard])
        if status or shard_of(outpoint, shard_count) != entry.shard:
            return status or EntryStatus.FORBIDDEN
        self._states[outpoint] = entry.state
        terms = self._terms(outpoint) if table.leaves_open(entry) else None
        self.open_value += table.open_value_change(entry, ChannelTerms.parse(outpoint, terms).funding_value if terms else 0)
        if entry.expected_phase == entry.state[1] and not entry.extra:
            self.writes[keys.STATE + outpoint] = entry.state
        else:
            self.writes.update(table.writes(entry, terms))
        return status

    def _terms(self, outpoint: bytes) -> bytes | None:
        return self.writes.get(keys.TERMS + outpoint) or self._reader.terms(outpoint)

    def raise_epochs(self, epochs: Mapping[int, int]) -> None:
        """Give leases (by number) new epochs: entries judged from here on are held against them."""
        for lease, epoch in epochs.items():
            if epoch <= self._epochs[lease]:
                raise ValueError("an epoch would go backwards")
            self._epochs[lease] = epoch
            self.writes[keys.epoch_key(lease)] = keys.encode_epoch(epoch)
