"""Aim: challenges come back from the header as they went in, whatever stands beside them, and their ids bind every parameter.
Method: round trips; headers as other servers write them; each parameter changed in turn."""

import dataclasses
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan.mpp.challenge import (
    Challenge,
    format_time,
    is_made_by,
    make_challenge,
    make_id,
    parse_challenges,
    parse_time,
    read_challenge,
)
from paychan.mpp.text import encode_bytes

SECRET = b"s" * 32
FULL = make_challenge(
    SECRET,
    "shop.example",
    "eyJhIjoxfQ",
    "2026-11-27T14:00:00Z",
    digest="sha-256=:abc=:",
    opaque="e30",
    header="Payment-Authorization",
    description='five "satoshi", a call',
)
BARE = make_challenge(SECRET, "shop.example", "eyJhIjoxfQ")


@pytest.mark.parametrize("challenge", [FULL, BARE])
def test_a_challenge_comes_back_as_it_was_rendered(challenge):
    assert parse_challenges([challenge.render()]) == [challenge]
    assert read_challenge({**challenge.params(), "unknown": "is left aside"}) == challenge


def test_several_challenges_stand_in_one_header_beside_other_schemes():
    value = f'Bearer realm="a, b", {BARE.render()}, Basic YWJj==, Negotiate, {FULL.render()},, Digest qop="auth",nonce=abc'
    assert parse_challenges([value, FULL.render()]) == [BARE, FULL, FULL]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Payment",
        "Payment abc==",
        'Payment id="a", realm="b", method="c", intent="d"',
        'Payment id="", realm="b", method="c", intent="d", request="e"',
        'Payment id="a", id="a", realm="b", method="c", intent="d", request="e"',
        'Payment id="a, realm="b", method="c", intent="d", request="e"',
        'Bearer id="a", realm="b", method="c", intent="d", request="e"',
        "\x00" * 9,
        "x" * 100_000,
    ],
)
def test_what_is_no_challenge_is_left_out(value):
    assert parse_challenges([value]) == []


@given(st.text())
def test_no_header_breaks_the_reading(value):
    assert all(isinstance(found, Challenge) for found in parse_challenges([value, 'Payment id="a", ' + value]))


@given(st.text("".join(map(chr, range(32, 127))), min_size=1))
def test_any_printable_text_survives_the_quotes(text):
    challenge = make_challenge(SECRET, text, "e30", description=text)
    assert parse_challenges([challenge.render()]) == [challenge]


@pytest.mark.parametrize("name", [row.name for row in dataclasses.fields(Challenge) if row.name not in ("id", "description")])
def test_the_id_binds_each_parameter(name):
    assert is_made_by(SECRET, FULL.params())
    assert not is_made_by(SECRET, {**FULL.params(), name: "another"})
    assert not is_made_by(SECRET, {key: value for key, value in FULL.params().items() if key != name})
    assert not is_made_by(b"another secret", FULL.params())


def test_the_id_is_what_the_text_says():
    slots = "shop.example|bitcoin|session|eyJhIjoxfQ|||"
    assert BARE.id == encode_bytes(hmac.new(SECRET, slots.encode(), hashlib.sha256).digest())
    full = "shop.example|bitcoin|session|eyJhIjoxfQ|2026-11-27T14:00:00Z|sha-256=:abc=:|e30|Payment-Authorization"
    assert FULL.id == encode_bytes(hmac.new(SECRET, full.encode(), hashlib.sha256).digest())


def test_another_implementation_makes_the_same_id():
    """pympp's, for the seven slots that both have in one order."""
    generate = pytest.importorskip("mpp").generate_challenge_id
    made = generate(
        secret_key=SECRET.decode(),
        realm="shop.example",
        method="bitcoin",
        intent="session",
        request={"a": 1},
        expires="2026-11-27T14:00:00Z",
    )
    assert make_challenge(SECRET, "shop.example", "eyJhIjoxfQ", "2026-11-27T14:00:00Z").id == made


def test_no_id_is_not_ours():
    assert not is_made_by(SECRET, {}) and not is_made_by(SECRET, {"id": "\ud800"})
    assert make_id(SECRET, {"realm": "\ud800"})


def test_times():
    assert parse_time(format_time(1_795_000_000)) == 1_795_000_000
    assert parse_time("2026-11-27T14:00:00+02:00") == parse_time("2026-11-27T12:00:00Z")
    assert FULL.expires_at == parse_time(FULL.expires) and BARE.expires_at is None
    for text in ("", "soon", "2026-11-27T14:00:00", "2026-13-27T14:00:00Z", "9" * 100):
        with pytest.raises(ValueError):
            parse_time(text)
