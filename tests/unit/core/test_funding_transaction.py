"""Aim: what is left of a funding transaction without its witness is what its id is the hash of, whatever the witness is, and its
outputs are read as python-bitcoinlib reads them. Method: transactions of many shapes and of the greatest size, and any bytes."""

import contextlib
import random

import pytest
from bitcoin.core import CMutableTransaction, COutPoint, CTransaction, CTxIn, CTxInWitness, CTxOut, CTxWitness
from bitcoin.core.script import CScript, CScriptWitness
from hypothesis import given
from hypothesis import strategies as st

from paychan.core.funding import STRIPPED_SIZE_MAX, WHOLE_SIZE_MAX, is_coinbase, is_proven, output_at, without_witness

SHAPES = [(1, 1), (1, 3), (3, 1), (252, 252), (253, 253), (300, 1000), (1, 70_000)]


def make(inputs=1, outputs=1, script=b"\x51"):
    chance = random.Random(inputs + outputs)
    script_sig = CScript(chance.randbytes(chance.choice((0, 107, 252, 253))))
    vin = [CTxIn(COutPoint(b"\x07" * 32, number), script_sig) for number in range(inputs)]
    return CTransaction(vin, [CTxOut(5000 + number, CScript(script)) for number in range(outputs)], nLockTime=0x1000001)


def with_witness(transaction, items=(b"\x01" * 64, b"", b"\x02" * 33)):
    witnesses = [CTxInWitness(CScriptWitness(items))] + [CTxInWitness()] * (len(transaction.vin) - 1)
    whole = CMutableTransaction.from_tx(transaction)
    whole.wit = CTxWitness(witnesses)
    return whole.serialize()


def padded(transaction, padding):
    """Return a transaction with any bytes where its witness would be."""
    raw = transaction.serialize()
    return raw[:4] + b"\x00\x01" + raw[4:-4] + padding + raw[-4:]


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_with_and_without_a_witness_the_same_bytes_are_left_and_their_outputs_are_read(inputs, outputs):
    transaction = make(inputs, outputs)
    stripped, txid = transaction.serialize(), transaction.GetTxid()
    assert without_witness(stripped, txid) == stripped
    assert without_witness(with_witness(transaction), txid) == stripped
    for vout in {0, outputs // 2, outputs - 1}:
        output = transaction.vout[vout]
        assert output_at(stripped, vout) == (output.nValue, bytes(output.scriptPubKey))
    assert output_at(stripped, outputs) is None and output_at(stripped, 2**32 - 1) is None


@pytest.mark.parametrize("size", [0, 252, 253, 65_535, 65_536, 300_000])
def test_scripts_of_every_length_are_skipped_and_read(size):
    transaction = make(2, 2, bytes(size))
    stripped = without_witness(with_witness(transaction), transaction.GetTxid())
    assert output_at(stripped, 1) == (5001, bytes(size))


def test_a_witness_may_be_anything_and_as_large_as_a_block():
    transaction = make(2, 3)
    for padding in (b"", b"\x00", b"\xff" * 9, bytes(WHOLE_SIZE_MAX)):
        assert without_witness(padded(transaction, padding), transaction.GetTxid()) == transaction.serialize()


def test_consensus_bounds_what_is_left_to_the_byte():
    frame = len(make().serialize()) + 4  # a length of five bytes instead of one
    for size, fits in ((STRIPPED_SIZE_MAX, True), (STRIPPED_SIZE_MAX + 1, False)):
        transaction = make(script=bytes(size - frame + 1))
        stripped, txid = transaction.serialize(), transaction.GetTxid()
        assert len(stripped) == size
        for raw in (stripped, padded(transaction, b"\x00"), padded(transaction, bytes(WHOLE_SIZE_MAX - size))):
            if fits:
                assert without_witness(raw, txid) == stripped
            else:
                with pytest.raises(ValueError):
                    without_witness(raw, txid)


def test_the_id_covers_every_byte_that_is_left():
    transaction = make(2, 2)
    raw, txid = padded(transaction, b"\x00"), transaction.GetTxid()
    kept = [at for at in range(len(raw)) if at not in (4, 5, len(raw) - 5)]
    for at in kept:
        damaged = raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
        with pytest.raises(ValueError):
            without_witness(damaged, txid)
    assert not is_proven(raw, txid) and is_proven(transaction.serialize(), txid)


@given(st.binary(max_size=300), st.integers(0, 120), st.booleans())
def test_any_bytes_are_another_transaction_or_an_error(garbage, at, has_marker):
    raw = make(2, 2).serialize()
    for bad in (garbage, raw[:4] + b"\x00\x01" * has_marker + garbage, raw[:at] + garbage, raw[:at]):
        with pytest.raises(ValueError):
            without_witness(bad, b"\x01" * 32)
        with contextlib.suppress(ValueError):
            output_at(bad, 1)


def test_counts_beyond_what_is_there_end_soon():
    for count in (b"\xff" * 9, b"\xfe\xff\xff\xff\xff", b"\xfd\xff\xff"):
        for raw in (b"\x01\x00\x00\x00" + count, b"\x01\x00\x00\x00\x00\x01" + count + bytes(WHOLE_SIZE_MAX)):
            with pytest.raises(ValueError):
                without_witness(raw, b"\x01" * 32)
        with pytest.raises(ValueError):
            output_at(b"\x01\x00\x00\x00" + count + bytes(100), 1)


def test_only_what_spends_nothing_makes_new_coins():
    coinbase = CTransaction([CTxIn(COutPoint(), CScript(b"\x02\x10\x00"))], [CTxOut(5, CScript(b"\x51"))])
    assert is_coinbase(coinbase.serialize())
    for vin in ([CTxIn(COutPoint(bytes(32), 0))], [CTxIn(COutPoint(b"\x01" * 32, 0xFFFFFFFF))], [CTxIn(COutPoint())] * 2):
        assert not is_coinbase(CTransaction(vin, [CTxOut(5, CScript(b"\x51"))]).serialize())
