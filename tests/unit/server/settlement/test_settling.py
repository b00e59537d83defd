"""Aim: a settlement goes forward step by durable step, from wherever it stands. Method: the real machine, the signer's real policy,
and a chain and a store that do what each test says. Whole lives are tried in tests/simulation.
"""

import asyncio
import dataclasses
import logging

import pytest
from bitcoin.core import CTransaction
from coincurve import PrivateKey

from paychan._fast.channel import ChannelTable
from paychan.chain.base import BroadcastRefused, FundingStatus, Spender
from paychan.core.address_script import BASE58, SEGWIT, is_address_script
from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.errors import Unavailable
from paychan.core.fees import LADDER, FeeBounds, bump_fee_min
from paychan.core.outcome import Outcome
from paychan.core.outpoint import format_outpoint, txid_hex
from paychan.core.payment import Payment
from paychan.core.refund import sign_refund
from paychan.core.sender import sign_payment
from paychan.core.settlement import LONGEST_DESTINATION, inflated_size_max, settlement_size_max, sign_settlement
from paychan.core.units import MAX_MONEY
from paychan.rpc.connection import ConnectionGone, RemoteRefusal
from paychan.rpc.signer_client import SignerRefused
from paychan.rpc.signer_messages import Refusal, RefusalCode, SettleRequest
from paychan.rpc.store_messages import EntryStatus, Stored
from paychan.server.settlement.settling import Settling, SettlingRules
from paychan.server.settlement.spends import Spends
from paychan.server.shards.committer import LOST
from signer.policy import Memory, Policy, judge
from tests.copies import inflated, renamed

SERVER, CLIENT = PrivateKey(b"\x11" * 32), PrivateKey(b"\x22" * 32)
DESTINATION = b"\x51\x20" + b"\xdd" * 32
PERIOD = 6 * 3600
EXPIRY = 1_700_000_000
TERMS = ChannelTerms(
    outpoint=b"\x33" * 32 + bytes(4),
    server_pubkey=SERVER.public_key.format(),
    client_pubkey=CLIENT.public_key.format(),
    exp_time=EXPIRY,
    funding_value=2_000_000,
    change_script=b"\xa9\x14" + b"\xcc" * 20 + b"\x87",
)
WHERE = format_outpoint(TERMS.outpoint)
STRANGER = b"\x99" * 32
BURIED = 6
USUAL = 40


