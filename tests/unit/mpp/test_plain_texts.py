"""Aim: the compiled reader of credentials and writer of receipts say what the rules in Python say, and nothing else. Method: each
voucher, whole and spoiled in every place, read both ways; receipts of random amounts, written both ways."""

import json
from contextlib import suppress
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paychan._fast.scheme import read_voucher, receipt_text
from paychan.core.errors import PaychanError
from paychan.core.units import MAX_MONEY
from paychan.mpp import credential
from paychan.mpp.credential import find_credential, parse_credential
from paychan.mpp.receipt import Receipt
from paychan.mpp.text import canonical_json, decode_bytes, encode_bytes, encode_json
from tests.unit.mpp.test_credential import CHALLENGE, EACH, OUTPOINT

VOUCHER = EACH["voucher"].encode()
CONTENT = json.loads(decode_bytes(VOUCHER))
PAYLOAD, ECHO = CONTENT["payload"], CONTENT["challenge"]
CHANNEL_ID, PAYMENT_TEXT = PAYLOAD["channelId"], PAYLOAD["payment"]


def paid_by(**members):
    return {**CONTENT, "payload": {**PAYLOAD, **members}}


def echoed(**members):
    return {**CONTENT, "challenge": {**ECHO, **members}}


SPOILED = {
    "another order": {"payload": PAYLOAD, "challenge": ECHO},
    "a source": {**CONTENT, "source": "did:key:z6Mk"},
    "a member more": {**CONTENT, "zzz": 1},
    "a payload's member more": paid_by(zzz=1),
    "another action": paid_by(action="close"),
    "no action": paid_by(action="vouch"),
    "capitals": paid_by(channelId=CHANNEL_ID.upper()),
    "a slash": paid_by(channelId=CHANNEL_ID.replace(":", "/")),
    "a leading zero": paid_by(channelId=CHANNEL_ID[:-1] + "07"),
    "too high an output": paid_by(channelId=CHANNEL_ID[:-1] + "4294967296"),
    "an empty payment": paid_by(payment=""),
    "a padded payment": paid_by(payment=PAYMENT_TEXT + "="),
    "half a payment": paid_by(payment=PAYMENT_TEXT[:40]),
    "a payment twice as long": paid_by(payment=PAYMENT_TEXT * 2),
    "an escape": echoed(realm='a "shop"'),
    "a brace in a text": echoed(realm="}{"),
    "letters": echoed(realm="Äpfel"),
    "an object inside": echoed(zzz={}),
    "a list inside": echoed(zzz=["}"]),
    "another method": echoed(method="tempo"),
    "no id": echoed(id=""),
    "no challenge": {**CONTENT, "challenge": {}},
}


def outcome(text):
    """Return the credential, or the refusal."""
    try:
        return parse_credential(text)
    except PaychanError as error:
        return error.code, error.parameter, error.detail


def compare(text):
    """Read a text both ways; return what both say."""
    found = outcome(text)
    with patch.object(credential, "read_voucher", lambda _: None):
        assert outcome(text) == found
    return found


def test_a_voucher_as_payers_write_it_is_plain():
    raw, outpoint, payment = read_voucher(VOUCHER)
    assert json.loads(raw) == CHALLENGE.params() and (outpoint, payment) == (OUTPOINT, EACH["voucher"].payment)
    assert compare(VOUCHER) == EACH["voucher"]
    assert read_voucher(EACH["open"].encode()) is None and read_voucher(EACH["close"].encode()) is None


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_not_plain_or_not_good_is_read_as_ever(name):
    compare(encode_json(SPOILED[name]))


@pytest.mark.parametrize("old", ['"challenge":{', '"payload":{', '"}}', '"action"', ',"payload"', '"id"'])
@pytest.mark.parametrize("new", ["", "  ", '"', "{", "}", "\\", "\x00", '"id":"x",', '"challenge":{},'])
def test_json_that_is_broken_or_loose_is_read_as_ever(old, new):
    text = canonical_json(CONTENT)
    assert old in text
    for spoiled in (text.replace(old, old + new), text.replace(old, new + old), text.replace(old, new)):
        compare(encode_bytes(spoiled.encode()))


