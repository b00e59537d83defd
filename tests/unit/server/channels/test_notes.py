"""Aim: each time another step of value was received, the signer notes the newest durable payment, and goes behind it no more;
payers wait for nothing. Method: the compiled intake and table, the signer's real policy and ledger; store and chain do what a test
says.
"""

import asyncio
import base64
import dataclasses
from types import SimpleNamespace

import pytest
from coincurve import PrivateKey

from paychan._fast.channel import ChannelTable
from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.sender import sign_payment
from paychan.core.units import MAX_MONEY
from paychan.rpc.connection import ConnectionGone, RemoteRefusal
from paychan.rpc.signer_client import SignerRefused
from paychan.rpc.signer_messages import Refusal, RefusalCode, SettleRequest
from paychan.rpc.store_messages import Stored, decode_commit
from paychan.server.channels import notes as notes_module
from paychan.server.channels.notes import Notes
from signer.ledger import Ledger
from signer.policy import Policy, judge, judge_note
from tests.unit.doors import Desk

SERVER, CLIENT = PrivateKey(b"\x11" * 32), PrivateKey(b"\x22" * 32)
DESTINATION = b"\x76\xa9\x14" + b"\xdd" * 20 + b"\x88\xac"
NOW, VALUE, STEP = 1_700_000_000, 2_000_000, 100_000
TERMS = ChannelTerms(
    outpoint=b"\x33" * 32 + bytes(4),
    server_pubkey=SERVER.public_key.format(),
    client_pubkey=CLIENT.public_key.format(),
    exp_time=NOW + 90 * 86_400,
    funding_value=VALUE,
    change_script=b"\xa9\x14" + b"\xcc" * 20 + b"\x87",
)
OTHER = dataclasses.replace(TERMS, outpoint=b"\x44" * 36)


class Rig:
    """A channel in the table and in the store; a signer with its ledger. error: raised by the store instead of a proof."""

    def __init__(self, tmp_path):
        self.table = ChannelTable(4, 3600)
        self.table.own([1] * 4)
        self.ledger = Ledger(tmp_path, "test", TERMS.server_pubkey, "signer.toml")
        policy = (SERVER, TERMS.server_pubkey, DESTINATION, 500, 95, 100, 6 * 3600, MAX_MONEY, True)
        self.policy, self.noted, self.error, self.stored = Policy(*policy), [], None, {}
        self.notes = Notes(self.table, self, self, STEP)
        self.gate = asyncio.Event()
        self.gate.set()
        self.holds(TERMS, 50_000)

    def holds(self, terms, received, durable=None):
        """Have so much received in memory, and in the store if not told otherwise."""
        durable = received if durable is None else durable
        newest, kept = (sign_payment(terms, VALUE - value, CLIENT) for value in (received, durable))
        self.table.load(terms, ChannelState(Phase.OPEN, newest))
        self.stored[terms.outpoint] = Stored(terms.serialize(), ChannelState(Phase.OPEN, kept).serialize(), b"")

    async def load(self, outpoint):
        return self.stored.get(outpoint)

    async def load_funding(self, txid):
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return b""

    async def note(self, terms, payment, proof):
        outcome = judge_note(self.policy, SettleRequest(terms, payment, 0, proof))
        if isinstance(outcome, Refusal):
            raise SignerRefused(outcome)
        self.ledger.note(terms.outpoint, outcome, NOW)
        self.noted.append(outcome)

    async def run(self, *outpoints):
        for outpoint in outpoints or (TERMS.outpoint,):
            self.notes.want(outpoint)
        await asyncio.gather(*self.notes._running.values())

    def settle(self, change_value):
        request = SettleRequest(TERMS, sign_payment(TERMS, change_value, CLIENT), 10_000, b"")
        return judge(self.policy, request, self.ledger.get(TERMS.outpoint, NOW), NOW)


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_what_was_noted_is_what_the_signer_goes_behind_no_more(rig):
    rig.holds(TERMS, 150_000)
    asyncio.run(rig.run())
    assert rig.noted == [VALUE - 150_000]
    answer = rig.settle(VALUE - 100_000)
    assert isinstance(answer, Refusal) and answer.code == RefusalCode.GIVES_PAYER_MORE
    assert not isinstance(rig.settle(VALUE - 150_000), Refusal)


