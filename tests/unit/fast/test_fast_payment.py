"""Aim: which bytes and texts are payments. Method: all vectors of the original programs; every sighash type with every
boundary value; DER spoiled by hand, by the judge's rule; base64url in all its spellings."""

import base64
import json
import random
from pathlib import Path

import pytest

from paychan._fast.channel import ChannelTable
from paychan._fast.payment import DUST_LIMIT, MAX_MONEY, decode_payment_text, split_payment
from paychan._fast.status import Status
from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.errors import Rejection
from paychan.core.network import TEST, decode_address
from paychan.core.outpoint import parse_outpoint
from paychan.core.payment import Payment, decode_payment, parse_payment
from paychan.core.settlement import verify_payment
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHORT_R_NONCE, make_sample, own_all
from tests.differential.compare import is_strict, lax_der
from tests.reference import GROUP_ORDER, Judge, Paid, Refused, encode_der, read_payment

VECTORS = Path(__file__).parents[2] / "vectors"


def vectors(name):
    return json.loads((VECTORS / name).read_text())


ORIGINAL = vectors("original-48aa769-300.json")
NEGATIVE = vectors("negative.json")
POSITIVE = vectors("positive-own.json") + vectors("original-48aa769-sample-full.json")
PUBLISHED = vectors("published-examples-parse-only.json")

# The vectors' words for our statuses.
REASONS = {
    "bad_signature": Status.BAD_SIGNATURE,
    "out_of_order": Status.OUT_OF_ORDER,
    "value_range": Status.CHANGE_VALUE_RANGE,
    "high_s": Status.HIGH_S,
    "bad_der": Status.INVALID_DER,
    "bad_sighash_type": Status.INVALID_SIGHASH_TYPE,
    "dust_change": Status.DUST_CHANGE,
    "value_must_be_zero": Status.CHANGE_VALUE_NOT_ZERO,
    "parse": Status.INVALID_PAYMENT,
    "bad_base64": Status.INVALID_BASE64,
    "non_canonical_base64": Status.INVALID_BASE64,
}
# Where a payment is wrong in two ways, or our parser sees it by another check than the vectors' one.
OTHER_REASONS = {
    "DER: sequence length too short by 1": Status.INVALID_DER,
    "one trailing byte": Status.INVALID_DER,
    "truncated to 7 bytes": Status.INVALID_PAYMENT,
    "truncated to 9 bytes": Status.INVALID_PAYMENT,
    "base64: one pad too many": Status.INVALID_PAYMENT,  # these three are longer than any payment's text
    "base64: four pads too many": Status.INVALID_PAYMENT,
    "base64: newline at the end": Status.INVALID_PAYMENT,
    "bit flip in value byte 3": Status.BAD_SIGNATURE,  # these two are not signed, and only who has signed is told of the order
    "bit flip in value byte 5": Status.BAD_SIGNATURE,
}


def terms_of(vector):
    change_script = decode_address(TEST, vector["change_address"])
    assert vector.get("change_script", change_script.hex()) == change_script.hex()
    return ChannelTerms(
        outpoint=parse_outpoint(vector["funding_txid"], str(vector["funding_vout"])),
        server_pubkey=bytes.fromhex(vector["server_pubkey"]),
        client_pubkey=bytes.fromhex(vector["client_pubkey"]),
        exp_time=vector["exp_time"],
        funding_value=vector["funding_value"],
        change_script=change_script,
    )


def table_with(vector, change_value):
    """A table that holds the vector's channel as it was before the payment."""
    table = own_all(ChannelTable(256, SETTLEMENT_PERIOD))
    terms = terms_of(vector)
    table.load(terms, ChannelState(Phase.OPEN, Payment(change_value, b"", 0x83)))
    table.mark_checked(terms.outpoint, table.chain_generation)
    return table


def path_of(vector):
    return f"/v1/channels/{vector['funding_txid']}/{vector['funding_vout']}"


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_all_300_payments_of_the_original_are_accepted_in_order():
    channel = ORIGINAL["channel"]
    assert terms_of(channel).redeem_script.hex() == channel["redeem_script"]
    table = table_with(channel, channel["funding_value"])
    for payment in ORIGINAL["payments"]:
        status = table.pay(path_of(channel), "payment=" + payment["payment"], channel["exp_time"] - SETTLEMENT_PERIOD - 1)
        assert status == Status.ACCEPTED
        assert (table.value_left, table.value_received) == (payment["change_value"], payment["value_received"])
    assert len(ORIGINAL["payments"]) == 300


