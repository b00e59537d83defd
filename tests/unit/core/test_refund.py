"""Aim: the payer's refund. Method: byte for byte against the vector."""

import json
from pathlib import Path

import pytest
from bitcoin.core import CTransaction
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import make_outpoint
from paychan.core.refund import SEQUENCE_LOCKTIME, sign_refund

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "settlement-and-refund.json").read_text())
(ROW,) = (row for row in VECTORS if row["kind"] == "refund")
TERMS = ChannelTerms(
    make_outpoint(bytes.fromhex(ROW["funding_txid"])[::-1], ROW["funding_vout"]),
    bytes.fromhex(ROW["server_pubkey"]),
    bytes.fromhex(ROW["client_pubkey"]),
    ROW["exp_time"],
    ROW["funding_value"],
    bytes.fromhex(ROW["change_script"]),
)
KEY = PrivateKey(bytes.fromhex(ROW["client_key"]))


def test_refund_equals_the_vector():
    raw = sign_refund(TERMS, ROW["fee"], KEY)
    assert raw.hex() == ROW["raw_tx"]
    assert len(raw) == ROW["size"]
    assert CTransaction.deserialize(raw).GetTxid()[::-1].hex() == ROW["txid"]


def test_refund_waits_for_the_expiry():
    refund = CTransaction.deserialize(sign_refund(TERMS, 0, KEY))
    assert refund.nLockTime == TERMS.exp_time
    assert refund.vin[0].nSequence == SEQUENCE_LOCKTIME == 0xFFFFFFFE
    assert [(out.nValue, bytes(out.scriptPubKey)) for out in refund.vout] == [(TERMS.funding_value, TERMS.change_script)]


@pytest.mark.parametrize("fee", [TERMS.funding_value - 699, TERMS.funding_value + 1, -1, 1.5, True])
def test_refund_refuses_a_fee_that_leaves_dust_or_is_no_money(fee):
    with pytest.raises(ValueError):
        sign_refund(TERMS, fee, KEY)


def test_refund_may_leave_exactly_the_dust_limit():
    assert CTransaction.deserialize(sign_refund(TERMS, TERMS.funding_value - 700, KEY)).vout[0].nValue == 700