class Rig:
    """One closing channel on which `received` satoshi were paid. `events` are what others saw, in order.

    seen: what the source has of transactions, by txid; asked: what its mempool asks for 1000 bytes. So little was received that
    2 % of it are less than the estimates here.
    """

    def __init__(self, received=150_000, share_max=95, rate_max=1000):
        self.payment = sign_payment(TERMS, TERMS.funding_value - received, CLIENT)
        self.stored = Stored(TERMS.serialize(), ChannelState(Phase.CLOSING, self.payment).serialize(), b"")
        self.status, self.rate, self.now, self.events = FundingStatus(10), 10, EXPIRY - 10 * PERIOD, []
        self.ledger, self.is_signer_up, self.depth = {}, True, 0
        pubkey = SERVER.public_key.format()
        self.policy = Policy(SERVER, pubkey, DESTINATION, rate_max, share_max, 100, PERIOD, MAX_MONEY, True)
        self.fees_of_the_day, self.errors, self.outcome, self.tamper = 0, {}, EntryStatus.OK, lambda raw: raw
        self.seen, self.asked, self.looked_for, self.on_broadcast = {}, None, [], lambda raw: None
        channels = ChannelTable(4, PERIOD)
        channels.own([1] * 4)
        self.channels = channels
        rules = SettlingRules(PERIOD, BURIED, FeeBounds(1, 1000), USUAL)
        self.settling = Settling(rules, channels, 4, self, self, Signer(self), self, lambda: self.now)

    # the store and the committer

    async def load(self, outpoint):
        self._raise("load")
        return self.stored

    async def write(self, entry):
        assert entry.epoch == 1 and entry.expected_change_value == self.payment.change_value
        assert entry.expected_phase == self.state.phase
        if self.outcome != EntryStatus.OK:
            return self.outcome
        is_done = ChannelState.parse(entry.state).phase == Phase.SETTLED
        self.became = Outcome.parse(entry.extra) if is_done else None
        settlement = self.stored.settlement if is_done else entry.extra or self.stored.settlement
        self.stored = Stored(self.stored.terms, entry.state, settlement)
        self.events.append(self.state.phase)
        return EntryStatus.OK

    # the chain

    async def funding_status(self, terms, settlement_txid=b""):
        self._raise("funding_status")
        self.looked_for.append(settlement_txid)
        return self.status if settlement_txid == self.state.settlement_txid else FundingStatus(20, True, settlement_txid, BURIED)

    async def load_funding(self, txid):
        self._raise("load_funding")
        assert txid == TERMS.outpoint[:32]
        return b""

    async def fee_per_byte(self, blocks):
        self._raise("fee_per_byte")
        self.blocks = blocks
        return self.rate

    async def spender(self, txid):
        return self.seen.get(txid, Spender())

    async def relay_fee_per_kb(self):
        return self.asked

    async def broadcast(self, transaction):
        self._raise("broadcast")
        assert transaction == self.stored.settlement
        self.on_broadcast(transaction)
        self.events.append("broadcast")
        self.status = FundingStatus(10, True, CTransaction.deserialize(transaction).GetTxid(), self.depth)

    # what the tests look at

    def _raise(self, name):
        if name in self.errors:
            raise self.errors[name]

    @property
    def state(self):
        return ChannelState.parse(self.stored.state)

    @property
    def fee(self):
        return TERMS.funding_value - sum(output.nValue for output in CTransaction.deserialize(self.stored.settlement).vout)

    @property
    def size(self):
        return settlement_size_max(TERMS, self.payment, LONGEST_DESTINATION)

    @property
    def size_inflated(self):
        return inflated_size_max(TERMS, self.payment, LONGEST_DESTINATION)

    def spent_by(self, raw, fees=None, depth=0, name=True):
        """Have a transaction spend the funding output; return its txid."""
        txid = CTransaction.deserialize(raw).GetTxid()
        self.seen[txid] = Spender(raw, fees)
        self.status = FundingStatus(20, True, txid if name else b"", depth)
        return txid

    def settle(self):
        """Drive the machine once; return the code of what stopped it, if anything did."""
        try:
            told = asyncio.run(self.settling.settle(TERMS.outpoint))
        except Unavailable as error:
            return error.code
        assert told == self.state
        return ""

    def signed(self, fee=5000):
        """Put the channel where a settlement was signed and nothing more."""
        raw = sign_settlement(TERMS, self.payment, DESTINATION, fee, SERVER)
        txid = CTransaction.deserialize(raw).GetTxid()
        self.stored = Stored(self.stored.terms, ChannelState(Phase.SIGNED, self.payment, txid).serialize(), raw)
        return txid


class Signer:
    """The real policy over a dictionary."""

    def __init__(self, rig):
        self._rig = rig

    async def settle(self, terms, payment, fee, proof):
        rig = self._rig
        if not rig.is_signer_up:
            raise ConnectionGone()
        rig.events.append(fee)
        memory = Memory(rig.ledger.get(terms.outpoint), fees_of_the_day=rig.fees_of_the_day)
        outcome = judge(rig.policy, SettleRequest(terms, payment, fee, proof), memory, rig.now)
        if isinstance(outcome, Refusal):
            raise SignerRefused(outcome)
        rig.ledger[terms.outpoint] = outcome.record
        return rig.tamper(outcome.raw)


@pytest.fixture
def rig():
    return Rig()


# --- the way ---


def test_nobody_sees_a_settlement_that_is_not_on_disk(rig):
    assert rig.settle() == ""
    assert rig.events == [10 * rig.size, Phase.SIGNED, "broadcast", Phase.BROADCAST]
    assert rig.fee == 10 * rig.size


def test_a_settlement_is_for_good_at_the_configured_depth_and_no_block_earlier(rig):
    rig.settle()
    txid = rig.state.settlement_txid
    for depth, phase in ((1, Phase.BROADCAST), (BURIED - 1, Phase.BROADCAST), (BURIED, Phase.SETTLED)):
        rig.status = FundingStatus(20, True, txid, depth)
        assert rig.settle() == ""
        assert rig.state.phase == phase
    assert rig.state.settlement_txid == txid
    assert rig.events[-1] == Phase.SETTLED
    received = TERMS.funding_value - rig.payment.change_value
    assert rig.became == Outcome(rig.now, TERMS.opened_at, received, rig.fee)


def test_what_is_over_is_left_alone(rig):
    rig.settle()
    rig.status = FundingStatus(20, True, rig.state.settlement_txid, BURIED)
    rig.settle()
    rig.events.clear()
    rig.errors["funding_status"] = AssertionError("nobody asks")
    assert rig.settle() == ""
    assert rig.events == []


