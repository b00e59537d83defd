"""A worker's chain backend in the simulation: the node behind it is slow, goes away for minutes or hours, forgets its mempool."""

import asyncio
import random

from paychan.chain.base import UNKNOWN, BroadcastRefused, FundingOutput, FundingRequest, FundingStatus, Tip
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Unavailable

from .blockchain import BlockChain, Refused
from .loop import Wire


class Node:
    """The node's state: whether it answers, and whether it refuses at once or only after a timeout while it does not."""

    def __init__(self, chain: BlockChain) -> None:
        self.chain, self.is_up, self.is_silent = chain, True, False


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
            answer = FundingStatus(confirmations, True, spender.txid, chain.confirmations(spender.txid))
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
        answer = (await self._ask()).estimate(blocks)
        await self._answer()
        return None if self._chance.random() < 0.05 else answer

    async def broadcast(self, transaction: bytes) -> None:
        chain = await self._ask()
        try:
            chain.submit(transaction)
        except Refused as error:
            raise BroadcastRefused(str(error)) from error
        await self._answer()
