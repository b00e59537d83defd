"""Aim: settlements and the check before they are published. Method: against the vectors; one damage each."""

import dataclasses
import json
from pathlib import Path

import pytest
from bitcoin.core import CMutableTransaction, COutPoint, CTransaction, CTxIn, CTxInWitness, CTxOut, CTxWitness
from bitcoin.core.script import (
    SIGHASH_ALL,
    SIGHASH_ANYONECANPAY,
    SIGHASH_NONE,
    SIGHASH_SINGLE,
    CScript,
    CScriptWitness,
    SignatureHash,
)
from coincurve import PrivateKey

from paychan._fast.sighash import payment_sighash
from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import make_outpoint
from paychan.core.payment import Payment, parse_payment
from paychan.core.script import push
from paychan.core.sender import sign_payment
from paychan.core.settlement import (
    SettlementError,
    Uneconomic,
    check_settlement,
    inflated_size_max,
    read_settlement,
    server_sighash,
    settlement_outputs,
    settlement_size_max,
    settlement_txid,
    sign_settlement,
    verify_payment,
)
from tests.copies import inflated, renamed, with_script_sig

VECTORS = Path(__file__).parents[2] / "vectors"
SETTLEMENTS = [row for row in json.loads((VECTORS / "settlement-and-refund.json").read_text()) if row["kind"] == "settlement"]
PAYMENTS = [
    row for name in ("original-48aa769-sample-full", "positive-own") for row in json.loads((VECTORS / f"{name}.json").read_text())
]
CHANGE, EXHAUSTED = SETTLEMENTS


def terms_of(row) -> ChannelTerms:
    return ChannelTerms(
        make_outpoint(bytes.fromhex(row["funding_txid"])[::-1], row["funding_vout"]),
        bytes.fromhex(row["server_pubkey"]),
        bytes.fromhex(row["client_pubkey"]),
        row["exp_time"],
        row["funding_value"],
        bytes.fromhex(row["change_script"]),
    )


def payment_of(row) -> Payment:
    signature = bytes.fromhex(row["client_sig"])
    return Payment(row["change_value"], signature[:-1], signature[-1])


def key_of(row, name="server_key") -> PrivateKey:
    return PrivateKey(bytes.fromhex(row[name]))


@pytest.mark.parametrize("row", PAYMENTS, ids=lambda row: row.get("note", row["payment"][-8:]))
def test_payment_sighash_equals_the_vectors(row):
    terms = terms_of(row)
    args = (terms.outpoint, terms.redeem_script, terms.change_script, row["change_value"], row["sighash_byte"])
    assert payment_sighash(*args).hex() == row["sighash"]
    assert verify_payment(terms, parse_payment(bytes.fromhex(row["payment_raw"])))


@pytest.mark.parametrize("row", SETTLEMENTS, ids=["change", "exhausted"])
def test_settlement_equals_the_vector(row):
    terms, payment, destination = terms_of(row), payment_of(row), bytes.fromhex(row["server_script"])
    raw = sign_settlement(terms, payment, destination, row["fee"], key_of(row))
    assert server_sighash(terms, payment, destination, row["fee"]).hex() == row["server_sighash"]
    assert raw.hex() == row["raw_tx"]
    assert len(raw) == row["size"]
    assert settlement_txid(raw)[::-1].hex() == row["txid"]
    assert settlement_size_max(terms, payment, destination) - row["size"] in (0, 1, 2)
    assert check_settlement(raw, terms, payment, row["fee"])[::-1].hex() == row["txid"]


def test_size_bound_is_never_too_few_and_hardly_too_many():
    row, spread = CHANGE, set()
    terms, destination = terms_of(row), bytes.fromhex(row["server_script"])
    for fee in range(300):
        raw = sign_settlement(terms, payment_of(row), destination, fee, key_of(row))
        spread.add(settlement_size_max(terms, payment_of(row), destination) - len(raw))
    assert spread <= {0, 1, 2, 3, 4}  # a signature is now and then a byte or two shorter than usual


def test_settlement_refuses_what_leaves_the_server_dust():
    terms, payment = terms_of(CHANGE), payment_of(CHANGE)
    received = terms.funding_value - payment.change_value
    assert settlement_outputs(terms, payment, b"", received - 700)[-1].nValue == 700
    with pytest.raises(Uneconomic):
        settlement_outputs(terms, payment, b"", received - 699)


@pytest.mark.parametrize("fee", [-1, 1.5, True, 21_000_000 * 10**8 + 1])
def test_settlement_refuses_a_fee_that_is_no_money(fee):
    with pytest.raises(ValueError):
        settlement_outputs(terms_of(CHANGE), payment_of(CHANGE), b"", fee)


