"""Aim: the digest that a payer signs, byte for byte. Method: the vectors of the original programs, python-bitcoinlib on
random channels, and the refusal of everything that cannot be."""

import hashlib
import json
import random
from pathlib import Path

import pytest

from paychan._fast.sighash import payment_sighash
from tests.differential.channels import make_sample, random_sample
from tests.reference import sighash

VECTORS = Path(__file__).parents[2] / "vectors"
ORIGINAL = json.loads((VECTORS / "original-48aa769-300.json").read_text())
FULL = [
    vector
    for name in ("original-48aa769-sample-full.json", "positive-own.json")
    for vector in json.loads((VECTORS / name).read_text())
]


def outpoint_of(vector):
    return bytes.fromhex(vector["funding_txid"])[::-1] + vector["funding_vout"].to_bytes(4, "little")


def digest_of(vector, change_value, sighash_type):
    return payment_sighash(
        outpoint_of(vector),
        bytes.fromhex(vector["redeem_script"]),
        bytes.fromhex(vector["change_script"]),
        change_value,
        sighash_type,
    )


def test_digests_of_the_300_original_payments():
    for payment in ORIGINAL["payments"]:
        assert digest_of(ORIGINAL["channel"], payment["change_value"], 0x83).hex() == payment["sighash"]


@pytest.mark.parametrize("vector", FULL, ids=lambda vector: vector["payment"][:24])
def test_digest_is_the_double_hash_of_the_vectors_preimage(vector):
    digest = digest_of(vector, vector["change_value"], vector["sighash_byte"])
    assert digest.hex() == vector["sighash"]
    preimage = bytes.fromhex(vector["sighash_preimage"])
    assert digest == hashlib.sha256(hashlib.sha256(preimage).digest()).digest()


def test_digest_equals_python_bitcoinlibs():
    rng = random.Random(143)
    for _ in range(300):
        sample = random_sample(rng)
        terms = sample.terms
        for value, kind in ((rng.randrange(2**63), 0x83), (0, 0x83), (2**63 - 1, 0x83), (0, 0x82), (12345, 0x82)):
            digest = payment_sighash(terms.outpoint, terms.redeem_script, terms.change_script, value, kind)
            assert digest == sighash(sample.account, value, kind)


def test_no_change_signs_no_value_and_change_signs_every_bit_of_it():
    terms = make_sample("bits").terms
    parts = (terms.outpoint, terms.redeem_script, terms.change_script)
    assert payment_sighash(*parts, 0, 0x82) == payment_sighash(*parts, 2**64 - 1, 0x82)
    digests = {payment_sighash(*parts, 1 << bit, 0x83) for bit in range(64)}
    assert len(digests) == 64


def test_every_byte_of_the_channel_is_signed():
    terms = make_sample("bytes").terms
    parts = [terms.outpoint, terms.redeem_script, terms.change_script]
    digests = {payment_sighash(*parts, 5000, 0x83)}
    count = 1
    for which, part in enumerate(parts):
        for at in range(len(part)):
            changed = list(parts)
            changed[which] = part[:at] + bytes([part[at] ^ 1]) + part[at + 1 :]
            digests.add(payment_sighash(*changed, 5000, 0x83))
            count += 1
    assert len(digests) == count == 1 + 36 + 80 + 25


@pytest.mark.parametrize(
    "change",
    [
        {"outpoint": bytes(35)},
        {"outpoint": bytes(37)},
        {"outpoint": b""},
        {"redeem": bytes(82)},
        {"change_script": bytes(35)},
        {"change_value": -1},
        {"change_value": 2**64},
        {"change_value": 1.5},
        {"change_value": True},
        {"change_value": None},
        {"sighash_type": 0},
        {"sighash_type": 1},
        {"sighash_type": 0x81},
        {"sighash_type": 0x103},
        {"sighash_type": -0x7D},
        {"sighash_type": 0x183},
    ],
)
def test_what_cannot_be_is_refused(change):
    parts = {
        "outpoint": bytes(36),
        "redeem": bytes(81),
        "change_script": bytes(25),
        "change_value": 700,
        "sighash_type": 0x83,
    }
    assert len(payment_sighash(**parts)) == 32
    with pytest.raises(ValueError):
        payment_sighash(**parts | change)


@pytest.mark.parametrize("name", ["outpoint", "redeem", "change_script"])
def test_none_is_refused(name):
    parts = {"outpoint": bytes(36), "redeem": b"", "change_script": b"", "change_value": 700, "sighash_type": 0x83}
    with pytest.raises(TypeError):
        payment_sighash(**parts | {name: None})
