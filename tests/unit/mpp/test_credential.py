"""Aim: a credential is read as it was written; whatever is wrong with one has its own code. Method: round trips, each member
spoiled, random texts."""

import dataclasses
import json
from contextlib import suppress

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from paychan.core.channel import ChannelTerms
from paychan.core.errors import Rejection
from paychan.core.sender import sign_payment
from paychan.mpp.challenge import make_challenge
from paychan.mpp.credential import (
    CREDENTIAL_BYTES_MAX,
    Credential,
    close_channel,
    find_credential,
    open_channel,
    parse_credential,
    voucher,
)
from paychan.mpp.text import decode_bytes, encode_bytes, encode_json
from tests.unit.mpp.test_request import BARE

CLIENT, SERVER = PrivateKey(b"\x02" * 32), PrivateKey(b"\x01" * 32)
ADDRESS = "mmA2XECa7bVERzQKkyy1pNBQ3PC4HnxTC5"
OUTPOINT = bytes(range(32)) + (7).to_bytes(4, "little")
TERMS = ChannelTerms(
    outpoint=OUTPOINT,
    funding_value=100_000,
    client_pubkey=CLIENT.public_key.format(),
    server_pubkey=SERVER.public_key.format(),
    exp_time=1_900_000_000,
    change_script=bytes.fromhex("76a914") + bytes(20) + bytes.fromhex("88ac"),
    opened_at=1_800_000_000,
)
PAYMENT = sign_payment(TERMS, 90_000, CLIENT)
CHALLENGE = make_challenge(b"secret", "shop", BARE.encode(), "2026-11-27T14:00:00Z")
EACH = {
    "voucher": voucher(CHALLENGE, OUTPOINT, PAYMENT),
    "open": open_channel(CHALLENGE, TERMS, ADDRESS, PAYMENT),
    "close": close_channel(CHALLENGE, OUTPOINT, PAYMENT),
}


@pytest.mark.parametrize("action", EACH)
def test_a_credential_comes_back(action):
    credential = EACH[action]
    assert parse_credential(credential.encode()) == credential
    named = dataclasses.replace(credential, purchase="after 7")
    assert parse_credential(find_credential([named.render()])) == named
    with_source = dataclasses.replace(credential, source="did:key:z6Mk")
    assert parse_credential(find_credential([with_source.render()])) == with_source
    assert credential.change_value == 90_000 and len(credential.encode()) < 2048
    assert credential.channel_id == f"{OUTPOINT[31::-1].hex()}:7"


def content_of(credential):
    return json.loads(decode_bytes(credential.encode()))


def refused(content):
    with pytest.raises(Rejection) as caught:
        parse_credential(content if isinstance(content, str) else encode_json(content))
    return caught.value.code


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("action", "topUp", "unknown_action"),
        ("action", None, "unknown_action"),
        ("action", ["open"], "unknown_action"),
        ("channelId", OUTPOINT.hex(), "invalid_member"),
        ("channelId", f"{OUTPOINT[31::-1].hex()}:07", "invalid_member"),
        ("channelId", f"{OUTPOINT[31::-1].hex().upper()}:7", "invalid_member"),
        ("channelId", f"{OUTPOINT[31::-1].hex()}:4294967296", "invalid_vout"),
        ("channelId", 7, "invalid_member"),
        ("payment", 7, "invalid_base64"),
        ("payment", "!", "invalid_base64"),
        ("payment", "AAAA", "invalid_payment"),
        ("payment", "A" * 4000, "invalid_payment"),
        ("payment", encode_bytes(PAYMENT.serialize()[:-1] + b"\x81"), "invalid_sighash_type"),
        ("payment", encode_bytes((699).to_bytes(8, "little") + PAYMENT.serialize()[8:]), "dust_change"),
        ("payment", encode_bytes(PAYMENT.serialize()[:-1] + b"\x82"), "change_value_not_zero"),
        ("payment", encode_bytes(b"\xff" * 8 + PAYMENT.serialize()[8:]), "change_value_range"),
        ("clientPubkey", "04" * 33, "invalid_pubkey"),
        ("clientPubkey", 4, "invalid_pubkey"),
        ("expTime", "1900000000", "invalid_exp_time"),
        ("expTime", True, "invalid_exp_time"),
        ("expTime", 499_999_999, "invalid_exp_time"),
        ("changeAddress", "a\nb", "invalid_change_address"),
        ("changeAddress", None, "invalid_change_address"),
    ],
)
def test_a_spoiled_member_has_its_code(name, value, code):
    content = content_of(EACH["open"])
    content["payload"][name] = value
    assert refused(content) == code


@pytest.mark.parametrize("name", ["channelId", "payment", "clientPubkey", "expTime", "changeAddress"])
def test_a_missing_member(name):
    content = content_of(EACH["open"])
    del content["payload"][name]
    assert refused(content) == "missing_member"


@pytest.mark.parametrize(
    "text",
    [
        "", "!", "e30", "W10", "AAAA", encode_bytes(b"null"), encode_bytes(b'{"challenge":{}}'), encode_bytes(b"[" * 3000),
        encode_bytes(b'{"challenge":1,"payload":{}}'), EACH["open"].encode() + "=", "x" * (CREDENTIAL_BYTES_MAX + 1),
        encode_bytes(b'{"payload":{},"payload":{}}'), encode_bytes(b'{"a":NaN}'),
    ],
)  # fmt: skip
def test_what_is_no_credential(text):
    assert refused(text) == "malformed_credential"


@pytest.mark.parametrize("name", ["id", "realm", "method", "intent", "request"])
def test_a_challenge_must_be_whole(name):
    content = content_of(EACH["voucher"])
    del content["challenge"][name]
    assert refused(content) == "malformed_credential"


def test_another_method_or_intent():
    for name, value in (("method", "tempo"), ("intent", "charge")):
        content = content_of(EACH["voucher"])
        content["challenge"][name] = value
        assert refused(content) == "method_unsupported"


def test_the_header():
    assert find_credential([]) is None
    assert find_credential(["Bearer abc", 'Digest a="Payment, Payment"']) is None
    assert find_credential(["payment abc"]) == "abc"
    assert find_credential(["Bearer x", "PAYMENT abc"]) == "abc"
    assert find_credential(["Payment"]) == ""
    for values in (["Payment a", "Payment b"], ["Payment a, Payment b"], ["Payment a,payment a"]):
        with pytest.raises(Rejection, match="two_credentials"):
            find_credential(values)


@given(
    st.text()
    | st.binary().map(encode_bytes)
    | st.recursive(st.none() | st.text(), lambda x: st.lists(x)).map(lambda x: encode_json({"challenge": x}))
)
def test_no_text_breaks_the_reading(text):
    with suppress(Rejection):
        assert isinstance(parse_credential(text), Credential)