@pytest.mark.parametrize("vector", POSITIVE, ids=lambda vector: vector["payment"][:24])
def test_positive_vectors_are_accepted(vector):
    raw = bytes.fromhex(vector["payment_raw"])
    expected = (0, vector["change_value"], bytes.fromhex(vector["der_sig"]), vector["sighash_byte"])
    for text in (vector["payment"], vector["payment"].rstrip("=")):
        assert decode_payment_text(text) == (0, raw)
    assert split_payment(raw) == expected
    assert verify_payment(terms_of(vector), decode_payment(vector["payment"]))
    table = table_with(vector, vector["prev_client_value"])
    status = table.pay(path_of(vector), "payment=" + vector["payment"], vector["exp_time"] - SETTLEMENT_PERIOD - 1)
    if vector["sighash_byte"] == 0x82:
        assert status == Status.EXHAUSTED
    elif vector["change_value"] == vector["prev_client_value"]:
        assert status == Status.REPLAYED
    else:
        assert status == Status.ACCEPTED
    assert table.value_received == vector["prev_client_value"] - vector["change_value"]


@pytest.mark.parametrize("vector", NEGATIVE, ids=lambda vector: vector["name"])
def test_negative_vectors_are_refused_for_their_reason(vector):
    table = table_with(vector, vector["prev_client_value"])
    outpoint = terms_of(vector).outpoint
    before = table.newest_payment(outpoint)
    status = table.pay(path_of(vector), "payment=" + vector["payment"], NOW)
    assert status == OTHER_REASONS.get(vector["name"], REASONS.get(vector["strict_checker"]))
    assert table.newest_payment(outpoint) == before
    assert table.is_durable(outpoint)


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: vector["source"])
def test_published_examples_parse(vector):
    payment = decode_payment(vector["payment"])
    assert payment.serialize().hex() == vector["payment_raw"]
    assert (payment.change_value, payment.sighash_type) == (vector["change_value"], vector["sighash_byte"])
    assert payment.signature.hex() == vector["der_sig"]
    assert payment.encode() == vector["payment"]


# --- sighash types and values (threat B1) -----------------------------------------------------------------------------


def test_exactly_two_sighash_types_with_their_values_are_accepted():
    """Every signature here is true for its type: only the type and the value decide."""
    sample = make_sample("types", funding_value=1_000_000)
    accepted = set()
    for sighash_type in range(256):
        for value in (0, 1, 699, 700, 1_000_000, 1_000_001):
            table = own_all(ChannelTable(256, SETTLEMENT_PERIOD))
            judge = Judge(SETTLEMENT_PERIOD)
            sample.load(table)
            judge.add(sample.account)
            text = base64.urlsafe_b64encode(sample.sign(value, sighash_type).raw).decode()
            status = Status(table.pay(sample.path, f"payment={text}", NOW))
            assert status.name.lower() == judge.pay(sample.path, f"payment={text}", NOW).code
            if status in (Status.ACCEPTED, Status.EXHAUSTED, Status.REPLAYED):
                accepted.add((sighash_type, value, status))
    assert accepted == {
        (0x82, 0, Status.EXHAUSTED),
        (0x83, 700, Status.ACCEPTED),
        (0x83, 1_000_000, Status.REPLAYED),
    }


@pytest.mark.parametrize(
    ("value", "sighash_type", "status"),
    [
        (0, 0x82, Status.OK),
        (1, 0x82, Status.CHANGE_VALUE_NOT_ZERO),
        (700, 0x82, Status.CHANGE_VALUE_NOT_ZERO),
        (2**64 - 1, 0x82, Status.CHANGE_VALUE_NOT_ZERO),
        (0, 0x83, Status.DUST_CHANGE),
        (699, 0x83, Status.DUST_CHANGE),
        (700, 0x83, Status.OK),
        (2**31, 0x83, Status.OK),
        (2**32, 0x83, Status.OK),
        (2**32 + 1, 0x83, Status.OK),
        (2_100_000_000_000_000, 0x83, Status.OK),
        (2_100_000_000_000_001, 0x83, Status.CHANGE_VALUE_RANGE),
        (2**53, 0x83, Status.CHANGE_VALUE_RANGE),
        (2**63, 0x83, Status.CHANGE_VALUE_RANGE),
        (2**64 - 1, 0x83, Status.CHANGE_VALUE_RANGE),
    ],
)
def test_value_boundaries(value, sighash_type, status):
    signature = make_sample("boundaries").opening.signature
    raw = Paid(value, signature, sighash_type).raw
    assert split_payment(raw) == ((0, value, signature, sighash_type) if status == Status.OK else (status, 0, b"", 0))


def test_constants_are_those_of_the_protocol():
    assert (DUST_LIMIT, MAX_MONEY) == (700, 21 * 10**14)


# --- DER and S --------------------------------------------------------------------------------------------------------


def judge_code(raw):
    try:
        read_payment(raw)
    except Refused as refused:
        return refused.code
    return "ok"


def compiled_code(raw):
    return Status(split_payment(raw)[0]).name.lower()


