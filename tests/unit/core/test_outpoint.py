"""Aim: an outpoint has one canonical form. Method: spellings that must and must not parse, by hand."""

import pytest

from paychan.core.errors import Rejection
from paychan.core.outpoint import OUTPOINT_SIZE, format_outpoint, make_outpoint, parse_outpoint, txid_hex, txid_of, vout_of

TXID_HEX = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee01"
TXID = bytes.fromhex(TXID_HEX)[::-1]


@pytest.mark.parametrize("vout", [0, 1, 10, 2**31, 2**32 - 1])
def test_outpoint_round_trips(vout):
    outpoint = parse_outpoint(TXID_HEX, str(vout))
    assert outpoint == make_outpoint(TXID, vout) == TXID + vout.to_bytes(4, "little")
    assert (txid_of(outpoint), vout_of(outpoint)) == (TXID, vout)
    assert format_outpoint(outpoint) == f"{TXID_HEX}/{vout}"
    assert txid_hex(TXID) == TXID_HEX


def test_upper_case_hex_is_the_same_outpoint():
    assert parse_outpoint(TXID_HEX.upper(), "7") == parse_outpoint(TXID_HEX, "7")


@pytest.mark.parametrize(
    "vout",
    ["", "00", "01", "+1", "-1", "1.0", "1e0", " 1", "1 ", "1\n", "0x1", "4294967296", "99999999999", "١", "1_0"],
)
def test_other_spellings_of_an_index_are_refused(vout):
    with pytest.raises(Rejection) as caught:
        parse_outpoint(TXID_HEX, vout)
    assert (caught.value.code, caught.value.parameter) == ("invalid_vout", "funding_vout")


@pytest.mark.parametrize("txid", ["", TXID_HEX[:-1], TXID_HEX + "0", TXID_HEX[:-1] + "g", "0x" + TXID_HEX[2:], TXID_HEX + "\n"])
def test_other_spellings_of_a_txid_are_refused(txid):
    with pytest.raises(Rejection) as caught:
        parse_outpoint(txid, "0")
    assert (caught.value.code, caught.value.parameter) == ("invalid_txid", "funding_txid")


@pytest.mark.parametrize(
    ("txid", "vout", "error"), [(TXID[:31], 0, ValueError), (TXID, -1, OverflowError), (TXID, 2**32, OverflowError)]
)
def test_make_outpoint_refuses_what_does_not_fit(txid, vout, error):
    with pytest.raises(error):
        make_outpoint(txid, vout)


def test_an_outpoint_has_36_bytes():
    assert OUTPOINT_SIZE == 36 == len(make_outpoint(bytes(32), 0))
