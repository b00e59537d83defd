"""Aim: receipts, snapshots, problems, events and the rest come back as they went out, and sense is made of nothing else.
Method: round trips, spoiled members, and the table of problems against the table of codes."""

import dataclasses
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan.core.errors import BY_CODE, OPERATORS_FROM, Rejection, Unavailable
from paychan.mpp import discovery, mcp, negotiation, problems, sse
from paychan.mpp.receipt import Receipt, parse_receipt
from paychan.mpp.snapshot import Snapshot, parse_snapshot
from paychan.mpp.text import canonical_json, decode_bytes, decode_json, encode_bytes, encode_json
from tests.unit.mpp.test_challenge import BARE as FOREIGN
from tests.unit.mpp.test_credential import ADDRESS, CHALLENGE, EACH, OUTPOINT, PAYMENT, TERMS
from tests.unit.mpp.test_request import CHAIN

RECEIPT = Receipt(OUTPOINT, CHALLENGE.id, 1_795_000_000, 10_000, 9_995, 100_000, 1)
FINAL = dataclasses.replace(RECEIPT, settlement_txid="ab" * 32)
SNAPSHOT = Snapshot(OUTPOINT, CHAIN, TERMS.client_pubkey, TERMS.exp_time, ADDRESS, 100_000, 10_000, 9_995, 10_000, PAYMENT)


@given(st.binary(min_size=1))
def test_base64url_has_one_spelling(raw):
    text = encode_bytes(raw)
    assert decode_bytes(text) == raw
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        other = text[:-1] + last
        if other != text and len(raw) % 3:
            with suppress(ValueError):
                assert encode_bytes(decode_bytes(other)) == other


def test_json_is_an_object_in_one_form():
    assert canonical_json({"b": "ü", "a": 1}) == '{"a":1,"b":"ü"}'
    for raw in (b"[]", b'{"a":1,"a":1}', b'{"a":Infinity}', b"{", b"\xff"):
        with pytest.raises(ValueError):
            decode_json(encode_bytes(raw))


@pytest.mark.parametrize("receipt", [RECEIPT, FINAL, dataclasses.replace(RECEIPT, challenge_id='a "quoted" one')])
def test_a_receipt_comes_back(receipt):
    assert parse_receipt(receipt.encode()) == receipt
    assert receipt.encode() == encode_json(receipt.as_object())
    assert receipt.remaining == 5 and mcp.receipt_meta(receipt)[mcp.RECEIPT]["remaining"] == "5"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "failed"),
        ("method", "tempo"),
        ("channelId", "x"),
        ("spent", "10001"),
        ("acceptedCumulative", "100001"),
        ("units", -1),
    ],
)
def test_a_receipt_that_makes_no_sense(name, value):
    with pytest.raises(ValueError):
        parse_receipt(encode_json({**RECEIPT.as_object(), name: value}))


def test_a_snapshot_comes_back():
    assert parse_snapshot(SNAPSHOT.encode()) == SNAPSHOT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channelType", "p2wsh"), ("expTime", "soon"), ("payment", "AAAA"), ("acceptedCumulative", "9999"), ("spent", "10001"),
        ("clientPubkey", 5), ("deposit", "100001"), ("channelId", None), ("chain", None),
    ],
)  # fmt: skip
def test_a_snapshot_that_makes_no_sense(name, value):
    content = decode_json(SNAPSHOT.encode())
    content = {**content, name: value} if value is not None else {key: row for key, row in content.items() if key != name}
    with pytest.raises(ValueError):
        parse_snapshot(encode_json(content))


BY_HTTP = range(70, 80)
NOT_FOR_PAYERS = {
    "request_too_large", "body_not_allowed", "invalid_batch", "invalid_funding_value", "no_such_route", "channel_exists",
    "invalid_sale", "purchase_differs", "no_such_purchase", "more_than_held", "too_many_reservations",
    "token_missing", "token_unknown", "token_scope",
    "too_many_opens", "too_many_refused", "too_many_connections",  # the door's, which counts by address; a seller has a socket
}  # fmt: skip