def test_der_agrees_with_the_judge_for_every_single_byte_changed():
    sample = make_sample("der")
    for paid in (sample.sign(5000), sample.sign(5000, nonce=SHORT_R_NONCE), sample.sign(0, 0x82)):
        for at in range(8, len(paid.raw)):
            for byte in range(256):
                raw = paid.raw[:at] + bytes([byte]) + paid.raw[at + 1 :]
                assert compiled_code(raw) == judge_code(raw), raw.hex()


def test_der_agrees_with_the_judge_for_every_length():
    raw = make_sample("der").sign(5000).raw
    for size in range(len(raw)):
        for part in (raw[:size], raw + bytes(size), raw[:8] + raw[8:][-size:], raw[:8] + raw[8 + size :]):
            assert compiled_code(part) == judge_code(part)


def test_der_laxities_are_refused():
    rng = random.Random(66)
    sample, refused = make_sample("der"), 0
    for _ in range(3000):
        raw = (5000).to_bytes(8, "little") + lax_der(rng, sample.sign(5000).signature) + b"\x83"
        assert compiled_code(raw) == judge_code(raw), raw.hex()
        if 17 <= len(raw) <= 81 and not is_strict(raw[8:-1]):
            assert compiled_code(raw) == "invalid_der"
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    ("s", "code"),
    [
        (1, "ok"),
        (GROUP_ORDER // 2, "ok"),
        (GROUP_ORDER // 2 + 1, "high_s"),
        (GROUP_ORDER - 1, "high_s"),
        (GROUP_ORDER, "ok"),  # no number of the group: fails as a signature, see test_fast_channel
    ],
)
def test_s_above_half_the_order_is_refused(s, code):
    raw = (5000).to_bytes(8, "little") + encode_der(12345, s) + b"\x83"
    assert compiled_code(raw) == code == judge_code(raw)


def test_smallest_and_largest_signatures_parse():
    for der in (encode_der(1, 1), encode_der(2**255 - 1, GROUP_ORDER // 2), encode_der(GROUP_ORDER - 1, GROUP_ORDER // 2)):
        assert split_payment((700).to_bytes(8, "little") + der + b"\x83") == (0, 700, der, 0x83)
    assert len(encode_der(1, 1)) == 8


def test_der_of_the_largest_size_without_a_group_element_parses_and_is_left_to_verification():
    der = encode_der(2**519 - 1, 1)
    assert len(der) == 72
    assert split_payment((700).to_bytes(8, "little") + der + b"\x83")[0] == 0


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(82))
def test_every_payment_size_round_trips_padded_and_bare(size):
    data = random.Random(size).randbytes(size)
    text = base64.urlsafe_b64encode(data).decode()
    assert decode_payment_text(text) == (0, data)
    assert decode_payment_text(text.rstrip("=")) == (0, data)


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "=",
        "==",
        "====",
        "A===",
        "AA=",
        "AAA==",
        "AAAA=",
        "AAAA==",
        "AAAA====",
        "AA==AA==",
        "AA=A",
        "A=AA",
        "AA+A",
        "AA/A",
        "AA A",
        "AAA\n",
        "AAAA\n",
        "AAA\0",
        "AAé",
        "AAA\udc80",
        "AB",  # unused bits set
        "AAB",
        "AB==",
        "AAB=",
        "%41AAA",
    ],
)
def test_other_spellings_are_refused(text):
    assert decode_payment_text(text) == (Status.INVALID_BASE64, b"")


def test_of_all_two_and_three_character_texts_exactly_the_canonical_ones_decode():
    symbols = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= \n"
    canonical = {base64.urlsafe_b64encode(bytes([i])).decode()[:2] for i in range(256)}
    found = {a + b for a in symbols for b in symbols if decode_payment_text(a + b)[0] == 0}
    assert found == canonical


def test_a_text_too_long_for_any_payment_is_refused_before_it_is_decoded():
    assert decode_payment_text("A" * 108)[0] == 0
    for text in ("A" * 109, "A" * 110, "A" * 112, "A" * 160, "!" * 109, "A" * 100_000):
        assert decode_payment_text(text) == (Status.INVALID_PAYMENT, b"")


# --- the Python face --------------------------------------------------------------------------------------------------


def test_python_face_raises_the_code():
    for raw, code in ((b"", "invalid_payment"), (bytes(17), "invalid_der")):
        with pytest.raises(Rejection) as caught:
            parse_payment(raw)
        assert (caught.value.code, caught.value.parameter) == (code, "payment")
    with pytest.raises(Rejection) as caught:
        decode_payment("*")
    assert caught.value.code == "invalid_base64"


@pytest.mark.parametrize("bad", [None, 1, "text", bytearray(17)])
def test_wrong_types_raise_and_do_not_crash(bad):
    with pytest.raises(TypeError):
        split_payment(bad)
    with pytest.raises((TypeError, AttributeError)):
        decode_payment_text(bad if not isinstance(bad, str) else b"bytes")
