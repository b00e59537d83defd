"""Aim: the query parameters of fundingInfo and open are read strictly. Method: good and bad spellings by hand; the split of
the query against the judge's."""

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from paychan._fast.channel import read_channel_request
from paychan._fast.request import QUERY_SIZE_MAX
from paychan.core.errors import Rejection
from paychan.core.outpoint import make_outpoint
from paychan.core.units import MAX_MONEY
from paychan.server.protocol.parameters import (
    Query,
    decode_exp_time,
    decode_funding_outpoint,
    decode_funding_value,
    decode_pubkey,
)

KEY = PrivateKey(b"\x07" * 32).public_key
KEY_HEX = KEY.format().hex()
TXID_HEX = "ab" * 31 + "01"


def refusal(function, *arguments):
    with pytest.raises(Rejection) as caught:
        function(*arguments)
    return caught.value.code, caught.value.parameter


# --- the query --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["a=1&b=2", "a=1;b=2", "x;&;b=2&a=1&", "a=%31&b=2", "b=2&c=3&c=3&a=1", "a=1&b=2&c"])
def test_values_are_found(query):
    assert (Query(query).required("a", str), Query(query).required("b", str)) == ("1", "2")


@pytest.mark.parametrize("query", ["", "a", "A=1", "%61=1", " a=1", "aa=1", "b=a=1"])
def test_a_missing_parameter_is_named(query):
    assert refusal(Query(query).required, "a", str) == ("missing_parameter", "a")
    assert Query(query).optional("a", str) is None


@pytest.mark.parametrize("query", ["a=1&a=1", "a=1;a=2", "a=&a=", "a=1&b=2&a=3"])
def test_a_repeated_parameter_is_refused_and_named(query):
    assert refusal(Query(query).optional, "a", str) == ("repeated_parameter", "a")
    assert Query(query + "&c=3").required("c", str) == "3"  # only who asks for it is refused


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("a=b", "a=b"),
        ("%41", "A"),
        ("a+b", "a b"),
        ("%2B", "+"),
        ("%", "%"),
        ("%4", "%4"),
        ("%zz", "%zz"),
        ("%41%", "%41%"),
        ("%26", "&"),
        ("%3b", ";"),
        ("%c3%a9", "é"),
        ("%ff", "\ufffd"),
        ("%00", "\0"),
    ],
)
def test_escapes(text, value):
    assert Query("a=" + text).required("a", str) == value


def test_the_longest_query_and_one_more():
    Query("a" * QUERY_SIZE_MAX)
    assert refusal(Query, "a" * (QUERY_SIZE_MAX + 1))[0] == "request_too_large"


def test_length_is_counted_in_bytes_as_the_compiled_path_counts_it():
    query = "payment=QUJD&x=" + "é" * (QUERY_SIZE_MAX // 2)
    assert read_channel_request(f"/v1/channels/{TXID_HEX}/0", query)[0] == 22
    assert refusal(Query, query)[0] == "request_too_large"


@given(st.text(st.sampled_from("ab=&;%4+1"), max_size=30))
def test_any_query_gives_values_or_rejections(query):
    for name in ("a", "b", "aa"):
        try:
            assert isinstance(Query(query).required(name, str), str)
        except Rejection as rejection:
            assert rejection.code in ("missing_parameter", "repeated_parameter")


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_public_key_is_read_in_either_case():
    assert decode_pubkey(KEY_HEX) == decode_pubkey(KEY_HEX.upper()) == KEY.format()


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY_HEX[:-2],
        KEY_HEX + "00",
        KEY_HEX + "\n",
        " " + KEY_HEX,
        "04" + KEY_HEX[2:],
        "06" + KEY_HEX[2:],
        KEY.format(compressed=False).hex(),
        "06" + KEY.format(compressed=False).hex()[2:],
        "02" + "ff" * 32,
        "02" + "00" * 31 + "05",  # no point has this x
        "zz" + KEY_HEX[2:],
        KEY_HEX[:-1] + "١",
        "0x" + KEY_HEX[2:],
    ],
)
def test_other_keys_are_refused(text):
    assert refusal(decode_pubkey, text) == ("invalid_pubkey", "client_pubkey")


@pytest.mark.parametrize("number", [500_000_000, 999_999_999, 1_000_000_000, 2**31 - 1, 2**31, 2**32 - 1])
def test_expiry_is_read(number):
    assert decode_exp_time(str(number)) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "499999999", "4294967296", "9999999999", "18446744073709551616", "0500000000", "+500000000", "-500000000"]
    + ["5e8", "500000000.0", " 500000000", "500000000 ", "500000000\n", "٥٠٠٠٠٠٠٠٠", "0x1dcd6500", "500_000_000"],
)
def test_other_expiries_are_refused(text):
    assert refusal(decode_exp_time, text) == ("invalid_exp_time", "exp_time")


@pytest.mark.parametrize("number", [1, 9, 10, 700, 2**50, MAX_MONEY])
def test_a_funding_value_is_read(number):
    assert decode_funding_value(str(number)) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "00", "01", "-1", "+1", "1.0", "1e3", " 1", "1 ", "1\n", "1_000", "0x10", "١", "nan", "all", "None", "true"]
    + [str(MAX_MONEY + 1), "9" * 16, "9" * 17, "9" * 2000],
)
def test_other_funding_values_are_refused(text):
    assert refusal(decode_funding_value, text) == ("invalid_funding_value", "funding_value")


def test_funding_outpoint_is_both_or_none():
    both = Query(f"funding_txid={TXID_HEX}&funding_vout=3")
    assert decode_funding_outpoint(both) == make_outpoint(bytes.fromhex(TXID_HEX)[::-1], 3)
    assert decode_funding_outpoint(Query("a=1")) is None
    assert refusal(decode_funding_outpoint, Query("funding_vout=3")) == ("missing_parameter", "funding_txid")
    assert refusal(decode_funding_outpoint, Query(f"funding_txid={TXID_HEX}")) == ("missing_parameter", "funding_vout")
    assert refusal(decode_funding_outpoint, Query(f"funding_txid={TXID_HEX}&funding_vout=03"))[0] == "invalid_vout"
    assert refusal(decode_funding_outpoint, Query("funding_txid=&funding_vout=3"))[0] == "invalid_txid"
