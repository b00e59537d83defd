"""A node's mempool by Bitcoin Core's rules: what it takes, what may replace what, what it forgets, and what a miner takes from it.

Two sets of rules, those of Core 25 to 30 and those since 31 (doc/policy/mempool-replacements.md and mempool-design.md of each). The
transactions are of two kinds: spends of a channel's funding output, and what hangs on their outputs, as a tree.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

REPLACED_MAX = 100
CLUSTER_BYTES_MAX = 101_000


class Refused(Exception):
    """The mempool does not take a transaction; `str()` is Bitcoin Core's reason."""


@dataclass(frozen=True)
class Rules:
    """cluster_max: transactions that hang together, the first one included. Fees in satoshi for 1000 bytes: the least that is
    relayed, and what a replacement pays for its own bytes on top."""

    name: str
    cluster_max: int
    has_diagrams: bool
    relay_per_kb: int
    increment_per_kb: int
    full_rbf: bool = True


CORE_25 = Rules("25", 25, False, 1000, 1000, full_rbf=False)
CORE_28 = Rules("28", 25, False, 1000, 1000)
CORE_31 = Rules("31", 64, True, 100, 100)


@dataclass(eq=False)
class Tx:
    """A transaction. spends: the funding output it takes, None if it takes none; parent: whose output it spends instead.
    fee: satoshi; size: virtual bytes, those of `raw` unless given."""

    txid: bytes
    raw: bytes
    spends: bytes | None
    fee: int
    lock_time: int
    parent: bytes | None = None
    size: int = 0

    def __post_init__(self) -> None:
        self.size = self.size or len(self.raw)

    @property
    def fee_rate(self) -> float:
        return self.fee / self.size


Chunk = tuple[int, int, list[Tx]]
"""Fee, size, and the transactions in an order in which they can be mined."""


def chunks_of(cluster: Sequence[Tx]) -> list[Chunk]:
    """Return a tree of transactions as miners see it: what pays best, with all it needs, first; then the best of the rest."""
    if len(cluster) == 1:
        return [(cluster[0].fee, cluster[0].size, [cluster[0]])]
    left, chunks = list(cluster), list[Chunk]()
    while left:
        needs: dict[bytes, tuple[int, int]] = {}  # by txid: fee and size of a transaction with all that it needs of what is left
        best = left[0]
        for tx in left:  # parents first
            fee, size = needs.get(tx.parent or b"", (0, 0))
            fee, size = needs[tx.txid] = fee + tx.fee, size + tx.size
            if fee * needs[best.txid][1] > needs[best.txid][0] * size:
                best = tx
        fee, size = needs[best.txid]
        chunk = _lineage(left, best)
        left = [tx for tx in left if tx not in chunk]
        while chunks and fee * chunks[-1][1] > chunks[-1][0] * size:
            before = chunks.pop()
            fee, size, chunk = before[0] + fee, before[1] + size, before[2] + chunk
        chunks.append((fee, size, chunk))
    return chunks


def _lineage(cluster: Sequence[Tx], tx: Tx) -> list[Tx]:
    """Return a transaction and what it needs, parents first."""
    by_id, chain = {one.txid: one for one in cluster}, [tx]
    while chain[-1].parent in by_id:
        chain.append(by_id[chain[-1].parent])
    return chain[::-1]


def improves(new: Sequence[tuple[int, int]], old: Sequence[tuple[int, int]]) -> bool:
    """Whether the feerate diagram of `new` (fee and size of each chunk, best first) is nowhere below that of `old`, and somewhere
    above."""
    points = [_corners(new), _corners(old)]
    is_above = False
    for size in sorted({size for corners in points for size, _ in corners}):
        above, below = _height(points[0], size), _height(points[1], size)
        if above[0] * below[1] < below[0] * above[1]:
            return False
        is_above = is_above or above[0] * below[1] > below[0] * above[1]
    return is_above


