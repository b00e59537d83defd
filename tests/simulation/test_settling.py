"""Aim: one settlement in the situations that the simulation found, each by itself. Method: the real machine, signer
policy and mempool rules; a store and a committer that do what they are told.
"""

import random
from collections.abc import Iterator

import pytest
from bitcoin.core import CTransaction

from paychan._fast.channel import ChannelTable
from paychan.core.channel import ChannelState, Phase
from paychan.core.errors import Unavailable
from paychan.core.fees import FeeBounds
from paychan.core.sender import Sender
from paychan.core.settlement import settlement_size_max
from paychan.rpc.store_messages import Entry, EntryStatus, Stored
from paychan.server.settlement.settling import Settling, SettlingRules
from signer.policy import Policy

from .blockchain import GENESIS, BlockChain, Market
from .loop import Process, SimulatedLoop, Wire
from .node import Node, NodeChain
from .payer import make_channel
from .settle import DESTINATION, SERVER_KEY
from .vault import MemorySignerClient, Vault

PERIOD = 6 * 3600
EXPIRY = GENESIS + 10 * 3600


class Steady(random.Random):
    """Chance without accidents: nothing is lost and no estimate is off."""

    def random(self) -> float:
        return 0.5

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        return mu


class Rig:
    """One closing channel in which `received` satoshi were paid, and everything that its settlement needs."""

    def __init__(self, received: int, rate: float = 5.0, share_max: int = 50) -> None:
        chance = Steady(7)
        self.loop = SimulatedLoop()
        self.now = EXPIRY - PERIOD
        self.chain = BlockChain(chance, Market(chance, rate, 1000.0, 1.0, rate), 0.0)
        sender, raw = self._channel(received)
        self.terms, self.proof = sender.terms, raw
        self.chain.fund(sender.terms, raw)
        self.chain._find(self.now)
        payment = self.payment = sender.pay(received)
        self.stored = Stored(sender.terms.serialize(), ChannelState(Phase.CLOSING, payment).serialize(), b"")
        self.vault = Vault(
            Policy(SERVER_KEY, SERVER_KEY.public_key.format(), DESTINATION, 500, share_max, 100)
        )
        self.process = Process()
        self.settling = self.loop.run_until_complete(self.process.spawn_in(self.loop, self._make()))

    def _channel(self, received: int) -> tuple[Sender, bytes]:
        seeds: Iterator[int] = iter(range(1000))
        while True:
            made = make_channel(random.Random(next(seeds)), 1, SERVER_KEY.public_key.format(), EXPIRY)
            if made[0].terms.funding_value > received + 1000:
                return made

    async def _make(self) -> Settling:
        chance = Steady(1)
        channels = ChannelTable(4, PERIOD)
        channels.own([1] * 4)
        rules = SettlingRules(PERIOD, 6, FeeBounds(1, 1000), 40)
        chain = NodeChain(Node(self.chain), Wire(chance, 0.01, 0.0), chance)
        signer = MemorySignerClient(self.vault, Wire(chance, 0.01, 0.0), chance)
        return Settling(rules, channels, 4, self, self, signer, chain, lambda: self.now)  # type: ignore[arg-type]

    async def load(self, outpoint: bytes) -> Stored:
        return self.stored

    async def load_funding(self, txid: bytes) -> bytes:
        return self.proof

    async def write(self, entry: Entry) -> EntryStatus:
        self.stored = Stored(self.stored.terms, entry.state, entry.extra or self.stored.settlement)
        return EntryStatus.OK

    def settle(self) -> str:
        """Drive the machine once; return the code of what stopped it, if anything did."""
        try:
            self.loop.run_until_complete(
                self.process.spawn_in(self.loop, self.settling.settle(self.terms.outpoint))
            )
        except Unavailable as error:
            return error.code
        return ""

    @property
    def phase(self) -> Phase:
        return ChannelState.parse(self.stored.state).phase

    @property
    def fee(self) -> int:
        """Of the newest durable settlement."""
        return self.terms.funding_value - sum(out.nValue for out in CTransaction.deserialize(self.stored.settlement).vout)

    @property
    def published_fee(self) -> int:
        spender = self.chain.spender(self.terms.outpoint)
        return spender.fee if spender else 0

    def dearer(self, rate: float) -> None:
        """Blocks become full of transactions that pay so much, and mempools forget what pays less than a third of it."""
        self.chain.market.rate = rate
        for _ in range(12):
            self.chain._find(self.now)
        self.chain.ask(0.3 * rate)

    def mine(self, blocks: int) -> None:
        for _ in range(blocks):
            self.chain.mine(self.now)


