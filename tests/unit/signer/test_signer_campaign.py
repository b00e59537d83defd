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


NOW = 1_700_000_000
EARLY = NOW + RULES.settlement_period + 1


def honest(value: int = 10**7, change_value: int = 9 * 10**6, fee: int = 10_000, **changes: object):
    """Return a request and its answer, as an honest signer gives it, whatever the request says."""
    rng = random.Random(5)
    channel = Channel(rng, RULES, [PrivateKey(b"\x02" * 32)], lambda: NOW, **{"funding_value": value, "exp_time": EARLY, **changes})
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


def judged(*pairs: tuple[SettleRequest, bytes], now: int = NOW, notes: tuple[SettleRequest, ...] = ()) -> str:
    """Return what the oracle says of answers, "" if nothing. notes: what was noted before."""
    oracle = Oracle(RULES)
    try:
        for request in notes:
            oracle.check_note(request.encode())
        for request, raw in pairs:
            oracle.check(request.encode(), raw, now)
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
    assert "rate" in judged(honest(10**9, fee=90_000))
    assert judged(honest(10**9, fee=90_000), now=NOW + 1) == ""  # within the settlement period a rate bounds nothing
    assert "share" in judged(honest(change_value=10**7 - 20_000, fee=6_001))
    assert judged(honest(change_value=10**7 - 20_000, fee=6_000)) == ""


@pytest.mark.parametrize(
    ("left", "share"),
    [(10**9, 30), (21_601, 30), (21_600, 30), (16_200, 30), (16_199, 50), (10_800, 50), (10_799, 75), (5_400, 75), (5_399, 80)],
)
def test_the_oracle_sees_a_share_that_is_not_yet_allowed(left, share):
    """The rules here allow 80 % at most, less than the last rungs."""
    at_bound, above = (honest(change_value=10**7 - 20_000, fee=200 * share + more, exp_time=NOW + left) for more in (0, 1))
    assert judged(at_bound) == "" and "share" in judged(above)


def test_the_oracle_sees_more_than_a_days_fees():
    request, raw = honest(change_value=10**6, fee=80_000)
    oracle = Oracle(RULES)
    others = [(NOW - second, bytes([second]) * 36, 80_000) for second in range(28)]  # 2 240 000 of 2 500 000
    oracle._burnt = [*others, (NOW, b"\xff" * 36, 100_001), (NOW, b"\xff" * 36, 5)]  # of one channel the dearest counts
    with pytest.raises(Violation, match="in a day"):
        oracle.check(request.encode(), raw, NOW)
    oracle._burnt = [*others, (NOW, b"\xff" * 36, 100_000), (NOW, request.terms.outpoint, 70_000)]
    oracle.check(request.encode(), raw, NOW)
    for now, expiry in ((NOW + 24 * 3600 - 27, EARLY + 10**6), (NOW, EARLY - 1)):  # one is a day old; it is urgent
        assert not oracle.is_over_the_days_sum(request.terms.outpoint, expiry, 10**5, now)
    assert oracle.is_over_the_days_sum(request.terms.outpoint, EARLY, 80_001, NOW)


def test_the_oracle_sees_what_goes_behind_a_note():
    newer, _ = honest(change_value=8 * 10**6, fee=0)
    assert "noted before" in judged(honest(), notes=(newer,))
    assert judged(honest(change_value=8 * 10**6), notes=(newer,)) == ""
    assert "a fee was noted" in judged(notes=(honest()[0],))
    forged = dataclasses.replace(newer, payment=dataclasses.replace(newer.payment, change_value=7 * 10**6))
    assert "the payer did not sign what was noted" in judged(notes=(forged,))


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
    channel = Channel(random.Random(5), RULES, [PrivateKey(b"\x02" * 32)], lambda: NOW)
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
