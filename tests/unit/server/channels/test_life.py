"""Aim: a channel is opened, closed and settled in the order that loses no money. Method: the real rules, table and committer; a
store that does what the test says, and a settlement machine that only tells when it was asked.
"""

import asyncio
import base64
import dataclasses
import gc
from types import SimpleNamespace

import orjson
import pytest

from paychan._fast.channel import ChannelTable
from paychan._fast.status import Status
from paychan.chain.base import FundingOutput
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.errors import PaychanError, Rejection, Unavailable
from paychan.core.payment import Payment
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.store_messages import EntryStatus, Stored, decode_commit
from paychan.server.channels.life import CLOSED_SECONDS, ChannelLife, refusal_of_form
from paychan.server.channels.opening import Opening, OpenRequest
from paychan.server.channels.prices import Prices
from paychan.server.shards.committer import Committer
from paychan.server.shards.loading import Loader
from paychan.server.shards.ownership import NotOwner
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all
from tests.unit.doors import asynchronous, settle
from tests.unit.settings.test_config import CONFIGS, load_server_config

TXID = b"\x77" * 32
EXPOSURE_MAX = 6_000_000


class Rig:
    """One worker's engine and a store for it. `written` are the updates that the store took; `answer` is its answer to each.
    freezes: whether openings are frozen while one is proven."""

    def __init__(self):
        self.table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
        self.sample = make_sample("life", funding_value=10_000_000)
        self.outpoint = self.sample.terms.outpoint
        self.written, self.answer, self.gate, self.has = [], EntryStatus.OK, None, {}
        self.settled, self.settlement, self.proven, self.objection = [], TXID, [], None
        self.appearing, self.freezes, self.is_frozen = None, False, False
        self.committer = Committer(self.table, self)
        config = load_server_config(CONFIGS / "regtest" / "server.toml", {})
        config = dataclasses.replace(config, base_price=1000, price_add_settlement_fee=False)
        self.opening = Opening(config, None, Prices(config, None, lambda: 0.0))
        loader = Loader(self.table, SHARD_COUNT, self)
        url = "http://own"
        settling = SimpleNamespace(settle=self._settle)
        self.life = ChannelLife(
            self.table, SHARD_COUNT, self.committer, loader, settling, self.opening, self, lambda: NOW, url, EXPOSURE_MAX,
            ask_opens=self._ask_opens,
        )  # fmt: skip

    async def commit(self, payload):
        entries = decode_commit(payload)
        if self.gate is not None:
            await self.gate.wait()
        if self.answer is None:
            raise ConnectionGone()
        self.written += entries if self.answer is EntryStatus.OK else []
        return bytes([self.answer]) * len(entries)

    async def _ask_opens(self):
        if self.is_frozen:
            raise Unavailable("opens_frozen")

    async def load_many(self, outpoints):
        return [self.has.get(outpoint) for outpoint in outpoints]

    async def prove(self, terms, payment):
        self.proven.append((terms, payment, list(self.written)))
        self.is_frozen = self.freezes
        if self.appearing is not None:
            self.has[terms.outpoint] = self.appearing
        if self.objection is not None:
            raise self.objection

    async def _settle(self, outpoint):
        self.settled.append((outpoint, [ChannelState.parse(entry.state).phase for entry in self.written]))
        return ChannelState(Phase.BROADCAST, self._payment(self.sample.opening), self.settlement)

    @staticmethod
    def _payment(paid):
        return Payment(paid.change_value, paid.signature, paid.sighash_type)

    def request(self, change_value, sighash_type=0x83):
        """Return an open request that gives up all but `change_value` satoshi."""
        terms = self.sample.terms
        paid = self.sample.sign(change_value, sighash_type)
        return OpenRequest(terms.client_pubkey, terms.exp_time, terms.change_script, self._payment(paid), None)

    def funding(self, value=10_000_000):
        return FundingOutput(self.outpoint, value, 6)

    async def open(self, change_value=9_000_000, sighash_type=0x83, value=10_000_000):
        return await self.life.open(
            self.request(change_value, sighash_type), self.funding(value), self.sample.terms.server_pubkey
        )

    def load(self, phase=Phase.OPEN, newest=None):
        self.sample.load(self.table, phase, newest)

    def begin_payment(self, change_value=5_000_000):
        """Take a payment whose write is under way until the gate opens, and return it."""
        payment = self.sample.sign(change_value)
        text = base64.urlsafe_b64encode(payment.raw).decode()
        self.gate = asyncio.Event()
        self.table.pay(self.sample.path, f"payment={text}", NOW)
        self.committer.make_durable(self.outpoint)
        return payment

    def close(self, token):
        text = base64.urlsafe_b64encode(token).decode()
        return self.life.close(self.sample.path, f"payment={text}")


