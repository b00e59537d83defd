"""Aim: addresses of one network only. Method: addresses from the vectors, and damaged ones."""

import json
from pathlib import Path

import pytest
from bitcoin.base58 import CBase58Data, encode

from paychan.core.errors import Rejection
from paychan.core.network import BY_NAME, LIVE, REGTEST, TEST, decode_address, p2sh_address

POSITIVE = json.loads((Path(__file__).parents[2] / "vectors" / "positive-own.json").read_text())
P2PKH_TEST = "mmA2XECa7bVERzQKkyy1pNBQ3PC4HnxTC5"
P2PKH_LIVE = "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"


@pytest.mark.parametrize("row", POSITIVE, ids=lambda row: row["note"])
def test_change_scripts_equal_the_vectors(row):
    assert decode_address(BY_NAME[row["network"]], row["change_address"]).hex() == row["change_script"]


def test_regtest_has_the_test_networks_addresses():
    assert decode_address(REGTEST, P2PKH_TEST) == decode_address(TEST, P2PKH_TEST)


@pytest.mark.parametrize("network", BY_NAME.values(), ids=BY_NAME)
def test_p2sh_address_round_trips(network):
    assert decode_address(network, p2sh_address(network, bytes(range(20)))) == b"\xa9\x14" + bytes(range(20)) + b"\x87"


@pytest.mark.parametrize(
    ("network", "address"),
    [
        (LIVE, P2PKH_TEST),
        (TEST, P2PKH_LIVE),
        (LIVE, p2sh_address(TEST, bytes(20))),
        (TEST, p2sh_address(LIVE, bytes(20))),
        (TEST, ""),
        (TEST, P2PKH_TEST[:-1]),
        (TEST, P2PKH_TEST[:-1] + "6"),
        (TEST, P2PKH_TEST + " "),
        (TEST, "0" + P2PKH_TEST),
        (TEST, "é" + P2PKH_TEST),
        (TEST, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        (REGTEST, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"),
        (TEST, str(CBase58Data.from_bytes(bytes(19), 0x6F))),
        (TEST, str(CBase58Data.from_bytes(bytes(21), 0x6F))),
        (TEST, encode(b"")),
        (TEST, encode(b"\x6f")),
    ],
)
def test_other_addresses_are_refused(network, address):
    with pytest.raises(Rejection) as caught:
        decode_address(network, address)
    assert caught.value.code == "invalid_change_address"


def test_the_networks_are_those_of_bitcoin_core():
    assert [(network.name, network.chain, network.p2pkh_version, network.p2sh_version) for network in BY_NAME.values()] == [
        ("live", "main", 0, 5),
        ("test", "test", 111, 196),
        ("testnet4", "testnet4", 111, 196),
        ("signet", "signet", 111, 196),
        ("regtest", "regtest", 111, 196),
    ]
    assert decode_address(LIVE, P2PKH_LIVE)[:3] == b"\x76\xa9\x14"
    assert decode_address(LIVE, "3P14159f73E4gFr7JterCCQh9QjiTjiZrG")[:2] == b"\xa9\x14"
