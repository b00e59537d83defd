"""The simulated block chain: blocks, two mempools with Bitcoin Core's rules, a market for block space, reorganisations.

The mempools are the server's node's and the miners'. They differ where transactions conflict: each keeps what came first, unless
the other pays enough to replace it. Settlements are checked with the production code's own check; of none is it said that it is
good because we made it. The chain knows no channels: only funding outputs, what spends them, and the terms that their scripts
stand for.
"""

import hashlib
import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from bitcoin.core import CTransaction

from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import make_outpoint
from paychan.core.payment import Payment
from paychan.core.script import ELEMENT_SIZE_MAX, p2sh_script_pubkey, read_pushes
from paychan.core.settlement import SettlementError, check_settlement
from paychan.core.standardness import dust_limit
from paychan.core.units import MAX_MONEY
from tests.copies import split_script_sig, with_flag

from .mempool import CORE_28, Mempool, Refused, Rules, Tx

BLOCK_SECONDS = 600
GENESIS = 1_700_000_000
STANDARD_SCRIPT_SIG_MAX = 1650


@dataclass
class Block:
    block_hash: bytes
    time: int
    transactions: list[Tx]
    threshold: float
    asked: float = 0.0
    """Satoshi for each byte that took a transaction through the mempools and into this block."""


@dataclass
class Market:
    """The price of block space, satoshi per byte: a random walk around a base, with spikes that last for hours."""

    chance: random.Random
    base: float
    peak: float
    spike_seconds_mean: float
    rate: float = 0.0
    _spike: float = 1.0
    _spike_ends: float = 0.0

    def step(self, now: float, seconds: float) -> None:
        """Move on by some seconds."""
        chance = self.chance
        if now > self._spike_ends:
            self._spike = 1.0
            if chance.random() < seconds / 30_000:
                self._spike = math.exp(chance.uniform(math.log(3), math.log(self.peak / self.base)))
                self._spike_ends = now + min(12 * 3600, chance.expovariate(1 / self.spike_seconds_mean))
        goal = math.log(self.base * self._spike)
        pull = 1 - math.exp(-seconds / 900)
        walk = math.log(self.rate or self.base)
        walk += (goal - walk) * pull + chance.gauss(0, 0.15)
        self.rate = min(self.peak, max(0.6, math.exp(walk)))


