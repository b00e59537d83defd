"""Aim: segwit addresses are read as BIP 173 and BIP 350 say. Method: their test vectors; each single slip of an address."""

import json
from pathlib import Path

import pytest

from paychan.core.address_script import is_address_script
from paychan.core.bech32 import BECH32, BECH32M, SYMBOLS, decode, decode_segwit
from paychan.core.errors import Rejection
from paychan.core.network import LIVE, REGTEST, SIGNET, TEST, TESTNET4, decode_address

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "segwit-addresses.json").read_text())
P2TR = "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c"
P2WPKH = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"
P2WPKH_REGTEST = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


def script_of(version: int, program: bytes) -> bytes:
    return bytes((version and 0x50 + version, len(program))) + program


@pytest.mark.parametrize(("address", "script"), VECTORS["valid"])
def test_the_vectors_stand_for_their_scripts(address, script):
    prefix, version, program = decode_segwit(address)
    assert (prefix, script_of(version, program).hex()) == (address[:2].lower(), script)


@pytest.mark.parametrize("address", [address for address in VECTORS["invalid"] if not address.startswith("tc1")])
def test_what_the_vectors_call_invalid_is_refused(address):
    with pytest.raises(ValueError):
        decode_segwit(address)


@pytest.mark.parametrize("kind", ["bech32", "bech32m", "neither"])
def test_each_encoding_is_told_from_the_other(kind):
    for text in VECTORS[kind]:
        if kind == "neither":
            with pytest.raises(ValueError):
                decode(text)
        else:
            assert decode(text)[2] == {"bech32": BECH32, "bech32m": BECH32M}[kind]


@pytest.mark.parametrize("address", [P2WPKH, P2TR])
def test_no_slip_of_one_or_two_symbols_passes(address):
    start = address.rindex("1") + 1
    for place in range(start, len(address)):
        for symbol in SYMBOLS.replace(address[place], ""):
            slip = address[:place] + symbol + address[place + 1 :]
            swapped = slip[: place - 1] + slip[place] + slip[place - 1] + slip[place + 1 :]
            for text in (slip, swapped):
                with pytest.raises(ValueError):
                    decode_segwit(text)
        for text in (address[:place] + address[place + 1 :], address[:place] + "q" + address[place:]):
            with pytest.raises(ValueError):
                decode_segwit(text)


@pytest.mark.parametrize(
    ("network", "address"),
    [(network, address) for network in (TEST, TESTNET4, SIGNET) for address in (P2WPKH, P2TR)] + [(REGTEST, P2WPKH_REGTEST)],
)
def test_each_network_has_its_prefix(network, address):
    assert is_address_script(decode_address(network, address))
    others = {LIVE, REGTEST, TEST} - ({network} if network is REGTEST else {TEST})
    for other in others:
        with pytest.raises(Rejection):
            decode_address(other, address)


@pytest.mark.parametrize(("address", "script"), VECTORS["valid"])
def test_only_what_has_an_owner_is_an_address_of_ours(address, script):
    """Other witness versions and lengths can be spent by anybody, as long as no rule of consensus says otherwise."""
    network = LIVE if address.lower().startswith("bc") else TEST
    if len(script) in (44, 68) and script[:2] in ("00", "51"):
        assert decode_address(network, address).hex() == script
    else:
        with pytest.raises(Rejection) as caught:
            decode_address(network, address)
        assert caught.value.code == "invalid_change_address"


@pytest.mark.parametrize("address", VECTORS["invalid"])
def test_no_network_has_an_invalid_address(address):
    for network in (LIVE, TEST, REGTEST):
        with pytest.raises(Rejection):
            decode_address(network, address)
