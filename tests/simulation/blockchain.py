"""The simulated block chain: blocks, a mempool with Bitcoin Core's rules, a market for block space, reorganisations.

It checks settlements with the production code's own check, and says of no transaction that it is good because we made it. It knows
no channels: only funding outputs, what spends them, and the terms that their scripts stand for.
"""

import hashlib
import math
import random
from dataclasses import dataclass, field

from bitcoin.core import CTransaction

from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import make_outpoint
from paychan.core.payment import Payment
from paychan.core.script import p2sh_script_pubkey
from paychan.core.settlement import SettlementError, check_settlement
from paychan.core.standardness import dust_limit
from paychan.core.units import MAX_MONEY

BLOCK_SECONDS = 600
INCREMENTAL_FEE = 1  # satoshi per byte, for replacements
RELAY_FEE_MIN = 1  # satoshi per byte
GENESIS = 1_700_000_000


class Refused(Exception):
    """The mempool does not take a transaction; `str()` is Bitcoin Core's reason."""


@dataclass
class Tx:
    """A transaction. spends: the funding output it takes, None for a funding transaction. fee: satoshi."""

    txid: bytes
    raw: bytes
    spends: bytes | None
    fee: int
    lock_time: int

    @property
    def fee_rate(self) -> float:
        return self.fee / len(self.raw)