def test_an_open_channel_is_not_settled(rig):
    rig.stored = Stored(rig.stored.terms, ChannelState(Phase.OPEN, rig.payment).serialize(), b"")
    assert rig.settle() == "settlement_refused"
    assert rig.events == []


def test_two_who_ask_at_once_share_one_attempt(rig):
    async def both():
        return await asyncio.gather(*(rig.settling.settle(TERMS.outpoint) for _ in range(2)))

    first, second = asyncio.run(both())
    assert first == second and first.phase == Phase.BROADCAST
    assert rig.events.count("broadcast") == 1


def test_one_who_gives_up_waiting_does_not_end_it(rig):
    async def give_up():
        task = asyncio.ensure_future(rig.settling.settle(TERMS.outpoint))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(*rig.settling._running.values())

    asyncio.run(give_up())
    assert rig.state.phase == Phase.BROADCAST


def test_stop_ends_what_runs_and_the_next_goes_on(rig):
    async def stop():
        waiting = asyncio.Event()

        async def hang(_):
            waiting.set()
            await asyncio.sleep(1e9)

        rig.broadcast, usual = hang, rig.broadcast
        task = asyncio.ensure_future(rig.settling.settle(TERMS.outpoint))
        await waiting.wait()
        await rig.settling.stop()
        assert task.done() or not rig.settling._running
        assert all(running.done() for running in asyncio.all_tasks() - {asyncio.current_task(), task})
        rig.broadcast = usual
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(stop())
    assert rig.state.phase == Phase.SIGNED
    assert rig.settle() == ""
    assert rig.state.phase == Phase.BROADCAST


# --- where it goes on ---


def test_what_was_signed_before_a_crash_is_published_as_it_is(rig):
    txid = rig.signed(fee=10 * rig.size)
    rig.is_signer_up = False
    assert rig.settle() == ""
    assert rig.events == ["broadcast", Phase.BROADCAST]
    assert rig.state.settlement_txid == txid


def test_what_was_buried_before_its_broadcast_was_written_down_is_won(rig):
    txid = rig.signed()
    rig.status = FundingStatus(20, True, txid, BURIED)
    assert rig.settle() == ""
    assert rig.events == [Phase.SETTLED]
    assert rig.state.settlement_txid == txid


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.SIGNED, Phase.BROADCAST])
def test_a_refund_that_won_is_told_as_a_loss(rig, phase, caplog):
    if phase >= Phase.SIGNED:
        rig.signed()
    if phase == Phase.BROADCAST:
        rig.settle()
    rig.events.clear()
    txid = rig.spent_by(sign_refund(TERMS, 1000, CLIENT), depth=BURIED)
    assert rig.settle() == ""
    assert (rig.state.phase, rig.state.settlement_txid) == (Phase.SETTLED, txid)
    assert f"{WHERE} was spent by another transaction, {txid_hex(txid)}" in caplog.text
    received = TERMS.funding_value - rig.payment.change_value
    assert rig.became == Outcome(rig.now, TERMS.opened_at, received, missing=received, is_lost=True)


@pytest.mark.parametrize("phase", [Phase.SIGNED, Phase.BROADCAST])
def test_a_spender_that_nobody_can_show_may_be_a_settlement_in_another_form(rig, phase, caplog):
    """A node without an index has no transaction that was mined and never in its mempool."""
    rig.signed()
    if phase == Phase.BROADCAST:
        rig.settle()
    newest = rig.state.settlement_txid
    rig.status = FundingStatus(20, True, STRANGER, BURIED)
    assert rig.settle() == ""
    assert (rig.state.phase, rig.state.settlement_txid) == (Phase.SETTLED, STRANGER)
    assert f"{WHERE} was spent, but maybe not by its newest settlement {txid_hex(newest)}" in caplog.text
    assert "was spent by another" not in caplog.text


def test_a_spender_without_a_name_ends_what_was_broadcast_and_is_told(rig, caplog):
    txid = rig.signed()
    rig.settle()
    rig.status = FundingStatus(20, True, b"", BURIED)
    assert rig.settle() == ""
    assert (rig.state.phase, rig.state.settlement_txid) == (Phase.SETTLED, rig.state.settlement_txid or txid)
    assert "maybe not by its newest settlement" in caplog.text


def test_a_spender_without_a_name_ends_what_was_never_signed(rig):
    rig.status = FundingStatus(20, True, b"", BURIED)
    assert rig.settle() == ""
    assert (rig.state.phase, rig.state.settlement_txid) == (Phase.SETTLED, bytes(32))


def test_a_spend_in_a_few_blocks_is_waited_for(rig):
    rig.status = FundingStatus(20, True, STRANGER, 1)
    assert rig.settle() == ""
    assert rig.events == [] and rig.state.phase == Phase.CLOSING


