"""Aim: what nodes would not relay is refused before it is stored. Method: the vectors pass; one damage for each rule."""

import json
from pathlib import Path

import pytest
from bitcoin.core import CMutableTransaction, CMutableTxIn, CTransaction, CTxOut
from bitcoin.core.script import CScript
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import make_outpoint
from paychan.core.refund import sign_refund
from paychan.core.script import push
from paychan.core.sender import sign_payment
from paychan.core.settlement import SettlementError, sign_settlement
from paychan.core.standardness import check_standard, dust_limit

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "settlement-and-refund.json").read_text())
VALUE = 1_000_000
P2PKH = b"\x76\xa9\x14" + b"\xdd" * 20 + b"\x88\xac"
P2SH = b"\xa9\x14" + b"\xcc" * 20 + b"\x87"
P2WPKH, P2WSH, P2TR = b"\x00\x14" + b"\xee" * 20, b"\x00\x20" + b"\xee" * 32, b"\x51\x20" + b"\xee" * 32
SCRIPTS, LIMITS = [P2PKH, P2SH, P2WPKH, P2WSH, P2TR], [546, 540, 294, 330, 330]
SERVER, CLIENT = PrivateKey(b"\x01" * 32), PrivateKey(b"\x02" * 32)
TERMS = ChannelTerms(
    make_outpoint(b"\x07" * 32, 1), SERVER.public_key.format(), CLIENT.public_key.format(), 1_900_000_000, VALUE, P2SH
)
GOOD = sign_settlement(TERMS, sign_payment(TERMS, 400_000, CLIENT), P2PKH, 10_000, SERVER)


def refused(tx: CMutableTransaction, value: int = VALUE) -> str:
    with pytest.raises(SettlementError) as caught:
        check_standard(tx.serialize(), value)
    return str(caught.value)


def draft() -> CMutableTransaction:
    return CMutableTransaction.from_tx(CTransaction.deserialize(GOOD))


def pushes(tx: CTransaction) -> list[bytes]:
    script = tx.vin[0].scriptSig
    return [data if isinstance(data, bytes) else bytes((data,)) for data in script]


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: row["kind"])
def test_the_vectors_are_standard(row):
    check_standard(bytes.fromhex(row["raw_tx"]), row["funding_value"])


@pytest.mark.parametrize("change_value", [700, 400_000, 0])
@pytest.mark.parametrize("destination", SCRIPTS)
def test_settlements_and_refunds_are_standard(change_value, destination):
    for number in range(20):
        payment = sign_payment(TERMS, change_value + number * bool(change_value), CLIENT)
        check_standard(sign_settlement(TERMS, payment, destination, 10_000, SERVER), VALUE)
    check_standard(sign_refund(TERMS, 5_000, CLIENT), VALUE)


def test_the_dust_limits_are_bitcoin_cores():
    assert [dust_limit(script) for script in SCRIPTS] == LIMITS == [546, 540, 294, 330, 330]


@pytest.mark.parametrize(
    "script",
    [b"", b"\x51", P2PKH[:-1], P2SH + b"\0", P2WPKH + b"\0", P2TR[:-1], b"\x52" + P2TR[1:], b"\0\x16" + bytes(22)]
    + [b"\x76\xa9\x14" + bytes(22), b"\x51\x02\x4e\x73", b"\x6a\x20" + bytes(32)],
    ids=bytes.hex,
)
def test_other_output_types_are_refused(script):
    with pytest.raises(SettlementError, match="no address's"):
        dust_limit(script)
    tx = draft()
    tx.vout[0].scriptPubKey = CScript(script)
    assert "no address's" in refused(tx)


@pytest.mark.parametrize(("script", "limit"), list(zip(SCRIPTS, LIMITS, strict=True)))
def test_dust_is_refused_to_the_satoshi(script, limit):
    tx = draft()
    tx.vout[0] = CTxOut(limit, CScript(script))
    check_standard(tx.serialize(), VALUE)
    tx.vout[0] = CTxOut(limit - 1, CScript(script))
    assert "dust" in refused(tx)


@pytest.mark.parametrize("version", [0, 3, -1])
def test_other_versions_are_refused(version):
    tx = draft()
    tx.nVersion = version
    assert "version" in refused(tx)


def test_version_2_is_standard():
    tx = draft()
    tx.nVersion = 2
    check_standard(tx.serialize(), VALUE)


def test_one_input_and_an_output_must_be_there():
    two_inputs, no_output = draft(), draft()
    two_inputs.vin.append(CMutableTxIn())
    no_output.vout.clear()
    assert "inputs" in refused(two_inputs)
    assert "outputs" in refused(no_output)


def test_the_relay_fee_is_exact():
    tx = draft()
    size = len(GOOD)
    tx.vout[1].nValue = VALUE - 400_000 - size
    check_standard(tx.serialize(), VALUE)
    tx.vout[1].nValue += 1
    assert "too low" in refused(tx)


def test_a_long_script_sig_is_refused():
    tx = draft()
    tx.vin[0].scriptSig = CScript(push(bytes(200)) * 9)
    assert "too long" in refused(tx)