@pytest.mark.parametrize("row", BY_CODE.values(), ids=lambda row: row.code)
def test_every_code_has_its_problem(row):
    kind = problems.kind_of(row.code)
    if row.code in NOT_FOR_PAYERS or row.number in BY_HTTP or row.number >= OPERATORS_FROM:
        assert (kind.status, kind.has_challenge) == (500, False) and row.code not in problems.BY_OUR_CODE
        return
    assert row.code in problems.BY_OUR_CODE
    assert kind.has_challenge == (kind.status == 402)  # a 402 without one is none, and with a 503 a payer would sign again
    assert (row.status == 503) == (kind.status == 503) and (kind.status != 503 or kind.is_passing)
    assert not (row.number >= 120 and kind.status != row.status)


def test_a_document_comes_back():
    error = Rejection("insufficient_credit", figures={"missing": 5})
    content = problems.document(error, {"requiredCumulative": 10_005, "channelId": "x"})
    assert content["requiredCumulative"] == "10005" and content["missing"] == 5
    problem = problems.parse_problem(problems.render(content), 402)
    assert (problem.name, problem.code, problem.amounts) == (
        "session/insufficient-balance",
        "insufficient_credit",
        {"requiredCumulative": 10_005},
    )
    assert problems.document(Unavailable("owner_moved"))["status"] == 503
    for body in (b"", b"[]", b"\xff", b'{"code": 5, "spent": "-1"}', b"[" * 100_000):
        assert problems.parse_problem(body, 402).code == "" and not problems.parse_problem(body, 402).amounts


def test_only_who_signed_is_shown_a_snapshot():
    shown = {code for code in BY_CODE if problems.kind_of(code).has_snapshot}
    assert shown == {"out_of_order", "not_newest_payment"}
    assert problems.is_authentic_but_stale(Rejection("out_of_order"))
    assert not problems.is_authentic_but_stale(Rejection("bad_signature"))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, 1), ("", 0), ("bitcoin/session", 1), ("bitcoin/session;q=0", 0), ("lightning/charge", 0), ("*/*;q=0.5", 0.5),
        ("*/*, bitcoin/*;q=0.2", 0.2), ("bitcoin/*;q=0.2, bitcoin/session; q=0.7", 0.7),
        ("*/session;q=0.1,*/*", 0.1), ("nonsense", 1),
        ("bitcoin/session;q=7", 1), ("x" * 10_000, 1),
    ],
)  # fmt: skip
def test_negotiation(value, wanted):
    assert negotiation.quality(value) == wanted


def test_negotiation_is_written():
    assert negotiation.render(("bitcoin/session", 1), ("*/*", 0.5)) == "bitcoin/session, */*;q=0.5"


def test_discovery():
    operation = {"responses": {"200": {}}}
    discovery.mark(operation, 5, "a joke")
    assert operation[discovery.NAME] == {
        "offers": [{"intent": "session", "method": "bitcoin", "amount": "5", "currency": "sat", "description": "a joke"}]
    }
    assert set(operation["responses"]) == {"200", "402"}
    assert discovery.payment_info(None)["offers"][0]["amount"] is None


def test_events():
    need = sse.NeedVoucher(OUTPOINT, 20, 10, 100)
    name, data, *_ = need.render().decode().split("\n")
    assert name == "event: payment-need-voucher" and sse.parse_need_voucher(data.removeprefix("data: ")) == need
    assert b"event: payment-receipt\n" in sse.render_receipt(RECEIPT) and sse.render_error({}).startswith(b"event: payment-error\n")
    with pytest.raises(ValueError):
        sse.parse_need_voucher("[]")


def test_json_rpc():
    asked = mcp.error([CHALLENGE], problems.document(Rejection("payment_required")))
    assert asked["code"] == -32042 and json.loads(json.dumps(asked)) == asked
    assert mcp.read_challenges(asked) == [CHALLENGE]
    assert mcp.error([CHALLENGE], problems.document(Rejection("bad_signature")))["code"] == -32043
    assert mcp.read_challenges({"data": {"challenges": [1, {"request": 5}, FOREIGN.params() | {"request": {}}]}}) == []
    meta = mcp.credential_meta(EACH["open"])
    assert isinstance(meta[mcp.CREDENTIAL]["challenge"]["request"], dict)
    assert mcp.read_credential(meta) == EACH["open"] and mcp.read_credential({}) is None
    with pytest.raises(Rejection, match="malformed_credential"):
        mcp.read_credential({mcp.CREDENTIAL: {"challenge": {}}})
