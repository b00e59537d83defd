"""Aim: nothing is signed that a hostile server could gain by. Method: each refusal by one change; random sequences.

The oracle below is independent of the policy: it reads a signed settlement with python-bitcoinlib alone.
"""

import dataclasses

import pytest
from bitcoin.core import CMutableTransaction, COutPoint, CTransaction, CTxIn, CTxInWitness, CTxOut, CTxWitness
from bitcoin.core.script import SIGHASH_ALL, CScript, CScriptWitness, SignatureHash
from coincurve import PrivateKey, PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from paychan.core import settlement
from paychan.core.channel import ChannelTerms
from paychan.core.funding import STRIPPED_SIZE_MAX
from paychan.core.outpoint import make_outpoint
from paychan.core.payment import Payment
from paychan.core.script import p2sh_script_pubkey
from paychan.core.sender import sign_payment
from paychan.core.settlement import SettlementError, sign_settlement
from paychan.core.units import DUST_LIMIT
from paychan.rpc.signer_messages import PAYLOAD_MAX, Refusal, RefusalCode, SettleRequest
from paychan.settings.load import load_signer_config
from signer import policy as policy_module
from signer.policy import Memory, Policy, Record, Signed, judge, judge_note, objection

SERVER, CLIENT, STRANGER = (PrivateKey(bytes([n]) * 32) for n in (1, 2, 3))
PUBKEY = SERVER.public_key.format()
DESTINATION = b"\x76\xa9\x14" + b"\xdd" * 20 + b"\x88\xac"
CHANGE_SCRIPT = b"\xa9\x14" + b"\xcc" * 20 + b"\x87"
VALUE = 10_000_000
PERIOD = 6 * 3600
POLICY = Policy(
    SERVER,
    PUBKEY,
    DESTINATION,
    fee_per_byte_max=100,
    fee_share_percent_max=50,
    versions_max=3,
    settlement_period=PERIOD,
    fee_sum_per_day_max=200_000,
)
EXPIRY = 1_900_000_000
EARLY, LATE = EXPIRY - PERIOD - 1, EXPIRY - PERIOD // 2


def make_terms(**changes) -> ChannelTerms:
    fields = {
        "outpoint": bytes(36),
        "server_pubkey": PUBKEY,
        "client_pubkey": CLIENT.public_key.format(),
        "exp_time": EXPIRY,
        "funding_value": VALUE,
        "change_script": CHANGE_SCRIPT,
    }
    return ChannelTerms(**{**fields, **changes})


def fund(terms: ChannelTerms, vout: int = 1, value: int | None = None, script: bytes | None = None, coin: int = 3):
    """Return the terms with the outpoint of a transaction that funds them, and that transaction."""
    pays = CTxOut(terms.funding_value if value is None else value, CScript(script or p2sh_script_pubkey(terms.redeem_script)))
    others = [CTxOut(5000 + index, CScript(b"\x51")) for index in range(3)]
    outputs = [*others[:vout], pays, *others[vout:]]
    tx = CTransaction([CTxIn(COutPoint(b"\x07" * 32, coin))], outputs)
    return dataclasses.replace(terms, outpoint=make_outpoint(tx.GetTxid(), vout)), tx.serialize()


def make_request(change_value: int = 9_000_000, fee: int = 10_000, **changes) -> SettleRequest:
    terms, funding = fund(make_terms(**changes))
    return SettleRequest(terms, sign_payment(terms, change_value, CLIENT), fee, funding)


GOOD = make_request()


def refusal(
    request: SettleRequest, before: Record | None = None, policy: Policy = POLICY, now: int = EARLY, **memory
) -> RefusalCode:
    answer = judge(policy, request, Memory(before, **memory), now)
    assert isinstance(answer, Refusal), "it was signed"
    assert GOOD.payment.signature.hex() not in answer.detail
    return answer.code


def signed(request: SettleRequest, before: Record | None = None, policy: Policy = POLICY, now: int = EARLY, **memory) -> Signed:
    answer = judge(policy, request, Memory(before, **memory), now)
    assert isinstance(answer, Signed), answer
    return answer


