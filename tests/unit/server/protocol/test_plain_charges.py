"""Aim: what the compiled reader takes for a charge is what the rules in Python make of it, and it takes nothing that they refuse.
Method: charges, whole and spoiled in each member and in their JSON, read both ways."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan._fast.sale import read_charges
from paychan.core.errors import Rejection
from paychan.core.sales import ATTEMPT_MAX
from paychan.core.units import MAX_MONEY
from paychan.server.protocol.sales import SALES_MAX, encode_sale, is_list, parse_sales

TXID = "0b" * 32
CHARGE = {"do": "charge", "channel": TXID + "/7", "key": "order 17", "amount": 300, "payment": "QUJDREVGR0g"}
MEMBERS = {
    "do": ["charge", "reserve", "settle", "release", "snapshot", "chargE", "", 1, None],
    "channel": [
        TXID + ":7", TXID.upper() + "/0", TXID + "/4294967295", TXID + "/4294967296", TXID + "/07", TXID + "/",
        TXID, TXID + "/1/2", TXID + "/-1", "0b" * 31 + "/7", "0g" * 32 + "/7", "", 7, None,
    ],
    "key": ["", "k", "k" * 128, "k" * 129, "é", "\x7f", "a\n", 'a"b', "a\\b", 7, None],
    "amount": [0, 1, -1, 10**15 - 1, 10**15, MAX_MONEY, MAX_MONEY + 1, 2**64, 10**30, 1.0, True, "1", None],
    "payment": ["", "A", "AA", "AB", "AA==", "AAA=", "=AAA", "A A", "A" * 108, "A" * 109, "A" * 300, "é", 7, None],
    "again": [1, 0, None],
    "attempt": [1, ATTEMPT_MAX, ATTEMPT_MAX + 1, 2**32 + 1, 0, -1, 10**15 - 1, 10**15, 2**64 + 1, 1.0, True, "1", None],
    "seconds": [60],
    "number": [1],
    "more": [1],
}  # fmt: skip


def compare(body):
    """Read a body both ways; return whether it was plain."""
    plain = read_charges(body)
    if plain is not None:
        assert [encode_sale(sale, 1_800_000_000) for sale in parse_sales(body)] == plain
    return plain is not None


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", "\t:\r")])
def test_charges_as_sellers_write_them_are_plain(separators):
    def dumps(value):
        return f" {json.dumps(value, separators=separators)}\n".encode()

    bare = {name: value for name, value in CHARGE.items() if name != "payment"}
    backwards = dict(reversed(CHARGE.items()))
    called = {"attempt": 7, **CHARGE}
    for body in (CHARGE, bare, called, backwards, [CHARGE], [CHARGE, bare, called, backwards], [CHARGE] * SALES_MAX):
        assert compare(dumps(body)) and len(read_charges(dumps(body))) == (len(body) if is_list(dumps(body)) else 1)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in MEMBERS.items() for value in values])
def test_a_member_of_any_kind(name, value):
    spoiled = {**CHARGE, name: value}
    for body in (spoiled, [spoiled], [CHARGE, spoiled]):
        for ensure_ascii in (True, False):
            compare(json.dumps(body, ensure_ascii=ensure_ascii).encode())
    compare(json.dumps({key: item for key, item in CHARGE.items() if key != name}).encode())


WHOLE = json.dumps([CHARGE, {**CHARGE, "attempt": 8_388_607}], separators=(",", ":")).encode()


def test_what_is_no_json_is_never_plain():
    for at in range(len(WHOLE)):
        for spoiled in (WHOLE[:at], WHOLE[:at] + WHOLE[at + 1 :], WHOLE[:at] + b"\x00" + WHOLE[at + 1 :]):
            compare_or_refuse(spoiled)
    for body in (b"", b" ", b"[]", b"{}", b"[{}]", WHOLE + b"x", WHOLE + WHOLE, b"[" + WHOLE + b"]", b"null", b'"x"', b"[,]"):
        assert not compare_or_refuse(body)
    many = json.dumps([CHARGE] * (SALES_MAX + 1)).encode()
    assert not compare_or_refuse(many)


def compare_or_refuse(body):
    plain = read_charges(body)
    try:
        sales = [encode_sale(sale, 1_800_000_000) for sale in parse_sales(body)]
    except Rejection:
        assert plain is None
        return False
    assert plain in (None, sales)
    return plain is not None


def test_a_member_that_stands_twice_is_left_to_the_rules():
    whole = {**CHARGE, "attempt": 7}
    for name in whole:
        text = json.dumps(whole)
        assert read_charges(text.encode()) is not None
        assert read_charges(text.replace("{", "{" + json.dumps({name: whole[name]})[1:-1] + ",", 1).encode()) is None


@given(st.data())
def test_any_bytes_changed(data):
    raw = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from(b'"{}[]\\,:0193aZ=/_- \x00\xff'))
    compare_or_refuse(bytes(raw))