async def refusal(work):
    with pytest.raises(PaychanError) as caught:
        await work
    return caught.value.code


# --- open ---


@asynchronous
async def test_a_channel_is_created_and_told_of_after_the_write():
    rig = Rig()
    rig.gate = asyncio.Event()
    work = asyncio.ensure_future(rig.open())
    await settle()
    assert not work.done()
    rig.gate.set()
    reply = await work
    assert (reply.status, reply.location) == (201, f"http://own{rig.sample.path}")
    told = orjson.loads(reply.body)
    assert (told["channel_status"], told["channel_value_left"], told["value_received"]) == ("open", 9_000_000, 1_000_000)
    (entry,) = rig.written
    assert (entry.outpoint, entry.epoch, entry.expected_phase, entry.expected_change_value) == (rig.outpoint, 1, ABSENT, 10_000_000)
    assert ChannelTerms.parse(rig.outpoint, entry.extra) == rig.sample.terms
    state = ChannelState.parse(entry.state)
    assert (state.phase, state.payment) == (Phase.OPEN, rig.request(9_000_000).payment)


@asynchronous
async def test_a_channel_that_gives_up_everything_at_once_is_closing_and_settled():
    rig = Rig()
    reply = await rig.open(0, 0x82)
    assert (reply.status, orjson.loads(reply.body)["value_received"]) == (202, 10_000_000)
    assert rig.settled == [(rig.outpoint, [Phase.CLOSING])]


@pytest.mark.parametrize(("received", "settles"), [(EXPOSURE_MAX, False), (EXPOSURE_MAX + 1, True)])
@asynchronous
async def test_an_opening_payment_counts_against_the_exposure_limit(received, settles):
    rig = Rig()
    terms, paid = rig.sample.terms, rig.sample.sign(10_000_000 - received)
    rig.has[rig.outpoint] = None
    assert (await rig.open(10_000_000 - received)).status == 201
    rig.has[rig.outpoint] = Stored(terms.serialize(), ChannelState(Phase.OPEN, rig._payment(paid)).serialize(), b"")
    await settle()
    assert [ChannelState.parse(entry.state).phase for entry in rig.written] == [Phase.OPEN] + [Phase.CLOSING] * settles
    assert len(rig.settled) == settles


@asynchronous
async def test_a_bad_opening_writes_nothing():
    rig = Rig()
    assert await refusal(rig.open(9_999_500)) == "open_price_short"
    assert await refusal(rig.open(value=0)) == "funding_not_found"
    assert rig.written == []


@asynchronous
async def test_a_freeze_that_comes_while_an_opening_is_under_way_holds_for_it():
    rig = Rig()
    rig.freezes = True
    assert await refusal(rig.open()) == "opens_frozen"
    assert (len(rig.proven), rig.written) == (1, [])


@asynchronous
async def test_what_would_not_be_settled_is_not_opened():
    rig = Rig()
    rig.objection = Rejection("not_settleable")
    assert await refusal(rig.open()) == "not_settleable"
    assert (rig.written, rig.settled) == ([], [])
    assert await refusal(rig.open(9_999_500)) == "open_price_short"
    assert len(rig.proven) == 1, "only what is right in all else is asked about"
    rig.objection = None
    assert (await rig.open()).status == 201
    terms, payment, written = rig.proven[-1]
    assert (terms, payment, written) == (rig.sample.terms, rig.request(9_000_000).payment, [])


@asynchronous
async def test_what_another_opened_while_it_was_judged_is_told_as_existing():
    """It may have given up everything: then the signer has signed for it, and would give the payer no more."""
    rig = Rig()
    rig.objection = Rejection("not_settleable")
    opened = ChannelState(Phase.OPEN, rig._payment(rig.sample.opening))
    rig.appearing = Stored(rig.sample.terms.serialize(), opened.serialize(), b"")
    reply = await rig.open()
    assert orjson.loads(reply.body)["code"] == "channel_exists"
    assert rig.written == []


@pytest.mark.parametrize(("phase", "code"), [(Phase.OPEN, "channel_exists"), (Phase.SETTLED, "channel_settled")])
@asynchronous
async def test_what_exists_is_not_opened_again(phase, code):
    rig = Rig()
    rig.load(phase)
    for value in (10_000_000, 0):
        reply = await rig.open(value=value)
        assert orjson.loads(reply.body)["code"] == code
        assert reply.location == (f"http://own{rig.sample.path}" if phase is Phase.OPEN else "")
    assert rig.written == []