def test_only_what_is_durable_is_noted(rig):
    rig.holds(TERMS, 150_000, durable=120_000)
    asyncio.run(rig.run())
    assert rig.noted == [VALUE - 120_000]


@pytest.mark.parametrize(
    "error", [RemoteRefusal(b""), ConnectionGone(), SignerRefused(Refusal(RefusalCode.FUNDING_NOT_PROVEN, "no"))]
)
def test_what_fails_is_made_up_for_with_the_next_step(rig, error, caplog):
    rig.holds(TERMS, 150_000)
    rig.error = error
    asyncio.run(rig.run())
    assert rig.noted == []
    rig.error = None
    asyncio.run(rig.run())
    assert rig.noted == [VALUE - 150_000]
    assert ("the signer does not note" in caplog.text) == isinstance(error, SignerRefused)


def test_a_channel_that_moved_or_is_not_in_the_store_is_left_alone(rig):
    async def scenario():
        rig.gate.clear()
        rig.notes.want(TERMS.outpoint)
        await asyncio.sleep(0)
        rig.table.drop(TERMS.outpoint)
        rig.gate.set()
        await asyncio.gather(*rig.notes._running.values())

    asyncio.run(scenario())
    rig.holds(TERMS, 150_000)
    rig.stored.clear()
    before = len(rig.noted)
    asyncio.run(rig.run())
    assert len(rig.noted) == before


def test_one_note_at_a_time_for_a_channel_and_a_bounded_number_in_all(rig, monkeypatch):
    monkeypatch.setattr(notes_module, "RUNNING_MAX", 1)
    rig.holds(OTHER, 150_000)

    async def scenario():
        rig.gate.clear()
        for outpoint in (TERMS.outpoint, TERMS.outpoint, OTHER.outpoint):
            rig.notes.want(outpoint)
        assert list(rig.notes._running) == [TERMS.outpoint]
        rig.gate.set()
        await asyncio.gather(*rig.notes._running.values())
        await rig.run(OTHER.outpoint)

    asyncio.run(scenario())
    assert len(rig.noted) == 2


def test_stop_ends_what_runs(rig):
    async def scenario():
        rig.gate.clear()
        rig.notes.want(TERMS.outpoint)
        await asyncio.sleep(0)
        await rig.notes.stop()
        assert rig.notes._running == {}

    asyncio.run(scenario())
    assert rig.noted == []


def test_the_intake_asks_for_a_note_with_each_step_and_not_for_each_payment():
    async def scenario():
        desk = Desk(SimpleNamespace(commit=None))
        desk.store.commit = _all_written
        wanted = []
        desk.payments._notes = SimpleNamespace(want=lambda outpoint: (wanted.append(left), desk.table.watch(outpoint, watched())))
        sample = desk.samples[0]
        outpoint, value = sample.terms.outpoint, sample.terms.funding_value

        def watched():
            return value - left + STEP

        desk.table.watch(outpoint, value - desk_left(desk, outpoint) + STEP)
        start = desk_left(desk, outpoint)
        for paid in range(20_000, 360_001, 20_000):
            left = start - paid
            reply = await desk.payments.pay(sample.path, _query(sample.sign(left)))
            assert reply.status == 200
        assert [start - at for at in wanted] == [120_000, 240_000, 360_000]

    asyncio.run(scenario())


def desk_left(desk, outpoint):
    return int.from_bytes(desk.table.newest_payment(outpoint)[:8], "little")


def _query(paid):
    return "payment=" + base64.urlsafe_b64encode(paid.raw).decode()


async def _all_written(payload):
    return bytes(len(decode_commit(payload)))
