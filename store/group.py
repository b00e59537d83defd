"""A group: the updates of all workers that become durable in one synced write, judged one after the other.

It holds what it will write in memory, so that two updates of one channel in one group are judged against each other.
Payments are judged by the compiled half (`paychan/_fast/group.pyx`); here is what they have nothing to do with.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from paychan._fast.group import PaymentGroup, StateCache
from paychan.core.channel import ChannelTerms
from paychan.core.funding import txid_without_witness
from paychan.events.event import Event
from paychan.rpc.store_messages import Entry, Unsettled

from . import keys, table, told

NOTHING = Unsettled()


class Reader(Protocol):
    """What a group reads while it is judged."""

    def states(self, outpoints: list[bytes]) -> list[bytes | None]: ...

    def terms(self, outpoints: list[bytes]) -> list[bytes | None]: ...

    def funding(self, txid: bytes) -> bytes | None: ...


class Group(PaymentGroup):
    """One group. `judge` takes a COMMIT; `keep` is called when `writes` are durable, and fills the cache.

    unsettled: what has been received on channels that are not settled, before this group and then after it; open_spent: how many
    satoshi of what open ones received were spent.
    epochs: of the shards and then the other leases, now; `raise_epochs` changes this list in place, so that it stays
    true for the next group (`undo` puts it back, if the group is thrown away).
    """

    def __init__(
        self,
        reader: Reader,
        cache: StateCache,
        epochs: list[int],
        shard_count: int,
        unsettled: Unsettled = NOTHING,
        open_spent: int = 0,
    ) -> None:
        super().__init__(cache, epochs, shard_count, unsettled.open, open_spent)
        self._begun_value = unsettled.begun
        self.unsettled_before, self.open_spent_before = unsettled, open_spent
        self._reader, self._epochs, self._accounts = reader, epochs, cache.accounts
        self._writes: dict[bytes, bytes | None] = {}
        self._raised: dict[int, int] = {}
        self._told: list[told.Told] | None = None
        self.owners = b""
        """The owner table of this store's leases, if it has changed: for an engine that tells other stores."""

    @property
    def writes(self) -> dict[bytes, bytes | None]:
        """What the group puts (or with None deletes), each key once with its newest value."""
        self.put_states(self._writes, keys.STATE)
        return self._writes

    @property
    def other_writes(self) -> dict[bytes, bytes | None]:
        """What it puts and deletes besides state records and epochs."""
        return {key: value for key, value in self._writes.items() if key[:1] not in (keys.STATE, keys.EPOCH)}

    @property
    def is_told(self) -> bool:
        """Whether there is anything to tell."""
        return self._told is not None or self.crossed is not None

    def events(self) -> list[Event]:
        """Return what is told with this group: an event is written with what it tells of. After `put_states` or `put_columns`."""
        if not self.is_told:
            return []
        return told.in_order(self._told or [], told.of_values(self.crossed or (), self.threshold))

    @property
    def raised_epochs(self) -> dict[int, int]:
        """The new epoch of each lease that got one."""
        return {lease: self._epochs[lease] for lease in self._raised}

    @property
    def unsettled(self) -> Unsettled:
        return Unsettled(self.open_value, self._begun_value)

    def read(self, outpoints: list[bytes]) -> Iterable[tuple[bytes | None, bytes | None]]:
        """Return each channel's durable records, state and terms, None for what is not there."""
        return zip(self._reader.states(outpoints), self._reader.terms(outpoints), strict=True)

    def judge_step(self, *fields: *tuple[int, int, bytes, int, int, bytes, bytes, int, int, int]) -> bool:
        """Judge what is no payment; if it is allowed, note what it writes and what it does to what is unsettled."""
        entry = Entry(*fields)
        if not table.allows(entry):
            return False
        terms = self._terms(entry.outpoint) if table.needs_terms(entry) else None
        funding_value = ChannelTerms.parse(entry.outpoint, terms).funding_value if terms else 0
        open_change, begun_change = table.unsettled_change(entry, funding_value)
        self.open_value += open_change
        self._begun_value += begun_change
        self._writes.update(table.writes(entry, terms))
        if entry.expected_phase != entry.state[1]:
            self._told = [*(self._told or ()), *told.of_step(entry, terms)]
        return True

    def _terms(self, outpoint: bytes) -> bytes | None:
        return self._writes.get(keys.TERMS + outpoint) or self._reader.terms([outpoint])[0]

    def keep_funding(self, transaction: bytes) -> None:
        """Keep a funding transaction, unless it is kept already: many channels may have one."""
        txid = txid_without_witness(transaction)
        if self._reader.funding(txid) is None:
            self._writes[keys.FUNDING + txid] = transaction

    def raise_epochs(self, epochs: Mapping[int, int]) -> None:
        """Give leases (by number) new epochs: entries judged from here on are held against them."""
        for lease, epoch in epochs.items():
            if epoch <= self._epochs[lease]:
                raise ValueError("an epoch would go backwards")
            self._raised.setdefault(lease, self._epochs[lease])
            self._epochs[lease] = epoch
            self._writes[keys.epoch_key(lease)] = keys.encode_epoch(epoch)

    def undo(self) -> None:
        """The group is thrown away: nothing of it has been written."""
        for lease, epoch in self._raised.items():
            self._epochs[lease] = epoch

    def keep(self) -> None:
        super().keep()
        for lease in self._raised:
            self._accounts.begin_epoch(lease)
