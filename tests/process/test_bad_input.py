"""Aim: whatever a client sends, it gets a 4xx with a stable code that names the guilty parameter, and nothing changes.

Method: one real system with an open channel and one that was never opened; tables of malformed, missing, repeated, oversized
and out-of-range input for each parameter and route, byte for byte over a socket, then random requests. After each refusal the
open channel must be as before and the other one still unknown; at the end the log must hold no trouble and no payment.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import quote

import pytest
from bitcoin.base58 import CBase58Data
from coincurve import PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paychan.core.outpoint import format_outpoint
from paychan.core.payment import Payment
from paychan.core.sender import Sender, sign_payment
from paychan.core.units import SECONDS_PER_HOUR
from tests.own_port_table import OWN_PORT, expected
from tests.raw_http import RawAnswer, ask, exchange
from tests.system import CHANGE_ADDRESS, DOORS, Payer, System, running

CLOCK_START = 1_795_329_876
EXP_TIME = CLOCK_START + 7 * 24 * SECONDS_PER_HOUR
YEAR_HOURS = 8760
SIX_HOURS, ONE_HOUR = 6 * SECONDS_PER_HOUR, SECONDS_PER_HOUR
GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY = PrivateKey(sha256(b"bad input").digest()).public_key
SENT: list[str] = []
"""Every payment that was sent: none may appear in the log."""


@dataclass
class Scene:
    """`victim` has an open channel; `stranger` has everything that an open needs, and was never opened."""

    system: System
    port: int
    victim: Payer
    stranger: Sender
    left: int = field(default=0)

    @property
    def door(self) -> str:
        return self.system.door

    @property
    def victim_path(self) -> str:
        return f"/v1/channels/{format_outpoint(self.victim.sender.terms.outpoint)}"

    @property
    def stranger_path(self) -> str:
        return f"/v1/channels/{format_outpoint(self.stranger.terms.outpoint)}"

    def ask(self, method: str, target: str | bytes, **rest) -> RawAnswer:
        return ask(self.port, method, target, **rest)

    def open_parameters(self) -> dict[str, str]:
        payment = sign_payment(self.stranger.terms, self.stranger.terms.funding_value - 100_000, self.stranger.key)
        return {
            "client_pubkey": self.stranger.terms.client_pubkey.hex(),
            "exp_time": str(EXP_TIME),
            "change_address": CHANGE_ADDRESS,
            "payment": sent(payment.encode()),
        }

    def check_unchanged(self) -> None:
        """The victim's newest payment is still its newest, and the stranger's channel does not exist."""
        newest = self.victim.newest.encode()
        answer = self.ask("PUT", f"{self.victim_path}?payment={newest}")
        assert (answer.status, answer.json["value_received"], answer.json["channel_value_left"]) == (200, 0, self.left)
        answer = self.ask("PUT", f"{self.stranger_path}?payment={newest}")
        assert (answer.status, answer.code) == (404, "no_such_channel")


@pytest.fixture(scope="module", params=DOORS)
def scene(tmp_path_factory, request):
    server = {"duration_hours_max = ": f"duration_hours_max = {YEAR_HOURS}"}
    clock = {"PAYCHAN_CLOCK_START": str(CLOCK_START)}
    SENT.clear()
    with running(tmp_path_factory.mktemp("bad"), env=clock, changes={"server.toml": server}, door=request.param) as system:
        victim = system.payer("victim", now=CLOCK_START)
        assert victim.open().status == 201
        assert victim.pay(1000).status == 200
        SENT.append(victim.newest.encode())
        yield Scene(system, system.asked_port, victim, system.payer("stranger", now=CLOCK_START).sender, victim.sender.change_value)


def sent(payment: str) -> str:
    SENT.append(payment)
    return payment


def check_refused(scene: Scene, answer: RawAnswer, code: str, parameter: str = "", status: int = 400) -> None:
    assert (answer.status, answer.code, answer.json.get("parameter", "")) == (status, code, parameter)
    assert answer.json["status"] == status
    assert answer.json["detail"]
    assert answer.has_cors
    assert "location" not in answer.headers
    scene.check_unchanged()


def with_changes(parameters: dict[str, str], **changes: str | None) -> str:
    """Return a query; a value of None leaves the parameter out."""
    merged: dict[str, str | None] = {**parameters, **changes}
    return "&".join(f"{name}={value}" for name, value in merged.items() if value is not None)


# --- client_pubkey and exp_time: fundingInfo and open ---

X = KEY.format()[1:].hex()
OFF_CURVE = "0000000000000000000000000000000000000000000000000000000000000005"  # 5^3 + 7 is no square

PUBKEYS: list[tuple[str, str | None, str]] = [
    ("missing", None, "missing_parameter"),
    ("empty", "", "invalid_pubkey"),
    ("one digit", "0", "invalid_pubkey"),
    ("no hex", "zz" * 33, "invalid_pubkey"),
    ("odd number of digits", "02" + X[:-1], "invalid_pubkey"),
    ("32 bytes", X, "invalid_pubkey"),
    ("trailing byte", "02" + X + "00", "invalid_pubkey"),
    ("65 bytes", KEY.format(compressed=False).hex(), "invalid_pubkey"),
    ("hybrid, 65 bytes", "06" + KEY.format(compressed=False)[1:].hex(), "invalid_pubkey"),
    ("hybrid byte, 33 bytes", "06" + X, "invalid_pubkey"),
    ("uncompressed byte, 33 bytes", "04" + X, "invalid_pubkey"),
    ("prefix 00", "00" + X, "invalid_pubkey"),
    ("prefix 05", "05" + X, "invalid_pubkey"),
    ("all zero", "00" * 33, "invalid_pubkey"),
    ("x = 0", "02" + "00" * 32, "invalid_pubkey"),
    ("x not on the curve", "02" + OFF_CURVE, "invalid_pubkey"),
    ("x at the field's size", "02" + "f" * 55 + "efffffc2f", "invalid_pubkey"),
    ("x = 2^256-1", "02" + "ff" * 32, "invalid_pubkey"),
    ("0x before it", "0x02" + X, "invalid_pubkey"),
    ("blank before it", "%2002" + X, "invalid_pubkey"),
    ("plus before it", "+02" + X, "invalid_pubkey"),
    ("newline after it", "02" + X + "%0a", "invalid_pubkey"),
    ("NUL after it", "02" + X + "%00", "invalid_pubkey"),
    ("wide digits", "02" + quote("０") + X[1:], "invalid_pubkey"),
    ("not UTF-8", "%ff%fe", "invalid_pubkey"),
    ("bad escape", "%zz" + X, "invalid_pubkey"),
    ("escape cut off", "02" + X + "%0", "invalid_pubkey"),
    ("oversized", "02" * 700, "invalid_pubkey"),
    ("repeated", f"02{X}&client_pubkey=02{X}", "repeated_parameter"),
    ("repeated, first empty", f"&client_pubkey=02{X}", "repeated_parameter"),
    ("repeated with ;", f"02{X};client_pubkey=02{X}", "repeated_parameter"),
]

EXP_TIMES: list[tuple[str, str | None, str]] = [
    ("missing", None, "missing_parameter"),
    ("empty", "", "invalid_exp_time"),
    ("word", "tomorrow", "invalid_exp_time"),
    ("zero", "0", "invalid_exp_time"),
    ("-1", "-1", "invalid_exp_time"),
    ("-0", "-0", "invalid_exp_time"),
    ("last block height", "499999999", "invalid_exp_time"),
    ("first time", "500000000", "exp_time_too_soon"),
    ("now", str(CLOCK_START), "exp_time_too_soon"),
    ("2^32-1", "4294967295", "exp_time_too_far"),
    ("2^32", "4294967296", "invalid_exp_time"),
    ("2^32 + good", str((1 << 32) + EXP_TIME), "invalid_exp_time"),
    ("2^64", str(1 << 64), "invalid_exp_time"),
    ("2^64 + good", str((1 << 64) + EXP_TIME), "invalid_exp_time"),
    ("1000 digits", "9" * 1000, "invalid_exp_time"),
    ("exponent", "1e9", "invalid_exp_time"),
    ("huge exponent", "1e999999999", "invalid_exp_time"),
    ("fraction", "1.5", "invalid_exp_time"),
    ("zero fraction", f"{EXP_TIME}.0", "invalid_exp_time"),
    ("leading zero", f"0{EXP_TIME}", "invalid_exp_time"),
    ("plus, which is a blank", f"+{EXP_TIME}", "invalid_exp_time"),
    ("escaped plus", f"%2b{EXP_TIME}", "invalid_exp_time"),
    ("blank before it", f"%20{EXP_TIME}", "invalid_exp_time"),
    ("blank after it", f"{EXP_TIME}%20", "invalid_exp_time"),
    ("newline after it", f"{EXP_TIME}%0a", "invalid_exp_time"),
    ("NUL after it", f"{EXP_TIME}%00", "invalid_exp_time"),
    ("hex", hex(EXP_TIME), "invalid_exp_time"),
    ("underscores", f"{EXP_TIME:_}", "invalid_exp_time"),
    ("thousands", f"{EXP_TIME:,}", "invalid_exp_time"),
    ("NaN", "NaN", "invalid_exp_time"),
    ("Infinity", "Infinity", "invalid_exp_time"),
    ("quoted", f"%22{EXP_TIME}%22", "invalid_exp_time"),
    ("null", "null", "invalid_exp_time"),
    ("arabic digits", quote("١٧٩٥٩٣٤٦٧٦"), "invalid_exp_time"),
    ("wide digits", quote("１７９５９３４６７６"), "invalid_exp_time"),
    ("superscripts", quote("²") * 10, "invalid_exp_time"),
    ("not UTF-8", "%ff", "invalid_exp_time"),
    ("bad escape", f"{EXP_TIME}%", "invalid_exp_time"),
    ("repeated", f"{EXP_TIME}&exp_time={EXP_TIME}", "repeated_parameter"),
    ("repeated, one empty", f"{EXP_TIME}&exp_time=", "repeated_parameter"),
]

KEY_ROWS = [("client_pubkey", *row) for row in PUBKEYS] + [("exp_time", *row) for row in EXP_TIMES]


@pytest.mark.parametrize("route", ["fundingInfo", "open"])
@pytest.mark.parametrize(("parameter", "_", "value", "code"), KEY_ROWS, ids=[f"{row[0]} {row[1]}" for row in KEY_ROWS])
def test_client_pubkey_and_exp_time(scene, route, parameter, _, value, code):
    query = with_changes(scene.open_parameters(), **{parameter: value})
    method, path = ("GET", "/v1/fundingInfo") if route == "fundingInfo" else ("POST", "/v1/channels/new")
    check_refused(scene, scene.ask(method, f"{path}?{query}"), code, parameter)


@pytest.mark.parametrize("route", ["fundingInfo", "open"])
def test_the_servers_own_key(scene, route):
    query = with_changes(scene.open_parameters(), client_pubkey=scene.system.server_pubkey.hex().upper())
    method, path = ("GET", "/v1/fundingInfo") if route == "fundingInfo" else ("POST", "/v1/channels/new")
    check_refused(scene, scene.ask(method, f"{path}?{query}"), "pubkey_is_servers", "client_pubkey")


def test_the_edges_of_exp_time_to_the_second(scene):
    """The clock goes on, so the edges are looked for until both are seen within one second of the server's."""
    span = YEAR_HOURS * SECONDS_PER_HOUR - SIX_HOURS - ONE_HOUR
    key = KEY.format().hex()

    def code_at(exp_time: int) -> str:
        answer = scene.ask("GET", f"/v1/fundingInfo?client_pubkey={key}&exp_time={exp_time}")
        assert answer.status == (400 if answer.code else 200)
        return answer.code

    soonest = CLOCK_START + SIX_HOURS + ONE_HOUR
    for _ in range(600):
        while code_at(soonest) == "exp_time_too_soon":
            soonest += 1
        edges = [code_at(exp_time) for exp_time in (soonest - 1, soonest + span, soonest + span + 1)]
        if code_at(soonest) == "":  # so the clock stood still meanwhile
            break
    assert soonest - CLOCK_START - SIX_HOURS - ONE_HOUR < 600
    assert edges == ["exp_time_too_soon", "", "exp_time_too_far"]