def test_a_refund_in_the_mempool_is_raced(rig):
    rig.settle()
    rig.events.clear()
    rig.status = FundingStatus(20, True, STRANGER, 0)
    assert rig.settle() == ""
    assert rig.events == ["broadcast"]


def test_a_new_process_announces_what_it_finds_waiting(rig):
    """Its node has it; who knows how long the others have."""
    rig.settle()
    rig.status = FundingStatus(10, True, rig.state.settlement_txid, 0)
    rig.events.clear()
    rig.settle()
    assert rig.events == []
    rig.settling._spends = Spends(rig)
    for _ in range(2):
        rig.settle()
    assert rig.events == ["broadcast"]


@pytest.mark.parametrize("seen_as", ["newest", "nameless"])
def test_what_is_on_its_way_and_good_enough_is_left_alone(rig, seen_as):
    rig.settle()
    rig.events.clear()
    rig.status = FundingStatus(10, True, rig.state.settlement_txid if seen_as == "newest" else b"", 0)
    assert rig.settle() == ""
    assert rig.events == []


# --- the fee ---


def test_a_fee_that_became_too_low_is_raised(rig):
    rig.settle()
    before = rig.fee
    rig.events.clear()
    rig.rate = 30
    assert rig.settle() == ""
    assert rig.events == [30 * rig.size, Phase.BROADCAST, "broadcast"]
    assert rig.fee == 30 * rig.size > before


def test_without_an_estimate_the_configured_rate_is_taken_and_told_once(rig, caplog):
    rig.rate = None
    assert rig.settle() == ""
    assert rig.fee == USUAL * rig.size
    rig.settle()
    assert caplog.text.count("no estimate: 40 satoshi a byte are taken for one") == 1
    rig.rate = 60
    rig.settle()
    assert rig.fee == 60 * rig.size
    assert caplog.text.count("estimates are back") == 1


def test_a_raise_that_is_too_small_is_not_made(rig):
    rig.settle()
    before, least = rig.fee, bump_fee_min(rig.fee, rig.size)
    rig.events.clear()
    rig.rate = (least - 1) // rig.size
    assert rig.settle() == ""
    assert (rig.events, rig.fee) == ([], before)
    rig.rate += 1
    rig.settle()
    assert rig.fee == rig.rate * rig.size >= least


def test_a_raise_that_is_just_enough_is_made():
    rig = Rig(received=60_000)
    rig.rate = 4
    rig.settle()
    assert bump_fee_min(rig.fee, rig.size) == 5 * rig.size
    rig.rate = 5
    assert rig.settle() == ""
    assert rig.fee == 5 * rig.size


def test_a_raise_is_published_whatever_spends_the_output_by_now(rig):
    rig.settle()
    rig.status, rig.rate = FundingStatus(10, True, b"", 0), 30
    rig.events.clear()
    assert rig.settle() == ""
    assert rig.events == [30 * rig.size, Phase.BROADCAST, "broadcast"]


def test_a_raise_that_cannot_be_had_publishes_nothing_that_is_on_its_way(rig):
    rig.settle()
    rig.events.clear()
    rig.rate, rig.is_signer_up = 100, False
    assert rig.settle() == ""
    assert rig.events == []


def test_what_is_buried_at_once_is_settled_at_once(rig):
    rig.depth = BURIED
    assert rig.settle() == ""
    assert rig.events[-2:] == [Phase.BROADCAST, Phase.SETTLED]


def test_a_signer_that_asks_for_a_fee_that_was_asked_for_is_not_asked_again(rig):
    asked = []

    async def refuse(terms, payment, fee, proof):
        asked.append(fee)
        raise SignerRefused(Refusal(RefusalCode.FEE_FALLS, "no", fee))

    rig.settling._signer.settle = refuse
    assert rig.settle() == "settlement_refused"
    assert asked == [10 * rig.size]


def test_the_fee_is_computed_for_the_largest_kind_of_output():
    assert is_address_script(DESTINATION)
    assert len(DESTINATION) == len(LONGEST_DESTINATION) == max(size for size, _, _ in BASE58 + SEGWIT)


def test_only_what_failed_is_logged_as_that(rig, caplog):
    rig.settle()
    assert caplog.records == []
    rig.errors["load"] = ConnectionGone()
    rig.settle()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"settlement of {WHERE}: " in caplog.text