def _corners(chunks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    corners, size, fee = [(0, 0)], 0, 0
    for more, bytes_more in chunks:
        size, fee = size + bytes_more, fee + more
        corners.append((size, fee))
    return corners


def _height(corners: list[tuple[int, int]], size: int) -> tuple[int, int]:
    """Return the diagram's fee at a size, as a fraction."""
    for (left, low), (right, high) in zip(corners, corners[1:], strict=False):
        if size <= right:
            return low * (right - left) + (high - low) * (size - left), right - left
    return corners[-1][1], 1


@dataclass
class Mempool:
    """One node's, or all miners'. minimum: satoshi for each byte, what it asks of everything while it is full."""

    rules: Rules
    minimum: float = 0.0
    entries: dict[bytes, Tx] = field(default_factory=dict)
    replacements: int = 0
    evictions: int = 0

    def __post_init__(self) -> None:
        self._spenders: dict[bytes, bytes] = {}

    # --- questions ---

    def __contains__(self, txid: bytes) -> bool:
        return txid in self.entries

    def spender(self, outpoint: bytes) -> Tx | None:
        """Return what spends a funding output."""
        txid = self._spenders.get(outpoint)
        return self.entries[txid] if txid is not None else None

    def family(self, txid: bytes) -> list[Tx]:
        """Return a transaction and all that descends from it, parents first."""
        family = generation = [self.entries[txid]]
        while generation:
            names = {tx.txid for tx in generation}
            generation = [tx for tx in self.entries.values() if tx.parent in names]
            family = family + generation
        return family

    def fees_of(self, txid: bytes) -> int:
        """Return what a transaction and all its descendants pay, satoshi: what `getmempoolentry` calls `fees.descendant`."""
        return sum(tx.fee for tx in self.family(txid))

    # --- what comes, and what goes ---

    def add(self, tx: Tx) -> None:
        """Take a transaction in. Raises Refused. What is known already is no error."""
        if tx.txid in self.entries:
            return
        if tx.fee * 1000 < self.rules.relay_per_kb * tx.size:
            raise Refused("min relay fee not met")
        if tx.fee_rate < self.minimum:
            raise Refused("mempool min fee not met")
        if tx.spends is not None:
            self._replace(tx)
        elif tx.parent in self.entries:
            self._check_cluster(tx)
        self.put(tx)

    def put(self, tx: Tx) -> None:
        """Take a transaction in without any rule: what comes back from a block."""
        self.entries[tx.txid] = tx
        if tx.spends is not None:
            self._spenders[tx.spends] = tx.txid

    def _check_cluster(self, child: Tx) -> None:
        at = child
        while at.parent in self.entries:
            at = self.entries[at.parent]
        family = self.family(at.txid)
        if len(family) >= self.rules.cluster_max or sum(tx.size for tx in family) + child.size > CLUSTER_BYTES_MAX:
            raise Refused("too-large-cluster" if self.rules.has_diagrams else "too-long-mempool-chain")

    def _replace(self, tx: Tx) -> None:
        old = self.spender(tx.spends) if tx.spends is not None else None
        if old is None:
            return
        if not self.rules.full_rbf:
            raise Refused("txn-mempool-conflict")  # our sequence numbers are final, so nothing of ours signals
        family = self.family(old.txid)
        if not self.rules.has_diagrams and tx.fee * old.size <= old.fee * tx.size:
            raise Refused("insufficient fee")
        if len(family) > REPLACED_MAX:
            raise Refused("too many potential replacements")
        evicted = sum(one.fee for one in family)
        if tx.fee < evicted or (tx.fee - evicted) * 1000 < self.rules.increment_per_kb * tx.size:
            raise Refused("insufficient fee")
        if self.rules.has_diagrams and not improves([(tx.fee, tx.size)], [chunk[:2] for chunk in chunks_of(family)]):
            raise Refused("replacement-failed")
        self.remove(old.txid)
        self.replacements += 1

    def remove(self, txid: bytes) -> None:
        """Forget a transaction and all that descends from it."""
        for tx in self.family(txid):
            self._forget(tx)

    def _forget(self, tx: Tx) -> None:
        del self.entries[tx.txid]
        if tx.spends is not None and self._spenders.get(tx.spends) == tx.txid:
            del self._spenders[tx.spends]

    def mined(self, transactions: Iterable[Tx]) -> None:
        """Forget what is in a block, and what that made impossible. What hangs on what was mined stays."""
        for tx in transactions:
            if tx.txid in self.entries:
                self._forget(self.entries[tx.txid])
            rival = self.spender(tx.spends) if tx.spends is not None else None
            if rival is not None:
                self.remove(rival.txid)

    def drop_orphans(self, exists: Callable[[bytes], bool]) -> None:
        """Forget what hangs on transactions that are neither here nor, says `exists(txid)`, in a block any more."""
        for tx in list(self.entries.values()):
            if tx.txid in self.entries and tx.parent is not None and tx.parent not in self.entries and not exists(tx.parent):
                self.remove(tx.txid)

    def trim(self) -> None:
        """Forget what pays less than the mempool's minimum, the worst chunks first, with what needs them."""
        for root in [tx for tx in self.entries.values() if tx.parent not in self.entries]:
            for fee, size, chunk in reversed(chunks_of(self.family(root.txid))):
                if fee >= self.minimum * size:
                    break
                for tx in reversed(chunk):
                    self._forget(tx)
                self.evictions += 1

    def best(self, threshold: float, past: int) -> list[Tx]:
        """Return what a miner takes into a block in which space costs `threshold` satoshi a byte, parents first. past: the median
        time past that lock times are held against."""
        taken: list[Tx] = []
        for root in [tx for tx in self.entries.values() if tx.parent not in self.entries]:
            if root.lock_time and root.lock_time >= past:
                continue
            for fee, size, chunk in chunks_of(self.family(root.txid)):
                if fee < threshold * size:
                    break
                taken += chunk
        return taken