def share_at(left: int) -> int:
    """Return the per cent of what the server receives that may be paid `left` seconds before the expiry."""
    parts = [(75, 30), (50, 50), (25, 75), (10, 90)]
    return next((share for part, share in parts if left * 100 >= part * PERIOD), 95)


def oracle(raw: bytes, request: SettleRequest, policy: Policy = POLICY, now: int | None = None) -> tuple[int, int]:
    """Check a settlement as the money sees it, at a time if one is given; return its change value and fee."""
    tx, terms = CTransaction.deserialize(raw), request.terms
    (spend,) = tx.vin
    assert spend.prevout.hash + spend.prevout.n.to_bytes(4, "little") == terms.outpoint
    *change, ours = tx.vout
    assert ours.scriptPubKey == DESTINATION
    assert all(out.scriptPubKey == terms.change_script for out in change)
    change_value = sum(out.nValue for out in change)
    assert (len(change), change_value) == (int(change_value > 0), request.payment.change_value)
    fee = terms.funding_value - change_value - ours.nValue
    assert fee == request.fee
    assert ours.nValue >= 700
    received = terms.funding_value - change_value
    assert fee * 100 <= policy.fee_share_percent_max * received
    if now is not None:
        left = terms.exp_time - now
        assert fee * 100 <= share_at(left) * received or fee <= 2 * (len(raw) + 4)
        assert left <= PERIOD or fee <= policy.fee_per_byte_max * (len(raw) + 4 + 524)
    client, server, one, redeem = spend.scriptSig
    assert (one, redeem) == (1, terms.redeem_script)
    assert server[-1] == SIGHASH_ALL
    for signature, pubkey in ((client, terms.client_pubkey), (server, PUBKEY)):
        digest = SignatureHash(CScript(redeem), tx, 0, signature[-1])
        assert PublicKey(pubkey).verify(signature[:-1], digest, hasher=None)
    return change_value, fee


# --- what is signed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change_value", [VALUE - 40_000, 9_000_000, 700, 0])
def test_a_good_request_is_signed(change_value):
    request = make_request(change_value)
    answer = signed(request)
    assert oracle(answer.raw, request) == (change_value, 10_000)
    txid = CTransaction.deserialize(answer.raw).GetTxid()
    assert answer.record == Record(change_value, 10_000, 1, txid)


def test_the_same_request_gives_the_same_bytes_and_no_new_version():
    first = signed(GOOD)
    assert signed(GOOD, first.record) == first
    worn = dataclasses.replace(first.record, versions=POLICY.versions_max)
    assert signed(GOOD, worn) == Signed(first.raw, worn)


def test_a_higher_fee_or_a_newer_payment_is_a_new_version():
    first = signed(GOOD)
    bumped = signed(dataclasses.replace(GOOD, fee=GOOD.fee + 1), first.record)
    assert bumped.record.versions == 2
    newer = signed(make_request(8_000_000, GOOD.fee - 1), bumped.record)
    assert (newer.record.versions, newer.record.change_value, newer.record.fee) == (3, 8_000_000, GOOD.fee - 1)


def test_a_witness_proves_nothing_and_is_not_read():
    tx = CMutableTransaction.from_tx(CTransaction.deserialize(GOOD.funding_transaction))
    tx.wit = CTxWitness([CTxInWitness(CScriptWitness([b"\x01" * 64]))])
    assert CTransaction.deserialize(tx.serialize()).GetTxid() == GOOD.terms.outpoint[:32]
    assert refusal(dataclasses.replace(GOOD, funding_transaction=tx.serialize())) == RefusalCode.FUNDING_NOT_PROVEN