def test_without_a_better_one_the_settlement_that_there_is_must_do(rig, caplog):
    caplog.set_level(logging.INFO)
    rig.settle()
    rig.status = FundingStatus(10)  # it fell out of the mempool
    rig.rate, rig.is_signer_up = 100, False
    rig.events.clear()
    assert rig.settle() == ""
    assert rig.events == ["broadcast"]
    assert "keeps its fee" in caplog.text


def test_the_fee_rises_towards_the_expiry(rig):
    fees = []
    for seconds_left in (PERIOD, PERIOD // 2, PERIOD // 4, PERIOD // 10, 60, -3600):
        rig.now = EXPIRY - seconds_left
        assert rig.settle() == ""
        fees.append(rig.fee)
    assert fees == [10 * rig.size, *(10 * factor * rig.size_inflated for factor in (1, 2, 4, 8, 16))]  # the last waited too long
    assert rig.blocks == 1


@pytest.mark.parametrize("percent", [50, 20])
def test_a_fee_above_the_signers_bound_is_lowered_to_it(percent):
    rig = Rig(received=20_000, share_max=percent)
    rig.rate, rig.now = 100, EXPIRY - 60
    assert rig.settle() == ""
    asked = [event for event in rig.events if type(event) is int]
    assert len(asked) == 2 and asked[-1] == rig.fee == 20_000 * percent // 100


def test_what_the_days_sum_leaves_is_paid():
    rig = Rig()
    rig.policy = dataclasses.replace(rig.policy, fee_sum_per_day_max=100_000)
    rig.rate, rig.fees_of_the_day = 100, 100_000 - 10 * rig.size
    assert rig.settle() == ""
    assert rig.fee == 5 * rig.size
    rig.fees_of_the_day = 100_000 - 12 * rig.size  # not enough more for a replacement
    assert rig.settle() == "" and rig.fee == 5 * rig.size
    rig.fees_of_the_day = 100_000 - 14 * rig.size
    assert rig.settle() == "" and rig.fee == 7 * rig.size


def test_a_signer_whose_bound_always_moves_is_not_asked_for_ever(rig):
    asked = []

    async def refuse(terms, payment, fee, proof):
        asked.append(fee)
        raise SignerRefused(Refusal(RefusalCode.FEES_OF_THE_DAY, "too much", fee - 1))

    rig.settling._signer.settle = refuse
    assert rig.settle() == "settlement_refused"
    assert asked == [10 * rig.size - lowered for lowered in range(4)]


def test_a_fee_below_the_floor_is_not_asked_for():
    rig = Rig(received=20_000, rate_max=1, share_max=1)
    assert rig.settle() == "settlement_refused"
    assert [event for event in rig.events if type(event) is int] == [10 * rig.size]
    assert rig.state.phase == Phase.CLOSING


def test_a_dearer_signature_that_was_lost_is_asked_for_again(rig):
    rig.settle()
    fee = rig.fee
    rig.stored = Stored(rig.stored.terms, ChannelState(Phase.CLOSING, rig.payment).serialize(), b"")
    rig.status, rig.rate = FundingStatus(10), 2
    assert rig.settle() == ""
    assert rig.fee == fee


def test_a_channel_worth_less_than_its_fee_is_told_of_and_tried_again():
    rig = Rig(received=1000)
    assert rig.settle() == "settlement_uneconomic"
    assert rig.settling.uneconomic == {TERMS.outpoint}
    assert rig.events == []
    rig.payment = sign_payment(TERMS, 1_000_000, CLIENT)
    rig.stored = Stored(rig.stored.terms, ChannelState(Phase.CLOSING, rig.payment).serialize(), b"")
    assert rig.settle() == ""
    assert rig.settling.uneconomic == set()


def test_the_signer_may_find_it_uneconomic_too(rig):
    async def refuse(*_):
        raise SignerRefused(Refusal(RefusalCode.UNECONOMIC, "no"))

    rig.settling._signer.settle = refuse
    assert rig.settle() == "settlement_uneconomic"
    assert rig.settling.uneconomic == {TERMS.outpoint}


# --- what is in the way ---


def test_an_inflated_copy_is_outbid_for_the_bytes_that_it_has(rig, caplog):
    rig.settle()
    raw, before = rig.stored.settlement, rig.fee
    rig.spent_by(inflated(raw))
    rig.events.clear()
    assert rig.settle() == ""
    fee = 10 * len(inflated(raw))
    assert rig.events == [fee, Phase.BROADCAST, "broadcast"] and rig.fee == fee > 2 * before
    assert caplog.text.count("somebody has changed its scriptSig") == 1


def test_a_copy_of_the_same_size_is_left_alone_and_told_of_once(rig, caplog):
    rig.settle()
    rig.spent_by(renamed(rig.stored.settlement))
    rig.events.clear()
    for _ in range(3):
        assert rig.settle() == ""
    assert rig.events == []
    assert caplog.text.count("somebody has changed its scriptSig") == 1


def test_what_hangs_on_the_settlement_is_paid_for_when_it_is_replaced(rig, caplog):
    rig.settle()
    before, size = rig.fee, rig.size
    rig.spent_by(rig.stored.settlement, fees=before + 20_000)
    rig.events.clear()
    assert rig.settle() == ""
    assert rig.events == []  # it pays enough, and what hangs on it does not keep it out of blocks
    rig.rate = 30
    assert rig.settle() == ""
    assert rig.events == [before + 20_000 + size, Phase.BROADCAST, "broadcast"]
    assert caplog.text.count("transactions with 20000 satoshi of fees hang on the settlement") == 1


def test_what_may_not_be_paid_yet_is_told_and_waited_for(rig, caplog):
    rig.settle()
    before = rig.fee
    rig.spent_by(rig.stored.settlement, fees=before + 60_000)
    rig.rate = 30
    assert rig.settle() == ""
    assert rig.fee == before  # 30 % of 150 000 are less
    assert f"needs {before + 60_000 + rig.size} satoshi to be taken now, and may pay 45000" in caplog.text
    rig.now = EXPIRY - PERIOD // 2
    assert rig.settle() == ""
    assert rig.fee == before + 60_000 + rig.size


def test_an_older_version_in_the_mempool_is_replaced_by_what_is_dearer_than_it(rig):
    rig.settle()
    older = rig.stored.settlement
    rig.rate = 15
    rig.settle()
    rig.spent_by(older)
    rig.events.clear()
    assert rig.settle() == ""
    assert rig.events == ["broadcast"]
    rig.spent_by(older, fees=30_000)
    rig.events.clear()
    assert rig.settle() == ""
    assert rig.events == [30_000 + rig.size, Phase.BROADCAST, "broadcast"]


def test_the_payers_refund_is_outbid_by_rate_and_in_all(rig):
    rig.settle()
    rig.now = EXPIRY + 60
    refund = sign_refund(TERMS, 20_000, CLIENT)
    rig.spent_by(refund)
    rig.rate, rig.events = 1, []
    assert rig.settle() == ""
    assert rig.fee == 20_000 * rig.size // len(refund) + 1  # the refund is the smaller one


def test_the_first_settlement_replaces_what_is_there_already(rig):
    rig.spent_by(sign_refund(TERMS, 20_000, CLIENT))
    rig.now = EXPIRY + 60
    rig.rate = 1
    assert rig.settle() == ""
    assert rig.events[0] >= 20_348


# --- what the network refuses ---


class Asking:
    """A network that takes what pays `fee` satoshi, and says of anything else `reason`."""

    def __init__(self, rig, fee, reason, for_fee=True):
        self.rig, self.fee, self.reason, self.for_fee, self.refused = rig, fee, reason, for_fee, []
        rig.on_broadcast = self

    def __call__(self, raw):
        paid = TERMS.funding_value - sum(output.nValue for output in CTransaction.deserialize(raw).vout)
        if paid < self.fee:
            self.refused.append(paid)
            raise BroadcastRefused(self.reason, self.for_fee)


def test_what_is_too_cheap_for_a_full_mempool_is_signed_again_at_once_by_less_than_a_quarter(rig):
    rig.rate = 23
    rig.settle()
    rig.status, rig.rate, rig.asked = FundingStatus(10), 20, 27_000  # it was forgotten, and the mempool has filled
    asking = Asking(rig, 27 * rig.size, "mempool min fee not met")
    before = rig.fee
    rig.events.clear()
    assert rig.settle() == ""
    assert asking.refused == [before] == [23 * rig.size]
    assert rig.events == [27 * rig.size, Phase.BROADCAST, "broadcast"]


def test_the_very_first_version_too(rig):
    rig.asked = 12_345
    Asking(rig, -(-12_345 * rig.size // 1000), "min relay fee not met")
    assert rig.settle() == ""
    assert rig.fee == -(-12_345 * rig.size // 1000)
    assert rig.state.phase == Phase.BROADCAST


def test_a_refused_replacement_learns_what_it_must_beat(rig):
    rig.settle()
    older, before = rig.stored.settlement, rig.fee
    rig.rate = 15

    class Pinned(Asking):
        def __call__(self, raw):
            rig.spent_by(older, fees=before + 25_000)
            super().__call__(raw)

    asking = Pinned(rig, before + 25_000 + rig.size, "insufficient fee")
    rig.events.clear()
    assert rig.settle() == ""
    assert asking.refused == [15 * rig.size]
    assert rig.fee == before + 25_000 + rig.size and rig.events[-1] == "broadcast"


def test_where_nobody_tells_what_would_do_it_is_doubled_once_at_each_look(rig):
    rig.settle()
    rig.status = FundingStatus(10)
    first = rig.fee
    asking = Asking(rig, 5 * first, "insufficient fee")
    assert rig.settle() == "settlement_refused"
    assert asking.refused == [first, 2 * first]
    assert rig.settle() == "settlement_refused"
    assert asking.refused == [first, 2 * first, 2 * first, 4 * first]
    assert rig.settle() == ""
    assert rig.fee == 8 * first


def test_nothing_is_raised_beyond_the_share_for_a_refusal(rig, caplog):
    rig.settle()
    rig.status = FundingStatus(10)
    asking = Asking(rig, 10**9, "insufficient fee")
    for _ in range(10):
        assert rig.settle() == "settlement_refused"
    assert max(asking.refused) == rig.fee <= 45_000 < 2 * rig.fee
    assert "and may pay 45000" in caplog.text


def test_a_refusal_for_another_reason_raises_nothing(rig):
    rig.settle()
    rig.status = FundingStatus(10)
    asking = Asking(rig, 10**9, "txn-mempool-conflict", for_fee=False)
    for _ in range(3):
        assert rig.settle() == "settlement_refused"
    assert len(set(asking.refused)) == 1


# --- waiting ---


def test_what_waits_long_before_the_expiry_is_reckoned_for_its_largest_copy(rig):
    rig.settle()
    before = rig.fee
    rig.now += LADDER[0].patience * 600 - 1
    assert rig.settle() == ""
    assert rig.fee == before
    rig.now += 1
    rig.events.clear()
    assert rig.settle() == ""
    assert rig.events == [10 * rig.size_inflated, Phase.BROADCAST, "broadcast"]
    rig.now += 30 * 86_400 - LADDER[0].patience * 600
    rig.now = min(rig.now, EXPIRY - PERIOD)
    rig.events.clear()
    assert rig.settle() == ""
    assert rig.events == ["broadcast"]  # not raised again, for the estimate is the same; but announced again


def test_what_waits_near_the_expiry_is_raised_at_each_block(rig):
    rig.now = EXPIRY - PERIOD // 20
    rig.rate = 1
    fees = []
    for _ in range(6):
        assert rig.settle() == ""
        fees.append(rig.fee)
        rig.now += 600
    assert fees[0] == 8 * rig.size_inflated
    assert fees[1:5] == [fees[0] * 2**power for power in (1, 2, 3, 4)]
    assert fees[5] == 150_000 * 95 // 100


# --- what is found on the chain ---


@pytest.mark.parametrize("change", [renamed, inflated], ids=["renamed", "inflated"])
def test_a_settlement_that_was_mined_in_another_form_is_settled_and_not_lost(rig, change, caplog):
    caplog.set_level(logging.INFO)
    rig.settle()
    txid = rig.spent_by(change(rig.stored.settlement), depth=BURIED)
    assert rig.settle() == ""
    assert (rig.state.phase, rig.state.settlement_txid) == (Phase.SETTLED, txid)
    assert f"settled {WHERE} by {txid_hex(txid)}, in another form" in caplog.text
    assert "was spent by another" not in caplog.text


def test_an_older_version_that_was_mined_is_settled_and_not_lost(rig, caplog):
    caplog.set_level(logging.INFO)
    rig.settle()
    older, rig.rate = rig.stored.settlement, 30
    rig.settle()
    txid = rig.spent_by(older, depth=BURIED)
    assert rig.settle() == ""
    assert (rig.state.phase, rig.state.settlement_txid) == (Phase.SETTLED, txid)
    assert f"settled {WHERE} by {txid_hex(txid)}" in caplog.text and "missing" not in caplog.text


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.SIGNED, Phase.BROADCAST])
def test_a_settlement_of_an_older_payment_is_told_with_what_is_missing(rig, phase, caplog):
    if phase >= Phase.SIGNED:
        rig.signed()
    if phase == Phase.BROADCAST:
        rig.settle()
    generous = sign_payment(TERMS, rig.payment.change_value + 12_345, CLIENT)
    txid = rig.spent_by(sign_settlement(TERMS, generous, DESTINATION, 5000, SERVER), depth=BURIED)
    assert rig.settle() == ""
    assert (rig.state.phase, rig.state.settlement_txid) == (Phase.SETTLED, txid)
    assert f"settled {WHERE} by {txid_hex(txid)}, of an older payment: 12345 satoshi are missing" in caplog.text
    received = TERMS.funding_value - rig.payment.change_value
    assert rig.became == Outcome(rig.now, TERMS.opened_at, received, 5000, 12_345)


def test_a_refund_whose_bytes_are_known_is_a_loss(rig, caplog):
    rig.settle()
    txid = rig.spent_by(sign_refund(TERMS, 20_000, CLIENT), depth=BURIED)
    assert rig.settle() == ""
    assert (rig.state.phase, rig.state.settlement_txid) == (Phase.SETTLED, txid)
    assert f"{WHERE} was spent by another transaction, {txid_hex(txid)}" in caplog.text


def test_a_form_that_was_seen_in_the_mempool_is_looked_for_when_the_spender_has_no_name(rig, caplog):
    caplog.set_level(logging.INFO)
    rig.settle()
    copy = renamed(rig.stored.settlement)
    txid = rig.spent_by(copy)
    rig.settle()
    rig.status = FundingStatus(20, True, b"", BURIED)
    rig.seen.clear()  # and nobody has its bytes any more
    assert rig.settle() == ""
    assert (rig.state.phase, rig.state.settlement_txid) == (Phase.SETTLED, txid)
    assert txid in rig.looked_for
    assert f"settled {WHERE} by {txid_hex(txid)}, in another form" in caplog.text


def test_nothing_is_remembered_of_what_is_settled(rig):
    rig.settle()
    rig.spent_by(renamed(rig.stored.settlement))
    rig.settle()
    assert rig.settling._spends._memories
    rig.spent_by(rig.stored.settlement, depth=BURIED)
    rig.settle()
    assert rig.settling._spends._memories == {}


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("where", "error", "code"),
    [
        ("load", ConnectionGone(), "store_unavailable"),
        ("load", RemoteRefusal(b""), "store_unavailable"),
        ("load_funding", ConnectionGone(), "store_unavailable"),
        ("load_funding", RemoteRefusal(b""), "store_unavailable"),
        ("funding_status", Unavailable("chain_unavailable"), "chain_unavailable"),
        ("fee_per_byte", Unavailable("chain_unavailable"), "chain_unavailable"),
        ("broadcast", BroadcastRefused("min relay fee not met"), "settlement_refused"),
        ("broadcast", OSError("no route"), "chain_unavailable"),
    ],
)
def test_what_stopped_it_is_told_and_the_next_attempt_goes_on(rig, where, error, code):
    rig.errors[where] = error
    assert rig.settle() == code
    rig.errors.clear()
    assert rig.settle() == ""
    assert rig.state.phase == Phase.BROADCAST
    assert rig.settling.uneconomic == set()


def test_a_channel_that_is_not_in_the_store_is_somebody_elses(rig):
    rig.stored = None
    assert rig.settle() == "owner_moved"


def test_without_the_signer_nothing_moves(rig):
    rig.is_signer_up = False
    assert rig.settle() == "signer_unavailable"
    assert rig.events == []


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(LOST, "store_unavailable"), (EntryStatus.STALE_EPOCH, "owner_moved"), (EntryStatus.CONFLICT, "owner_moved")],
)
def test_a_step_that_was_not_written_is_not_gone_beyond(rig, outcome, code):
    rig.outcome = outcome
    rig.channels.load(TERMS, ChannelState(Phase.CLOSING, rig.payment))
    assert rig.settle() == code
    assert "broadcast" not in rig.events
    assert not rig.channels.is_loaded(TERMS.outpoint)


def stolen(raw):
    """Return the settlement with another's script in the server's output."""
    return raw.replace(DESTINATION, DESTINATION.replace(b"\xdd", b"\xee"))


def another_payment(raw):
    dearer = Payment(1_500_000, sign_payment(TERMS, 1_500_000, CLIENT).signature, 0x83)
    return sign_settlement(TERMS, dearer, DESTINATION, 5000, SERVER)


@pytest.mark.parametrize("tamper", [stolen, another_payment, lambda raw: raw[:-1]])
def test_a_wrong_settlement_from_the_signer_is_neither_kept_nor_published(rig, tamper):
    rig.tamper = tamper
    assert rig.settle() == "settlement_refused"
    assert rig.events == [10 * rig.size]


def test_a_settlement_that_nodes_would_not_relay_is_not_published():
    rig = Rig()
    rig.settling._rules = SettlingRules(PERIOD, BURIED, FeeBounds(0, 0), 0)
    assert rig.settle() == "settlement_refused"
    assert "broadcast" not in rig.events
