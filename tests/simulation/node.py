"""A worker's chain backend in the simulation: the node behind it is slow, goes away for minutes or hours, forgets its mempool."""

import asyncio
import math
import random

from paychan.chain.base import (
    UNKNOWN,
    BroadcastRefused,
    FundingOutput,
    FundingRequest,
    FundingStatus,
    Spender,
    Tip,
    is_for_fee,
)
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Unavailable

from .blockchain import BlockChain, Refused
from .loop import Wire

ESTIMATES = ("none", "sparse", "tiny", "huge")
"""What a node says of fees when it is wrong: nothing at all, nothing for soon, the least there is, a bitcoin for a kilobyte."""

SPARSE_BLOCKS = 6
HUGE_PER_BYTE = 100_000

KINDS = ("node", "node without an index of spenders", "explorer")
"""What answers: an explorer knows no descendants and no minimum; a plain node names no spender in a block but the one asked for."""


class Node:
    """The node's state: whether it answers, and whether it refuses at once or only after a timeout while it does not.

    estimates: empty, or which of ESTIMATES it gives now.
    """

    def __init__(self, chain: BlockChain, kind: str = KINDS[0]) -> None:
        self.chain, self.kind, self.is_up, self.is_silent, self.estimates = chain, kind, True, False, ""

    def estimate(self, blocks: int) -> int | None:
        """Return what it says that a byte must pay (satoshi) to be mined within so many blocks."""
        if self.estimates == "none" or (self.estimates == "sparse" and blocks < SPARSE_BLOCKS):
            return None
        return {"tiny": 1, "huge": HUGE_PER_BYTE}.get(self.estimates) or self.chain.estimate(blocks)


class NodeChain:
    """`paychan.chain.base.ChainBackend` over a simulated node."""

    def __init__(self, node: Node, wire: Wire, chance: random.Random) -> None:
        self._node, self._wire, self._chance = node, wire, chance

    async def _ask(self) -> BlockChain:
        await self._wire.cross()
        node = self._node
        if not node.is_up:
            if node.is_silent:
                await asyncio.sleep(self._chance.uniform(5, 30))
            raise Unavailable("chain_unavailable", "the simulated node is away")
        if self._chance.random() < 0.002:
            raise Unavailable("chain_unavailable", "the simulated node is busy")
        return node.chain

    async def _answer(self) -> None:
        await self._wire.cross()
        if self._chance.random() < 0.002:
            raise Unavailable("chain_unavailable", "the simulated node's answer was lost")

    async def start(self) -> None:
        await self._ask()

    async def stop(self) -> None:
        """Nothing to close."""

    async def tip(self) -> Tip:
        chain = await self._ask()
        block = chain.blocks[-1]
        answer = Tip(chain.height, block.block_hash, block.time, chain.median_time_past)
        await self._answer()
        return answer

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        chain = await self._ask()
        found = []
        for outpoint in chain.by_script.get(request.script_pubkey, ()):
            confirmations = chain.confirmations(outpoint[:32])
            if confirmations >= 0 and not chain.spender(outpoint):
                found.append(FundingOutput(outpoint, chain.fundings[outpoint][0].funding_value, confirmations))
        await self._answer()
        return found

    async def funding_status(self, terms: ChannelTerms, settlement_txid: bytes = b"") -> FundingStatus:
        chain = await self._ask()
        spender = chain.spender(terms.outpoint)
        confirmations = chain.confirmations(terms.outpoint[:32])
        answer = FundingStatus(confirmations if confirmations >= 0 else UNKNOWN)
        if spender:
            depth = chain.confirmations(spender.txid)
            is_named = self._node.kind != KINDS[1] or depth == 0 or spender.txid == settlement_txid
            answer = FundingStatus(confirmations, True, spender.txid if is_named else b"", depth)
        await self._answer()
        return answer

    async def funding_transaction(self, terms: ChannelTerms) -> bytes:
        """As a node without txindex: it finds a transaction by its unspent output, and our own settlement spends that."""
        chain = await self._ask()
        if chain.spender(terms.outpoint):
            raise Unavailable("chain_unavailable", "the simulated node has no txindex")
        _, raw = chain.fundings[terms.outpoint]
        await self._answer()
        return raw

    async def fee_per_byte(self, blocks: int) -> int | None:
        await self._ask()
        answer = self._node.estimate(blocks)
        await self._answer()
        return None if self._chance.random() < 0.05 else answer

    async def spender(self, txid: bytes) -> Spender:
        chain = await self._ask()
        known = chain.transaction(txid)
        fees = chain.own.fees_of(txid) if txid in chain.own and self._node.kind != KINDS[2] else None
        await self._answer()
        return Spender(known.raw if known is not None else b"", fees)

    async def relay_fee_per_kb(self) -> int | None:
        chain = await self._ask()
        await self._answer()
        return math.ceil(1000 * chain.own_minimum) if self._node.kind != KINDS[2] else None

    async def broadcast(self, transaction: bytes) -> None:
        chain = await self._ask()
        try:
            chain.submit(transaction)
        except Refused as error:
            raise BroadcastRefused(str(error), is_for_fee(str(error))) from error
        await self._answer()
