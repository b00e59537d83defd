"""Aim: the channel's records on disk and the transition table. Method: golden bytes, damage, every phase × event."""

import itertools

import pytest

from paychan._fast.group import read_state
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
from paychan.core.sales import PURCHASES_MAX, Purchase, Sales, hash_key

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
    "0117ffffffff004007" + "5af07507" + "00" + "00f1536500000000" + "02" + "11" * 32 + "03" + "22" * 32 + "a914" + "00" * 20 + "87"
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


@pytest.mark.parametrize("record", [TERMS.serialize(), ChannelState(Phase.OPEN, PAYMENT).serialize()], ids=["terms", "state"])
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


# --- what was sold ---

SALES = Sales(0x0A0B, 3, (Purchase(b"k" * 16, 0x0900, 0x0800, 2), Purchase(b"l" * 16, 7, 7, 3, 0x01020304)))
SOLD_RECORD = (
    "02010146" + "0504030201000000" + "0b0a000000000000" + "0300000000000000" + "30" + "00" * 69
    + "6b" * 16 + "0009000000000000" + "0008000000000000" + "0200000000000000" + "00000000"
    + "6c" * 16 + "0700000000000000" + "0700000000000000" + "0300000000000000" + "04030201"
)  # fmt: skip


def test_the_record_of_a_channel_with_sales_never_changes():
    state = ChannelState(Phase.OPEN, PAYMENT, sales=SALES)
    assert state.serialize().hex() == SOLD_RECORD
    assert ChannelState.parse(state.serialize()) == state
    assert read_state(state.serialize()) == (Phase.OPEN, PAYMENT.change_value)


@pytest.mark.parametrize("phase", Phase)
def test_sales_go_through_every_phase(phase):
    payment = Payment(0, b"\x30" + bytes(69), 0x82)
    state = ChannelState(phase, payment, bytes(range(32)) if phase >= Phase.SIGNED else b"", SALES)
    assert ChannelState.parse(state.serialize()) == state
    assert read_state(state.serialize()) == (phase, 0)


WHOLE = bytes.fromhex(SOLD_RECORD)
DAMAGED = {
    "cut": WHOLE[:-1],
    "longer": WHOLE + b"\0",
    "half a purchase": WHOLE[:-22],
    "a head alone": WHOLE[:27],
    "another channel type": WHOLE[:2] + b"\2" + WHOLE[3:],
    "no revision": WHOLE[:20] + bytes(8) + WHOLE[28:],
    "less spent than purchases hold": WHOLE[:12] + b"\6\x08" + WHOLE[14:],
    "a purchase holds more than it asked for": WHOLE[:-20] + b"\x08" + WHOLE[-19:],
    "too many purchases": WHOLE + WHOLE[-44:] * (PURCHASES_MAX - 1),
    "a later version": b"\3" + WHOLE[1:],
}


@pytest.mark.parametrize("record", DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_record_of_sales_is_refused_by_both_readers(record):
    with pytest.raises(ValueError):
        ChannelState.parse(record)
    with pytest.raises(ValueError):
        read_state(record)


def test_a_payment_whose_type_the_change_value_does_not_imply_has_no_record_with_sales():
    with pytest.raises(ValueError):
        ChannelState(Phase.OPEN, Payment(5, b"\x30" + bytes(69), 0x82), sales=SALES).serialize()


def test_what_reservations_hold_falls_back_at_their_time():
    before, then = 0x01020303, 0x01020304
    assert (SALES.reserved_at(before), SALES.spent_at(before, 5000, 700)) == (7, 0x0A0B)
    assert (SALES.reserved_at(then), SALES.spent_at(then, 5000, 700)) == (0, 0x0A0B - 7)
    assert [Sales().spent_at(then, received, 700) for received in (0, 699, 701)] == [0, 699, 700]


def test_keys_are_remembered_by_their_hash():
    assert len(hash_key("")) == 16 and hash_key("a") != hash_key("b") and hash_key("ä") == hash_key("ä")