def greatest_request() -> SettleRequest:
    """Return the request whose funding transaction is the greatest that consensus allows; the channel is its last output."""
    terms = make_terms()
    output = CTxOut(VALUE, CScript(p2sh_script_pubkey(terms.redeem_script)))
    count = (STRIPPED_SIZE_MAX - 100) // len(output.serialize())
    size = len(CTransaction([CTxIn(COutPoint(b"\x07" * 32, 3))], [output] * count).serialize())
    padding = CScript(bytes(STRIPPED_SIZE_MAX - size))
    tx = CTransaction([CTxIn(COutPoint(b"\x07" * 32, 3), padding)], [output] * count)
    assert len(tx.serialize()) == STRIPPED_SIZE_MAX
    terms = dataclasses.replace(terms, outpoint=make_outpoint(tx.GetTxid(), count - 1))
    return SettleRequest(terms, sign_payment(terms, 9_000_000, CLIENT), 10_000, tx.serialize())


def test_the_greatest_funding_transaction_that_consensus_allows_is_a_proof_and_fits_a_frame():
    request = greatest_request()
    assert SettleRequest.decode(request.encode()) == request
    oracle(signed(request).raw, request)
    longest = dataclasses.replace(request.terms, change_script=bytes(255))
    assert len(dataclasses.replace(request, terms=longest).encode()) + 1000 < PAYLOAD_MAX


def test_every_output_of_a_funding_transaction_can_be_the_channel():
    for vout in range(4):
        terms, funding = fund(make_terms(), vout)
        request = SettleRequest(terms, sign_payment(terms, 9_000_000, CLIENT), 10_000, funding)
        oracle(signed(request).raw, request)


def test_the_proof_of_funding_is_waived_only_by_the_policy():
    request = dataclasses.replace(GOOD, funding_transaction=b"")
    assert refusal(request) == RefusalCode.FUNDING_NOT_PROVEN
    oracle(signed(request, policy=dataclasses.replace(POLICY, waive_funding_proof=True)).raw, request)


def test_neither_key_nor_transaction_is_shown_by_repr():
    assert SERVER.secret.hex() not in repr(POLICY) and "PrivateKey" not in repr(POLICY)
    assert "raw" not in repr(signed(GOOD))


# --- what is refused: one change each --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"funding_value": 21 * 10**14 + 1}, {"exp_time": 499_999_999}, {"exp_time": 2**32}, {"change_script": b""}]
    + [{"change_script": script} for script in (CHANGE_SCRIPT + b"\0", b"\x00\x14" + bytes(21), b"\x6a" * 255)]
    + [{"change_script": b"\x52\x20" + bytes(32)}],
    ids=str,
)
def test_terms_out_of_range_are_malformed(changes):
    request = dataclasses.replace(GOOD, terms=dataclasses.replace(GOOD.terms, **changes))
    assert refusal(request, policy=dataclasses.replace(POLICY, waive_funding_proof=True)) == RefusalCode.MALFORMED


@pytest.mark.parametrize(
    "payment",
    [
        dataclasses.replace(GOOD.payment, change_value=VALUE + 1),
        dataclasses.replace(GOOD.payment, change_value=699),
        dataclasses.replace(GOOD.payment, change_value=2**64),
        dataclasses.replace(GOOD.payment, sighash_type=0x82),
        dataclasses.replace(GOOD.payment, sighash_type=0x81),
        dataclasses.replace(GOOD.payment, sighash_type=0x01),
        dataclasses.replace(GOOD.payment, signature=b""),
        dataclasses.replace(GOOD.payment, signature=GOOD.payment.signature + b"\0"),
    ],
    ids=lambda payment: f"{payment.change_value}-{payment.sighash_type}-{len(payment.signature)}",
)
def test_a_payment_of_the_wrong_shape_is_malformed(payment):
    assert refusal(dataclasses.replace(GOOD, payment=payment)) == RefusalCode.MALFORMED


@pytest.mark.parametrize("fee", [-1, 21 * 10**14 + 1, 1.0, True])
def test_a_fee_that_is_no_money_is_malformed(fee):
    assert refusal(dataclasses.replace(GOOD, fee=fee)) == RefusalCode.MALFORMED


def test_another_servers_channel_is_refused():
    assert refusal(make_request(server_pubkey=STRANGER.public_key.format())) == RefusalCode.NOT_OUR_CHANNEL