# --- change_address: open and pay ---


def base58(version: int, size: int = 20) -> str:
    return str(CBase58Data.from_bytes(bytes(range(size)), version))


CHANGE_ADDRESSES: list[tuple[str, str | None, str]] = [
    ("empty", "", "invalid_change_address"),
    ("mainnet P2PKH", base58(0x00), "invalid_change_address"),
    ("mainnet P2SH", base58(0x05), "invalid_change_address"),
    ("private key's version", base58(0xEF, 32), "invalid_change_address"),
    ("unknown version", base58(0x1A), "invalid_change_address"),
    ("19 bytes", base58(0x6F, 19), "invalid_change_address"),
    ("21 bytes", base58(0x6F, 21), "invalid_change_address"),
    ("no bytes", base58(0x6F, 0), "invalid_change_address"),
    ("bad checksum", CHANGE_ADDRESS[:-1] + "6", "invalid_change_address"),
    ("one character short", CHANGE_ADDRESS[:-1], "invalid_change_address"),
    ("lower case", CHANGE_ADDRESS.lower(), "invalid_change_address"),
    ("characters that base58 leaves out", "m0OIl" + CHANGE_ADDRESS[5:], "invalid_change_address"),
    ("bech32 of another network", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "invalid_change_address"),
    ("bech32 with a slip", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsq", "invalid_change_address"),
    ("bech32 in mixed case", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsX", "invalid_change_address"),
    ("bech32 where bech32m belongs", "tb1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqglt7rf", "invalid_change_address"),
    ("bech32 of mainnet", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "invalid_change_address"),
    ("blank after it", CHANGE_ADDRESS + "%20", "invalid_change_address"),
    ("newline after it", CHANGE_ADDRESS + "%0a", "invalid_change_address"),
    ("NUL after it", CHANGE_ADDRESS + "%00", "invalid_change_address"),
    ("not UTF-8", "%ff%fe", "invalid_change_address"),
    ("not ASCII", quote("m" + "é" * 33), "invalid_change_address"),
    ("bad escape", CHANGE_ADDRESS + "%g0", "invalid_change_address"),
    ("oversized", "m" * 1500, "invalid_change_address"),
    ("repeated", f"{CHANGE_ADDRESS}&change_address={CHANGE_ADDRESS}", "repeated_parameter"),
]
CHANGE_IDS = [row[0] for row in CHANGE_ADDRESSES]


@pytest.mark.parametrize(
    ("_", "value", "code"), [("missing", None, "missing_parameter"), *CHANGE_ADDRESSES], ids=["missing", *CHANGE_IDS]
)
def test_change_address_on_open(scene, _, value, code):
    query = with_changes(scene.open_parameters(), change_address=value)
    check_refused(scene, scene.ask("POST", f"/v1/channels/new?{query}"), code, "change_address")


@pytest.mark.parametrize(("_", "value", "code"), CHANGE_ADDRESSES, ids=CHANGE_IDS)
def test_change_address_on_pay(scene, _, value, code):
    """v1 ignores it there, but has always refused a bad one."""
    payment = sign_payment(scene.victim.sender.terms, scene.left - 1, scene.victim.sender.key)
    answer = scene.ask("PUT", f"{scene.victim_path}?payment={sent(payment.encode())}&change_address={value}")
    check_refused(scene, answer, code, "change_address")


# --- payment: open, pay and close ---


def resigned(sender: Sender, sighash_type: int, change_value: int | None = None) -> str:
    """A payment with a valid signature of its own, under another type byte."""
    good = sign_payment(sender.terms, sender.change_value - 1000, sender.key)
    return Payment(good.change_value if change_value is None else change_value, good.signature, sighash_type).encode()


def valued(sender: Sender, change_value: int, sighash_type: int = 0x83) -> str:
    """A payment of any change value, with a signature over something else."""
    good = sign_payment(sender.terms, sender.change_value - 1000, sender.key)
    return Payment(change_value, good.signature, sighash_type).encode()


def with_high_s(sender: Sender) -> str:
    good = sign_payment(sender.terms, sender.change_value - 1000, sender.key)
    r_size = good.signature[3]
    s = int.from_bytes(good.signature[6 + r_size :], "big")
    high = (GROUP_ORDER - s).to_bytes(33, "big")
    inner = good.signature[2 : 4 + r_size] + b"\x02" + bytes((len(high),)) + high
    return Payment(good.change_value, b"\x30" + bytes((len(inner),)) + inner, 0x83).encode()


def with_der(sender: Sender, change: Callable[[bytes], bytes]) -> str:
    good = sign_payment(sender.terms, sender.change_value - 1000, sender.key)
    return Payment(good.change_value, change(good.signature), 0x83).encode()


def padded_r(der: bytes) -> bytes:
    return b"\x30" + bytes((der[1] + 1, 2, der[3] + 1)) + b"\0" + der[4:]


def good_text(sender: Sender) -> str:
    return sign_payment(sender.terms, sender.change_value - 100_000, sender.key).encode()


STRANGERS_KEY = PrivateKey(sha256(b"somebody else").digest())

# name, payment, code on open, code on pay, code on close
PAYMENTS: list[tuple[str, Callable[[Sender], str], str, str, str]] = [
    (name, make, code, code, code)
    for name, make, code in [
        ("empty", lambda s: "", "invalid_payment"),
        ("one pad", lambda s: "=", "invalid_base64"),
        ("four pads", lambda s: "====", "invalid_base64"),
        ("one character", lambda s: "A", "invalid_base64"),
        ("3 bytes", lambda s: "AAAA", "invalid_payment"),
        ("value alone", lambda s: "AAAAAAAAAAA=", "invalid_payment"),
        ("no base64", lambda s: "!!!!", "invalid_base64"),
        ("standard alphabet", lambda s: "%2B%2F" + good_text(s)[2:], "invalid_base64"),
        ("plus, which is a blank", lambda s: "+" + good_text(s)[1:], "invalid_base64"),
        ("blank inside", lambda s: good_text(s)[:50] + "%20" + good_text(s)[51:], "invalid_base64"),
        ("NUL inside", lambda s: good_text(s)[:50] + "%00" + good_text(s)[51:], "invalid_base64"),
        ("not UTF-8", lambda s: "%ff%fe%fd%fc", "invalid_base64"),
        ("wide letter", lambda s: quote("Ａ") + good_text(s)[:97], "invalid_base64"),
        ("bad escape", lambda s: good_text(s)[:50] + "%zz", "invalid_base64"),
        ("escape cut off", lambda s: good_text(s)[:50] + "%4", "invalid_base64"),
        ("pad in the middle", lambda s: good_text(s)[:50] + "=" + good_text(s)[51:], "invalid_base64"),
        ("escaped twice", lambda s: good_text(s)[:100] + "%2541", "invalid_base64"),
        ("oversized", lambda s: "A" * 1500, "invalid_payment"),
        ("oversized and no base64", lambda s: "*" * 1500, "invalid_payment"),
        ("truncated", lambda s: good_text(s)[:80], "invalid_der"),
        ("17 zero bytes", lambda s: "A" * 22 + "A=", "invalid_der"),
        ("80 zero bytes", lambda s: "A" * 107 + "=", "invalid_der"),
        ("sequence tag", lambda s: with_der(s, lambda der: b"\x31" + der[1:]), "invalid_der"),
        ("integer tag", lambda s: with_der(s, lambda der: der[:2] + b"\x03" + der[3:]), "invalid_der"),
        ("sequence length", lambda s: with_der(s, lambda der: der[:1] + bytes((der[1] - 1,)) + der[2:]), "invalid_der"),
        ("R's length is huge", lambda s: with_der(s, lambda der: der[:3] + b"\xff" + der[4:]), "invalid_der"),
        ("R is negative", lambda s: with_der(s, lambda der: bytes.fromhex("3006020181020101")), "invalid_der"),
        ("R without bytes", lambda s: with_der(s, lambda der: bytes.fromhex("300602000202ffff")), "invalid_der"),
        ("indefinite length", lambda s: with_der(s, lambda der: b"\x30\x80" + der[2:]), "invalid_der"),
        ("high S", with_high_s, "high_s"),
        ("type 0x00", lambda s: resigned(s, 0x00), "invalid_sighash_type"),
        ("type 0x01", lambda s: resigned(s, 0x01), "invalid_sighash_type"),
        ("type 0x02", lambda s: resigned(s, 0x02), "invalid_sighash_type"),
        ("type 0x03", lambda s: resigned(s, 0x03), "invalid_sighash_type"),
        ("type 0x81", lambda s: resigned(s, 0x81), "invalid_sighash_type"),
        ("type 0xc3", lambda s: resigned(s, 0xC3), "invalid_sighash_type"),
        ("type 0xff", lambda s: resigned(s, 0xFF), "invalid_sighash_type"),
        ("0x82 with a value", lambda s: resigned(s, 0x82), "change_value_not_zero"),
        ("0x82 with value 1", lambda s: resigned(s, 0x82, 1), "change_value_not_zero"),
        ("0x83 with value 0", lambda s: valued(s, 0), "dust_change"),
        ("0x83 with value 1", lambda s: valued(s, 1), "dust_change"),
        ("0x83 with value 699", lambda s: valued(s, 699), "dust_change"),
        ("above 21M BTC", lambda s: valued(s, 2_100_000_000_000_001), "change_value_range"),
        ("2^63", lambda s: valued(s, 1 << 63), "change_value_range"),
        ("2^64-1", lambda s: valued(s, (1 << 64) - 1), "change_value_range"),
    ]
] + [
    ("trailing byte", lambda s: with_der(s, lambda der: der + b"\0"), "invalid_der", "invalid_der", "invalid_der"),
    ("R padded", lambda s: with_der(s, padded_r), "invalid_der", "invalid_der", "invalid_der"),
    (
        "signed by another key",
        lambda s: sign_payment(s.terms, s.change_value - 100_000, STRANGERS_KEY).encode(),
        "bad_signature",
        "bad_signature",
        "not_newest_payment",
    ),
    (
        "value changed after signing",
        lambda s: valued(s, s.change_value - 100_000),
        "bad_signature",
        "bad_signature",
        "not_newest_payment",
    ),
    (
        "0x82 over another hash",
        lambda s: resigned(s, 0x82, 0),
        "bad_signature",
        "bad_signature",
        "not_newest_payment",
    ),
    (
        "R = 0",
        lambda s: with_der(s, lambda der: bytes.fromhex("3006020100020101")),
        "bad_signature",
        "bad_signature",
        "not_newest_payment",
    ),
    (
        "more than is left",
        lambda s: valued(s, s.terms.funding_value + 1),
        "change_value_range",
        "bad_signature",
        "not_newest_payment",
    ),
]


@pytest.mark.parametrize(("_", "make", "code", "pay_code", "close_code"), PAYMENTS, ids=[row[0] for row in PAYMENTS])
def test_payment_on_open(scene, _, make, code, pay_code, close_code):
    query = with_changes(scene.open_parameters(), payment=sent(make(scene.stranger)))
    check_refused(scene, scene.ask("POST", f"/v1/channels/new?{query}"), code, "payment")


@pytest.mark.parametrize(("_", "make", "open_code", "code", "close_code"), PAYMENTS, ids=[row[0] for row in PAYMENTS])
def test_payment_on_pay(scene, _, make, open_code, code, close_code):
    answer = scene.ask("PUT", f"{scene.victim_path}?payment={sent(make(scene.victim.sender))}")
    check_refused(scene, answer, code, "payment")


@pytest.mark.parametrize(("_", "make", "open_code", "pay_code", "code"), PAYMENTS, ids=[row[0] for row in PAYMENTS])
def test_payment_on_close(scene, _, make, open_code, pay_code, code):
    answer = scene.ask("DELETE", f"{scene.victim_path}?payment={sent(make(scene.victim.sender))}")
    check_refused(scene, answer, code, "payment")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
@pytest.mark.parametrize(
    ("form", "code"),
    [
        ("", "missing_parameter"),
        ("payment", "missing_parameter"),
        ("Payment={0}", "missing_parameter"),
        ("payments={0}", "missing_parameter"),
        ("%70ayment={0}", "missing_parameter"),
        ("xpayment={0}", "missing_parameter"),
        ("payment={0}&payment={0}", "repeated_parameter"),
        ("payment={0};payment={0}", "repeated_parameter"),
        ("payment=&payment={0}", "repeated_parameter"),
    ],
)
def test_payment_missing_or_repeated(scene, method, form, code):
    if method == "POST":
        head = with_changes(scene.open_parameters(), payment=None)
        target = f"/v1/channels/new?{head}&{form.format(scene.open_parameters()['payment'])}"
    else:
        target = f"{scene.victim_path}?{form.format(scene.victim.newest.encode())}"
    check_refused(scene, scene.ask(method, target), code, "payment")


@pytest.mark.parametrize("received", [0, 1, 83_239])
def test_an_initial_payment_below_the_price(scene, received):
    terms = scene.stranger.terms
    payment = sign_payment(terms, terms.funding_value - received, scene.stranger.key)
    query = with_changes(scene.open_parameters(), payment=sent(payment.encode()))
    answer = scene.ask("POST", f"/v1/channels/new?{query}")
    assert answer.json["detail"] == f"Initial payment short: open price is 83240 satoshi, received {received} satoshi"
    check_refused(scene, answer, "open_price_short", "payment")


# --- the outpoint: in the path of pay and close, and in open's query ---

TXIDS: list[tuple[str, Callable[[str], str]]] = [
    ("63 digits", lambda txid: txid[:-1]),
    ("65 digits", lambda txid: txid + "0"),
    ("66 digits", lambda txid: txid + "00"),
    ("one digit", lambda txid: "0"),
    ("no hex", lambda txid: "g" + txid[1:]),
    ("0x before it", lambda txid: "0x" + txid[2:]),
    ("blank before it", lambda txid: "%20" + txid),
    ("blank inside", lambda txid: "%20" + txid[1:]),
    ("newline after it", lambda txid: txid + "%0a"),
    ("NUL after it", lambda txid: txid + "%00"),
    ("line break and header", lambda txid: "x%0d%0aSet-Cookie:%20a=b"),
    ("wide digit", lambda txid: quote("０") + txid[1:]),
    ("not UTF-8", lambda txid: "%ff" + txid[1:]),
    ("bad escape", lambda txid: "%zz" + txid[3:]),
]
VOUTS: list[tuple[str, Callable[[int], str]]] = [
    ("word", lambda vout: "x"),
    ("-1", lambda vout: "-1"),
    ("-0", lambda vout: "-0"),
    ("00", lambda vout: "00"),
    ("leading zero", lambda vout: f"0{vout}"),
    ("leading zeros to ten digits", lambda vout: f"{vout:010}"),
    ("escaped plus", lambda vout: f"%2b{vout}"),
    ("blank before it", lambda vout: f"%20{vout}"),
    ("blank after it", lambda vout: f"{vout}%20"),
    ("newline after it", lambda vout: f"{vout}%0a"),
    ("NUL after it", lambda vout: f"{vout}%00"),
    ("zero fraction", lambda vout: f"{vout}.0"),
    ("fraction", lambda vout: f"{vout}.5"),
    ("exponent", lambda vout: f"{vout}e0"),
    ("huge exponent", lambda vout: "1e999999999"),
    ("hex", lambda vout: f"0x{vout}"),
    ("2^32", lambda vout: str(1 << 32)),
    ("2^32 + vout", lambda vout: str((1 << 32) + vout)),
    ("2^64 + vout", lambda vout: str((1 << 64) + vout)),
    ("500 digits", lambda vout: "1" * 500),
    ("underscore", lambda vout: f"{vout}_0"),
    ("arabic digit", lambda vout: quote("٤")),
    ("superscript", lambda vout: quote("⁴")),
    ("not UTF-8", lambda vout: "%ff"),
    ("bad escape", lambda vout: f"{vout}%"),
]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(("_", "change"), TXIDS, ids=[row[0] for row in TXIDS])
def test_txid_in_the_path(scene, method, _, change):
    txid, vout = scene.victim_path.split("/")[3:]
    answer = scene.ask(method, f"/v1/channels/{change(txid)}/{vout}?payment={scene.victim.newest.encode()}")
    assert "set-cookie" not in answer.headers
    check_refused(scene, answer, "invalid_txid", "funding_txid")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(("_", "change"), [*VOUTS, ("plus", lambda vout: f"+{vout}")], ids=[*(row[0] for row in VOUTS), "plus"])
def test_vout_in_the_path(scene, method, _, change):
    txid, vout = scene.victim_path.split("/")[3:]
    answer = scene.ask(method, f"/v1/channels/{txid}/{change(int(vout))}?payment={scene.victim.newest.encode()}")
    check_refused(scene, answer, "invalid_vout", "funding_vout")


OUTPOINTS = [("funding_txid", *row) for row in TXIDS] + [("funding_vout", *row) for row in VOUTS]


@pytest.mark.parametrize(("parameter", "_", "change"), OUTPOINTS, ids=[f"{row[0]} {row[1]}" for row in OUTPOINTS])
def test_the_outpoint_in_opens_query(scene, parameter, _, change):
    txid, vout = scene.stranger_path.split("/")[3:]
    outpoint = {"funding_txid": txid, "funding_vout": vout}
    outpoint[parameter] = change(txid if parameter == "funding_txid" else int(vout))
    query = with_changes(scene.open_parameters(), **outpoint)
    code = "invalid_txid" if parameter == "funding_txid" else "invalid_vout"
    check_refused(scene, scene.ask("POST", f"/v1/channels/new?{query}"), code, parameter)


@pytest.mark.parametrize(
    ("extra", "code", "parameter"),
    [
        ("funding_txid={0}", "missing_parameter", "funding_vout"),
        ("funding_vout={1}", "missing_parameter", "funding_txid"),
        ("funding_txid=&funding_vout={1}", "invalid_txid", "funding_txid"),
        ("funding_txid={0}&funding_vout=", "invalid_vout", "funding_vout"),
        ("funding_txid={0}&funding_vout={1}&funding_vout={1}", "repeated_parameter", "funding_vout"),
        ("funding_txid={0}&funding_txid={0}&funding_vout={1}", "repeated_parameter", "funding_txid"),
        ("funding_txid={0}&funding_vout=6", "bad_signature", "payment"),
        ("funding_txid=" + "00" * 32 + "&funding_vout={1}", "bad_signature", "payment"),
    ],
)
def test_half_an_outpoint_or_another(scene, extra, code, parameter):
    txid, vout = scene.stranger_path.split("/")[3:]
    assert vout != "6"
    query = with_changes(scene.open_parameters()) + "&" + extra.format(txid, vout)
    check_refused(scene, scene.ask("POST", f"/v1/channels/new?{query}"), code, parameter)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_spellings_that_http_itself_makes_equal(scene, method):
    """%-escapes of the path, and the case of hex digits, name the same channel and never a second one."""
    txid, vout = scene.victim_path.split("/")[3:]
    older = sign_payment(scene.victim.sender.terms, scene.left + 1, scene.victim.sender.key).encode()
    for spelled in (f"{txid.upper()}/{vout}", f"{txid}/%3{vout}", f"%{ord(txid[0]):02x}{txid[1:]}/{vout}", f"{txid}/{vout}/x"):
        answer = scene.ask(method, f"/v1/channels/{spelled}?payment={sent(older)}")
        check_refused(scene, answer, "out_of_order" if method == "PUT" else "not_newest_payment", "payment")


# --- routes, methods, sizes, bodies, headers ---


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("GET", "/v2/fundingInfo"),
        ("GET", "/V1/fundingInfo"),
        ("GET", "/v1/fundinginfo"),
        ("GET", "/v1/fundingInfos"),
        ("GET", "//v1/fundingInfo"),
        ("GET", "/v1//fundingInfo"),
        ("GET", "/v1/%ff"),
        ("GET", "/v1/é".encode()),
        ("GET", "/v1/channels"),
        ("GET", "/v1/channels/"),
        ("GET", "/v1/channels/new"),
        ("GET", "{channel}"),
        ("GET", "/admin/reload"),
        ("GET", "/.env"),
        ("GET", "/healthz/"),
        ("POST", "/healthz"),
        ("POST", "/v1/fundingInfo"),
        ("POST", "{channel}"),
        ("POST", "/v1/channels"),
        ("PUT", "/v1/channels/new"),
        ("PUT", "/v1/channels/{txid}"),
        ("PUT", "/v1/channels/{txid}/"),
        ("PUT", "*"),
        ("GET", "*"),
        ("DELETE", "/v1/channels/{txid}"),
        ("DELETE", "/v1/channels/new"),
        ("DELETE", "/v1/fundingInfo"),
        ("PATCH", "{channel}"),
        ("TRACE", "{channel}"),
        ("put", "{channel}"),
        ("BREW", "{channel}"),
        ("CONNECT", "{channel}"),
    ],
)
def test_unknown_routes_and_methods(scene, method, path):
    named = f"{method} {path if isinstance(path, str) else path.decode()}"
    status, code = expected(scene.door, named, 404, "no_such_route")
    if isinstance(path, str) and path != "*":
        path = path.format(channel=scene.victim_path, txid=scene.victim_path.split("/")[3])
        path += f"?payment={scene.victim.newest.encode()}"
    check_refused(scene, scene.ask(method, path), code, status=status)


