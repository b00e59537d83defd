"""Aim: a file of funding outputs is read as documented; a broken one is Unavailable. Method: files, right and wrong."""

import asyncio
import json

import pytest
from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import CScript

from paychan.chain.base import FundingRequest
from paychan.chain.fixture import FixtureChain
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Unavailable
from paychan.core.outpoint import make_outpoint, txid_hex
from paychan.core.script import p2sh_script_pubkey
from tests.chain.esplora_stand_in import whole

SCRIPT = b"\xa9\x14" + bytes(20) + b"\x87"
OUTPUT = {"txid": "11" * 32, "vout": 3, "value": 5, "script_pubkey": SCRIPT.hex(), "confirmations": 2}


def outputs_of(tmp_path, text):
    file = tmp_path / "funding.json"
    file.write_text(text)
    request = FundingRequest(b"", 0, SCRIPT)
    return asyncio.run(FixtureChain(tmp_path, 1, file).find_funding(request))


def test_what_is_documented_is_found(tmp_path):
    (found,) = outputs_of(tmp_path, json.dumps({"outputs": [OUTPUT]}))
    assert (found.outpoint, found.value, found.confirmations) == (bytes.fromhex("11" * 32 + "03000000"), 5, 2)


def proof_of(tmp_path, transaction):
    """Return what a file proves the first output of `PAID` with, given the transaction that it has for it."""
    terms = ChannelTerms(make_outpoint(PAID.GetTxid(), 0), b"\x02" * 33, b"\x03" * 33, 1_900_000_000, 5, b"")
    row = {"txid": txid_hex(PAID.GetTxid()), "vout": 0, "value": 5, "script_pubkey": p2sh_script_pubkey(terms.redeem_script).hex()}
    file = tmp_path / "funding.json"
    file.write_text(json.dumps({"outputs": [{**row, "transaction": transaction.hex()}]}))
    return asyncio.run(FixtureChain(tmp_path, 1, file).funding_transaction(terms))


PAID = CTransaction([CTxIn(COutPoint(b"\x07" * 32, 1))], [CTxOut(5, CScript(b"\x51"))])


def test_a_transaction_proves_its_output_without_its_witness_or_not_at_all(tmp_path):
    for given in (PAID.serialize(), whole(PAID, b"\x00"), whole(PAID, bytes(70_000))):
        assert proof_of(tmp_path, given) == PAID.serialize()
    assert proof_of(tmp_path, b"") == b""
    with pytest.raises(Unavailable):
        proof_of(tmp_path, PAID.serialize() + b"\0")


BROKEN = [7, "text", None, [], {}, {"outputs": 7}, {"outputs": None}, {"outputs": [7]}, {"outputs": ["text"]}, {"outputs": [[]]}]
BROKEN += [{"outputs": [{**OUTPUT, name: strange}]} for name in OUTPUT for strange in (7.5, None, [], {}, True, -1)]


@pytest.mark.parametrize("text", [*map(json.dumps, BROKEN), "[" * 100_000, "", "\0"], ids=lambda text: text[-40:])
def test_a_broken_file_is_said_to_be_one(tmp_path, text):
    with pytest.raises(Unavailable):
        outputs_of(tmp_path, text)
