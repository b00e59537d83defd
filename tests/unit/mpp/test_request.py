"""Aim: what a challenge asks for is read strictly and written in one form. Method: a full and a bare request, each member
spoiled."""

import json

import pytest
from coincurve import PrivateKey

from paychan.mpp.request import MethodDetails, SessionRequest, parse_request, read_request
from paychan.mpp.text import decode_bytes, encode_json

KEY = PrivateKey(b"\x01" * 32).public_key.format()
CHAIN = "bip122:000000000933ea01ad0ee984209779ba"
DETAILS = MethodDetails(CHAIN, 2, 3600, 86400, 31_536_000, 83_240)
BARE = SessionRequest(5, KEY, DETAILS)
FULL = SessionRequest(
    5,
    KEY,
    MethodDetails(CHAIN, 0, 0, 0, 1, 0, 700, "p2sh-cltv-1", 10_000_000, 1, 0, f"{'ab' * 32}:1", "https://pay.example.com/v1"),
    "request",
    100_000,
    "a joke",
    "17",
)


@pytest.mark.parametrize("request_", [BARE, FULL])
def test_a_request_comes_back(request_):
    assert parse_request(request_.encode()) == request_
    assert read_request(request_.as_object()) == request_


def test_the_form_on_the_wire():
    content = json.loads(decode_bytes(BARE.encode()))
    assert content == {
        "amount": "5",
        "currency": "sat",
        "recipient": KEY.hex(),
        "methodDetails": {
            "chain": CHAIN,
            "channelType": "p2sh-cltv-1",
            "fundingConfirmations": 2,
            "settlementPeriod": 3600,
            "minDuration": 86400,
            "maxDuration": 31_536_000,
            "dustLimit": "700",
            "openPrice": "83240",
        },
    }


def test_defaults():
    assert (BARE.min_voucher_delta, BARE.max_prepay) == (5, 100)
    assert (FULL.min_voucher_delta, FULL.max_prepay) == (1, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amount", 5), ("amount", "0"), ("amount", "05"), ("amount", "-5"), ("amount", "5.0"), ("amount", None),
        ("amount", "2100000000000001"), ("currency", "BTC"), ("recipient", KEY.hex().upper()), ("recipient", "02"), ("recipient",
        2), ("methodDetails", None), ("methodDetails", []), ("unitType", 5), ("suggestedDeposit", 5), ("description", "x" * 2000),
    ],
)  # fmt: skip
def test_a_spoiled_member_is_refused(name, value):
    with pytest.raises(ValueError):
        parse_request(encode_json({**FULL.as_object(), name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chain", "testnet"), ("chain", "bip122:xyz"), ("channelType", None), ("fundingConfirmations", "2"),
        ("fundingConfirmations", True), ("settlementPeriod", -1), ("minDuration", 1.5), ("dustLimit", 700), ("openPrice", None),
        ("maxFunding", "a"), ("channelId", f"{'AB' * 32}:1"), ("channelId", f"{'ab' * 32}:01"), ("api", 5),
    ],
)  # fmt: skip
def test_a_spoiled_detail_is_refused(name, value):
    content = FULL.as_object()
    with pytest.raises(ValueError):
        parse_request(encode_json({**content, "methodDetails": {**content["methodDetails"], name: value}}))


def test_unknown_members_are_left_aside():
    assert parse_request(encode_json({**BARE.as_object(), "later": 1})) == BARE


def test_nothing_is_written_that_would_not_be_read():
    with pytest.raises(ValueError):
        SessionRequest(0, KEY, DETAILS).encode()