@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.CLOSING, Phase.SETTLED])
@asynchronous
async def test_a_stranger_who_names_anothers_channel_learns_nothing_of_it(phase):
    rig, other = Rig(), make_sample("life, a stranger")
    rig.load(phase)
    own = dataclasses.replace(other.terms, outpoint=rig.outpoint)
    signed = dataclasses.replace(other, terms=own).sign(9_000_000)
    request = OpenRequest(own.client_pubkey, own.exp_time, own.change_script, rig._payment(signed), rig.outpoint)
    work = rig.life.open(request, rig.funding(0), rig.sample.terms.server_pubkey)
    assert await refusal(work) == "funding_not_found"  # as for an outpoint that is no channel
    request = dataclasses.replace(rig.request(9_000_000), payment=rig._payment(signed))
    assert await refusal(rig.life.open(request, rig.funding(0), rig.sample.terms.server_pubkey)) == "bad_signature"


@asynchronous
async def test_of_two_that_open_at_once_the_second_finds_the_firsts():
    rig = Rig()
    rig.answer = EntryStatus.CONFLICT
    terms, opening = rig.sample.terms, rig.sample.opening
    found = Stored(terms.serialize(), ChannelState(Phase.OPEN, rig._payment(opening)).serialize(), b"")
    rig.gate = asyncio.Event()
    work = asyncio.ensure_future(rig.open())
    await settle()
    rig.has[rig.outpoint] = found
    rig.gate.set()
    assert orjson.loads((await work).body)["code"] == "channel_exists"


@asynchronous
async def test_an_open_that_the_store_did_not_take_is_not_told_as_one():
    for answer in (EntryStatus.STALE_EPOCH, EntryStatus.FORBIDDEN, EntryStatus.CONFLICT):
        rig = Rig()
        rig.answer = answer
        with pytest.raises(NotOwner):
            await rig.open()
    rig = Rig()
    rig.answer = None
    assert await refusal(rig.open()) == "store_unavailable"


# --- close and settle ---


@asynchronous
async def test_a_close_is_durable_before_anything_is_signed():
    rig = Rig()
    rig.load()
    rig.gate = asyncio.Event()
    work = asyncio.ensure_future(rig.close(rig.sample.opening.raw))
    await settle()
    assert rig.settled == [] and rig.table.phase(rig.outpoint) == Phase.CLOSING
    rig.gate.set()
    reply = await work
    assert reply.status == 202
    told = orjson.loads(reply.body)
    assert (told["settlement_txid"], told["channel_value_left"], told["value_received"]) == (TXID.hex(), 10_000_000, 0)
    assert rig.settled == [(rig.outpoint, [Phase.CLOSING])]


@asynchronous
async def test_only_who_has_the_whole_newest_payment_may_close():
    rig = Rig()
    rig.load()
    token = rig.sample.opening.raw
    older = rig.sample.sign(9_999_999).raw
    flipped = token[:-2] + bytes([token[-2] ^ 1]) + token[-1:]
    for wrong in (older, flipped):
        assert await refusal(rig.close(wrong)) == "not_newest_payment"
    assert orjson.loads((await rig.close(token[:-1])).body)["code"] == "invalid_der"
    assert rig.settled == [] and rig.table.phase(rig.outpoint) == Phase.OPEN


@asynchronous
async def test_a_close_that_is_repeated_at_once_is_answered_from_the_look_before():
    rig = Rig()
    rig.load()
    token = rig.sample.opening.raw
    replies = [await rig.close(token) for _ in range(50)]
    assert {reply.body for reply in replies} == {replies[0].body}
    assert len(rig.settled) == 1
    rig.settlement = b"\x78" * 32
    await asyncio.sleep(CLOSED_SECONDS + 0.05)
    assert orjson.loads((await rig.close(token)).body)["settlement_txid"] == rig.settlement.hex()
    rig.table.load(rig.sample.terms, ChannelState(Phase.SETTLED, rig._payment(rig.sample.opening), TXID))
    await rig.close(token)
    assert len(rig.settled) == 3  # another phase is looked at at once


@asynchronous
async def test_a_close_whose_channel_leaves_the_table_meanwhile_goes_on():
    """Found by the simulation: another's write on the same channel had failed, and it had to be read again."""
    rig = Rig()
    rig.load()
    make_durable = rig.committer.make_durable

    async def overtaken(outpoint):
        outcome = await make_durable(outpoint)
        rig.table.drop(outpoint)
        return outcome

    rig.committer.make_durable = overtaken
    assert (await rig.close(rig.sample.opening.raw)).status == 202
    assert rig.settled == [(rig.outpoint, [Phase.CLOSING])]