@pytest.mark.parametrize("at", range(0, len(VOUCHER), 13))
def test_a_text_that_is_cut_or_changed_is_read_as_ever(at):
    for text in (VOUCHER[:at], VOUCHER[:at] + VOUCHER[at + 1 :], VOUCHER[:at] + "=" + VOUCHER[at + 1 :], VOUCHER[:at] + "é"):
        compare(text)
    compare(VOUCHER[:at] + ("A" if VOUCHER[at] != "A" else "B") + VOUCHER[at + 1 :])


@given(st.data())
def test_any_bytes_changed_are_read_as_ever(data):
    raw = bytearray(decode_bytes(VOUCHER))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from(b'"{}[]\\,:0aZ\x00\x1f\x80\xff '))
    compare(encode_bytes(bytes(raw)))


@given(st.text(max_size=300) | st.binary(max_size=400).map(encode_bytes))
def test_any_text_is_read_as_ever(text):
    compare(text)


@given(st.text('Payment ,\t"=ab', max_size=30))
@example("Payment  ab \t")
@example("Payment \tab")
@example("Payment ")
@example("Payment a, Payment b")
def test_one_field_is_taken_for_what_the_rule_for_many_takes_it(value):
    def found(values):
        with suppress(PaychanError):
            return find_credential(values)
        return "refused"

    assert found((value,)) == found((value, ""))  # an empty field holds none


AMOUNT = st.integers(0, MAX_MONEY)


@given(AMOUNT, AMOUNT, AMOUNT, st.integers(0, 2**31), st.integers(0, 2**32 - 1), st.text("aZ0_-", max_size=60))
def test_a_receipt_is_written_as_its_object_is(a, b, deposit, units, vout, challenge_id):
    outpoint = OUTPOINT[:32] + vout.to_bytes(4, "little")
    made = Receipt(outpoint, challenge_id, 1_795_000_000, max(a, b), min(a, b), deposit, units)
    plain = receipt_text(outpoint, challenge_id, "2026-11-18T11:06:40Z", max(a, b), min(a, b), deposit, units)
    assert made.as_object()["timestamp"] == "2026-11-18T11:06:40Z"
    assert made.encode() == plain == encode_json(made.as_object())


@pytest.mark.parametrize(("accepted", "spent", "deposit"), [(1, 2, 3), (-1, -2, 3), (MAX_MONEY + 1, 0, 3), (2, 1, MAX_MONEY + 1)])
def test_amounts_that_are_none_are_refused_as_ever(accepted, spent, deposit):
    with pytest.raises(ValueError, match="an amount"):
        Receipt(OUTPOINT, "id", 1_795_000_000, accepted, spent, deposit).encode()


@pytest.mark.parametrize("challenge_id", ["a" * 257, 'a"b', "é", "a\n"])
def test_an_id_that_is_not_plain_is_written_as_ever(challenge_id):
    made = Receipt(OUTPOINT, challenge_id, 1_795_000_000, 3, 2, 4, 1)
    assert made.encode() == encode_json(made.as_object())


def test_what_the_writer_has_no_room_for_is_an_error():
    for outpoint, challenge_id, timestamp in ((OUTPOINT[:35], "id", "t"), (OUTPOINT, "i" * 257, "t"), (OUTPOINT, "i", "t" * 33)):
        with pytest.raises(ValueError, match="no plain receipt"):
            receipt_text(outpoint, challenge_id, timestamp, 2, 1, 3, 1)
    with pytest.raises(ValueError, match="no plain receipt"):
        receipt_text(OUTPOINT, "id", "t", 1, 2, 3, 1)
    with pytest.raises(OverflowError):
        receipt_text(OUTPOINT, "id", "t", -1, 0, 3, 1)