def test_a_settlement_goes_all_the_way():
    rig = Rig(1_000_000)
    assert rig.settle() == ""
    assert (rig.phase, rig.published_fee) == (Phase.BROADCAST, rig.fee)
    rig.mine(5)
    assert rig.settle() == ""
    assert rig.phase == Phase.BROADCAST
    rig.mine(1)
    assert rig.settle() == ""
    assert rig.phase == Phase.SETTLED


@pytest.mark.parametrize("share_max", [50, 20])
def test_a_fee_above_the_signers_bound_is_lowered_until_it_signs(share_max):
    rig = Rig(3_000, rate=100.0, share_max=share_max)
    rig.now = EXPIRY - 60  # the ladder would give 95 % away
    assert rig.settle() in ("", "settlement_refused")  # the network may find it too low
    assert rig.phase >= Phase.SIGNED
    assert 3_000 * share_max * 85 // 10_000 <= rig.fee <= 3_000 * share_max // 100


def test_an_evicted_settlement_comes_back_with_a_higher_fee():
    rig = Rig(1_000_000)
    rig.settle()
    before = rig.fee
    rig.dearer(100.0)
    assert rig.published_fee == 0
    assert rig.settle() == ""
    assert rig.published_fee == rig.fee >= 100 * 345 > 3 * before


def test_an_evicted_settlement_comes_back_as_it_was_when_the_signer_is_away():
    rig = Rig(1_000_000)
    rig.settle()
    before = rig.fee
    rig.chain.forget_mempool()
    rig.now = EXPIRY - 60
    rig.vault.is_up = False
    assert rig.settle() == ""
    assert rig.published_fee == before


def test_a_bump_that_was_durable_and_not_published_is_published():
    rig = Rig(1_000_000)
    rig.settle()
    before = rig.published_fee
    rig.now = EXPIRY - 60
    submit, rig.chain.submit = rig.chain.submit, lambda raw: 1 / 0
    with pytest.raises(ZeroDivisionError):
        rig.settle()
    rig.chain.submit = submit
    assert rig.fee > before == rig.published_fee
    assert rig.settle() == ""
    assert rig.published_fee == rig.fee


def test_a_settlement_that_was_buried_before_its_broadcast_was_written_down_is_won():
    rig = Rig(1_000_000)
    rig.settle()
    state = ChannelState.parse(rig.stored.state)
    signed = ChannelState(Phase.SIGNED, state.payment, state.settlement_txid)
    rig.stored = Stored(rig.stored.terms, signed.serialize(), rig.stored.settlement)
    rig.mine(6)
    assert rig.settle() == ""
    assert ChannelState.parse(rig.stored.state) == ChannelState(Phase.SETTLED, state.payment, state.settlement_txid)


def test_bumps_towards_the_expiry_are_all_relayed():
    rig, fees = Rig(30_000, rate=1.5), []
    for seconds_left in range(PERIOD, -600, -600):
        rig.now = EXPIRY - seconds_left
        assert rig.settle() == ""
        assert rig.published_fee == rig.fee
        fees.append(rig.fee)
    assert fees == sorted(fees)
    assert fees[0] == 2 * settlement_size_max(rig.terms, rig.payment, DESTINATION)
    assert fees[-1] > 13_000  # by then what waited has been raised, to nearly all that the signer allows
