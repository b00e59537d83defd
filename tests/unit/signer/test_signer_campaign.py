"""Aim: no signature breaks the policy, whatever a hostile server asks. Method: the signer campaign, short; and its oracle, misled.

PAYCHAN_SIGNER_COUNT: how many requests (default 3000). PAYCHAN_SEED: makes a failure's choices again; it is in the message.
"""

import dataclasses
import os
import random
import secrets

import pytest
from bitcoin.core import CMutableTransaction, CTransaction
from bitcoin.core.script import SIGHASH_ALL, SIGHASH_ANYONECANPAY, SIGHASH_SINGLE, CScript, SignatureHash
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.script import push
from paychan.core.settlement import sign_settlement
from paychan.rpc.signer_messages import SettleRequest
from tests.campaign.signer import KEY, RULES, Result, plan, run_chunk
from tests.campaign.signer_oracle import Oracle, Violation
from tests.campaign.signer_requests import Channel, fund

COUNT = int(os.environ.get("PAYCHAN_SIGNER_COUNT", "3000"))
SEED = int(os.environ.get("PAYCHAN_SEED", secrets.randbelow(1 << 32)))


def test_a_hostile_server_gets_no_signature_that_breaks_the_policy():
    result = Result()
    for job in plan(COUNT, SEED, chunk=1000, socket_share=3):
        result.add(run_chunk(job))
    assert result.problems == [], f"seed {SEED}"
    assert result.missing() == [], f"seed {SEED}"
    assert result.requests == COUNT and result.over_the_socket == 1000
    assert result.signed > COUNT / 30 and result.restarts > 0


def test_the_same_seed_asks_the_same():
    assert run_chunk((7, 0, 300, False)) == run_chunk((7, 0, 300, False)) != run_chunk((8, 0, 300, False))


# --- the oracle, told lies ------------------------------------------------------------------------------------------------


def honest(value: int = 10**7, change_value: int = 9 * 10**6, fee: int = 10_000, **changes: object):
    """Return a request and its answer, as an honest signer gives it, whatever the request says."""
    rng = random.Random(5)
    channel = Channel(rng, RULES, [PrivateKey(b"\x02" * 32)], **{"funding_value": value, **changes})
    request = SettleRequest(channel.terms, channel.pay(change_value), fee, channel.funding)
    return request, sign_settlement(request.terms, request.payment, RULES.destination, fee, KEY)


def resigned(raw: bytes, redeem: bytes, change, sighash_type: int = SIGHASH_ALL) -> bytes:
    """Return a settlement that was changed and then signed by the server again."""
    tx = CMutableTransaction.from_tx(CTransaction.deserialize(raw))
    change(tx)
    client, *_ = tx.vin[0].scriptSig
    server = KEY.sign(SignatureHash(CScript(redeem), tx, 0, sighash_type), hasher=None) + bytes([sighash_type])
    tx.vin[0].scriptSig = CScript(push(client) + push(server) + b"\x51" + push(redeem))
    return CTransaction.from_tx(tx).serialize()


def judged(*pairs: tuple[SettleRequest, bytes]) -> str:
    """Return what the oracle says of answers, "" if nothing."""
    oracle = Oracle(RULES)
    try:
        for request, raw in pairs:
            oracle.check(request.encode(), raw)
    except Violation as violation:
        return str(violation)
    return ""


def test_the_oracle_has_nothing_against_what_is_right():
    assert judged(honest(), honest(), honest(fee=10_001), honest(change_value=0, fee=1)) == ""


def steal(tx):
    tx.vout[-1].scriptPubKey = CScript(b"\x76\xa9\x14" + b"\xee" * 20 + b"\x88\xac")


def pay_more_change(tx):
    tx.vout[0].nValue += 1
    tx.vout[1].nValue -= 1


def burn(tx):
    tx.vout[-1].nValue -= 1


def lock(tx):
    tx.nLockTime = 1


@pytest.mark.parametrize(
    ("change", "sighash_type", "word"),
    [
        (steal, SIGHASH_ALL, "destination"),
        (pay_more_change, SIGHASH_ALL, "another amount"),
        (burn, SIGHASH_ALL, "another fee"),
        (lock, SIGHASH_ALL, "shape"),
        (lambda tx: tx.vout.reverse(), SIGHASH_ALL, "destination"),
        (lambda tx: None, SIGHASH_SINGLE | SIGHASH_ANYONECANPAY, "SIGHASH_ALL"),
        (lambda tx: None, SIGHASH_ALL | SIGHASH_ANYONECANPAY, "SIGHASH_ALL"),
    ],
    ids=["steal", "change", "burn", "lock", "order", "single", "anyone"],
)
def test_the_oracle_sees_another_transaction(change, sighash_type, word):
    request, raw = honest()
    assert word in judged((request, resigned(raw, request.terms.redeem_script, change, sighash_type)))


def test_the_oracle_sees_a_fee_above_its_bounds():
    assert "rate" in judged(honest(10**9, fee=50_000))
    assert "share" in judged(honest(change_value=10**7 - 20_000, fee=10_001))


def test_the_oracle_sees_steps_backwards():
    assert "payer gets more" in judged(honest(), honest(change_value=9_000_001))
    assert "fee of the same payment fell" in judged(honest(), honest(fee=9_999))
    assert "versions" in judged(*(honest(fee=10_000 + more) for more in range(RULES.versions_max + 1)))


def test_the_oracle_sees_what_is_not_proven():
    request, _ = honest()
    for terms, word in (
        (dataclasses.replace(request.terms, funding_value=10**7 + 5), "amount"),
        (dataclasses.replace(request.terms, outpoint=request.terms.outpoint[:32] + b"\7\0\0\0"), "another one"),
        (dataclasses.replace(request.terms, exp_time=request.terms.exp_time ^ 1), "another script"),
    ):
        assert word in judged(answered(terms, request.funding_transaction))


def answered(terms: ChannelTerms, funding: bytes) -> tuple[SettleRequest, bytes]:
    """Return a request with a payment signed for these terms, and the settlement of a signer that believes them."""
    channel = Channel(random.Random(5), RULES, [PrivateKey(b"\x02" * 32)])
    payment = channel.pay(9 * 10**6, **{name: getattr(terms, name) for name in ChannelTerms.__slots__})
    return SettleRequest(terms, payment, 10_000, funding), sign_settlement(terms, payment, RULES.destination, 10_000, KEY)


def test_the_oracle_sees_anothers_channel_and_a_payment_that_nobody_signed():
    other = PrivateKey(b"\x09" * 32).public_key.format()
    assert "another server's key" in judged(honest(server_pubkey=other))
    assert "both keys" in judged(honest(client_pubkey=RULES.pubkey))
    request, _ = honest()
    forged = dataclasses.replace(request.payment, change_value=request.payment.change_value - 1)
    raw = sign_settlement(request.terms, forged, RULES.destination, request.fee, KEY)
    assert "payer did not sign" in judged((dataclasses.replace(request, payment=forged), raw))


def test_the_oracle_sees_a_signature_of_another_transaction():
    request, raw = honest()
    _, other = honest(fee=9_999)
    assert "another fee" in judged((request, other))
    tx = CMutableTransaction.from_tx(CTransaction.deserialize(raw))
    tx.vin[0].scriptSig = CTransaction.deserialize(other).vin[0].scriptSig
    assert "not of this transaction" in judged((request, CTransaction.from_tx(tx).serialize()))


def test_a_channel_is_funded_by_its_transaction():
    request, _ = honest()
    terms, funding = fund(random.Random(6), request.terms)
    assert judged(answered(terms, funding)) == ""