def test_an_empty_txid(scene):
    payment = scene.victim.newest.encode()
    check_refused(scene, scene.ask("PUT", f"/v1/channels//0?payment={payment}"), "invalid_txid", "funding_txid")
    check_refused(scene, scene.ask("DELETE", f"/v1/channels//0?payment={payment}"), "no_such_route", status=404)


@pytest.mark.parametrize("path", ["/v1/channels/new", "/", "{channel}?payment={payment}"])
def test_head_of_what_has_no_get(scene, path):
    payment = sign_payment(scene.victim.sender.terms, scene.left - 1, scene.victim.sender.key)
    answer = scene.ask("HEAD", path.format(channel=scene.victim_path, payment=sent(payment.encode())))
    assert (answer.status, answer.body, answer.has_cors) == (404, b"", True)
    scene.check_unchanged()


@pytest.mark.parametrize("path", ["{channel}?payment={payment}", "/v1/channels/new?payment={payment}", "*"])
def test_options_does_nothing(scene, path):
    payment = sign_payment(scene.victim.sender.terms, scene.left - 1, scene.victim.sender.key)
    answer = scene.ask("OPTIONS", path.format(channel=scene.victim_path, payment=sent(payment.encode())))
    assert (answer.status, answer.body, answer.has_cors) == (200, b"", True)
    scene.check_unchanged()


