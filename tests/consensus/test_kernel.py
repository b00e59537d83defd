"""Aim: Bitcoin Core accepts our settlements and refunds, and no stranger's changes to them. Method: py-bitcoinkernel.

Blocks on a regtest chain of our own, then script verification of many random channels. PAYCHAN_CONSENSUS_COUNT: how
many channels (200 if unset).
"""

import dataclasses
import os
import random

import pytest
from bitcoin.core import CMutableTransaction, CTransaction
from bitcoin.core.script import SIGHASH_ALL, SIGHASH_ANYONECANPAY, SIGHASH_NONE, SIGHASH_SINGLE, CScript, SignatureHash
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import make_outpoint
from paychan.core.payment import Payment
from paychan.core.refund import sign_refund
from paychan.core.script import p2sh_script_pubkey, push
from paychan.core.sender import sign_payment
from paychan.core.settlement import LONGEST_DESTINATION, inflated_size_max, read_settlement, settlement_txid, sign_settlement
from tests.copies import LARGEST, inflated, renamed, with_flag, with_script_sig

pytest.importorskip("pbk")
from regtest import Regtest  # noqa: E402  (needs pbk)

from tests.consensus import mutations  # noqa: E402
from tests.consensus.mutations import (  # noqa: E402
    DESTINATION,
    MUTATIONS,
    THIEF,
    add_input,
    add_output,
    byte_changed,
    change_lock_time,
    change_outpoint,
    change_sequence,
    change_version,
    drop_output,
    lower_value,
    mutated,
    pieces_changed,
    put_output_first,
    raise_value,
    random_channel,
    random_flag,
    swap_script,
    verifies,
)

COUNT = int(os.environ.get("PAYCHAN_CONSENSUS_COUNT", "200"))
SERVER, CLIENT = PrivateKey(b"\x01" * 32), PrivateKey(b"\x02" * 32)
CHANGE_SCRIPT = b"\x76\xa9\x14" + b"\xcc" * 20 + b"\x88\xac"
LONGEST = b"\x51\x20" + b"\xdd" * 32
VALUE = 10**8
FEE = 10_000
SINGLE_ANYONE, NONE_ANYONE = SIGHASH_SINGLE | SIGHASH_ANYONECANPAY, SIGHASH_NONE | SIGHASH_ANYONECANPAY


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return Regtest(tmp_path_factory.mktemp("regtest"))


def make_terms(exp_time: int) -> ChannelTerms:
    keys = SERVER.public_key.format(), CLIENT.public_key.format()
    return ChannelTerms(bytes(36), *keys, exp_time, VALUE, CHANGE_SCRIPT)


def open_channel(chain: Regtest, exp_time: int = 2**31) -> ChannelTerms:
    terms = make_terms(exp_time)
    funding = chain.fund(p2sh_script_pubkey(terms.redeem_script), VALUE)
    return dataclasses.replace(terms, outpoint=make_outpoint(funding.GetTxid(), 1))


def settle(terms: ChannelTerms, change_value: int) -> CTransaction:
    payment = sign_payment(terms, change_value, CLIENT)
    return CTransaction.deserialize(sign_settlement(terms, payment, DESTINATION, FEE, SERVER))


def settle_weakly(terms: ChannelTerms, change_value: int, sighash_type: int, key: PrivateKey = SERVER) -> CTransaction:
    """Return the settlement as the original server signed it: with a type that does not cover the server's output."""
    payment = sign_payment(terms, change_value, CLIENT)
    tx = CMutableTransaction.from_tx(settle(terms, change_value))
    digest = SignatureHash(CScript(terms.redeem_script), tx, 0, sighash_type)
    tx.vin[0].scriptSig = script_sig(terms, payment, key.sign(digest, hasher=None) + bytes((sighash_type,)))
    return CTransaction.from_tx(tx)


