"""Aim: every payment vector gets its verdict over HTTP: the good ones to the satoshi, the bad ones change nothing.

Method: a fixture chain funds the channel that each vector describes, at its very outpoint. Vectors that put different channels
on one outpoint go to different systems, one after the other; the negative ones are tried both as opening and as later payment.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.network import TEST, decode_address
from paychan.core.outpoint import format_outpoint, parse_outpoint
from paychan.core.payment import Payment
from paychan.core.script import p2sh_script_pubkey
from paychan.core.sender import sign_payment
from tests.settled import settled_change
from tests.system import DOORS, ROOT, Answer, System, running

VECTORS = ROOT / "tests" / "vectors"
POSITIVE = {vector["note"]: vector for vector in json.loads((VECTORS / "positive-own.json").read_text())}
NEGATIVE = {vector["name"]: vector for vector in json.loads((VECTORS / "negative.json").read_text())}

CLIENT_KEY = PrivateKey(sha256(b"paychan test client").digest())
SERVER_KEY = sha256(b"paychan test server").hexdigest()
CLOCK_START = 1_899_000_000

CODES = {
    "parse": "invalid_payment",
    "bad_base64": "invalid_base64",
    "non_canonical_base64": "invalid_base64",
    "bad_der": "invalid_der",
    "trailing_bytes": "invalid_der",
    "high_s": "high_s",
    "bad_sighash_type": "invalid_sighash_type",
    "dust_change": "dust_change",
    "value_must_be_zero": "change_value_not_zero",
    "value_range": "change_value_range",
    "out_of_order": "out_of_order",
    "bad_signature": "bad_signature",
}
"""The vectors' word for what a strict checker finds, to our code for a payment on an open channel."""

TEXT_SIZE_MAX = 108
"""Characters of the longest payment; a longer text is refused for its length, whatever else is wrong with it."""

GREATER_BY_1 = "value greater than previous by 1"
OTHER_CHANNELS = ("wrong channel: vout", "wrong channel: exp_time", "wrong client key")
SAME_CHANNEL = [name for name in NEGATIVE if name not in (GREATER_BY_1, *OTHER_CHANNELS)]


class Channel:
    """The channel that a vector describes, on a system of its own."""

    def __init__(self, system: System, vector: dict) -> None:
        self.system, self.client, self.vector = system, system.client(), vector
        self.terms = terms_of(vector)
        self.path = f"/v1/channels/{format_outpoint(self.terms.outpoint)}"
        self.newest: str = ""
        self.left = vector["funding_value"]

    def open(self, payment: str) -> Answer:
        """Ask to open the channel on the vector's outpoint, which is named, for the address may have several."""
        return self.client.request(
            "POST",
            f"/v1/channels/new?client_pubkey={self.vector['client_pubkey']}&exp_time={self.vector['exp_time']}"
            f"&change_address={self.vector['change_address']}&payment={quote(payment, safe='')}"
            f"&funding_txid={self.vector['funding_txid']}&funding_vout={self.vector['funding_vout']}",
        )

    def pay(self, payment: str) -> Answer:
        return self.client.request("PUT", f"{self.path}?payment={quote(payment, safe='')}")

    def own_payment(self, change_value: int) -> Payment:
        return sign_payment(self.terms, change_value, CLIENT_KEY)

    def accept(self, answer: Answer, status: int, payment: str, received: int) -> None:
        """Check the answer to an accepted payment that leaves the channel open."""
        self.left -= received
        assert answer.status == status, answer.body
        assert answer.json == {
            "channel_status": "open",
            "channel_value_left": self.left,
            "value_received": received,
            "settlement_txid": None,
        }
        self.newest = payment

    def is_unchanged(self) -> bool:
        """Whether the newest payment is still the newest: its repetition pays nothing and leaves the same."""
        answer = self.pay(self.newest)
        return (answer.status, answer.json["value_received"], answer.json["channel_value_left"]) == (200, 0, self.left)

    def close(self) -> None:
        answer = self.client.request("DELETE", f"{self.path}?payment={quote(self.newest, safe='')}")
        assert answer.status == 202, answer.body
        self.check_settlement(answer)

    def check_settlement(self, answer: Answer) -> None:
        txid = answer.json["settlement_txid"]
        assert settled_change(self.system.broadcast()[txid], txid, self.terms) == self.left


def terms_of(vector: dict) -> ChannelTerms:
    return ChannelTerms(
        outpoint=parse_outpoint(vector["funding_txid"], str(vector["funding_vout"])),
        server_pubkey=bytes.fromhex(vector["server_pubkey"]),
        client_pubkey=bytes.fromhex(vector["client_pubkey"]),
        exp_time=vector["exp_time"],
        funding_value=vector["funding_value"],
        change_script=decode_address(TEST, vector["change_address"]),
    )


@contextmanager
def funded(directory: Path, door: str, *vectors: dict) -> Iterator[list[Channel]]:
    """Run a system whose chain has the vectors' funding outputs; yield their channels."""
    funding_file = directory / "funding.json"
    outputs = [
        {
            "txid": vector["funding_txid"],
            "vout": vector["funding_vout"],
            "value": vector["funding_value"],
            "script_pubkey": p2sh_script_pubkey(terms_of(vector).redeem_script).hex(),
        }
        for vector in vectors
    ]
    funding_file.write_text(json.dumps({"outputs": outputs}))
    server = {
        "backend = ": f'backend = "fixture"\nfixture_file = "{funding_file}"',
        "base_price = ": "base_price = 0",
        "price_add_settlement_fee = ": "price_add_settlement_fee = false",
    }
    clock = {"PAYCHAN_CLOCK_START": str(CLOCK_START)}
    with running(directory, env=clock, changes={"server.toml": server}, signer_key=SERVER_KEY, door=door) as system:
        yield [Channel(system, vector) for vector in vectors]
        log = "".join(system.output)
        assert "Traceback" not in log
        assert "internal error" not in log