def test_a_channel_with_ourselves_is_refused():
    terms, funding = fund(make_terms(client_pubkey=PUBKEY))
    request = SettleRequest(terms, sign_payment(terms, 9_000_000, SERVER), 10_000, funding)
    assert refusal(request) == RefusalCode.NOT_OUR_CHANNEL


def unproven(**changes) -> SettleRequest:
    """Return a request that is signed for what it claims, with a funding transaction that says something else."""
    terms, funding = fund(make_terms(), **changes)
    return SettleRequest(terms, sign_payment(terms, 9_000_000, CLIENT), 10_000, funding)


def at_vout(vout: int) -> SettleRequest:
    terms = dataclasses.replace(GOOD.terms, outpoint=GOOD.terms.outpoint[:32] + vout.to_bytes(4, "little"))
    return dataclasses.replace(GOOD, terms=terms, payment=sign_payment(terms, 9_000_000, CLIENT))


@pytest.mark.parametrize(
    "request_",
    [
        dataclasses.replace(GOOD, funding_transaction=b""),
        dataclasses.replace(GOOD, funding_transaction=GOOD.funding_transaction[:-1]),
        dataclasses.replace(GOOD, funding_transaction=GOOD.funding_transaction + b"\0"),
        dataclasses.replace(GOOD, funding_transaction=b"\xff" * 200),
        dataclasses.replace(GOOD, funding_transaction=make_request(exp_time=1_900_000_001).funding_transaction),
        dataclasses.replace(GOOD, funding_transaction=fund(make_terms(), coin=4)[1]),
        unproven(value=VALUE - 1),
        unproven(value=VALUE + 1),
        unproven(script=p2sh_script_pubkey(make_terms(exp_time=1_900_000_001).redeem_script)),
        unproven(script=make_terms().redeem_script),
        at_vout(0),
        at_vout(2),
        at_vout(4),
        at_vout(2**32 - 1),
    ],
    ids=[
        "empty",
        "short",
        "long",
        "garbage",
        "other-tx",
        "same-outputs",
        "less",
        "more",
        "other-script",
        "bare-script",
        "vout0",
        "vout2",
        "vout4",
        "vout-max",
    ],
)
def test_an_outpoint_or_amount_that_is_not_proven_is_refused(request_):
    assert refusal(request_) == RefusalCode.FUNDING_NOT_PROVEN


@pytest.mark.parametrize(
    "payment",
    [
        sign_payment(GOOD.terms, 9_000_000, STRANGER),
        sign_payment(GOOD.terms, 9_000_000, SERVER),
        dataclasses.replace(GOOD.payment, change_value=8_999_999),
        dataclasses.replace(sign_payment(GOOD.terms, 0, CLIENT), change_value=9_000_000, sighash_type=0x83),
        dataclasses.replace(GOOD.payment, change_value=0, sighash_type=0x82),
        sign_payment(dataclasses.replace(GOOD.terms, outpoint=bytes(36)), 9_000_000, CLIENT),
        sign_payment(dataclasses.replace(GOOD.terms, change_script=DESTINATION), 9_000_000, CLIENT),
    ],
    ids=["stranger", "server", "changed", "none-as-single", "single-as-none", "other-channel", "other-change"],
)
def test_what_the_payer_did_not_sign_is_refused(payment):
    assert refusal(dataclasses.replace(GOOD, payment=payment)) == RefusalCode.BAD_PAYMENT_SIGNATURE


def test_a_client_key_off_the_curve_is_refused():
    terms, funding = fund(make_terms(client_pubkey=b"\x02" + b"\xff" * 32))
    request = SettleRequest(terms, GOOD.payment, 10_000, funding)
    assert refusal(request) == RefusalCode.BAD_PAYMENT_SIGNATURE


# --- the fee, by the time that is left ------------------------------------------------------------------------------


def test_the_fee_rate_is_bounded_before_the_settlement_period():
    """For the bytes of the largest copy: that is what a rate may have to be paid for."""
    size = settlement.inflated_size_max(GOOD.terms, GOOD.payment, settlement.LONGEST_DESTINATION)
    at_bound = dataclasses.replace(GOOD, fee=size * 100)
    oracle(signed(at_bound).raw, at_bound)
    above = dataclasses.replace(GOOD, fee=size * 100 + 1)
    assert refusal(above) == RefusalCode.FEE_TOO_HIGH
    oracle(signed(above, now=EARLY + 1).raw, above)  # within it, what must be beaten has no rate