@dataclass
class BlockChain:
    """One chain as every honest node sees it. `now`: true unix seconds, given by whoever calls.

    own, miners: the two mempools, by their rules. meddle(raw) is called with each settlement on its way from our node to the
    miners, before it gets there. fullness: our node's minimum fee as a share of the miners'; a larger mempool asks less. crowd:
    what mempools ask, as a share of what the next block does, while they are fuller than its price tells.
    """

    chance: random.Random
    market: Market
    reorg_chance: float
    own_rules: Rules = CORE_28
    miners_rules: Rules = CORE_28
    fullness: float = 1.0
    crowd: float = 0.0
    meddle: Callable[[bytes], None] = lambda raw: None
    blocks: list[Block] = field(default_factory=list)
    fundings: dict[bytes, tuple[ChannelTerms, bytes]] = field(default_factory=dict)
    by_script: dict[bytes, list[bytes]] = field(default_factory=dict)
    depths: dict[bytes, int] = field(default_factory=dict)
    reorgs: int = 0

    def __post_init__(self) -> None:
        self._heights: dict[bytes, int] = {}
        self._spent: dict[bytes, bytes] = {}
        self._gone: set[bytes] = set()
        self.own, self.miners = Mempool(self.own_rules), Mempool(self.miners_rules)
        for number in range(12):
            self._append(GENESIS - (12 - number) * BLOCK_SECONDS, [], self.market.base)

    # --- blocks ---

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    @property
    def median_time_past(self) -> int:
        return self.median_time_at(self.height)

    def median_time_at(self, height: int) -> int:
        """Return the median of the stamps of a block and the ten before it (BIP 113)."""
        return sorted(block.time for block in self.blocks[height - 10 : height + 1])[5]

    def mine(self, now: int) -> None:
        """Find a block, and sometimes a longer branch that replaces the last few."""
        if self.chance.random() < self.reorg_chance and self.height > 20:
            depth = self.chance.choice((1, 1, 1, 2, 2, 3, 4))
            self._disconnect(depth)
            self.reorgs += 1
            for _ in range(depth):
                self._find(now)
        self.find(now)

    def find(self, now: int) -> None:
        """Find one block on top of the best one."""
        self._find(now)
        self._note_depths()

    def reorganise(self, depth: int, now: int) -> None:
        """Replace the last blocks by a branch that is one longer."""
        self._disconnect(min(depth, self.height - 11))
        self.reorgs += 1
        for _ in range(depth + 1):
            self._find(now)
        self._note_depths()

    def unmake(self, outpoint: bytes, now: int) -> bool:
        """Replace the blocks from a young funding transaction on by a longer branch without it; return whether that was done.

        Not if another channel's settlement would come back out of a depth at which it counts as final.
        """
        height = self._heights.get(outpoint[:32])
        if height is None or height < 12:
            return False
        depth = self.height - height + 1
        if depth > 7 or any(tx.spends is not None for block in self.blocks[-depth:] for tx in block.transactions):
            return False
        self._disconnect(depth)
        for pool in self.pools:
            for tx in [tx for tx in pool.entries.values() if tx.txid == outpoint[:32] or tx.spends == outpoint]:
                pool.remove(tx.txid)
        self.reorgs += 1
        for _ in range(depth + 1):
            self._find(now)
        self._note_depths()
        return True

    def _note_depths(self) -> None:
        for outpoint, txid in self._spent.items():
            self.depths[outpoint] = max(self.depths.get(outpoint, 0), self.confirmations(txid))

    def _find(self, now: int) -> None:
        stamp = now + round(self.chance.gauss(0, 240))
        if self.chance.random() < 0.05:  # miners' clocks, within what nodes allow
            stamp = now + self.chance.randint(-3600, 5400)
        stamp = max(stamp, self.median_time_past + 1)
        threshold = self.market.rate * math.exp(self.chance.gauss(0, 0.15))
        self._append(stamp, self.miners.best(threshold, self.median_time_past), threshold)

    def _append(self, stamp: int, transactions: list[Tx], threshold: float) -> None:
        seed = (self.blocks[-1].block_hash if self.blocks else bytes(32)) + stamp.to_bytes(8, "big")
        block_hash = hashlib.sha256(seed + self.chance.randbytes(4)).digest()
        asked = max(threshold, self.own_minimum, self.minimum)
        self.blocks.append(Block(block_hash, stamp, transactions, threshold, asked))
        for tx in transactions:
            self._heights[tx.txid] = self.height
            if tx.spends is not None:
                assert tx.spends not in self._spent, "a block spends an output twice"
                self._spent[tx.spends] = tx.txid
        for pool in self.pools:
            pool.mined(transactions)

    def _disconnect(self, depth: int) -> None:
        """Undo blocks. Most of their transactions return to the mempools; some are forgotten, as nodes do forget."""
        for _ in range(depth):
            for tx in self.blocks.pop().transactions:
                del self._heights[tx.txid]
                if tx.spends is not None:
                    del self._spent[tx.spends]
                if tx.spends is None or self.chance.random() < 0.6:
                    for pool in self.pools:
                        pool.put(tx)
        for tx in [tx for tx in self.miners.entries.values() if tx.spends is not None]:
            if self._confirmed_funding(tx.spends or b"") is None and self.chance.random() < 0.5:
                for pool in self.pools:
                    if tx.txid in pool:
                        pool.remove(tx.txid)
        for pool in self.pools:
            pool.drop_orphans(self._heights.__contains__)

    # --- the mempool ---

    def move_market(self, now: float, seconds: float) -> None:
        """Let fees move; when the mempool is full, it forgets what pays least."""
        self.market.step(now, seconds)
        self.refresh_minimum()

    @property
    def pools(self) -> tuple[Mempool, Mempool]:
        return self.own, self.miners

    @property
    def minimum(self) -> float:
        """What miners' mempools ask of everything, satoshi for each byte."""
        return max(self.miners.minimum, self.miners.rules.relay_per_kb / 1000)

    @property
    def own_minimum(self) -> float:
        """The same of our node's mempool."""
        return max(self.own.minimum, self.own.rules.relay_per_kb / 1000)

    @property
    def evictions(self) -> int:
        return self.miners.evictions

    @property
    def replacements(self) -> int:
        return self.own.replacements

    def refresh_minimum(self) -> None:
        """Have the mempools take what they take at the market's rate, and forget what pays less."""
        rate = self.market.rate
        self.ask(max(self.crowd, 0.3 if rate > 20 else 0.0) * rate)

    def ask(self, minimum: float) -> None:
        """Have miners' mempools ask so much of everything (satoshi for each byte), and ours its share of that."""
        self.miners.minimum, self.own.minimum = minimum, minimum * self.fullness
        for pool in self.pools:
            pool.trim()

    def forget_mempool(self) -> None:
        """What a restart of nodes without a saved mempool does, to all but funding transactions."""
        for pool in self.pools:
            self._forget(pool)

    def forget_own(self) -> None:
        """Our node restarts without its mempool, and hears from the others what they have."""
        self._forget(self.own)
        for tx in self.miners.entries.values():
            with suppress(Refused):
                self.own.add(tx)

    def _forget(self, pool: Mempool) -> None:
        for tx in [tx for tx in pool.entries.values() if tx.spends is not None]:
            pool.remove(tx.txid)

    def submit(self, raw: bytes) -> None:
        """Take a spend into our node's mempool, from where it goes to the miners, unless they have something that it does not
        replace. Raises Refused. What is known already is no error, and goes on its way again."""
        tx = self._judged(raw)
        if tx is None:
            return
        self.own.add(tx)
        self.meddle(raw)
        with suppress(Refused):
            self.miners.add(tx)

    def publish(self, raw: bytes) -> None:
        """Take a spend that somebody else gives to the miners; our node hears of it. Raises Refused."""
        tx = self._judged(raw)
        if tx is None:
            return
        self.miners.add(tx)
        with suppress(Refused):
            self.own.add(tx)

    def hang(self, child: Tx) -> None:
        """Hang something on a transaction in the miners' mempools, and in ours if that has it too. Raises Refused."""
        self.miners.add(child)
        with suppress(Refused):
            if child.parent in self.own or child.parent in self._heights:
                self.own.add(child)

    def _judged(self, raw: bytes) -> Tx | None:
        """Return a spend that nodes look at, None if it is in a block."""
        parsed = CTransaction.deserialize(raw)
        txid, previous = parsed.GetTxid(), parsed.vin[0].prevout
        if txid in self._heights:
            return None
        outpoint = make_outpoint(previous.hash, previous.n)
        if outpoint in self._spent or outpoint not in self.fundings or not self._funding_exists(outpoint):
            raise Refused("bad-txns-inputs-missingorspent")
        terms, _ = self.fundings[outpoint]
        tx = Tx(txid, raw, outpoint, terms.funding_value - sum(out.nValue for out in parsed.vout), parsed.nLockTime)
        if tx.lock_time >= self.median_time_past and parsed.vin[0].nSequence != 0xFFFFFFFF:
            raise Refused("non-final")
        if any(out.nValue < dust_limit(bytes(out.scriptPubKey)) for out in parsed.vout):
            raise Refused("dust")
        if len(parsed.vin[0].scriptSig) > STANDARD_SCRIPT_SIG_MAX:
            raise Refused("scriptsig-size")
        _check_scripts(tx, parsed, terms)
        return tx

    # --- funding ---

    def fund(self, terms: ChannelTerms, raw: bytes) -> None:
        """A payer's funding transaction: it pays well, and is mined in the next block."""
        self.fundings[terms.outpoint] = terms, raw
        self.by_script.setdefault(p2sh_script_pubkey(terms.redeem_script), []).append(terms.outpoint)
        for pool in self.pools:
            pool.put(Tx(terms.outpoint[:32], raw, None, len(raw) * 100_000, 0))

    def _funding_exists(self, outpoint: bytes) -> bool:
        return outpoint[:32] in self._heights or outpoint[:32] in self.miners

    def _confirmed_funding(self, outpoint: bytes) -> int | None:
        return self._heights.get(outpoint[:32])

    # --- questions ---

    def confirmations(self, txid: bytes) -> int:
        """-1: not known to our node; 0: in its mempool."""
        height = self._heights.get(txid)
        if height is None:
            return 0 if txid in self.own else -1
        return self.height - height + 1

    def transaction(self, txid: bytes) -> Tx | None:
        """Return what our node has of a transaction, in a block or in its mempool."""
        height = self._heights.get(txid)
        if height is None:
            return self.own.entries.get(txid)
        return next(tx for tx in self.blocks[height].transactions if tx.txid == txid)

    def spender(self, outpoint: bytes, pool: Mempool | None = None) -> Tx | None:
        """Return what spends an output, in a block or in a mempool: our node's, or the one given."""
        txid = self._spent.get(outpoint)
        if txid is None:
            return (pool or self.own).spender(outpoint)
        return next(tx for tx in self.blocks[self._heights[txid]].transactions if tx.txid == txid)

    def estimate(self, blocks: int) -> int:
        """Guess from the past, as nodes do: late when a spike begins, and late when it ends."""
        if blocks <= 2:
            guess = max(block.threshold for block in self.blocks[-3:])
        else:
            recent = sorted(block.threshold for block in self.blocks[-2 * blocks :])
            guess = recent[len(recent) // 2]
        return max(1, math.ceil(guess * math.exp(self.chance.gauss(0, 0.1))))


def payment_in(parsed: CTransaction) -> Payment | None:
    """Return the payment that a settlement was made from, None if the transaction is none (but a refund)."""
    script = bytes(parsed.vin[0].scriptSig)
    client_size = script[0]
    at = 1 + client_size
    if script[at] == 0:
        return None
    client = script[1:at]
    change = parsed.vout[0].nValue if client[-1] == 0x83 else 0
    return Payment(change, client[:-1], client[-1])


def _check_scripts(tx: Tx, parsed: CTransaction, terms: ChannelTerms) -> None:
    """A settlement must carry good signatures, whatever true value stands in its scriptSig; a refund is the payer's own affair, but
    must be locked until the expiry."""
    payment = payment_in(parsed)
    if payment is None:
        if tx.lock_time < terms.exp_time:
            raise Refused("mandatory-script-verify-flag-failed (Locktime requirement not satisfied)")
        return
    try:
        _, flag, _ = split_script_sig(tx.raw)
        pushed = read_pushes(flag)
        if pushed is None or len(pushed) != 1 or not any(pushed[0]) or len(pushed[0]) > ELEMENT_SIZE_MAX:
            raise SettlementError("no true value of a valid length leads to the signatures")
        check_settlement(with_flag(tx.raw, b"\x51"), terms, payment, MAX_MONEY)
    except SettlementError as error:
        raise Refused(f"mandatory-script-verify-flag-failed ({error})") from error
