"""The rule of the conditional update for every step that is no payment: what it must bring, and what it writes. Pure.

What comes before, for payments too, is compiled: `paychan/_fast/group.pyx` checks shard, epoch, present state and the new
record's form, and judges payments. Only what is allowed here writes anything.
"""

from paychan._fast.group import read_state
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase, is_allowed_update
from paychan.core.outcome import Outcome
from paychan.core.units import MAX_MONEY
from paychan.rpc.store_messages import Entry

from . import keys

_OPEN, _SIGNED, _SETTLED = int(Phase.OPEN), int(Phase.SIGNED), int(Phase.SETTLED)


def allows(entry: Entry) -> bool:
    """Return whether a step may be taken by a channel that is as `entry` expects it. Open to open is no step.

    The caller has checked all that comes before.
    """
    phase, value = entry.expected_phase, entry.expected_change_value
    new_phase, new_value = read_state(entry.state)
    if phase == _OPEN == new_phase:
        return False  # a payment that raises the change value, or brings what payments do not bring
    return is_allowed_update(phase, value, new_phase, new_value) and _is_whole(entry, phase, new_phase)


def _brings_settlement(phase: int, new_phase: int) -> bool:
    """Return whether a step comes with a newly signed settlement: the first one, or one with a higher fee."""
    return new_phase == _SIGNED or phase == new_phase


def _is_whole(entry: Entry, phase: int, new_phase: int) -> bool:
    """Return whether a step brings the records it must bring, and no others."""
    try:
        ChannelState.parse(entry.state)
        if phase == ABSENT:
            funding_value = ChannelTerms.parse(entry.outpoint, entry.extra).funding_value
            return funding_value == entry.expected_change_value and funding_value <= MAX_MONEY
        if new_phase == _SETTLED:
            Outcome.parse(entry.extra)
            return True
    except ValueError:
        return False
    return bool(entry.extra) == _brings_settlement(phase, new_phase)


def writes(entry: Entry, terms_record: bytes | None) -> list[tuple[bytes, bytes | None]]:
    """Return what an allowed step writes besides the state record, as (key, value); value None deletes the key.

    terms_record: the channel's terms as stored; needed only when `needs_terms(entry)`, for the expiry.
    """
    outpoint, phase, new_phase = entry.outpoint, entry.expected_phase, entry.state[1]
    puts: list[tuple[bytes, bytes | None]] = []
    if phase == ABSENT:
        puts.append((keys.TERMS + outpoint, entry.extra))
        terms_record = entry.extra
    elif new_phase == _SETTLED:
        puts.append((keys.done_key(Outcome.parse(entry.extra).settled_at, outpoint), entry.extra))
    elif entry.extra:
        puts.append((keys.SETTLEMENT + outpoint, entry.extra))
    if phase == new_phase:
        return puts
    if _OPEN in (phase, new_phase):
        assert terms_record is not None, "a channel without terms"
        expiry = ChannelTerms.parse(outpoint, terms_record).exp_time
        puts.append((keys.expiring_key(expiry, outpoint), b"" if new_phase == _OPEN else None))
    if new_phase != _OPEN:
        puts.append((keys.UNFINISHED + outpoint, None if new_phase == _SETTLED else bytes((new_phase,))))
    return puts


def needs_terms(entry: Entry) -> bool:
    """Return whether what an allowed step does depends on the stored terms: it takes a channel out of the open ones, or out of
    those that are being settled."""
    phase, new_phase = entry.expected_phase, entry.state[1]
    return phase not in (ABSENT, new_phase) and (phase == _OPEN or new_phase == _SETTLED)


def unsettled_change(entry: Entry, funding_value: int) -> tuple[int, int]:
    """Return by how many satoshi an allowed step changes what has been received on open channels, and on those being settled.

    funding_value: satoshi; needed only when `needs_terms(entry)`.
    """
    if entry.expected_phase == ABSENT:
        funding_value = entry.expected_change_value  # of which nothing was received yet
    elif not needs_terms(entry):
        return 0, 0
    new_phase, new_value = read_state(entry.state)
    before, after = funding_value - entry.expected_change_value, funding_value - new_value
    opened = (after if new_phase == _OPEN else 0) - (before if entry.expected_phase == _OPEN else 0)
    begun = (after if _OPEN < new_phase < _SETTLED else 0) - (before if _OPEN < entry.expected_phase < _SETTLED else 0)
    return opened, begun


def received(terms_record: bytes | None, state_record: bytes | None) -> int:
    """Return how many satoshi were received on a channel; none on one whose records do not read: its shard will be stopped."""
    try:
        funding_value = ChannelTerms.parse(b"", terms_record or b"").funding_value
        return max(0, funding_value - read_state(state_record or b"")[1])
    except ValueError:
        return 0