def script_sig(terms: ChannelTerms, payment: Payment, server: bytes) -> CScript:
    client = payment.signature + bytes((payment.sighash_type,))
    return CScript(push(client) + push(server) + b"\x51" + push(terms.redeem_script))


def with_last_output_to(tx: CTransaction, script: bytes) -> CTransaction:
    stolen = CMutableTransaction.from_tx(tx)
    stolen.vout[-1].scriptPubKey = CScript(script)
    return CTransaction.from_tx(stolen)


# --- in blocks ------------------------------------------------------------


@pytest.mark.parametrize("change_value", [9 * 10**7, 700, 0], ids=["change", "least-change", "exhausted"])
@pytest.mark.parametrize("exp_time", [500_000_000, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_settlement_is_mined_at_any_expiry(chain, change_value, exp_time):
    tx = settle(open_channel(chain, exp_time), change_value)
    assert len(tx.vout) == (2 if change_value else 1)
    assert chain.mine(tx)


@pytest.mark.parametrize("change_value", [9 * 10**7, 0], ids=["change", "exhausted"])
def test_nobody_can_take_the_servers_output(chain, change_value):
    honest = settle(open_channel(chain), change_value)
    assert not chain.mine(with_last_output_to(honest, THIEF))
    assert chain.mine(honest)


@pytest.mark.parametrize(("change_value", "sighash_type"), [(9 * 10**7, SINGLE_ANYONE), (0, NONE_ANYONE)])
def test_the_originals_signature_would_let_anyone_take_it(chain, change_value, sighash_type):
    weak = settle_weakly(open_channel(chain), change_value, sighash_type)
    assert chain.mine(with_last_output_to(weak, THIEF))


@pytest.mark.parametrize("delta", [1, -1])
def test_a_settlement_with_other_change_is_refused(chain, delta):
    honest = settle(open_channel(chain), 9 * 10**7)
    tampered = CMutableTransaction.from_tx(honest)
    tampered.vout[0].nValue += delta
    tampered.vout[1].nValue -= delta
    assert not chain.mine(CTransaction.from_tx(tampered))
    assert chain.mine(honest)


def test_the_server_alone_cannot_settle(chain):
    terms = open_channel(chain)
    forged = sign_payment(terms, 700, SERVER)
    raw = sign_settlement(terms, forged, DESTINATION, FEE, SERVER)
    assert not chain.mine(CTransaction.deserialize(raw))


def test_the_payer_alone_cannot_settle(chain):
    assert not chain.mine(settle_weakly(open_channel(chain), 9 * 10**7, SIGHASH_ALL, key=CLIENT))


def test_a_settlement_spends_only_once(chain):
    terms = open_channel(chain)
    assert chain.mine(settle(terms, 9 * 10**7))
    assert not chain.mine(settle(terms, 8 * 10**7))


def test_a_refund_is_refused_until_the_median_time_has_passed_the_expiry(chain):
    terms = open_channel(chain, exp_time=chain.time + 20 * 600)
    refund = CTransaction.deserialize(sign_refund(terms, FEE, CLIENT))
    while chain.median_time <= terms.exp_time:
        refused_at = chain.median_time
        assert not chain.mine(refund)
        chain.mine_blocks(1)
    assert refused_at == terms.exp_time  # the very second is still too early
    assert chain.mine(refund)


def test_a_settlement_is_still_valid_after_the_expiry(chain):
    terms = open_channel(chain, exp_time=chain.time + 600)
    chain.mine_blocks(12)
    assert chain.median_time > terms.exp_time
    assert chain.mine(settle(terms, 9 * 10**7))


# --- scripts of many random channels ------------------------------------------------------------


def test_random_settlements_verify_and_no_strangers_change_to_them_does():
    rng = random.Random(20_161_122)
    for _ in range(COUNT):
        terms, server, client = random_channel(rng)
        change_value = rng.choice([0, 700, rng.randint(700, terms.funding_value - 200_000), terms.funding_value - 200_000])
        payment = sign_payment(terms, change_value, client)
        destination = rng.choice([DESTINATION, b"\xa9\x14" + rng.randbytes(20) + b"\x87"])
        raw = sign_settlement(terms, payment, destination, rng.randint(0, 190_000), server)
        tx = CTransaction.deserialize(raw)
        assert verifies(terms, tx), raw.hex()
        for mutate in MUTATIONS:
            assert not verifies(terms, mutated(tx, mutate)), (mutate.__name__, raw.hex())


def test_random_refunds_verify_and_none_with_an_earlier_lock_time_does():
    rng = random.Random(20_261_122)
    for _ in range(COUNT):
        terms, _, client = random_channel(rng)
        tx = CTransaction.deserialize(sign_refund(terms, rng.randint(0, 100_000), client))
        assert verifies(terms, tx)
        early = dataclasses.replace(terms, exp_time=max(500_000_000, terms.exp_time - 1))
        assert terms.exp_time == 500_000_000 or not verifies(terms, sign_with_lock_time(terms, early.exp_time, client))
        assert not verifies(terms, mutated(tx, change_sequence))


def sign_with_lock_time(terms: ChannelTerms, lock_time: int, key: PrivateKey) -> CTransaction:
    """Return a refund that is properly signed, but for another lock time."""
    tx = CMutableTransaction.from_tx(CTransaction.deserialize(sign_refund(terms, 0, key)))
    tx.nLockTime = lock_time
    digest = SignatureHash(CScript(terms.redeem_script), tx, 0, SIGHASH_ALL)
    signature = key.sign(digest, hasher=None) + bytes((SIGHASH_ALL,))
    tx.vin[0].scriptSig = CScript(push(signature) + b"\x00" + push(terms.redeem_script))
    return CTransaction.from_tx(tx)


def test_the_mutations_can_tell():
    """Under the original's weak signatures, the same changes of the server's output do verify."""
    terms = make_terms(1_900_000_000)
    weak = settle_weakly(terms, 9 * 10**7, SINGLE_ANYONE)
    for mutate in (swap_script, lower_value, raise_value, add_output, drop_output, add_input):
        assert verifies(terms, mutated(weak, mutate)), mutate.__name__
    for mutate in (change_sequence, change_lock_time, change_version, change_outpoint, put_output_first):
        assert not verifies(terms, mutated(weak, mutate)), mutate.__name__


# --- the scriptSig, which no signature covers ------------------------------------------------------------


def test_what_a_stranger_makes_of_a_script_sig_pays_the_same_and_is_known_for_what_it_is():
    """Of all that may be done to the scriptSig, what stays valid keeps its outputs, is recognised as a settlement, and if nodes
    relay it, is no larger than the fee is reckoned for."""
    rng, largest, valid = random.Random(20_361_122), 0, 0
    for _ in range(COUNT):
        terms, server, client = random_channel(rng)
        payment = sign_payment(terms, rng.choice([0, 700, rng.randint(700, terms.funding_value - 200_000)]), client)
        raw = sign_settlement(terms, payment, DESTINATION, rng.randint(0, 190_000), server)
        original, script_sig = CTransaction.deserialize(raw), bytes(CTransaction.deserialize(raw).vin[0].scriptSig)
        known = read_settlement(raw, terms)
        assert known is not None and known.change_value == payment.change_value
        for _ in range(4):
            flag, is_valid, is_relayed = random_flag(rng)
            copy = with_flag(raw, flag)
            tx = CTransaction.deserialize(copy)
            assert verifies(terms, tx) == is_valid, copy.hex()
            assert not verifies(terms, mutated(tx, rng.choice(MUTATIONS))), copy.hex()
            if is_valid:
                valid += 1
                assert read_settlement(copy, terms) == dataclasses.replace(known, size=len(copy))
            if is_relayed:
                largest = max(largest, len(copy) - inflated_size_max(terms, payment, DESTINATION))
        for changed in (byte_changed(rng, script_sig), pieces_changed(rng, raw)):
            copy = with_script_sig(raw, changed)
            tx = CTransaction.deserialize(copy)
            if verifies(terms, tx):
                assert tx.vout == original.vout
                assert read_settlement(copy, terms) == dataclasses.replace(known, size=len(copy))
    assert valid > COUNT
    assert -4 <= largest <= 0  # a signature may be a few bytes shorter than the bound


def test_the_largest_copy_has_890_bytes(chain):
    terms = dataclasses.replace(open_channel(chain), change_script=LONGEST)
    payment = sign_payment(terms, 9 * 10**7, CLIENT)
    honest = CTransaction.deserialize(sign_settlement(terms, payment, LONGEST, FEE, SERVER))
    copy = CTransaction.deserialize(inflated(honest.serialize()))
    assert honest.serialize() != copy.serialize() and copy.vout == honest.vout
    assert len(copy.serialize()) <= inflated_size_max(terms, payment, LONGEST_DESTINATION) <= 891
    assert not chain.mine(CTransaction.deserialize(inflated(honest.serialize(), LARGEST + 1)))
    assert chain.mine(copy)
    assert not chain.mine(honest)


@pytest.mark.parametrize("number", [2, 16])
def test_a_settlement_may_be_mined_under_another_txid(chain, number):
    terms = open_channel(chain)
    raw = settle(terms, 9 * 10**7).serialize()
    copy = renamed(raw, number)
    assert len(copy) == len(raw) and settlement_txid(copy) != settlement_txid(raw)
    assert chain.mine(CTransaction.deserialize(copy))
    assert read_settlement(copy, terms) == read_settlement(raw, terms)


def test_a_refund_is_no_settlement(chain):
    terms = open_channel(chain)
    assert read_settlement(sign_refund(terms, FEE, CLIENT), terms) is None


# --- the campaign ------------------------------------------------------------


def test_no_mutation_moves_a_satoshi_and_all_that_stay_valid_are_reckoned_with():
    tally = mutations.run(12 * COUNT, random.SystemRandom().randrange(2**32))
    assert tally.problems == []
    assert tally.valid["a push of 520 bytes"] == tally.tried["a push of 520 bytes"] > 0
    assert {mutate.__name__ for mutate in MUTATIONS} <= tally.tried.keys() - tally.valid.keys()
    assert tally.largest == 524  # one byte became a push of 3 + 520, and the scriptSig's length takes 3 bytes instead of one


def test_the_campaign_can_tell(monkeypatch):
    monkeypatch.setattr(mutations, "inflated_size_max", lambda *terms: inflated_size_max(*terms) - 8)
    assert any("more than the fee is reckoned for" in problem for problem in mutations.run(100, 1).problems)
    monkeypatch.setattr(mutations, "verifies", lambda terms, tx: True)
    found = " ".join(mutations.run(100, 1).problems)
    assert "it pays otherwise" in found and "something else than its scriptSig" in found and "not known" in found


@pytest.mark.parametrize(
    ("script_sig", "pushes"),
    [
        (b"\x01\x11" + b"\x51", 2),
        (b"\x4f\x60\x00", 3),
        (b"\x01\x01", 0),
        (b"\x01\x81", 0),
        (b"\x4c\x02ab", 0),
        (b"\x4c\x4c" + bytes(76), 1),
        (b"\x4d\x00\x01" + bytes(256), 1),
        (b"\x02a", 0),
        (b"\x51\x75", 0),
        ((b"\x4d\x08\x02" + bytes(520)) * 3, 3),
        ((b"\x4d\x08\x02" + bytes(520)) * 4, 0),
    ],
)
def test_what_nodes_relay_is_told_from_what_they_do_not(script_sig, pushes):
    assert mutations.relayed_pushes(script_sig) == pushes
