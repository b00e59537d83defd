"""Aim: the payer's own transactions. Method: the refund against the vector; settlements made here, right and wrong."""

import json
from pathlib import Path

import pytest
from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import CScript
from coincurve import PrivateKey

from paychan.client import Agreement, ChannelRecord, Funding, InvalidAmount, PayerPhase, Refused, ServerMisbehaved, find_funding
from paychan.client.refund import check_settlement, make_refund
from paychan.core.network import TEST, decode_address
from paychan.core.outpoint import make_outpoint
from paychan.core.refund import sign_refund
from paychan.core.sender import sign_payment
from paychan.core.settlement import sign_settlement
from paychan.core.units import MAX_MONEY
from tests.copies import inflated, renamed
from tests.system import CHANGE_ADDRESS

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "settlement-and-refund.json").read_text())
(ROW,) = (row for row in VECTORS if row["kind"] == "refund")
KEY = PrivateKey(bytes.fromhex(ROW["client_key"]))
SERVER_KEY = PrivateKey(bytes.fromhex(VECTORS[0]["server_key"]))
THIEF = decode_address(TEST, "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY")
AGREEMENT = Agreement(
    "http://localhost",
    TEST,
    bytes.fromhex(ROW["server_pubkey"]),
    bytes.fromhex(ROW["client_pubkey"]),
    ROW["exp_time"],
    CHANGE_ADDRESS,
    6,
    0,
    1000,
)
FUNDING = Funding(make_outpoint(bytes.fromhex(ROW["funding_txid"])[::-1], ROW["funding_vout"]), ROW["funding_value"])


def paid(change_value: int) -> ChannelRecord:
    record = ChannelRecord(AGREEMENT, "key", PayerPhase.OPEN, FUNDING)
    record.signed = record.acknowledged = sign_payment(record.terms, change_value, KEY)
    return record


def test_the_refund_is_the_vector_s():
    assert bytes.fromhex(ROW["change_script"]) == AGREEMENT.change_script
    assert AGREEMENT.redeem_script.hex() == ROW["redeem_script"]
    size = len(sign_refund(paid(9_000_000).terms, 0, KEY)) + 2
    refund = make_refund(paid(9_000_000).terms, KEY, (ROW["fee"] - 0.5) / size)
    assert refund.raw.hex() == ROW["raw_tx"] and refund.txid == ROW["txid"]
    assert (refund.fee, refund.value) == (ROW["fee"], ROW["funding_value"] - ROW["fee"])
    assert refund.expected_at == refund.valid_after + 3600 == ROW["exp_time"] + 3600


@pytest.mark.parametrize("rate", [0, 1, 1.5, 20, 1000])
def test_the_refund_pays_the_rate(rate):
    terms = paid(9_000_000).terms
    refund = make_refund(terms, KEY, rate)
    assert refund.raw == sign_refund(terms, refund.fee, KEY)
    assert rate * len(refund.raw) <= refund.fee <= rate * (len(refund.raw) + 4) + 1


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf"), 30_000, 10**9])
def test_a_senseless_fee_rate_is_refused(rate):
    with pytest.raises(InvalidAmount):
        make_refund(paid(9_000_000).terms, KEY, rate)


def settlement(record: ChannelRecord, change_value: int) -> bytes:
    payment = sign_payment(record.terms, change_value, KEY)
    return sign_settlement(record.terms, payment, THIEF, 10_000, SERVER_KEY)


def test_a_settlement_that_pays_the_change_passes_and_an_older_one_too():
    record = paid(9_000_000)
    assert check_settlement(record, settlement(record, 9_000_000)) == 9_000_000
    assert check_settlement(record, settlement(record, 9_000_001)) == 9_000_001


def test_a_settlement_that_pays_less_is_the_server_s_fault():
    record = paid(9_000_000)
    with pytest.raises(ServerMisbehaved, match="owed are 9000000"):
        check_settlement(record, settlement(record, 8_999_999))
    with pytest.raises(ServerMisbehaved):
        check_settlement(record, settlement(record, 0))


@pytest.mark.parametrize("change", [inflated, renamed, lambda raw: raw], ids=["inflated", "renamed", "older-version"])
def test_a_settlement_is_judged_by_what_it_pays_and_not_by_its_txid(change):
    record = paid(9_000_000)
    record.settlement_txid = "00" * 32  # the newest version's, in the form in which it was announced
    assert check_settlement(record, change(settlement(record, 9_000_000))) == 9_000_000
    with pytest.raises(ServerMisbehaved, match="owed are 9000000"):
        check_settlement(record, change(settlement(record, 8_999_999)))


def test_another_transaction_is_no_settlement():
    record = paid(9_000_000)
    other = paid(9_000_000)
    other.funding = Funding(make_outpoint(bytes(32), 0), FUNDING.value)
    with pytest.raises(ServerMisbehaved, match="does not spend"):
        check_settlement(other, settlement(record, 9_000_000))
    with pytest.raises(Refused):
        check_settlement(record, b"\x01\x02")


def test_the_funding_transaction_proves_the_value():
    tx = bytes.fromhex(ROW["raw_tx"])  # any transaction; its one output pays to the change address
    with pytest.raises(Refused):
        find_funding(AGREEMENT, tx)
    before, _, after = tx.partition(bytes.fromhex("1976a9143ddb8c53651c445a5bbdd1fb323f9704da23fc4a88ac"))
    funded = find_funding(AGREEMENT, before + b"\x17" + AGREEMENT.script_pubkey + after)
    assert funded.value == ROW["funding_value"] - ROW["fee"] and funded.outpoint[32:] == bytes(4)


@pytest.mark.parametrize("value", [0, -1, MAX_MONEY + 1, 2**63 - 1])
def test_an_output_of_no_sensible_value_funds_nothing(value):
    outputs = [CTxOut(value, CScript(AGREEMENT.script_pubkey))]
    with pytest.raises(Refused):
        find_funding(AGREEMENT, CTransaction([CTxIn(COutPoint(bytes(32), 0))], outputs).serialize())