@pytest.mark.parametrize(
    ("left", "share"),
    [(10**9, 30), (PERIOD + 1, 30), (PERIOD, 30), (PERIOD * 3 // 4, 30), (PERIOD * 3 // 4 - 1, 50), (PERIOD // 2 - 1, 75)]
    + [(PERIOD // 4 - 1, 90), (PERIOD // 10 - 1, 95), (0, 95), (-(10**6), 95)],
)
def test_the_fees_share_is_bounded_by_the_ladder(left, share):
    policy = dataclasses.replace(POLICY, fee_share_percent_max=95, fee_per_byte_max=1000)
    now, received = EXPIRY - left, 20_001
    at_bound = make_request(VALUE - received, received * share // 100)
    oracle(signed(at_bound, policy=policy, now=now).raw, at_bound, policy)
    above = make_request(VALUE - received, received * share // 100 + 1)
    assert refusal(above, policy=policy, now=now) == RefusalCode.FEE_TOO_HIGH


def test_the_configured_share_bounds_the_ladders():
    for now in (LATE, EXPIRY, EXPIRY + 10**6):
        at_bound = make_request(VALUE - 20_001, 10_000)
        oracle(signed(at_bound, now=now).raw, at_bound)
        assert refusal(make_request(VALUE - 20_001, 10_001), now=now) == RefusalCode.FEE_TOO_HIGH


def test_a_small_channel_may_pay_the_least_that_is_relayed_and_its_first_replacement():
    size = settlement.settlement_size_max(GOOD.terms, GOOD.payment, settlement.LONGEST_DESTINATION)
    policy = dataclasses.replace(POLICY, fee_share_percent_max=95)
    at_bound = make_request(VALUE - 2_000, 2 * size)  # more than 30 %
    oracle(signed(at_bound, policy=policy).raw, at_bound, policy)
    assert refusal(make_request(VALUE - 2_000, 2 * size + 1), policy=policy) == RefusalCode.FEE_TOO_HIGH
    assert refusal(make_request(VALUE - 1_000, 501)) == RefusalCode.UNECONOMIC
    assert refusal(make_request(VALUE - 1_430, 2 * size)) == RefusalCode.FEE_TOO_HIGH  # the configured share holds for all


def test_a_days_fees_are_bounded_before_the_settlement_period():
    oracle(signed(GOOD, fees_of_the_day=180_000).raw, GOOD)  # half of what is left: there is always something for the next
    assert refusal(GOOD, fees_of_the_day=180_001) == RefusalCode.FEES_OF_THE_DAY
    free = judge(POLICY, dataclasses.replace(GOOD, fee=0), Memory(fees_of_the_day=200_001), EARLY)  # what is urgent counts, too
    assert isinstance(free, Refusal) and (free.code, free.fee) == (RefusalCode.FEES_OF_THE_DAY, 0)
    oracle(signed(GOOD, now=EARLY + 1, fees_of_the_day=10**12).raw, GOOD)  # what waits in its period may be lost


@pytest.mark.parametrize("left", [10**9, PERIOD + 1, PERIOD, PERIOD // 2 - 1, 0])
@pytest.mark.parametrize("received", [20_001, 10**6, 9 * 10**6])
@pytest.mark.parametrize("spent", [0, 150_000, 199_000])
def test_who_asks_too_much_hears_the_most_that_is_signed(left, received, spent):
    policy = dataclasses.replace(POLICY, fee_share_percent_max=95)
    now, asked = EXPIRY - left, received - DUST_LIMIT
    answer = judge(policy, make_request(VALUE - received, asked), Memory(fees_of_the_day=spent), now)
    assert isinstance(answer, Refusal) and answer.code in (RefusalCode.FEE_TOO_HIGH, RefusalCode.FEES_OF_THE_DAY)
    most = make_request(VALUE - received, answer.fee)
    oracle(signed(most, policy=policy, now=now, fees_of_the_day=spent).raw, most, policy)
    above = make_request(VALUE - received, answer.fee + 1)
    assert refusal(above, policy=policy, now=now, fees_of_the_day=spent).name.startswith("FEE")


def test_what_was_signed_is_given_again_whatever_the_time_and_the_days_fees():
    dear = make_request(VALUE - 20_001, 10_000)
    first = signed(dear, now=LATE)
    assert signed(dear, first.record, now=EARLY, fees_of_the_day=10**12) == first
    assert refusal(make_request(VALUE - 20_001, 10_000, exp_time=EXPIRY + 1), now=EARLY) == RefusalCode.FEE_TOO_HIGH


# --- what was noted -------------------------------------------------------------------------------------------------


def note(request: SettleRequest, policy: Policy = POLICY) -> int | RefusalCode:
    answer = judge_note(policy, request)
    return answer.code if isinstance(answer, Refusal) else answer


def test_a_payment_is_noted_and_nothing_may_go_behind_it():
    assert note(make_request(8_000_000, 0)) == 8_000_000
    assert refusal(make_request(8_000_001), noted=8_000_000) == RefusalCode.GIVES_PAYER_MORE
    oracle(signed(make_request(8_000_000), noted=8_000_000).raw, make_request(8_000_000))
    oracle(signed(make_request(7_000_000), noted=8_000_000).raw, make_request(7_000_000))
    assert refusal(make_request(700), noted=0) == RefusalCode.GIVES_PAYER_MORE


def test_what_was_signed_before_it_was_noted_against_is_given_again():
    first = signed(GOOD)
    assert signed(GOOD, first.record, noted=700) == first  # it is out; holding it back would save nothing


def test_only_a_true_payment_on_a_funded_channel_of_ours_is_noted():
    good = make_request(8_000_000, 0)
    assert note(GOOD) == RefusalCode.MALFORMED  # a fee
    assert note(dataclasses.replace(good, payment=sign_payment(good.terms, 8_000_000, STRANGER))) == BAD
    assert note(dataclasses.replace(good, funding_transaction=b"")) == RefusalCode.FUNDING_NOT_PROVEN
    assert note(dataclasses.replace(good, terms=dataclasses.replace(good.terms, server_pubkey=STRANGER_KEY))) == NOT_OURS
    # whoever has no key of the channel cannot note 0 for it with a channel of its own on the same outpoint
    forged = dataclasses.replace(good.terms, client_pubkey=STRANGER_KEY)
    thief = SettleRequest(forged, sign_payment(forged, 0, STRANGER), 0, good.funding_transaction)
    assert note(thief) == RefusalCode.FUNDING_NOT_PROVEN


BAD, NOT_OURS, STRANGER_KEY = RefusalCode.BAD_PAYMENT_SIGNATURE, RefusalCode.NOT_OUR_CHANNEL, STRANGER.public_key.format()


# --- progress -------------------------------------------------------------------------------------------------------


def test_what_does_not_pay_for_its_fee_is_uneconomic():
    policy = dataclasses.replace(POLICY, fee_share_percent_max=100)
    at_bound = make_request(VALUE - 10_700, 10_000)
    oracle(signed(at_bound, policy=policy, now=EXPIRY).raw, at_bound, policy)
    assert refusal(make_request(VALUE - 10_699, 10_000), policy=policy) == RefusalCode.UNECONOMIC
    assert refusal(make_request(VALUE, 0), policy=policy) == RefusalCode.UNECONOMIC


def test_a_later_request_may_not_give_the_payer_more():
    before = signed(GOOD).record
    assert refusal(make_request(9_000_001), before) == RefusalCode.GIVES_PAYER_MORE
    assert refusal(make_request(9_000_001, GOOD.fee + 1), before) == RefusalCode.GIVES_PAYER_MORE
    exhausted = signed(make_request(0), before).record
    assert refusal(make_request(700), exhausted) == RefusalCode.GIVES_PAYER_MORE


def test_the_fee_may_not_fall_for_the_same_payment():
    before = signed(GOOD).record
    assert refusal(dataclasses.replace(GOOD, fee=GOOD.fee - 1), before) == RefusalCode.FEE_FALLS


def test_the_number_of_versions_is_bounded():
    record = None
    for version in range(POLICY.versions_max):
        record = signed(dataclasses.replace(GOOD, fee=GOOD.fee + version), record).record
    assert record.versions == POLICY.versions_max
    assert refusal(dataclasses.replace(GOOD, fee=GOOD.fee + 9), record) == RefusalCode.TOO_MANY_VERSIONS
    assert refusal(make_request(8_000_000), record) == RefusalCode.TOO_MANY_VERSIONS


def test_a_settlement_of_ours_that_pays_elsewhere_does_not_leave(monkeypatch):
    def astray(terms, payment, _destination, fee, key):
        return sign_settlement(terms, payment, CHANGE_SCRIPT, fee, key)

    monkeypatch.setattr(policy_module, "sign_settlement", astray)
    with pytest.raises(SettlementError):
        judge(POLICY, GOOD, Memory(), EARLY)


def test_a_settlement_of_ours_with_another_signature_does_not_leave(monkeypatch):
    def by_stranger(terms, payment, destination, fee, _key):
        return sign_settlement(terms, payment, destination, fee, STRANGER)

    monkeypatch.setattr(policy_module, "sign_settlement", by_stranger)
    with pytest.raises(SettlementError):
        judge(POLICY, GOOD, Memory(), EARLY)


# --- dry: judged as it would be, before there is anything to sign ------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "before"),
    [
        (GOOD, None),
        (GOOD, Record(9_000_000, 10_000, 3, bytes(32))),
        (GOOD, Record(8_999_999, 1, 1, bytes(32))),
        (GOOD, Record(9_000_000, 10_001, 1, bytes(32))),
        (make_request(0), None),
        (make_request(fee=10**9), None),
        (make_request(fee=35_000), None),
        (make_request(server_pubkey=STRANGER.public_key.format()), None),
        (dataclasses.replace(GOOD, funding_transaction=b""), None),
        (dataclasses.replace(GOOD, fee=-1), None),
        (dataclasses.replace(GOOD, payment=sign_payment(GOOD.terms, 9_000_000, STRANGER)), None),
        (unproven(value=VALUE + 1), None),
    ],
)
def test_an_objection_is_what_a_judgement_would_say(request_, before):
    memory = Memory(before)
    judged = judge(POLICY, request_, memory, EARLY)
    assert objection(POLICY, request_, memory, EARLY) == (judged if isinstance(judged, Refusal) else None)


# --- whatever is asked, in whatever order ---------------------------------------------------------------------------

CHANGE_VALUES = st.sampled_from([0, 700, 701, 5_000_000, 9_000_000, VALUE - 20_000, VALUE - 10_000, VALUE - 700, VALUE])
FEES = st.sampled_from([0, 1, 4_999, 5_000, 10_000, 10_001, 34_000, 35_000, 10**7, 10**15])
KEYS = st.sampled_from([CLIENT, CLIENT, CLIENT, STRANGER, SERVER])
PROOFS = st.sampled_from([{}, {}, {}, {"value": VALUE - 1}, {"script": DESTINATION}])
DAMAGE = st.sampled_from([None, None, None, ("change_value", 800), ("sighash_type", 0x82), ("signature", b"\x30")])
TIMES = st.integers(EXPIRY - 3 * PERIOD, EXPIRY + PERIOD)
ASKS = st.lists(st.tuples(st.integers(0, 1), CHANGE_VALUES, FEES, KEYS, PROOFS, DAMAGE, TIMES, st.booleans()), max_size=12)


@settings(max_examples=150, deadline=None)
@given(ASKS)
def test_every_signature_satisfies_the_oracle_whatever_is_asked(asks):
    records: dict[bytes, Record] = {}
    history: dict[bytes, list[tuple[int, int, bytes]]] = {}
    noted: dict[bytes, int] = {}
    for channel, change_value, fee, key, proof, damage, now, is_note in asks:
        terms, funding = fund(make_terms(exp_time=EXPIRY + channel), **proof)
        payment: Payment = sign_payment(terms, change_value, key)
        if damage:
            payment = dataclasses.replace(payment, **dict([damage]))
        request = SettleRequest(terms, payment, 0 if is_note else fee, funding)
        if is_note:
            told = judge_note(POLICY, request)
            if not isinstance(told, Refusal):
                assert key is CLIENT and not proof and told == change_value
                noted[terms.outpoint] = min(told, noted.get(terms.outpoint, told))
            continue
        memory = Memory(records.get(terms.outpoint), noted.get(terms.outpoint))
        answer = judge(POLICY, request, memory, now)
        if isinstance(answer, Refusal):
            assert objection(POLICY, request, memory, now) == answer
            continue
        assert key is CLIENT and not proof
        is_new = answer.record != records.get(terms.outpoint)
        change, paid = oracle(answer.raw, request, now=now if is_new else None)
        assert not is_new or change <= noted.get(terms.outpoint, change)
        seen = history.setdefault(terms.outpoint, [])
        assert all(change < old or (change == old and paid >= old_fee) for old, old_fee, _ in seen)
        seen.append((change, paid, answer.raw))
        assert len({raw for _, _, raw in seen}) == answer.record.versions <= POLICY.versions_max
        records[terms.outpoint] = answer.record


# --- scripts and settings, to the byte -----------------------------------------------------------------------------

P2PKH_CHANGE = b"\x76\xa9\x14" + b"\xcc" * 20 + b"\x88\xac"
SEGWIT_CHANGE = [b"\x00\x14" + b"\xcc" * 20, b"\x00\x20" + b"\xcc" * 32, b"\x51\x20" + b"\xcc" * 32]


@pytest.mark.parametrize("script", [CHANGE_SCRIPT, P2PKH_CHANGE, *SEGWIT_CHANGE], ids=bytes.hex)
def test_the_change_goes_to_an_address_and_to_nothing_like_one(script):
    assert oracle(signed(make_request(change_script=script)).raw, make_request(change_script=script)) == (9_000_000, 10_000)
    around = [at for at in range(len(script)) if script[at] != 0xCC]
    flipped = [script[:at] + bytes([script[at] ^ 1]) + script[at + 1 :] for at in around]
    for other in (*flipped, script[:-1], script + b"\xac", script[:5] + script[6:], script[:5] + b"\0" + script[5:]):
        terms = dataclasses.replace(GOOD.terms, change_script=other)
        assert refusal(dataclasses.replace(GOOD, terms=terms)) is RefusalCode.MALFORMED


def test_a_policy_is_what_the_configuration_says(tmp_path):
    path = tmp_path / "signer.toml"
    path.write_text(
        f"""
        network = "test"
        state_dir = "{tmp_path}"
        [debug]
        enable = true
        waive_funding_proof = true
        [signer]
        address = "unix:s"
        [policy]
        funds_destination_address = "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY"
        fee_per_byte_max = 11
        fee_share_percent_max = 22
        versions_max = 33
        settlement_period_hours = 5
        fee_sum_per_day_max = 44
        """
    )
    config = load_signer_config(path, {})
    policy = Policy.of(config, SERVER)
    assert policy == Policy(SERVER, PUBKEY, config.destination_script, 11, 22, 33, 5 * 3600, 44, waive_funding_proof=True)
    assert len(policy.pubkey) == 33


def test_only_a_falling_fee_tells_what_was_signed():
    answer = judge(POLICY, dataclasses.replace(GOOD, fee=10**9), Memory(), EARLY)
    assert (answer.code, answer.fee) == (RefusalCode.UNECONOMIC, 0)
    before = signed(GOOD).record
    answer = judge(POLICY, dataclasses.replace(GOOD, fee=9_999), Memory(before), EARLY)
    assert (answer.code, answer.fee) == (RefusalCode.FEE_FALLS, 10_000)