@asynchronous
async def test_a_close_waits_for_the_payment_that_is_being_written():
    rig = Rig()
    rig.load()
    newest = rig.begin_payment()
    work = asyncio.ensure_future(rig.close(newest.raw))
    await settle()
    assert rig.table.phase(rig.outpoint) == Phase.OPEN and not work.done()
    rig.gate.set()
    assert (await work).status == 202
    assert [entry.expected_change_value for entry in rig.written] == [10_000_000, 5_000_000]


@asynchronous
async def test_a_close_that_was_not_written_signs_nothing():
    for answer, code in ((None, "store_unavailable"), (EntryStatus.STALE_EPOCH, "")):
        rig = Rig()
        rig.load()
        rig.answer = answer
        if code:
            assert await refusal(rig.close(rig.sample.opening.raw)) == code
        else:
            with pytest.raises(NotOwner):
                await rig.close(rig.sample.opening.raw)
        assert rig.settled == []


@asynchronous
async def test_a_close_of_nothing_is_refused():
    rig = Rig()
    assert await refusal(rig.close(rig.sample.opening.raw)) == "no_such_channel"
    assert await refusal(rig.life.settle(rig.outpoint)) == "no_such_channel"


@asynchronous
async def test_what_is_settled_because_its_time_has_come_is_closing_durably_first():
    rig = Rig()
    rig.load()
    reply = await rig.life.settle(rig.outpoint)
    assert orjson.loads(reply.body)["value_received"] == 0
    await rig.life.settle(rig.outpoint)  # again: it is closing, and durable
    assert rig.settled == [(rig.outpoint, [Phase.CLOSING])] * 2


@asynchronous
async def test_a_settlement_waits_for_the_closing_that_is_being_written():
    rig = Rig()
    rig.load()
    rig.gate = asyncio.Event()
    works = [asyncio.ensure_future(rig.life.settle(rig.outpoint)) for _ in range(2)]
    await settle()
    assert rig.settled == []
    rig.gate.set()
    await asyncio.gather(*works)
    assert len(rig.settled) == 2


@pytest.mark.parametrize("txid", [b"", bytes(32)])
@asynchronous
async def test_a_funding_that_another_transaction_spent_has_no_settlement_of_ours(txid):
    rig = Rig()
    rig.load(Phase.CLOSING)
    rig.settlement = txid
    assert await refusal(rig.life.settle(rig.outpoint)) == "funding_spent"


@asynchronous
async def test_a_close_behind_a_payment_that_was_not_written_is_judged_on_what_the_store_has():
    rig = Rig()
    rig.load()
    rig.answer = EntryStatus.CONFLICT
    newer = rig.begin_payment()
    stored = ChannelState(Phase.OPEN, rig._payment(rig.sample.opening))
    rig.has[rig.outpoint] = Stored(rig.sample.terms.serialize(), stored.serialize(), b"")
    works = [asyncio.ensure_future(rig.close(token)) for token in (newer.raw, rig.sample.opening.raw)]
    await settle()
    rig.gate.set()
    rig.gate = None
    await settle(1)
    rig.answer = EntryStatus.OK
    assert await refusal(works[0]) == "not_newest_payment"
    assert (await works[1]).status == 202


@asynchronous
async def test_what_is_settled_early_keeps_nobody_waiting_and_may_fail():
    rig, complaints = Rig(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    rig.load()
    rig.life.settle_early(rig.outpoint)
    assert rig.settled == [] and len(rig.life._early) == 1
    await settle(30)
    assert len(rig.settled) == 1
    rig.table.drop(rig.outpoint)
    rig.life.settle_early(rig.outpoint)  # there is no such channel
    await settle(30)
    assert len(rig.settled) == 1
    rig.load()
    rig.life.settle_early(rig.outpoint)
    for task in rig.life._early:
        task.cancel()
    await settle()
    assert rig.life._early == set()
    gc.collect()
    assert complaints == []


# --- refusals ---


@pytest.mark.parametrize("name", ["payment", "change_address"])
def test_a_repeated_parameter_is_named(name):
    with pytest.raises(PaychanError) as caught:
        refusal_of_form(Status.REPEATED_PARAMETER, f"{name}=a&{name}=b")
    assert (caught.value.code, caught.value.parameter) == ("repeated_parameter", name)
    assert orjson.loads(refusal_of_form(Status.INVALID_DER, f"{name}=a&{name}=b").body)["code"] == "invalid_der"