ROUTES = ["PUT", "DELETE", "POST", "GET"]


def target_of(scene: Scene, method: str) -> str:
    """A request that would be accepted but for what a test adds to it."""
    if method in ("PUT", "DELETE"):
        return f"{scene.victim_path}?payment={scene.victim.newest.encode()}"
    path = "/v1/channels/new" if method == "POST" else "/v1/fundingInfo"
    return f"{path}?{with_changes(scene.open_parameters())}"


@pytest.mark.parametrize("method", ROUTES)
@pytest.mark.parametrize("size", [2100, 8000, 15_000, 20_000, 60_000])
def test_long_queries(scene, method, size):
    """On the shared port, up to the HTTP layer's 16 kB we answer ourselves; beyond it does."""
    answer = scene.ask(method, f"{target_of(scene, method)}&x={'a' * size}")
    check_too_large(scene, answer, size)


def check_too_large(scene: Scene, answer: RawAnswer, size: int) -> None:
    status, code = expected(scene.door, f"target of {size}", 400 if size < 16_000 else 431, "request_too_large")
    if status != 431:
        check_refused(scene, answer, code, status=status)
    else:
        assert answer.status == status
        scene.check_unchanged()


@pytest.mark.parametrize("size", [1100, 8000, 15_000, 60_000])
def test_long_paths(scene, size):
    answer = scene.ask("PUT", f"/v1/channels/{'a' * size}/0?payment={scene.victim.newest.encode()}")
    check_too_large(scene, answer, size)


