"""Which events come of a durable change: the rule, for every engine. Pure.

A step's events are written in the write that takes the step, so there is no event without its step, nor a step without its
events. Who asks for a step says nothing of it here: phases and values are those that the store found and writes. (One thing it
cannot see: whether what was buried is a settlement, and its fee. That comes with the step, as its `Outcome`.)
"""

from collections.abc import Iterable, Iterator

from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.outcome import Outcome
from paychan.core.outpoint import format_outpoint, txid_hex
from paychan.events.event import Event, Type
from paychan.rpc.store_messages import Entry

Told = tuple[bytes, Event]
"""An event, and the outpoint of its channel."""


def of_step(entry: Entry, terms_record: bytes | None) -> Iterator[Told]:
    """Yield the events of an allowed step. terms_record: needed when `table.needs_terms(entry)`."""
    outpoint, before = entry.outpoint, entry.expected_phase
    state = ChannelState.parse(entry.state)
    record = entry.extra if before == ABSENT else terms_record
    terms = ChannelTerms.parse(outpoint, record) if record else None
    for kind, data in _of_step(entry, before, state, terms):
        yield outpoint, Event(kind, data, format_outpoint(outpoint))


def _of_step(
    entry: Entry, before: int, state: ChannelState, terms: ChannelTerms | None
) -> Iterator[tuple[Type, dict[str, int | str]]]:
    value, spent, txid = state.payment.change_value, state.sales.spent, txid_hex(state.settlement_txid)
    if state.phase == Phase.BROADCAST != before:
        yield Type.BROADCAST, {"settlement_txid": txid}
    if terms is None:
        return
    funding, received = terms.funding_value, terms.funding_value - value
    sums: dict[str, int | str] = {"funding_value_satoshi": funding, "received_satoshi": received}
    if before == ABSENT:
        yield Type.OPENED, sums | {"expires_at": terms.exp_time, "opened_at": terms.opened_at}
    if state.phase == Phase.CLOSING:
        if not value:
            yield Type.EXHAUSTED, sums
        yield Type.CLOSING, sums | {"spent_satoshi": spent}
    elif state.phase == Phase.SETTLED:
        yield _ended(sums, txid, received, Outcome.parse(entry.extra))


def _ended(sums: dict[str, int | str], txid: str, received: int, outcome: Outcome) -> tuple[Type, dict[str, int | str]]:
    if outcome.is_lost:
        return Type.LOST, sums | {"lost_satoshi": received, "spending_txid": txid}
    settled: dict[str, int | str] = {"settlement_txid": txid, "fee_satoshi": outcome.fee, "missing_satoshi": outcome.missing}
    return Type.SETTLED, sums | settled


def of_values(crossed: Iterable[tuple[bytes, int, int]], threshold: int) -> Iterator[Told]:
    """Yield an event for each channel on which now as much as `threshold` was received. crossed: outpoint, funding value, satoshi
    received."""
    for outpoint, funding, received in crossed:
        data = {"funding_value_satoshi": funding, "received_satoshi": received, "threshold_satoshi": threshold}
        yield outpoint, Event(Type.VALUE, data, format_outpoint(outpoint))


def in_order(steps: list[Told], values: Iterable[Told]) -> list[Event]:
    """Return a group's events: those of steps as they were taken; a value before whatever ends its channel's payments, for it was
    received before that."""
    events = list(steps)
    for told in values:
        at = next((at for at, step in enumerate(events) if step[0] == told[0] and step[1].type != Type.OPENED), len(events))
        events.insert(at, told)
    return [event for _, event in events]
