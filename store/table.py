"""The rule of the conditional update: what the store answers to one entry, and what that entry writes. Pure.

The order of checks: stale epoch, conflict, forbidden; the first that fails is the answer. Only OK writes anything.
"""

from paychan.channel import ABSENT, RECORD_VERSION, STATE_HEAD, ChannelState, ChannelTerms, Phase, is_allowed_update
from paychan.rpc.store_messages import Entry, EntryStatus

from . import keys

OK, STALE_EPOCH, CONFLICT, FORBIDDEN = EntryStatus
_OPEN, _SIGNED, _SETTLED = int(Phase.OPEN), int(Phase.SIGNED), int(Phase.SETTLED)


def read_state(record: bytes) -> tuple[int, int]:
    """Return (phase, change value in satoshi) of a state record, at fixed offsets and without building a ChannelState.

    Raises ValueError for a wrong version or a length that does not fit; the phase's number is not checked here: no
    transition leads to an unknown one.
    """
    if len(record) < STATE_HEAD.size:
        raise ValueError("a state record is too short")
    version, phase, _, signature_size, value = STATE_HEAD.unpack_from(record)
    size = STATE_HEAD.size + signature_size + (32 if phase >= _SIGNED else 0)
    if version != RECORD_VERSION or len(record) != size:
        raise ValueError("a state record has an unknown version or a wrong length")
    return phase, value


def judge(entry: Entry, current: bytes | None, epoch: int) -> EntryStatus:
    """Return the answer to `entry`.

    current: the channel's state record now, or None; epoch: its shard's epoch now. The caller has checked that the
    entry's shard is the one of its outpoint.
    Raises: ValueError if `current` is no state record, which only a damaged store has.
    """
    if entry.epoch != epoch:
        return STALE_EPOCH
    phase, value = (ABSENT, entry.expected_change_value) if current is None else read_state(current)
    if entry.expected_phase != phase or entry.expected_change_value != value:
        return CONFLICT
    try:
        new_phase, new_value = read_state(entry.state)
    except ValueError:
        return FORBIDDEN
    if not is_allowed_update(phase, value, new_phase, new_value):
        return FORBIDDEN
    if phase == _OPEN == new_phase:  # a payment: nothing more to look at
        return FORBIDDEN if entry.extra else OK
    return OK if _is_whole(entry, phase, new_phase) else FORBIDDEN


def _brings_settlement(phase: int, new_phase: int) -> bool:
    """Return whether a step comes with a newly signed settlement: the first one, or one with a higher fee."""
    return new_phase == _SIGNED or phase == new_phase


def _is_whole(entry: Entry, phase: int, new_phase: int) -> bool:
    """Return whether a step that is no payment brings the records it must bring, and no others."""
    try:
        ChannelState.parse(entry.state)
        if phase == ABSENT:
            return ChannelTerms.parse(entry.outpoint, entry.extra).funding_value == entry.expected_change_value
    except ValueError:
        return False
    return bool(entry.extra) == _brings_settlement(phase, new_phase)


def writes(entry: Entry, terms_record: bytes | None) -> list[tuple[bytes, bytes | None]]:
    """Return what an entry that was judged OK writes, as (key, value); value None deletes the key.

    terms_record: the channel's terms as stored; needed only when `leaves_open(entry)`, for the expiry.
    """
    outpoint, phase, new_phase = entry.outpoint, entry.expected_phase, entry.state[1]
    puts: list[tuple[bytes, bytes | None]] = [(keys.STATE + outpoint, entry.state)]
    if phase == ABSENT:
        puts.append((keys.TERMS + outpoint, entry.extra))
        terms_record = entry.extra
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


def leaves_open(entry: Entry) -> bool:
    """Return whether an entry that was judged OK takes a channel out of the index of open ones."""
    return entry.expected_phase == _OPEN != entry.state[1]


def open_value_change(entry: Entry, funding_value: int) -> int:
    """Return by how many satoshi an entry that was judged OK changes what has been received on open channels.

    funding_value: satoshi; needed only when `leaves_open(entry)`.
    """
    if leaves_open(entry):
        return entry.expected_change_value - funding_value
    new_phase, new_value = read_state(entry.state)
    return entry.expected_change_value - new_value if new_phase == _OPEN else 0
