"""A group: the updates of all workers that become durable in one synced write, judged one after the other.

It holds what it will write in memory, so that two updates of one channel in one group are judged against each other.
Payments are judged by the compiled half (`paychan/_fast/group.pyx`); here is what they have nothing to do with.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from paychan._fast.group import PaymentGroup, StateCache
from paychan.channel import ChannelTerms
from paychan.rpc.store_messages import Entry
from paychan.sharding import shard_of

from . import keys, table


class Reader(Protocol):
    """What a group needs to read; `engine.Engine` has it."""

    def states(self, outpoints: list[bytes]) -> list[bytes | None]: ...

    def terms(self, outpoint: bytes) -> bytes | None: ...


class Group(PaymentGroup):
    """One group. `judge` takes a COMMIT; `keep` is called when `writes` are durable, and fills the cache.

    open_value: satoshi received on open channels, before this group and then after it.
    epochs: of the shards and then the other leases, now; `raise_epochs` changes this list in place, so that it stays
    true for the next group.
    """

    def __init__(self, reader: Reader, cache: StateCache, epochs: list[int], shard_count: int, open_value: int = 0) -> None:
        super().__init__(cache, epochs, shard_count, open_value)
        self._reader, self._epochs, self._shard_count = reader, epochs, shard_count
        self._writes: dict[bytes, bytes | None] = {}

    @property
    def writes(self) -> dict[bytes, bytes | None]:
        """What the group puts (or with None deletes), each key once with its newest value."""
        self.put_states(self._writes, keys.STATE)
        return self._writes

    def read(self, outpoints: list[bytes]) -> Iterable[tuple[bytes | None, int]]:
        """Return each channel's durable state record, or None, and its shard."""
        shards = (shard_of(outpoint, self._shard_count) for outpoint in outpoints)
        return zip(self._reader.states(outpoints), shards, strict=True)

    def judge_step(self, *fields) -> bool:  # type: ignore[no-untyped-def]  # those of Entry
        """Judge what is no payment; if it is allowed, note what it writes and what it does to the open value."""
        entry = Entry(*fields)
        if not table.allows(entry):
            return False
        terms = self._terms(entry.outpoint) if table.leaves_open(entry) else None
        funding_value = ChannelTerms.parse(entry.outpoint, terms).funding_value if terms else 0
        self.open_value += table.open_value_change(entry, funding_value)
        self._writes.update(table.writes(entry, terms))
        return True

    def _terms(self, outpoint: bytes) -> bytes | None:
        return self._writes.get(keys.TERMS + outpoint) or self._reader.terms(outpoint)

    def raise_epochs(self, epochs: Mapping[int, int]) -> None:
        """Give leases (by number) new epochs: entries judged from here on are held against them."""
        for lease, epoch in epochs.items():
            if epoch <= self._epochs[lease]:
                raise ValueError("an epoch would go backwards")
            self._epochs[lease] = epoch
            self._writes[keys.epoch_key(lease)] = keys.encode_epoch(epoch)
