"""Aim: each form of the payer's arguments takes what it should, and says of all else what it is, in a payer's words.

Method: tables.
"""

import argparse

import pytest

from paychan.cli import arguments as forms
from paychan.client import Funding
from paychan.client.sources import NodeAddress
from paychan.core.outpoint import make_outpoint
from paychan.core.units import MAX_MONEY

TXID = "ab" * 31 + "01"


def refusal(form, text: str) -> str:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        form(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", [forms.satoshi, forms.funding_value, forms.satoshi_or_all])
def test_satoshi(form):
    assert [form(text) for text in ("1", "007", str(MAX_MONEY), "0" * 20 + "5")] == [1, 7, MAX_MONEY, 5]
    for text in ("", "x", "1.5", "-5", "+5", " 5", "5 ", "5\n", "1_000", "1e3", "0x10", "٣", "five", "All", "all ", "\udcff"):
        assert refusal(form, text) == f"must be a whole number of satoshi, not {text!r}"
    for text in (str(MAX_MONEY + 1), "9" * 24):
        assert refusal(form, text) == f"must be at most {MAX_MONEY} satoshi, which is every bitcoin there can be, not {text!r}"
    assert refusal(form, "9" * 5000).endswith(f"not '{'9' * 77}...'")


def test_none_and_all():
    assert forms.satoshi("0") == 0 and forms.satoshi_or_all("all") == "all"
    assert refusal(forms.funding_value, "0") == "must be at least 1 satoshi, not '0'"
    assert refusal(forms.satoshi, "all") == "must be a whole number of satoshi, not 'all'"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 10**8), ("0.00000001", 1), (".5", 5 * 10**7), ("5.", 5 * 10**8), ("1e-3", 10**5), ("21000000", MAX_MONEY)],
)
def test_bitcoins(text, value):
    assert forms.bitcoins(text) == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0,5", "must be a number of bitcoins, such as 0.05"),
        ("nan", "must be a number of bitcoins, such as 0.05"),
        ("Infinity", "must be a number of bitcoins, such as 0.05"),
        ("1_0", "must be a number of bitcoins, such as 0.05"),
        ("1 BTC", "must be a number of bitcoins, such as 0.05"),
        ("", "must be a number of bitcoins, such as 0.05"),
        (".", "must be a number of bitcoins, such as 0.05"),
        ("1e9999999", "must be a number of bitcoins, such as 0.05"),
        ("1.0000000000000000000000000000000001", "must be a number of bitcoins, such as 0.05"),
        ("-1", "must be more than 0 and at most 21000000 bitcoins"),
        ("0", "must be more than 0 and at most 21000000 bitcoins"),
        ("0e999", "must be more than 0 and at most 21000000 bitcoins"),
        ("1e999", "must be more than 0 and at most 21000000 bitcoins"),
        ("21000000.00000001", "must be more than 0 and at most 21000000 bitcoins"),
        ("0.000000001", "must have at most 8 decimals: one satoshi is 0.00000001"),
        ("1e-999", "must have at most 8 decimals: one satoshi is 0.00000001"),
    ],
)
def test_what_is_no_amount_of_bitcoins(text, told):
    assert refusal(forms.bitcoins, text) == f"{told}, not {text!r}"


@pytest.mark.parametrize(
    ("form", "unit", "most"),
    [(forms.days, "days", "1000000000"), (forms.seconds, "seconds", "1000000000"), (forms.fee_rate, "satoshi per byte", "1000000")],
)
def test_positive_numbers(form, unit, most):
    assert [form(text) for text in ("1", "0.5", "1e-3", most)] == [1, 0.5, 0.001, float(most)]
    for text in ("", "x", "nan", "inf", "1_0", "٣", "1h", "0x1", "1" * 30):
        assert refusal(form, text) == f"must be a number of {unit}, not {text!r}"
    for text in ("0", "-1", "0.0", "1e400", "1e-400", most + "0"):
        assert refusal(form, text) == f"must be more than 0 and at most {most} {unit}, not {text!r}"


def test_a_funding_output():
    assert forms.funding(f"{TXID}:3:700") == Funding(make_outpoint(bytes.fromhex(TXID)[::-1], 3), 700)
    for text in ("zz", "", "::", TXID, f"{TXID}:0", f"{TXID}:00:5", f"{TXID}:-1:5", f"{TXID}:4294967296:5", f"{TXID[1:]}:0:5"):
        told = refusal(forms.funding, text)
        assert told.startswith("must be TXID:VOUT:SATOSHI (64 hexadecimal digits, a number, a number), not ")
    assert refusal(forms.funding, f"{TXID}:0:0") == "must be at least 1 satoshi, not '0'"
    assert refusal(forms.funding, f"{TXID}:0:x") == "must be a whole number of satoshi, not 'x'"


def test_urls_are_not_repeated_for_they_may_hold_a_password():
    assert forms.url("https://h/pay/v1") == "https://h/pay/v1"
    assert forms.node_url("http://u%40:p%3A@h:1/") == NodeAddress("h", 1, "u@", "p:")
    for form in (forms.url, forms.node_url):
        for text in (
            "secret",
            "ftp://u:secret@h:1",
            "http://u:secret@[::1",
            "http://u:secret@h:port",
            "http://secret:99999",
            "http://ü:1",
        ):
            assert "secret" not in refusal(form, text)
    for text in ("http://h", "https://h:1", "http://h:0", "http://:1"):
        assert refusal(forms.node_url, text) == "must be http://[USER:PASSWORD@]HOST:PORT"


def test_names():
    assert [forms.name(text) for text in ("a", "Shop_1.b-c", "x" * 64)] == ["a", "Shop_1.b-c", "x" * 64]
    for text in ("", ".a", "-a", "../a", "a/b", "a b", "a\n", "ü", "x" * 65, "\udcff"):
        assert refusal(forms.name, text).startswith("must be a name of up to 64 letters, digits, '.', '_' and '-', not ")
