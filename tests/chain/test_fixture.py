"""Aim: a file of funding outputs is read as documented; a broken one is Unavailable. Method: files, right and wrong."""

import asyncio
import json

import pytest

from paychan.chain.base import FundingRequest
from paychan.chain.fixture import FixtureChain
from paychan.core.errors import Unavailable

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


BROKEN = [7, "text", None, [], {}, {"outputs": 7}, {"outputs": None}, {"outputs": [7]}, {"outputs": ["text"]}, {"outputs": [[]]}]
BROKEN += [{"outputs": [{**OUTPUT, name: strange}]} for name in OUTPUT for strange in (7.5, None, [], {}, True, -1)]


@pytest.mark.parametrize("text", [*map(json.dumps, BROKEN), "[" * 100_000, "", "\0"], ids=lambda text: text[-40:])
def test_a_broken_file_is_said_to_be_one(tmp_path, text):
    with pytest.raises(Unavailable):
        outputs_of(tmp_path, text)
