"""What strangers and payers do to settlements in the mempool: copies that overtake them, and children that pin them.

Nobody here has the server's key, and nothing here is what the server does: each attack is what anybody, or the payer, could do.
"""

import hashlib
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from bitcoin.core import CTransaction

from tests.copies import inflated, renamed

from .blockchain import BlockChain, payment_in
from .mempool import CLUSTER_BYTES_MAX, Refused, Tx

CHILD_SIZE_MIN = 100


@dataclass
class Meddler:
    """Somebody with good connections, who makes a copy of each settlement that it sees, and is faster to the miners with `luck`
    (0 to 1). kinds: of what copies. Given to a chain as its `meddle`."""

    chain: BlockChain
    chance: random.Random
    luck: float = 0.0
    kinds: tuple[str, ...] = ("inflated", "renamed")
    overtaken: int = 0

    def __call__(self, raw: bytes) -> None:
        if payment_in(CTransaction.deserialize(raw)) is None or self.chance.random() >= self.luck:
            return
        kind = self.chance.choice(self.kinds)
        size = self.chance.choice((520, 520, 520, self.chance.randint(17, 520)))
        copy = inflated(raw, size) if kind == "inflated" else renamed(raw, self.chance.randint(2, 16))
        with suppress(Refused):
            self.chain.publish(copy)
            self.overtaken += 1


def copies_seen(chain: BlockChain, outpoint: bytes) -> Tx | None:
    """Return the settlement of a channel that the miners have in their mempools."""
    spender = chain.miners.spender(outpoint)
    if spender is None or payment_in(CTransaction.deserialize(spender.raw)) is None:
        return None
    return spender


@dataclass
class Pinner:
    """A payer who hangs transactions on its change as soon as a settlement is in the mempool, and again on each new version.

    rate: satoshi for each byte; count: transactions, as many as the miners' rules let it have; size: bytes of them all.
    on_pin(satoshi): told of what all that hangs on one settlement pays.
    """

    chain: BlockChain
    outpoint: bytes
    rate: float
    count: int
    size: int
    on_pin: Callable[[int], None] = lambda satoshi: None
    pins: int = 0
    _number: int = field(default=0, repr=False)

    def strike(self) -> None:
        """Pin what is there, once."""
        chain, parent = self.chain, copies_seen(self.chain, self.outpoint)
        if parent is None or payment_in(CTransaction.deserialize(parent.raw)).exhausts:  # type: ignore[union-attr]
            return
        if len(chain.miners.family(parent.txid)) > 1:
            return
        left = min(self.size, CLUSTER_BYTES_MAX - parent.size)
        count = max(1, min(self.count, chain.miners.rules.cluster_max - 1, left // CHILD_SIZE_MIN))
        hung_on, total = parent, 0
        for number in range(count):
            size = left // count
            child = self._make(hung_on, size)
            with suppress(Refused):
                chain.hang(child)
                total += child.fee
                if number == 0 and count > 1:
                    hung_on = child  # the change is one output; the first child has as many as it likes
        if total:
            self.pins += 1
            self.on_pin(total)

    def _make(self, parent: Tx, size: int) -> Tx:
        self._number += 1
        txid = hashlib.sha256(parent.txid + self._number.to_bytes(4, "big")).digest()
        return Tx(txid, b"", None, -(-round(self.rate * 1000) * size // 1000), 0, parent.txid, size)
