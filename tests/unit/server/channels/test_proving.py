"""Aim: no channel opens that would not be settled. Method: the signer's real policy, and a source and a store that do what each
test says; what the signer refuses, and what fails on the way, leaves nothing behind."""

import dataclasses

import pytest

from paychan.core.errors import PaychanError, Rejection, Unavailable
from paychan.core.sender import sign_payment
from paychan.core.settlement import LONGEST_DESTINATION, settlement_size_max
from paychan.rpc.connection import ConnectionGone, RemoteRefusal
from paychan.rpc.signer_client import SignerRefused
from paychan.rpc.signer_messages import RefusalCode, SettleRequest
from paychan.server.channels.proving import Proving
from signer.policy import Memory, Record, objection
from tests.unit.doors import asynchronous
from tests.unit.signer.test_signer_policy import CLIENT, EARLY, GOOD, POLICY, STRANGER, greatest_request, make_request, unproven

FLOOR = 10


class Rig:
    """Source, signer and store at once. `kept`: what the store took; `raises`: what fails, by the method's name."""

    def __init__(self, request=GOOD, policy=POLICY, before=None, floor=FLOOR):
        self.request, self.policy, self.before = request, policy, before
        self.kept, self.asked, self.raises = [], [], {}
        self.proving = Proving(self, self, self, floor)

    def _raise(self, name):
        if name in self.raises:
            raise self.raises[name]

    async def funding_transaction(self, terms):
        self._raise("funding_transaction")
        assert terms == self.request.terms
        return self.request.funding_transaction

    async def judge(self, terms, payment, fee, funding_transaction):
        self._raise("judge")
        request = SettleRequest(terms, payment, fee, funding_transaction)
        self.asked.append(request)
        refusal = objection(self.policy, request, Memory(self.before), EARLY)
        if refusal is not None:
            raise SignerRefused(refusal)

    async def keep_funding(self, transaction):
        self._raise("keep_funding")
        self.kept.append(transaction)

    async def prove(self):
        return await self.proving.prove(self.request.terms, self.request.payment)

    async def refusal(self):
        with pytest.raises(PaychanError) as caught:
            await self.prove()
        assert self.kept == []
        return caught.value


@asynchronous
async def test_what_the_signer_would_sign_is_proven_and_its_proof_is_kept():
    for request in (GOOD, make_request(0), greatest_request()):
        rig = Rig(request)
        await rig.prove()
        assert rig.kept == [request.funding_transaction]
        (asked,) = rig.asked
        assert asked.fee == FLOOR * settlement_size_max(request.terms, request.payment, LONGEST_DESTINATION)


@pytest.mark.parametrize(
    ("request_", "policy", "before", "code"),
    [
        (dataclasses.replace(GOOD, funding_transaction=b""), POLICY, None, RefusalCode.FUNDING_NOT_PROVEN),
        (unproven(value=GOOD.terms.funding_value - 1), POLICY, None, RefusalCode.FUNDING_NOT_PROVEN),
        (GOOD, POLICY, Record(8_000_000, 1, 1, bytes(32)), RefusalCode.GIVES_PAYER_MORE),
        (GOOD, dataclasses.replace(POLICY, fee_per_byte_max=FLOOR // 3), None, RefusalCode.FEE_TOO_HIGH),
        (GOOD, dataclasses.replace(POLICY, pubkey=STRANGER.public_key.format()), None, RefusalCode.NOT_OUR_CHANNEL),
        (make_request(10_000_000 - 5000), POLICY, None, RefusalCode.FEE_TOO_HIGH),
        (
            dataclasses.replace(GOOD, payment=sign_payment(GOOD.terms, 9_000_000, STRANGER)),
            POLICY,
            None,
            RefusalCode.BAD_PAYMENT_SIGNATURE,
        ),
    ],
)
@asynchronous
async def test_what_the_signer_would_refuse_does_not_open(request_, policy, before, code):
    refusal = await Rig(request_, policy, before).refusal()
    assert isinstance(refusal, Rejection) and refusal.code == "not_settleable"
    assert code.name.lower() in refusal.detail


@asynchronous
async def test_what_pays_for_no_output_does_not_open():
    terms = GOOD.terms
    rig = Rig(dataclasses.replace(GOOD, payment=sign_payment(terms, terms.funding_value - 699, CLIENT)))
    assert (await rig.refusal()).code == "not_settleable"
    assert rig.asked == []


@asynchronous
async def test_in_debug_mode_a_channel_may_be_worth_less_than_its_settlement_and_nothing_else_is_waived():
    for change_value in (10_000_000, 10_000_000 - 699, 10_000_000 - 1000):
        await Rig(make_request(change_value), floor=None).prove()
    rig = Rig(dataclasses.replace(make_request(10_000_000), funding_transaction=b""), floor=None)
    assert (await rig.refusal()).code == "not_settleable"


@asynchronous
async def test_where_no_transaction_exists_nothing_is_kept():
    rig = Rig(dataclasses.replace(GOOD, funding_transaction=b""), dataclasses.replace(POLICY, waive_funding_proof=True))
    await rig.prove()
    assert rig.kept == [] and len(rig.asked) == 1


@pytest.mark.parametrize(
    ("where", "error", "code"),
    [
        ("funding_transaction", Unavailable("chain_unavailable", "it needs txindex=1"), "chain_unavailable"),
        ("judge", ConnectionGone(), "signer_unavailable"),
        ("keep_funding", ConnectionGone(), "store_unavailable"),
        ("keep_funding", RemoteRefusal(b"too many updates wait"), "store_unavailable"),
    ],
)
@asynchronous
async def test_what_fails_on_the_way_can_be_asked_for_again(where, error, code):
    rig = Rig()
    rig.raises[where] = error
    assert (await rig.refusal()).code == code
    rig.raises.clear()
    await rig.prove()
    assert rig.kept == [GOOD.funding_transaction]