@pytest.mark.parametrize("method", ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Content-Length: 1000000000\r\n\r\n",
        b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_bodies(scene, method, body):
    head = f"{method} {target_of(scene, method)} HTTP/1.1\r\nHost: localhost\r\n".encode()
    named = next((case for case in OWN_PORT if case.encode() in body), "")
    status, code = expected(scene.door, named, 400, "body_not_allowed")
    check_refused(scene, exchange(scene.port, head + body), code, status=status)


ITEM = bytes(36) + b"\x05hello"
BATCHES = [
    ("no length", b"", b"", 411, "length_required"),
    ("chunked", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", 411, "length_required"),
    ("too long", b"Content-Length: 120833\r\n", b"", 413, "body_too_large"),
    ("one byte", b"Content-Length: 1\r\n", b"x", 400, "invalid_batch"),
    ("cut in the outpoint", b"Content-Length: 35\r\n", ITEM[:35], 400, "invalid_batch"),
    ("cut at the size", b"Content-Length: 36\r\n", ITEM[:36], 400, "invalid_batch"),
    ("cut in the payment", b"Content-Length: 41\r\n", ITEM[:41], 400, "invalid_batch"),
    ("a byte too many", b"Content-Length: 43\r\n", ITEM + b"x", 400, "invalid_batch"),
    ("1025 payments", b"Content-Length: 37925\r\n", bytes(37 * 1025), 400, "invalid_batch"),
]


@pytest.mark.parametrize(("name", "header", "body", "status", "code"), BATCHES, ids=[row[0] for row in BATCHES])
def test_bad_batches(scene, name, header, body, status, code):
    """Those whose list is good up to its last byte begin with a payment that would count."""
    payment = sign_payment(scene.victim.sender.terms, scene.left - 1, scene.victim.sender.key)
    if status == 400:
        raw = payment.serialize()
        body = scene.victim.sender.terms.outpoint + bytes((len(raw),)) + raw + body
        header = b"Content-Length: %d\r\n" % len(body)
    status, code = expected(scene.door, f"batch, {name}", status, code)
    answer = exchange(scene.port, b"POST /v1/payments HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n" + body)
    if status == 200:
        assert (answer.status, answer.body) == (200, b"")
        scene.check_unchanged()
    else:
        check_refused(scene, answer, code, status=status)


@pytest.mark.parametrize(
    "raw",
    [
        b"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n",
        b"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n",
        b"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        b"PUT {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"PUT {target} HTTP/1.1\r\nHost: a\r\nb ad: x\r\n\r\n",
        b"PUT {target} HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"PUT {target} HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 300 + b"\r\n",
        b"PUT {target} HTTP/9.9\r\nHost: a\r\n\r\n",
        b"PUT {target} HTTQ/1.1\r\nHost: a\r\n\r\n",
        b"PUT {target}\r\n\r\n",
        b"P\x00T {target} HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT {target}\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /v1/channels/\xff\xfe/0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT {target}&a=b c HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT {target}&a=\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b'PUT {target}&a=<>"{}|^` HTTP/1.1\r\nHost: a\r\n\r\n',
        b"GET v1/fundingInfo HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_before_it_reaches_us(scene, raw):
    target = f"{scene.victim_path}?payment={scene.victim.newest.encode()}".encode()
    answer = exchange(scene.port, raw.replace(b"{target}", target))
    if scene.door == "shared":
        assert answer.status in (0, 400, 414, 431)
    else:
        named = next((case for case in OWN_PORT if case.encode() in raw), "")
        at_all = 431 if len(raw) > 1000 else 400
        code = "head_too_large" if at_all == 431 else "malformed_request"
        assert (answer.status, answer.code) == expected("own", named, at_all, code)
        assert answer.has_cors
        assert answer.headers.get("connection", "") == ("close" if answer.status >= 400 else "")
    scene.check_unchanged()


HOSTS = [
    "a b",
    "a/b",
    "a@b",
    "user:word@a",
    "a\\b",
    "<script>",
    'a"b',
    "a'b",
    "a%0d%0aSet-Cookie:%20x=y",
    "a,b",
    "",
    "ä",
    "a\tb",
    "a\x7fb",
    "a:",
    "a:b",
    "a:80:80",
    "a:123456",
    "a?b",
    "a#b",
    "[::1",
    "[zz]",
    "[::1]x",
    "a" * 300,
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_strange_host_is_not_reflected(scene, host):
    """Location is relative, or the header is refused."""
    answer = scene.ask("GET", target_of(scene, "GET"), headers={"Host": host})
    assert answer.status in (200, 400)
    if answer.status == 200:
        location = answer.headers["location"]
        assert re.match(r"/v1/channels/new\?client_pubkey=\w+&exp_time=\d+\Z", location)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "pay.example.com", "pay_server:80", "10.0.0.1:1", "[::1]", "[::1]:8000"]
)
def test_an_ordinary_host_with_its_port_is(scene, host):
    answer = scene.ask("GET", target_of(scene, "GET"), headers={"Host": host})
    assert answer.headers["location"].startswith(f"http://{host}/v1/channels/new?")


# --- random requests ---

HEX = st.text("0123456789abcdef", min_size=60, max_size=70)
TEXT = st.text(max_size=40).map(lambda text: quote(text, safe=""))
RAW = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=60)
NAMES = st.sampled_from(
    ["client_pubkey", "exp_time", "change_address", "payment", "funding_txid", "funding_vout", "test", "", "payment%00"]
)
VALUES = st.one_of(
    TEXT,
    RAW,
    HEX,
    st.integers(-(1 << 70), 1 << 70).map(str),
    st.sampled_from([str(EXP_TIME), CHANGE_ADDRESS, "02" + X, "%", "%%", "=", "+", "1e999999999", "A" * 108, "%ff" * 100]),
    st.binary(max_size=90).map(lambda raw: quote(raw, safe="")),
)
PATHS = st.one_of(
    st.sampled_from(["/v1/fundingInfo", "/v1/channels/new", "/", "/v1/channels/"]),
    st.builds(lambda txid, vout: f"/v1/channels/{txid}/{vout}", st.one_of(HEX, TEXT, RAW), st.one_of(VALUES, st.just("0"))),
    RAW.map(lambda text: "/" + text),
)
QUERIES = st.lists(st.tuples(NAMES, VALUES, st.sampled_from("&;")), max_size=8).map(
    lambda parts: "".join(f"{end}{name}={value}" for name, value, end in parts)
)


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]), path=PATHS, query=QUERIES)
def test_random_requests_never_fail(scene, method, path, query):
    answer = scene.ask(method, f"{path}?{query}")
    assert 200 <= answer.status < 500
    if answer.status >= 400 and answer.body:
        assert answer.code
        assert answer.has_cors


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_changes_of_good_requests_never_fail(scene, data):
    """One to three bytes of a good open, pay or close are replaced; a pay or close that stays good is its repetition."""
    method = data.draw(st.sampled_from(["POST", "PUT", "GET"]))
    target = bytearray(target_of(scene, method).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        target[data.draw(st.integers(1, len(target) - 1))] = data.draw(st.integers(33, 126))
    if method == "POST" and ask(scene.port, "GET", bytes(target).replace(b"channels/new", b"fundingInfo")).status == 200:
        return  # it could open a channel
    answer = scene.ask(method, bytes(target))
    assert 200 <= answer.status < 500
    assert answer.status < 400 or answer.code or not answer.body
    scene.check_unchanged()


# --- at the end ---


def test_nothing_was_stored_so_the_stranger_can_still_open(scene):
    scene.check_unchanged()
    answer = scene.ask("POST", target_of(scene, "POST"))
    assert answer.status == 201


def test_the_log_holds_no_trouble_and_no_payment(scene):
    log = "".join(scene.system.output)
    assert "ready http" in log
    for word in ("Traceback", "internal error", "panicked", " 500", "ERROR", "Exception"):
        assert word not in log
    assert len(SENT) > 300
    assert not [payment for payment in SENT if len(payment) > 20 and payment[:20] in log]
    assert scene.system.server_pubkey.hex() in log  # so what is looked for would be found