@dataclass
class Block:
    block_hash: bytes
    time: int
    transactions: list[Tx]
    threshold: float


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
    """One chain as every honest node sees it. `now`: true unix seconds, given by whoever calls."""

    chance: random.Random
    market: Market
    reorg_chance: float
    blocks: list[Block] = field(default_factory=list)
    mempool: dict[bytes, Tx] = field(default_factory=dict)
    fundings: dict[bytes, tuple[ChannelTerms, bytes]] = field(default_factory=dict)
    by_script: dict[bytes, list[bytes]] = field(default_factory=dict)
    depths: dict[bytes, int] = field(default_factory=dict)
    reorgs: int = 0
    evictions: int = 0
    replacements: int = 0

    def __post_init__(self) -> None:
        self._heights: dict[bytes, int] = {}
        self._spent: dict[bytes, bytes] = {}
        self._gone: set[bytes] = set()
        self.minimum = float(RELAY_FEE_MIN)
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
        for tx in [tx for tx in self.mempool.values() if tx.txid == outpoint[:32] or tx.spends == outpoint]:
            del self.mempool[tx.txid]
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
        past = self.median_time_past
        taken = [tx for tx in self.mempool.values() if tx.lock_time < past and tx.fee_rate >= threshold]
        self._append(stamp, taken, threshold)

    def _append(self, stamp: int, transactions: list[Tx], threshold: float) -> None:
        seed = (self.blocks[-1].block_hash if self.blocks else bytes(32)) + stamp.to_bytes(8, "big")
        block_hash = hashlib.sha256(seed + self.chance.randbytes(4)).digest()
        self.blocks.append(Block(block_hash, stamp, transactions, threshold))
        for tx in transactions:
            self._heights[tx.txid] = self.height
            self.mempool.pop(tx.txid, None)
            if tx.spends is not None:
                assert tx.spends not in self._spent, "a block spends an output twice"
                self._spent[tx.spends] = tx.txid
                for other in [other for other in self.mempool.values() if other.spends == tx.spends]:
                    del self.mempool[other.txid]

    def _disconnect(self, depth: int) -> None:
        """Undo blocks. Most of their transactions return to the mempool; some are forgotten, as nodes do forget."""
        for _ in range(depth):
            for tx in self.blocks.pop().transactions:
                del self._heights[tx.txid]
                if tx.spends is not None:
                    del self._spent[tx.spends]
                if tx.spends is None or self.chance.random() < 0.6:
                    self.mempool[tx.txid] = tx
        for tx in [tx for tx in self.mempool.values() if tx.spends is not None]:
            if self._confirmed_funding(tx.spends) is None and self.chance.random() < 0.5:
                del self.mempool[tx.txid]

    # --- the mempool ---

    def move_market(self, now: float, seconds: float) -> None:
        """Let fees move; when the mempool is full, it forgets what pays least."""
        self.market.step(now, seconds)
        self.refresh_minimum()

    def refresh_minimum(self) -> None:
        """Have the mempool take what it takes at the market's rate, and forget what pays less."""
        rate = self.market.rate
        self.minimum = max(RELAY_FEE_MIN, 0.3 * rate if rate > 20 else 0)
        for tx in [tx for tx in self.mempool.values() if tx.fee_rate < self.minimum]:
            del self.mempool[tx.txid]
            self.evictions += 1

    def forget_mempool(self) -> None:
        """What a restart of nodes without a saved mempool does, to all but funding transactions."""
        self.mempool = {txid: tx for txid, tx in self.mempool.items() if tx.spends is None}

    def submit(self, raw: bytes) -> None:
        """Take a spend into the mempool. Raises Refused. What is known already is no error."""
        parsed = CTransaction.deserialize(raw)
        txid, previous = parsed.GetTxid(), parsed.vin[0].prevout
        if txid in self.mempool or txid in self._heights:
            return
        outpoint = make_outpoint(previous.hash, previous.n)
        if outpoint in self._spent or outpoint not in self.fundings or not self._funding_exists(outpoint):
            raise Refused("bad-txns-inputs-missingorspent")
        terms, _ = self.fundings[outpoint]
        tx = Tx(txid, raw, outpoint, terms.funding_value - sum(out.nValue for out in parsed.vout), parsed.nLockTime)
        self._check_standard(tx, parsed)
        _check_scripts(tx, parsed, terms)
        self._replace(tx)
        self.mempool[txid] = tx

    def _check_standard(self, tx: Tx, parsed: CTransaction) -> None:
        if tx.lock_time >= self.median_time_past and parsed.vin[0].nSequence != 0xFFFFFFFF:
            raise Refused("non-final")
        if any(out.nValue < dust_limit(bytes(out.scriptPubKey)) for out in parsed.vout):
            raise Refused("dust")
        if tx.fee < RELAY_FEE_MIN * len(tx.raw):
            raise Refused("min relay fee not met")
        if tx.fee_rate < self.minimum:
            raise Refused("mempool min fee not met")

    def _replace(self, tx: Tx) -> None:
        """BIP 125 as full RBF: a replacement pays what it replaces, and for its own bytes, at a higher rate."""
        for old in [old for old in self.mempool.values() if old.spends == tx.spends]:
            if tx.fee < old.fee + INCREMENTAL_FEE * len(tx.raw) or tx.fee_rate <= old.fee_rate:
                raise Refused("insufficient fee, rejecting replacement")
            del self.mempool[old.txid]
            self.replacements += 1

    # --- funding ---

    def fund(self, terms: ChannelTerms, raw: bytes) -> None:
        """A payer's funding transaction: it pays well, and is mined in the next block."""
        self.fundings[terms.outpoint] = terms, raw
        self.by_script.setdefault(p2sh_script_pubkey(terms.redeem_script), []).append(terms.outpoint)
        self.mempool[terms.outpoint[:32]] = Tx(terms.outpoint[:32], raw, None, len(raw) * 100_000, 0)

    def _funding_exists(self, outpoint: bytes) -> bool:
        return outpoint[:32] in self._heights or outpoint[:32] in self.mempool

    def _confirmed_funding(self, outpoint: bytes) -> int | None:
        return self._heights.get(outpoint[:32])

    # --- questions ---

    def confirmations(self, txid: bytes) -> int:
        """-1: not known; 0: in the mempool."""
        height = self._heights.get(txid)
        if height is None:
            return 0 if txid in self.mempool else -1
        return self.height - height + 1

    def spender(self, outpoint: bytes) -> Tx | None:
        """Return what spends an output, in a block or in the mempool."""
        txid = self._spent.get(outpoint)
        if txid is None:
            return next((tx for tx in self.mempool.values() if tx.spends == outpoint), None)
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
    """A settlement must carry good signatures; a refund is the payer's own affair, but must be locked until the expiry."""
    payment = payment_in(parsed)
    if payment is None:
        if tx.lock_time < terms.exp_time:
            raise Refused("mandatory-script-verify-flag-failed (Locktime requirement not satisfied)")
        return
    try:
        check_settlement(tx.raw, terms, payment, MAX_MONEY)
    except SettlementError as error:
        raise Refused(f"mandatory-script-verify-flag-failed ({error})") from error