def test_settlement_refuses_a_change_value_above_the_funding_value():
    terms = terms_of(CHANGE)
    with pytest.raises(SettlementError, match="exceeds"):
        settlement_outputs(terms, Payment(terms.funding_value + 1, b"", 0x83), b"", 0)


@pytest.mark.parametrize(
    "change",
    [
        {"change_value": 9_000_001},
        {"change_value": 8_999_999},
        {"sighash_type": 0x82},
        {"signature": b""},
        {"signature": b"\x30" * 70},
    ],
    ids=str,
)
def test_a_payment_that_was_not_signed_like_this_does_not_verify(change):
    assert not verify_payment(terms_of(CHANGE), dataclasses.replace(payment_of(CHANGE), **change))


@pytest.mark.parametrize(
    "change",
    [
        {"outpoint": bytes(36)},
        {"exp_time": CHANGE["exp_time"] + 1},
        {"change_script": b"\xa9\x14" + bytes(20) + b"\x87"},
        {"client_pubkey": bytes.fromhex(CHANGE["server_pubkey"])},
        {"client_pubkey": b"\x02" + b"\xff" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_payment_for_another_channel_does_not_verify(change):
    assert not verify_payment(dataclasses.replace(terms_of(CHANGE), **change), payment_of(CHANGE))


# --- check_settlement: what a wrong or hostile signer could return ------------------------------------------------


def signed_by_server(row, mutable: CMutableTransaction, sighash_type: int = SIGHASH_ALL, key: PrivateKey | None = None) -> bytes:
    """Return a transaction with the payer's published signature and a server's signature of any type."""
    terms, payment = terms_of(row), payment_of(row)
    digest = SignatureHash(CScript(terms.redeem_script), mutable, 0, sighash_type)
    server = (key or key_of(row)).sign(digest, hasher=None) + bytes((sighash_type,))
    client = payment.signature + bytes((payment.sighash_type,))
    mutable.vin[0].scriptSig = CScript(push(client) + push(server) + b"\x51" + push(terms.redeem_script))
    return mutable.serialize()


def draft(row) -> CMutableTransaction:
    return CMutableTransaction.from_tx(CTransaction.deserialize(bytes.fromhex(row["raw_tx"])))


def refused(raw: bytes, row=CHANGE, fee_max: int | None = None) -> str:
    with pytest.raises(SettlementError) as caught:
        check_settlement(raw, terms_of(row), payment_of(row), row["fee"] if fee_max is None else fee_max)
    return str(caught.value)


def test_the_thiefs_tool_makes_good_settlements_too():
    assert signed_by_server(CHANGE, draft(CHANGE)).hex() == CHANGE["raw_tx"]


def test_check_refuses_a_swapped_server_output():
    tx = draft(CHANGE)
    tx.vout[1].scriptPubKey = CScript(b"\xa9\x14" + bytes(20) + b"\x87")
    assert "server's signature is not valid" in refused(tx.serialize())


@pytest.mark.parametrize("delta", [1, -1])
def test_check_refuses_another_change_value(delta):
    tx = draft(CHANGE)
    tx.vout[0].nValue += delta
    tx.vout[1].nValue -= delta
    assert "differs" in refused(signed_by_server(CHANGE, tx))


def test_check_refuses_another_change_script():
    tx = draft(CHANGE)
    tx.vout[0].scriptPubKey = tx.vout[1].scriptPubKey
    assert "differs" in refused(signed_by_server(CHANGE, tx))


def test_check_refuses_outputs_in_another_order():
    tx = draft(CHANGE)
    tx.vout.reverse()
    assert "differs" in refused(signed_by_server(CHANGE, tx))


def test_check_refuses_a_third_output():
    tx = draft(CHANGE)
    tx.vout[1].nValue -= 1000
    tx.vout.insert(1, CTxOut(1000, tx.vout[1].scriptPubKey))
    assert "differs" in refused(signed_by_server(CHANGE, tx))


def test_check_refuses_a_second_input():
    tx = draft(CHANGE)
    tx.vin.append(CTxIn())
    assert "differs" in refused(signed_by_server(CHANGE, tx))


@pytest.mark.parametrize(("name", "value"), [("nVersion", 2), ("nLockTime", 1)])
def test_check_refuses_another_version_or_lock_time(name, value):
    tx = draft(CHANGE)
    setattr(tx, name, value)
    assert "differs" in refused(signed_by_server(CHANGE, tx))


def test_check_refuses_another_sequence():
    tx = draft(CHANGE)
    tx.vin[0].nSequence -= 1
    assert "differs" in refused(signed_by_server(CHANGE, tx))


@pytest.mark.parametrize("row", SETTLEMENTS, ids=["change", "exhausted"])
@pytest.mark.parametrize(
    "sighash_type",
    [
        SIGHASH_SINGLE | SIGHASH_ANYONECANPAY,
        SIGHASH_NONE | SIGHASH_ANYONECANPAY,
        SIGHASH_ALL | SIGHASH_ANYONECANPAY,
        SIGHASH_SINGLE,
        SIGHASH_NONE,
    ],
)
def test_check_refuses_a_server_signature_of_a_weaker_type(row, sighash_type):
    assert "not SIGHASH_ALL" in refused(signed_by_server(row, draft(row), sighash_type), row)


def test_check_refuses_another_signers_signature():
    assert "server's signature is not valid" in refused(signed_by_server(CHANGE, draft(CHANGE), key=key_of(CHANGE, "client_key")))


def test_check_refuses_a_fee_above_what_was_asked():
    assert "fee" in refused(bytes.fromhex(CHANGE["raw_tx"]), fee_max=CHANGE["fee"] - 1)


def test_check_refuses_outputs_above_the_funding_value():
    tx = draft(CHANGE)
    tx.vout[1].nValue += CHANGE["fee"] + 1
    assert "fee" in refused(signed_by_server(CHANGE, tx))


def test_check_refuses_a_payment_that_the_payer_did_not_sign():
    row, terms = CHANGE, terms_of(CHANGE)
    forged = sign_payment(terms, row["change_value"], key_of(row))
    raw = sign_settlement(terms, forged, bytes.fromhex(row["server_script"]), row["fee"], key_of(row))
    with pytest.raises(SettlementError, match="payer's signature"):
        check_settlement(raw, terms, forged, row["fee"])


def test_check_refuses_a_settlement_of_an_older_payment():
    newer = sign_payment(terms_of(CHANGE), CHANGE["change_value"] - 1, key_of(CHANGE, "client_key"))
    with pytest.raises(SettlementError):
        check_settlement(bytes.fromhex(CHANGE["raw_tx"]), terms_of(CHANGE), newer, CHANGE["fee"])


def test_check_refuses_a_settlement_of_another_channel():
    terms = dataclasses.replace(terms_of(CHANGE), outpoint=bytes(36))
    payment = sign_payment(terms, CHANGE["change_value"], key_of(CHANGE, "client_key"))
    raw = sign_settlement(terms, payment, bytes.fromhex(CHANGE["server_script"]), CHANGE["fee"], key_of(CHANGE))
    assert "differs" in refused(raw)


def test_check_refuses_garbage():
    good = bytes.fromhex(CHANGE["raw_tx"])
    assert "parse" in refused(b"")
    assert "parse" in refused(good + b"\0")
    no_outputs = draft(CHANGE)
    no_outputs.vout.clear()
    assert "no output" in refused(no_outputs.serialize())
    for cut in range(0, len(good), 7):
        refused(good[:cut])


def test_check_refuses_every_flipped_byte():
    good = bytes.fromhex(CHANGE["raw_tx"])
    for index in range(len(good)):
        refused(good[:index] + bytes((good[index] ^ 1,)) + good[index + 1 :])


def test_the_size_bound_is_exact_but_for_the_servers_signature():
    for row in SETTLEMENTS:
        terms, payment, destination = terms_of(row), payment_of(row), bytes.fromhex(row["server_script"])
        raw = sign_settlement(terms, payment, destination, row["fee"], key_of(row))
        script_sig = list(CTransaction.deserialize(raw).vin[0].scriptSig)
        assert settlement_size_max(terms, payment, destination) == len(raw) + 72 - len(script_sig[1])


def test_a_part_of_exactly_the_dust_limit_has_a_size():
    terms = dataclasses.replace(terms_of(CHANGE), funding_value=10_000)
    payment = dataclasses.replace(payment_of(CHANGE), change_value=9_300)
    assert settlement_size_max(terms, payment, bytes(25)) > 300
    with pytest.raises(Uneconomic):
        settlement_size_max(terms, dataclasses.replace(payment, change_value=9_301), bytes(25))


def test_a_payer_who_keeps_everything_leaves_nothing_to_settle():
    terms = terms_of(CHANGE)
    with pytest.raises(Uneconomic):
        settlement_outputs(terms, dataclasses.replace(payment_of(CHANGE), change_value=terms.funding_value), bytes(25), 0)


@pytest.mark.parametrize("value", [-1, 21 * 10**14 + 1, True])
def test_a_funding_value_that_is_no_money_is_refused(value):
    with pytest.raises(ValueError, match="funding_value"):
        settlement_outputs(dataclasses.replace(terms_of(EXHAUSTED), funding_value=value), payment_of(EXHAUSTED), bytes(25), 0)


def test_check_takes_a_settlement_without_a_fee():
    terms, payment, destination = terms_of(CHANGE), payment_of(CHANGE), bytes.fromhex(CHANGE["server_script"])
    raw = sign_settlement(terms, payment, destination, 0, key_of(CHANGE))
    assert check_settlement(raw, terms, payment, 0) == settlement_txid(raw)


def test_check_refuses_a_settlement_that_only_the_payer_signed():
    terms, payment, destination = terms_of(CHANGE), payment_of(CHANGE), bytes.fromhex(CHANGE["server_script"])
    tx = CMutableTransaction.from_tx(CTransaction.deserialize(sign_settlement(terms, payment, destination, 500, key_of(CHANGE))))
    tx.vin[0].scriptSig = CScript(push(payment.signature + bytes((payment.sighash_type,))))
    with pytest.raises(SettlementError):
        check_settlement(tx.serialize(), terms, payment, 500)


def test_a_signature_that_does_not_parse_is_false():
    assert verify_payment(terms_of(CHANGE), dataclasses.replace(payment_of(CHANGE), signature=b"\x30\x00")) is False


# --- read_settlement: what is found on the chain ------------------------------------------------------------


@pytest.mark.parametrize("row", SETTLEMENTS, ids=["change", "exhausted"])
@pytest.mark.parametrize("change", [lambda raw: raw, inflated, renamed], ids=["as-signed", "inflated", "renamed"])
def test_a_settlement_is_known_by_what_it_pays(row, change):
    raw = change(bytes.fromhex(row["raw_tx"]))
    paid = read_settlement(raw, terms_of(row))
    assert paid is not None
    assert (paid.change_value, paid.fee, paid.size) == (row["change_value"], row["fee"], len(raw))
    assert paid.outputs[-1] == (row["funding_value"] - row["change_value"] - row["fee"], bytes.fromhex(row["server_script"]))


def test_a_witness_that_somebody_added_does_not_count():
    tx = draft(CHANGE)
    tx.wit = CTxWitness([CTxInWitness(CScriptWitness([b"\x07" * 5000]))])
    paid = read_settlement(tx.serialize(), terms_of(CHANGE))
    assert paid is not None and paid.size == CHANGE["size"]


def spoiled() -> list[bytes]:
    """Return what is no settlement of the channel: one change each."""
    other, shifted, outputless = draft(CHANGE), draft(CHANGE), draft(CHANGE)
    other.vin[0].prevout = COutPoint(b"\x07" * 32, CHANGE["funding_vout"])
    shifted.vin[0].prevout = COutPoint(other.vin[0].prevout.hash, CHANGE["funding_vout"] + 1)
    outputless.vout.clear()
    cheaper, twice = draft(CHANGE), draft(CHANGE)
    cheaper.vout[1].nValue -= 1
    twice.vin.append(CTxIn())
    script_sig = bytes(draft(CHANGE).vin[0].scriptSig)
    raw = bytes.fromhex(CHANGE["raw_tx"])
    return [
        *(tx.serialize() for tx in (other, shifted, outputless, cheaper, twice)),
        signed_by_server(CHANGE, draft(CHANGE), SIGHASH_NONE),
        signed_by_server(CHANGE, draft(CHANGE), key=PrivateKey(b"\x05" * 32)),
        with_script_sig(raw, script_sig[-80:]),
        with_script_sig(raw, script_sig + b"\x51"),
        with_script_sig(raw, script_sig + b"\x76"),
        with_script_sig(raw, b""),
        raw[:-1],
        raw + b"\x00",
        b"",
        bytes.fromhex(json.loads((VECTORS / "settlement-and-refund.json").read_text())[-1]["raw_tx"]),
    ]


@pytest.mark.parametrize("number", range(len(spoiled())))
def test_anything_else_is_no_settlement(number):
    assert read_settlement(spoiled()[number], terms_of(CHANGE)) is None


def test_an_inflated_copy_is_as_large_as_foreseen():
    raw, destination = bytes.fromhex(CHANGE["raw_tx"]), bytes.fromhex(CHANGE["server_script"])
    foreseen = inflated_size_max(terms_of(CHANGE), payment_of(CHANGE), destination)
    assert foreseen - len(inflated(raw)) == settlement_size_max(terms_of(CHANGE), payment_of(CHANGE), destination) - len(raw)
    assert foreseen - settlement_size_max(terms_of(CHANGE), payment_of(CHANGE), destination) == 524
