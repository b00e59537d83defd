"""A regtest chain inside Bitcoin Core's own library (py-bitcoinkernel): blocks are made here, judged there."""

from pathlib import Path

import pbk
from bitcoin.core import CBlock, CBlockHeader, COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import OP_0, OP_TRUE, CScript

BITS = 0x207FFFFF
VERSION = 0x20000000
COINBASE_MATURITY = 100
SUBSIDY = 50 * 10**8
HALVING = 150
GENESIS_TIME = 1_296_688_602
SPACING = 600
ANYONE = CScript([OP_TRUE])


class Regtest:
    """The chain and its coins. `time`: of the newest block; the median of eleven lags behind it by five blocks."""

    def __init__(self, directory: Path) -> None:
        self._manager = pbk.load_chainman(directory, pbk.ChainType.REGTEST)
        self.time = GENESIS_TIME
        self._coinbases: list[CTransaction] = []

    @property
    def height(self) -> int:
        return self._manager.get_active_chain().height

    def _tip(self) -> bytes:
        return bytes(self._manager.get_active_chain().block_tree_entries[self.height].block_hash)

    @property
    def median_time(self) -> int:
        """Median time past of the newest block: what lock times are compared with (BIP 113)."""
        entries = self._manager.get_active_chain().block_tree_entries
        times = [int(entries[at].block_header.timestamp.timestamp()) for at in range(max(0, self.height - 10), self.height + 1)]
        return sorted(times)[len(times) // 2]

    def mine(self, *transactions: CTransaction, spacing: int = SPACING) -> bool:
        """Offer a block with these transactions; return whether it became the tip. A refused block changes nothing."""
        height = self.height + 1
        coinbase = CTransaction([CTxIn(COutPoint(), CScript([height, OP_0]))], [CTxOut(SUBSIDY >> height // HALVING, ANYONE)])
        header = CBlockHeader(VERSION, self._tip(), b"\0" * 32, self.time + spacing, BITS, 0)
        block = _grind(header, [coinbase, *transactions])
        try:
            self._manager.process_block(pbk.Block(block.serialize()))
        except pbk.ProcessBlockException:
            return False
        if self._tip() != block.GetHash():
            return False
        self.time += spacing
        self._coinbases.append(coinbase)
        return True

    def mine_blocks(self, count: int) -> None:
        for _ in range(count):
            assert self.mine()

    def fund(self, script_pubkey: bytes, value: int) -> CTransaction:
        """Pay `value` satoshi to a script from the oldest unused coinbase, in a block; return the transaction."""
        if self.height <= COINBASE_MATURITY or len(self._coinbases) <= COINBASE_MATURITY:
            self.mine_blocks(COINBASE_MATURITY + 1 - len(self._coinbases))
        coinbase = self._coinbases.pop(0)
        funding = CTransaction(
            [CTxIn(COutPoint(coinbase.GetTxid(), 0))],
            [CTxOut(coinbase.vout[0].nValue - value, ANYONE), CTxOut(value, CScript(script_pubkey))],
        )
        assert self.mine(funding)
        return funding


def _grind(header: CBlockHeader, transactions: list[CTransaction]) -> CBlock:
    """Return the block with a nonce that fits regtest's target, which every second one does."""
    merkle_root = CBlock.build_merkle_tree_from_txs(transactions)[-1]
    for nonce in range(1 << 16):
        block = CBlock(header.nVersion, header.hashPrevBlock, merkle_root, header.nTime, header.nBits, nonce, transactions)
        if block.GetHash()[31] < 0x7F:
            return block
    raise AssertionError("no nonce found")
