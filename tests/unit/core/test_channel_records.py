"""Aim: the channel's records on disk and the transition table. Method: golden bytes, damage, every phase × event."""

import itertools

import pytest

from paychan.core.channel import (
    ABSENT,
    TRANSITIONS,
    ChannelState,
    ChannelTerms,
    Event,
    Phase,
    is_allowed_update,
    next_phase,
)
from paychan.core.payment import Payment

TERMS = ChannelTerms(
    outpoint=bytes(range(36)),
    server_pubkey=b"\x02" + b"\x11" * 32,
    client_pubkey=b"\x03" + b"\x22" * 32,
    exp_time=2**32 - 1,
    funding_value=21_000_000 * 10**8,
    change_script=b"\xa9\x14" + bytes(20) + b"\x87",
    opened_at=1_700_000_000,
)
TERMS_RECORD = (
    "0117ffffffff004007"
    + "5af07507"
    + "00"
    + "00f1536500000000"
    + "02"
    + "11" * 32
    + "03"
    + "22" * 32
    + "a914"
    + "00" * 20
    + "87"
)
PAYMENT = Payment(0x0102030405, b"\x30" + bytes(69), 0x83)


def test_terms_record_never_changes():
    assert TERMS.serialize().hex() == TERMS_RECORD
    assert ChannelTerms.parse(TERMS.outpoint, bytes.fromhex(TERMS_RECORD)) == TERMS


def test_state_record_never_changes():
    record = ChannelState(Phase.OPEN, PAYMENT).serialize()
    assert record.hex() == "01018346" + "0504030201000000" + "30" + "00" * 69
    assert ChannelState.parse(record) == ChannelState(Phase.OPEN, PAYMENT)


@pytest.mark.parametrize("phase", Phase)
def test_state_record_has_a_txid_exactly_from_signed_on(phase):
    with_txid = ChannelState(phase, PAYMENT, bytes(32)).serialize()
    without = ChannelState(phase, PAYMENT).serialize()
    good, bad = (with_txid, without) if phase >= Phase.SIGNED else (without, with_txid)
    assert ChannelState.parse(good).serialize() == good
    with pytest.raises(ValueError):
        ChannelState.parse(bad)


@pytest.mark.parametrize("phase", [0, 6, 255])
def test_state_record_of_an_unknown_phase_is_refused(phase):
    record = bytearray(ChannelState(Phase.OPEN, PAYMENT).serialize())
    record[1] = phase
    with pytest.raises(ValueError):
        ChannelState.parse(bytes(record))


@pytest.mark.parametrize(
    "record", [TERMS.serialize(), ChannelState(Phase.OPEN, PAYMENT).serialize()], ids=["terms", "state"]
)
def test_damaged_records_are_refused(record):
    parse = (lambda data: ChannelTerms.parse(bytes(36), data)) if len(record) > 100 else ChannelState.parse
    for damaged in [record[:cut] for cut in range(len(record))] + [
        record + b"\0",
        b"\x00" + record[1:],
        b"\x02" + record[1:],
    ]:
        with pytest.raises(ValueError):
            parse(damaged)


@pytest.mark.parametrize(("phase", "event"), list(itertools.product([ABSENT, *Phase], Event)))
def test_an_absent_transition_is_a_refusal(phase, event):
    if (phase, event) in TRANSITIONS:
        assert next_phase(phase, event) == TRANSITIONS[phase, event]
    else:
        with pytest.raises(ValueError):
            next_phase(phase, event)


def test_no_transition_goes_back():
    assert all(after >= before for (before, _), after in TRANSITIONS.items())


@pytest.mark.parametrize(("before", "after"), list(itertools.product([ABSENT, *Phase], Phase)))
def test_the_change_value_never_rises_and_is_settled_from_closing_on(before, after):
    step = any(row[0] == before and result == after for row, result in TRANSITIONS.items())
    may_fall = before in (ABSENT, Phase.OPEN)
    assert is_allowed_update(before, 1000, after, 1000) == step
    assert is_allowed_update(before, 1000, after, 999) == (step and may_fall)
    assert not is_allowed_update(before, 1000, after, 1001)
    assert not is_allowed_update(before, 1000, after, -1)


def test_terms_without_a_change_script_and_a_state_without_a_signature_are_whole_records():
    terms = ChannelTerms(bytes(36), b"\2" * 33, b"\3" * 33, 600_000_000, 1000, b"")
    assert ChannelTerms.parse(bytes(36), terms.serialize()) == terms
    assert terms.opened_at == 0
    state = ChannelState(Phase.OPEN, Payment(5, b"", 0x83))
    assert ChannelState.parse(state.serialize()) == state