def test_a_long_transaction_is_refused():
    tx = draft()
    tx.vout.extend([CTxOut(1000, CScript(P2SH))] * 3200)
    assert "too long" in refused(tx, VALUE * 100)


def with_script(script: bytes) -> CMutableTransaction:
    tx = draft()
    tx.vin[0].scriptSig = CScript(script)
    return tx


CLIENT_SIGNATURE, SERVER_SIGNATURE, _, REDEEM = pushes(CTransaction.deserialize(GOOD))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (push(CLIENT_SIGNATURE) + b"\x76" + push(REDEEM), "more than push"),
        (b"\x4d" + len(REDEEM).to_bytes(2, "little") + REDEEM, "more than push"),
        (b"\x4f" + push(REDEEM), "more than push"),  # OP_1NEGATE: a push, but none of ours
        (b"\x4c\x47" + CLIENT_SIGNATURE[:71] + push(REDEEM), "minimal"),
        (b"\x01\x01" + push(REDEEM), "minimal"),
        (push(CLIENT_SIGNATURE) + push(REDEEM)[:-1], "cut off"),
        (push(CLIENT_SIGNATURE) + b"\x4c", "cut off"),
        (b"\x05abc", "cut off"),
    ],
)
def test_a_script_sig_only_pushes_in_the_shortest_form(script, why):
    assert why in refused(with_script(script))


HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def high_s(signature: bytes) -> bytes:
    """Return the same signature with the other S, which is valid by consensus and not relayed."""
    r_size = signature[3]
    r, s = signature[4 : 4 + r_size], int.from_bytes(signature[6 + r_size : -1], "big")
    order = 2 * HALF_ORDER + 1
    other = (order - s).to_bytes(33, "big")
    body = b"\x02" + bytes((r_size,)) + r + b"\x02" + bytes((33,)) + other
    return b"\x30" + bytes((len(body),)) + body + signature[-1:]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    "damage", [high_s, lambda der: der[:-1] + b"\0" + der[-1:], lambda der: b"\x31" + der[1:], lambda der: der[:9]]
)
def test_signatures_are_strict_der_with_low_s(place, damage):
    signatures = [CLIENT_SIGNATURE, SERVER_SIGNATURE]
    signatures[place] = damage(signatures[place])
    assert "strict DER" in refused(with_script(push(signatures[0]) + push(signatures[1]) + b"\x51" + push(REDEEM)))


def with_script_sig(script_sig: bytes, outputs: int = 1) -> CMutableTransaction:
    """Return a transaction with so many P2PKH outputs."""
    tx = draft()
    tx.vin = [CMutableTxIn(tx.vin[0].prevout, CScript(script_sig), 0xFFFFFFFF)]
    tx.vout = [CTxOut(600, CScript(P2PKH))] * outputs
    return tx


def accepted(tx: CMutableTransaction, fee: int | None = None) -> None:
    """Check a transaction that pays `fee` satoshi, what nodes ask at least if nothing is said."""
    raw = tx.serialize()
    check_standard(raw, sum(output.nValue for output in tx.vout) + (len(raw) if fee is None else fee))


def test_the_edges_of_the_sizes():
    accepted(with_script_sig(b"\x51" * 1650))
    assert "too long" in refused(with_script_sig(b"\x51" * 1651))
    smaller = with_script_sig(b"\x51" * 253, 2925)  # of 34 bytes each: some 200 bytes are left
    largest = with_script_sig(b"\x51" * (253 + 100_000 - len(smaller.serialize())), 2925)
    accepted(largest)
    with pytest.raises(SettlementError, match="too low to be relayed"):
        accepted(largest, 99_999)
    script_sig = bytes(largest.vin[0].scriptSig)
    assert "too long" in refused(with_script_sig(script_sig + b"\x51", 2925))


@pytest.mark.parametrize(
    "script_sig",
    [b"\x00", b"\x51", b"\x60", b"\x01\x11", b"\x01\x20", b"\x02\x01\x02", b"\x4b" + bytes(75), b"\x4c\x4c" + bytes(76)],
    ids=bytes.hex,
)
def test_the_shortest_pushes_are_accepted(script_sig):
    accepted(with_script_sig(script_sig))


@pytest.mark.parametrize(
    "script_sig",
    [b"\x01\x10", b"\x01\x01", b"\x61", b"\x4c\x4b" + bytes(75), b"\x4c", b"\x50", b"\x4d\x4c\x00" + bytes(76)],
    ids=bytes.hex,
)
def test_longer_pushes_and_what_is_none_are_refused(script_sig):
    with pytest.raises(SettlementError, match="push"):
        accepted(with_script_sig(script_sig))


@pytest.mark.parametrize("before_last", [b"\x02\x30\x01", push(b"\x30" * 70)])
@pytest.mark.parametrize("last", [b"\x51", push(b"\xac" * 80)])
def test_all_but_the_last_push_are_numbers_or_signatures(before_last, last):
    with pytest.raises(SettlementError, match="strict DER"):
        accepted(with_script_sig(before_last + last))
