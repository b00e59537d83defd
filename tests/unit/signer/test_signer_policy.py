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
from paychan.rpc.signer_messages import PAYLOAD_MAX, Refusal, RefusalCode, SettleRequest
from paychan.settings.load import load_signer_config
from signer import policy as policy_module
from signer.policy import Policy, Record, Signed, judge, objection

SERVER, CLIENT, STRANGER = (PrivateKey(bytes([n]) * 32) for n in (1, 2, 3))
PUBKEY = SERVER.public_key.format()
DESTINATION = b"\x76\xa9\x14" + b"\xdd" * 20 + b"\x88\xac"
CHANGE_SCRIPT = b"\xa9\x14" + b"\xcc" * 20 + b"\x87"
VALUE = 10_000_000
POLICY = Policy(SERVER, PUBKEY, DESTINATION, fee_per_byte_max=100, fee_share_percent_max=50, versions_max=3)


def make_terms(**changes) -> ChannelTerms:
    fields = {
        "outpoint": bytes(36),
        "server_pubkey": PUBKEY,
        "client_pubkey": CLIENT.public_key.format(),
        "exp_time": 1_900_000_000,
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


def refusal(request: SettleRequest, before: Record | None = None, policy: Policy = POLICY) -> RefusalCode:
    answer = judge(policy, request, before)
    assert isinstance(answer, Refusal), "it was signed"
    assert GOOD.payment.signature.hex() not in answer.detail
    return answer.code


def signed(request: SettleRequest, before: Record | None = None, policy: Policy = POLICY) -> Signed:
    answer = judge(policy, request, before)
    assert isinstance(answer, Signed), answer
    return answer


def oracle(raw: bytes, request: SettleRequest, policy: Policy = POLICY) -> tuple[int, int]:
    """Check a settlement as the money sees it; return its change value and fee."""
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
    assert fee <= policy.fee_per_byte_max * (len(raw) + 4)
    assert fee * 100 <= policy.fee_share_percent_max * (terms.funding_value - change_value)
    client, server, one, redeem = spend.scriptSig
    assert (one, redeem) == (1, terms.redeem_script)
    assert server[-1] == SIGHASH_ALL
    for signature, pubkey in ((client, terms.client_pubkey), (server, PUBKEY)):
        digest = SignatureHash(CScript(redeem), tx, 0, signature[-1])
        assert PublicKey(pubkey).verify(signature[:-1], digest, hasher=None)
    return change_value, fee


# --- what is signed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change_value", [VALUE - 20_000, 9_000_000, 700, 0])
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
    + [{"change_script": script} for script in (CHANGE_SCRIPT + b"\0", b"\x00\x14" + bytes(20), b"\x6a" * 255)],
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


def test_the_fee_rate_is_bounded():
    size = settlement.settlement_size_max(GOOD.terms, GOOD.payment, DESTINATION)
    at_bound = dataclasses.replace(GOOD, fee=size * 100)
    oracle(signed(at_bound).raw, at_bound)
    assert refusal(dataclasses.replace(GOOD, fee=size * 100 + 1)) == RefusalCode.FEE_TOO_HIGH


def test_the_fees_share_is_bounded():
    received = 20_001
    at_bound = make_request(VALUE - received, 10_000)
    oracle(signed(at_bound).raw, at_bound)
    assert refusal(make_request(VALUE - received, 10_001)) == RefusalCode.FEE_TOO_HIGH


def test_what_does_not_pay_for_its_fee_is_uneconomic():
    policy = dataclasses.replace(POLICY, fee_share_percent_max=100)
    at_bound = make_request(VALUE - 10_700, 10_000)
    oracle(signed(at_bound, policy=policy).raw, at_bound, policy)
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
        judge(POLICY, GOOD, None)


def test_a_settlement_of_ours_with_another_signature_does_not_leave(monkeypatch):
    def by_stranger(terms, payment, destination, fee, _key):
        return sign_settlement(terms, payment, destination, fee, STRANGER)

    monkeypatch.setattr(policy_module, "sign_settlement", by_stranger)
    with pytest.raises(SettlementError):
        judge(POLICY, GOOD, None)


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
    judged = judge(POLICY, request_, before)
    assert objection(POLICY, request_, before) == (judged if isinstance(judged, Refusal) else None)


# --- whatever is asked, in whatever order ---------------------------------------------------------------------------

CHANGE_VALUES = st.sampled_from([0, 700, 701, 5_000_000, 9_000_000, VALUE - 20_000, VALUE - 10_000, VALUE - 700, VALUE])
FEES = st.sampled_from([0, 1, 4_999, 5_000, 10_000, 10_001, 34_000, 35_000, 10**7, 10**15])
KEYS = st.sampled_from([CLIENT, CLIENT, CLIENT, STRANGER, SERVER])
PROOFS = st.sampled_from([{}, {}, {}, {"value": VALUE - 1}, {"script": DESTINATION}])
DAMAGE = st.sampled_from([None, None, None, ("change_value", 800), ("sighash_type", 0x82), ("signature", b"\x30")])
ASKS = st.lists(st.tuples(st.integers(0, 1), CHANGE_VALUES, FEES, KEYS, PROOFS, DAMAGE), max_size=12)


@settings(max_examples=150, deadline=None)
@given(ASKS)
def test_every_signature_satisfies_the_oracle_whatever_is_asked(asks):
    records: dict[bytes, Record] = {}
    history: dict[bytes, list[tuple[int, int, bytes]]] = {}
    for channel, change_value, fee, key, proof, damage in asks:
        terms, funding = fund(make_terms(exp_time=1_900_000_000 + channel), **proof)
        payment: Payment = sign_payment(terms, change_value, key)
        if damage:
            payment = dataclasses.replace(payment, **dict([damage]))
        request = SettleRequest(terms, payment, fee, funding)
        answer = judge(POLICY, request, records.get(terms.outpoint))
        if isinstance(answer, Refusal):
            assert objection(POLICY, request, records.get(terms.outpoint)) == answer
            continue
        assert key is CLIENT and not proof
        change, paid = oracle(answer.raw, request)
        seen = history.setdefault(terms.outpoint, [])
        assert all(change < old or (change == old and paid >= old_fee) for old, old_fee, _ in seen)
        seen.append((change, paid, answer.raw))
        assert len({raw for _, _, raw in seen}) == answer.record.versions <= POLICY.versions_max
        records[terms.outpoint] = answer.record


# --- scripts and settings, to the byte -----------------------------------------------------------------------------

P2PKH_CHANGE = b"\x76\xa9\x14" + b"\xcc" * 20 + b"\x88\xac"


@pytest.mark.parametrize("script", [CHANGE_SCRIPT, P2PKH_CHANGE])
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
        """
    )
    config = load_signer_config(path, {})
    policy = Policy.of(config, SERVER)
    assert policy == Policy(SERVER, PUBKEY, config.destination_script, 11, 22, 33, waive_funding_proof=True)
    assert len(policy.pubkey) == 33


def test_only_a_falling_fee_tells_what_was_signed():
    answer = judge(POLICY, dataclasses.replace(GOOD, fee=10**9), None)
    assert (answer.code, answer.signed_fee) == (RefusalCode.UNECONOMIC, 0)
    before = signed(GOOD).record
    answer = judge(POLICY, dataclasses.replace(GOOD, fee=9_999), before)
    assert (answer.code, answer.signed_fee) == (RefusalCode.FEE_FALLS, 10_000)