UNSIGNED = ("bit flip in value byte 3", "bit flip in value byte 5")
"""These leave the payer more, and are not signed: only who has signed is told of the order."""


def code_of(vector: dict) -> str:
    """Return the code with which a negative vector is refused on an open channel."""
    if vector["name"] in UNSIGNED:
        return "bad_signature"
    return "invalid_payment" if len(vector["payment"]) > TEXT_SIZE_MAX else CODES[vector["strict_checker"]]


def refused(answer: Answer, name: str, code: str) -> None:
    assert (name, answer.status, answer.code) == (name, 400, code)
    assert answer.json["parameter"] == "payment"


def test_the_vectors_are_all_here():
    assert (len(POSITIVE), len(NEGATIVE)) == (9, 41)
    assert {vector["strict_checker"] for vector in NEGATIVE.values()} == set(CODES)
    plain = terms_of(POSITIVE["plain"])
    assert CLIENT_KEY.public_key.format() == plain.client_pubkey
    assert all(terms_of(NEGATIVE[name]) == plain for name in [*SAME_CHANNEL, GREATER_BY_1])


@pytest.mark.parametrize("door", DOORS)
def test_the_negative_ones_and_the_positive_ones_of_the_same_channel(tmp_path, door):
    vout = NEGATIVE["wrong channel: vout"]
    with funded(tmp_path, door, POSITIVE["plain"], vout) as (channel, other):
        for name in SAME_CHANNEL:
            code = code_of(NEGATIVE[name])
            code = "change_value_range" if code == "out_of_order" else code  # there is no earlier one, but the funding
            refused(channel.open(NEGATIVE[name]["payment"]), name, code)
        assert channel.pay(POSITIVE["plain"]["payment"]).code == "no_such_channel"

        first = POSITIVE["zero-value payment"]
        channel.accept(channel.open(first["payment"]), 201, first["payment"], first["value_received"])
        for name in SAME_CHANNEL:
            refused(channel.pay(NEGATIVE[name]["payment"]), name, code_of(NEGATIVE[name]))
            assert channel.is_unchanged(), name

        plain = POSITIVE["plain"]
        channel.accept(channel.pay(plain["payment_unpadded"]), 200, plain["payment"], plain["value_received"])
        assert channel.is_unchanged()  # with the padding now: two spellings of one payment
        answer = channel.pay(NEGATIVE[GREATER_BY_1]["payment"])
        refused(answer, GREATER_BY_1, "out_of_order")
        assert answer.json["detail"] == "out-of-order payment (assigns 1 satoshi less value to server)"
        assert channel.is_unchanged()

        least = POSITIVE["least change 700"]
        channel.accept(channel.pay(least["payment"]), 200, least["payment"], least["value_received"])
        channel.close()

        refused(other.open(vout["payment"]), "wrong channel: vout", "bad_signature")
        own = other.own_payment(other.left - 100_000).encode()
        other.accept(other.open(own), 201, own, 100_000)
        refused(other.pay(vout["payment"]), "wrong channel: vout", "bad_signature")
        assert other.is_unchanged()


@pytest.mark.parametrize("door", DOORS)
def test_another_expiry(tmp_path, door):
    vector = NEGATIVE["wrong channel: exp_time"]
    with funded(tmp_path, door, vector) as (channel,):
        refused(channel.open(vector["payment"]), "wrong channel: exp_time", "bad_signature")
        own = channel.own_payment(channel.left).encode()
        channel.accept(channel.open(own), 201, own, 0)
        refused(channel.pay(vector["payment"]), "wrong channel: exp_time", "bad_signature")
        assert channel.is_unchanged()


@pytest.mark.parametrize("door", DOORS)
def test_another_payers_key_opens_nothing(tmp_path, door):
    vector = NEGATIVE["wrong client key"]
    with funded(tmp_path, door, vector) as (channel,):
        refused(channel.open(vector["payment"]), "wrong client key", "bad_signature")
        assert channel.pay(vector["payment"]).code == "no_such_channel"


@pytest.mark.parametrize("door", DOORS)
def test_giving_up_the_rest(tmp_path, door):
    plain, vector = POSITIVE["plain"], POSITIVE["give up the rest"]
    with funded(tmp_path, door, plain) as (channel,):
        channel.accept(channel.open(plain["payment"]), 201, plain["payment"], plain["value_received"])
        answer = channel.pay(vector["payment"])
        channel.left = 0
        assert answer.status == 202
        assert (answer.json["value_received"], answer.json["channel_value_left"]) == (vector["value_received"], 0)
        channel.check_settlement(answer)
        assert channel.pay(vector["payment"]).code == "no_such_payment"


@pytest.mark.parametrize(
    "notes",
    [
        ("change to a P2SH address", "vout 4294967295", "locktime 2^32-1"),
        ("5-byte locktime",),
        ("value near 21M BTC",),
    ],
    ids=", ".join,
)
@pytest.mark.parametrize("door", DOORS)
def test_the_edges_open_pay_and_settle(tmp_path, door, notes):
    with funded(tmp_path, door, *(POSITIVE[note] for note in notes)) as channels:
        for channel in channels:
            vector = channel.vector
            if vector["prev_client_value"] == vector["funding_value"]:
                own = channel.own_payment(channel.left).encode()
                channel.accept(channel.open(own), 201, own, 0)
            assert vector["prev_client_value"] == channel.left
            channel.accept(channel.pay(vector["payment"]), 200, vector["payment"].rstrip("="), vector["value_received"])
            assert channel.is_unchanged()
            channel.close()
