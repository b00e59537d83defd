"""Aim: no payment is taken on a funding output that is not there. Method: the real channel table, a chain set by hand."""

import asyncio
import dataclasses

import pytest
from coincurve import PrivateKey

from paychan._fast.channel import ChannelTable
from paychan._fast.status import Status
from paychan.chain.base import UNKNOWN, FundingStatus
from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.errors import PaychanError, Unavailable
from paychan.core.sender import Sender, sign_payment
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.store_messages import Stored
from paychan.server.channels import funding as funding_module
from paychan.server.channels.funding import AT_ONCE_MAX, FundingChecks

SERVER, CLIENT = PrivateKey(b"\x01" * 32), PrivateKey(b"\x02" * 32)
TERMS = ChannelTerms(
    bytes(36),
    SERVER.public_key.format(),
    CLIENT.public_key.format(),
    1_900_000_000,
    1_000_000,
    b"\xa9\x14" + b"\xcc" * 20 + b"\x87",
)
NOW = 1_800_000_000


class Rig:
    """The chain and the store at once."""

    def __init__(self, confirmations_min: int = 1) -> None:
        self.table = ChannelTable(4, 3600)
        self.table.own([1] * 4)
        self.checks = FundingChecks(self.table, self, self, confirmations_min)
        self.status, self.error, self.asked, self.has_store = FundingStatus(1), None, 0, True
        self.during = lambda: None
        self.sender = Sender(TERMS, CLIENT, "")
        self.load_channel()
        self.checks.tip_moved(2)

    def load_channel(self, terms: ChannelTerms = TERMS) -> None:
        self.table.load(terms, ChannelState(Phase.OPEN, sign_payment(terms, 900_000, CLIENT)))

    async def load(self, outpoint: bytes) -> Stored | None:
        if not self.has_store:
            raise ConnectionGone()
        if not self.table.is_loaded(outpoint):
            return None
        return Stored(dataclasses.replace(TERMS, outpoint=outpoint).serialize(), b"", b"")

    async def funding_status(self, terms: ChannelTerms, settlement_txid: bytes = b"") -> FundingStatus:
        assert terms.redeem_script == TERMS.redeem_script
        self.asked += 1
        self.during()
        if self.error:
            raise self.error
        return self.status

    def check(self, outpoint: bytes = TERMS.outpoint) -> str:
        try:
            asyncio.run(self.checks.check(outpoint))
        except PaychanError as error:
            return error.code
        return ""

    def pays(self) -> int:
        target = self.sender.channel_target(sign_payment(TERMS, 800_000, CLIENT))
        return self.table.pay(*target.split("?"), NOW)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_payment_waits_until_the_output_was_looked_at(rig):
    assert rig.pays() == Status.UNCHECKED
    assert rig.check() == ""
    assert rig.pays() == Status.ACCEPTED


def test_a_new_tip_has_it_looked_at_again(rig):
    assert rig.check() == ""
    rig.checks.tip_moved(3)
    assert rig.pays() == Status.UNCHECKED


@pytest.mark.parametrize("confirmations", [0, UNKNOWN])
def test_a_disappeared_output_freezes_its_channel_until_it_is_back(rig, confirmations):
    rig.status = FundingStatus(confirmations)
    assert rig.check() == "funding_disappeared"
    assert rig.pays() == Status.UNCHECKED
    rig.status = FundingStatus(1)
    assert rig.check() == "funding_disappeared"  # remembered until the tip moves
    assert rig.asked == 1
    rig.checks.tip_moved(3)
    assert rig.check() == ""
    assert rig.pays() == Status.ACCEPTED


@pytest.mark.parametrize("depth", [0, 1, 100])
def test_a_spent_output_ends_payments(rig, depth):
    rig.status = FundingStatus(5, True, b"\1" * 32, depth)
    assert rig.check() == "funding_spent"
    assert rig.pays() == Status.UNCHECKED


def test_a_server_that_takes_unconfirmed_outputs_still_minds_missing_ones():
    rig = Rig(confirmations_min=0)
    rig.status = FundingStatus(0)
    assert rig.check() == ""
    rig.checks.tip_moved(3)
    rig.status = FundingStatus(UNKNOWN)
    assert rig.check() == "funding_disappeared"


def test_a_silent_chain_is_not_held_against_the_channel(rig):
    rig.error = Unavailable("chain_unavailable")
    assert rig.check() == "chain_unavailable"
    assert rig.pays() == Status.UNCHECKED
    rig.error = None
    assert rig.check() == ""


def test_a_tip_that_moves_during_the_look_up_makes_it_void(rig):
    rig.during = lambda: rig.checks.tip_moved(3)
    assert rig.check() == ""
    assert rig.pays() == Status.UNCHECKED


def test_a_channel_dropped_during_the_look_up_is_no_error(rig):
    rig.during = lambda: rig.table.drop(TERMS.outpoint)
    assert rig.check() == ""
    assert rig.pays() == Status.NOT_LOADED


def test_a_channel_loaded_anew_is_looked_at_again(rig):
    assert rig.check() == ""
    rig.load_channel()
    assert rig.pays() == Status.UNCHECKED


def test_the_store_may_be_away_or_know_nothing(rig):
    rig.has_store = False
    assert rig.check() == "store_unavailable"
    rig.has_store = True
    assert rig.check(b"\7" * 36) == "no_such_channel"


def test_however_many_ask_an_output_is_looked_up_once(rig):
    async def ask_all() -> list[object]:
        return await asyncio.gather(*(rig.checks.check(TERMS.outpoint) for _ in range(1000)), return_exceptions=True)

    async def slowly(terms: ChannelTerms) -> FundingStatus:
        rig.asked += 1
        await asyncio.sleep(0.01)
        return rig.status

    rig.funding_status = slowly
    assert asyncio.run(ask_all()) == [None] * 1000
    assert rig.asked == 1
    rig.checks.tip_moved(3)
    rig.status = FundingStatus(UNKNOWN)
    assert {error.code for error in asyncio.run(ask_all())} == {"funding_disappeared"}
    assert rig.asked == 2


def test_look_ups_of_many_channels_are_bounded_and_all_done(rig):
    outpoints = [number.to_bytes(36, "little") for number in range(3 * AT_ONCE_MAX)]
    running, most = 0, 0

    async def slowly(terms: ChannelTerms) -> FundingStatus:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return rig.status

    async def ask_all() -> None:
        await asyncio.gather(*map(rig.checks.check, outpoints))

    rig.funding_status = slowly
    for outpoint in outpoints:
        rig.load_channel(dataclasses.replace(TERMS, outpoint=outpoint))
    asyncio.run(ask_all())
    assert most == AT_ONCE_MAX


def test_whoever_does_not_wait_any_more_takes_nobodys_answer_away(rig):
    async def scenario() -> None:
        async def slowly(terms: ChannelTerms) -> FundingStatus:
            await asyncio.sleep(0.01)
            return rig.status

        rig.funding_status = slowly
        first = asyncio.create_task(rig.checks.check(TERMS.outpoint))
        await asyncio.sleep(0.001)
        second = asyncio.create_task(rig.checks.check(TERMS.outpoint))
        await asyncio.sleep(0.001)
        first.cancel()
        await second

    asyncio.run(scenario())
    assert rig.pays() == Status.ACCEPTED


def test_what_is_remembered_is_bounded(rig, monkeypatch):
    monkeypatch.setattr(funding_module, "REMEMBERED_MAX", 0)
    rig.status = FundingStatus(UNKNOWN)
    assert rig.check() == rig.check() == "funding_disappeared"
    assert rig.asked == 2
