"""One closing channel: the real settlement machine and signer policy on the simulated chain, a store that does what it is told."""

import random
from collections.abc import Iterator

from bitcoin.core import CTransaction

from paychan._fast.channel import ChannelTable
from paychan.core.channel import ChannelState, Phase
from paychan.core.errors import Unavailable
from paychan.core.fees import FeeBounds
from paychan.core.sender import Sender
from paychan.core.units import MAX_MONEY
from paychan.rpc.store_messages import Entry, EntryStatus, Stored
from paychan.server.settlement.settling import Settling, SettlingRules
from signer.policy import Policy

from .blockchain import GENESIS, BlockChain, Market
from .loop import Process, SimulatedLoop, Wire
from .mempool import CORE_28, Rules
from .node import KINDS, Node, NodeChain
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

    def __init__(
        self,
        received: int,
        rate: float = 5.0,
        share_max: int = 50,
        *,
        own: Rules = CORE_28,
        miners: Rules = CORE_28,
        fullness: float = 1.0,
        kind: str = KINDS[0],
        bounds: tuple[int, int] = (1, 1000),
        fee_sum: int = MAX_MONEY,
        chance: random.Random | None = None,
    ) -> None:
        chance = chance or Steady(7)
        self.loop, self.bounds = SimulatedLoop(), FeeBounds(*bounds)
        self.now = EXPIRY - PERIOD
        self.chain = BlockChain(chance, Market(chance, rate, 1000.0, 1.0, rate), 0.0, own, miners, fullness)
        self.node = Node(self.chain, kind)
        sender, raw = self._channel(received)
        self.key = sender.key
        self.terms, self.proof = sender.terms, raw
        self.chain.fund(sender.terms, raw)
        self.chain._find(self.now)
        payment = self.payment = sender.pay(received)
        self.stored = Stored(sender.terms.serialize(), ChannelState(Phase.CLOSING, payment).serialize(), b"")
        self.vault = Vault(
            Policy(SERVER_KEY, SERVER_KEY.public_key.format(), DESTINATION, 500, share_max, 100, PERIOD, fee_sum),
            lambda: self.now,
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
        rules = SettlingRules(PERIOD, 6, self.bounds, 40)
        chain = NodeChain(self.node, Wire(chance, 0.01, 0.0), chance)
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
            self.loop.run_until_complete(self.process.spawn_in(self.loop, self.settling.settle(self.terms.outpoint)))
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
