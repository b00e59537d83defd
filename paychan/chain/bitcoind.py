"""The block chain as a Bitcoin Core node tells it, by JSON-RPC.

Version 28 or later, or 25 to 27 with `mempoolfullrbf=1`: a settlement that waits too long is replaced by one that pays more. The
payer's signature fixes the sequence number, so it cannot say by BIP 125 that it may be, and other nodes keep the first for ever.

What the operator configures on the node:
- `txindex=1`, recommended. Without it the node names old transactions only if the watching wallet has seen them, and some
  questions end in Unavailable, with a sentence that says so. `txospenderindex=1` (Core 31) also names confirmed spenders.
- wallets enabled (`disablewallet=0`): an open that names no outpoint finds its funding through watch-only wallets, never by
  `scantxoutset`.
- `blockfilterindex=1`, recommended: an import looks through the last four hours of blocks, which the filters make quick.
- not pruned: the signer wants a channel's funding transaction when it opens, and its block holds that. (A pruned node cannot have
  `txindex`; it serves as long as its wallets have seen every funding transaction.)
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypeGuard

from bitcoin.core import CTransaction

from ..core.channel import ChannelTerms
from ..core.network import REGTEST, Network
from ..core.outpoint import txid_hex, txid_of, vout_of
from ..core.script import p2sh_script_pubkey
from .answers import clean, is_absent, need, need_amount, need_bytes, need_field, need_hash, need_object, need_rows
from .base import UNKNOWN, BroadcastRefused, FundingOutput, FundingRequest, FundingStatus, Spender, Tip, is_for_fee
from .jsonrpc import METHOD_NOT_FOUND, JsonRpc, RpcError, unavailable
from .proof import proof_of
from .wallets import WatchingWallets

VERSION_MIN = 250000

REPLACES_FROM = 280000
"""The version since which Core replaces transactions that do not ask for it, unless it was told otherwise."""

HEADERS_AHEAD_MAX = 3
"""Blocks by which the node may lag behind the headers it knows."""

PROGRESS_MIN = 0.999
"""Least `verificationprogress`: about three days behind on mainnet. Not looked at on regtest."""

FEE_TARGET_MIN = 2
FEE_TARGET_MAX = 1008
"""Blocks: the shortest and the longest target for which Core estimates fees; it takes others for the nearest of these."""

SATOSHI_PER_KB_BYTE = 1000

WATCHED_MAX = 10_000

STRANGERS_MAX = 10_000
"""Outputs spent by transactions that the node does not name, whose depth is counted; few settlements are lost so."""

DESERIALIZATION_ERROR = -22

VERIFY_ERROR = -25

VERIFY_REJECTED = -26

ALREADY_IN_CHAIN = -27


@dataclass(frozen=True)
class NodeFacts:
    """What a node tells of itself, as far as the operator configures it. peers: connections to other nodes."""

    version: int
    peers: int
    indexes: frozenset[str]
    is_pruned: bool
    has_wallets: bool
    estimates_fees: bool


class BitcoindChain:
    """`ChainBackend` on a Bitcoin Core node. See this module's head for what the node must be configured with."""

    def __init__(
        self,
        host: str,
        port: int,
        network: Network,
        *,
        cookie: Path | None = None,
        user: str = "",
        password: str = "",
        wallet: str = "paychan-watch",
        watched_max: int = WATCHED_MAX,
        timeout: float = 10.0,
        connections_max: int = 4,
        must_replace: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """network: which chain the node must be of. cookie: the node's cookie file, or user and password. wallet: what the
        names of its watching wallets begin with. timeout: seconds for each request. must_replace: refuse a node that replaces
        nothing. clock: unix seconds."""
        self._network, self._must_replace = network, must_replace
        self._rpc = JsonRpc(
            host, port, cookie=cookie, user=user, password=password, timeout=timeout, connections_max=connections_max
        )
        self._wallets = WatchingWallets(self._rpc, network, wallet, watched_max, clock)
        self._has_txindex = False
        self._is_pruned = False
        self._strangers: OrderedDict[bytes, tuple[int, str]] = OrderedDict()  # spent outpoint -> the best block then

    async def start(self) -> None:
        """Check version, network and progress, and prepare the wallets. Raises Unavailable with what is wrong."""
        await self.check()
        await self._wallets.start()

    async def check(self) -> None:
        """Check version, network and progress; change nothing on the node. Raises Unavailable with what is wrong."""
        info, genesis, network_info, indexes, mempool = await self._rpc.batch(
            [("getblockchaininfo",), ("getblockhash", 0), ("getnetworkinfo",), ("getindexinfo",), ("getmempoolinfo",)]
        )
        chain = need_field(info, "chain", str)
        if need(genesis) != self._network.genesis or chain != self._network.chain:
            raise unavailable(f"The Bitcoin node is of another network than {self._network.name}: its chain is {clean(chain)}")
        version = need_field(network_info, "version", int)
        if version < VERSION_MIN:
            raise unavailable(f"The Bitcoin node's version is {version}, at least {VERSION_MIN} is needed")
        self._check_replaces(version, mempool)
        self._check_progress(info)
        self._is_pruned = need_field(info, "pruned", bool)
        built = need_object(indexes)
        self._has_txindex = "txindex" in built
        if self._has_txindex and not need_field(built["txindex"], "synced", bool):
            raise unavailable("The Bitcoin node is still building its transaction index")

    async def describe(self) -> NodeFacts:
        """Return what an operator may want to know of the node beside that. Raises Unavailable."""
        info, network, indexes, wallets, fees = await self._rpc.batch(
            [("getblockchaininfo",), ("getnetworkinfo",), ("getindexinfo",), ("listwallets",), ("estimatesmartfee", 6)]
        )
        return NodeFacts(
            version=need_field(network, "version", int),
            peers=need_field(network, "connections", int),
            indexes=frozenset(need_object(indexes)),
            is_pruned=need_field(info, "pruned", bool),
            has_wallets=not isinstance(wallets, RpcError),
            estimates_fees=isinstance(fees, dict) and "feerate" in fees,
        )

    def _check_replaces(self, version: int, mempool: object) -> None:
        """Refuse a node that keeps the first of two conflicting transactions, whatever the second pays. Not on regtest."""
        if not self._must_replace or self._network is REGTEST:
            return
        if need_object(mempool).get("fullrbf", version >= REPLACES_FROM) is not True:
            raise unavailable(
                f"The Bitcoin node (version {version}) replaces no transactions, so no settlement's fee could be raised: "
                "set mempoolfullrbf=1, or use Bitcoin Core 28 or later"
            )

    async def stop(self) -> None:
        """Close the connections."""
        await self._wallets.stop()
        await self._rpc.close()

    async def tip(self) -> Tip:
        """Return the best block. A node that has fallen behind: Unavailable."""
        (info,) = await self._rpc.batch([("getblockchaininfo",)])
        self._check_progress(info)
        height, time, median = (need_field(info, name, int) for name in ("blocks", "time", "mediantime"))
        tip = Tip(height, need_hash(info, "bestblockhash"), time, median)
        if not tip.is_possible:
            raise unavailable("The Bitcoin node's answer is not understood: the best block's height or time is out of range")
        return tip

    def _check_progress(self, info: object) -> None:
        behind = need_field(info, "headers", int) - need_field(info, "blocks", int)
        told = need_object(info).get("verificationprogress")
        progress = float(max(0, min(told, 1))) if isinstance(told, int | Decimal) else 0.0
        late = self._network is not REGTEST and progress < PROGRESS_MIN
        if need_field(info, "initialblockdownload", bool) or behind > HEADERS_AHEAD_MAX or late:
            raise unavailable(f"The Bitcoin node is still syncing: {behind} blocks behind, {progress:.4f} verified")

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        """Return the unspent outputs that pay exactly the script. By address it finds what was paid after it was first asked
        for, or up to two hours (of block time: four) before."""
        if request.outpoint is not None:
            outpoints = [request.outpoint]
        else:
            outpoints = await self._wallets.unspent(request.script_pubkey)
        if not outpoints:
            return []
        calls = [("gettxout", txid_hex(txid_of(outpoint)), vout_of(outpoint), True) for outpoint in outpoints]
        *found, spenders = await self._rpc.batch([*calls, ("gettxspendingprevout", [_prevout(out) for out in outpoints])])
        return [
            _funding_output(outpoint, output)
            for outpoint, output, row in zip(outpoints, found, need_rows(spenders, len(outpoints)), strict=True)
            if _pays(output, request.script_pubkey) and "spendingtxid" not in row
        ]

    async def funding_status(self, terms: ChannelTerms, settlement_txid: bytes = b"") -> FundingStatus:
        """Return what became of the funding output. A spender in a block is named if it is `settlement_txid`, or if the
        node has `txospenderindex`; another one has at least the confirmations told. Without `txindex`, an output that the
        wallet never saw can end in Unavailable."""
        txid, vout = txid_hex(txid_of(terms.outpoint)), vout_of(terms.outpoint)
        in_mempool, in_chain, spenders = await self._rpc.batch(
            [
                ("gettxout", txid, vout, True),
                ("gettxout", txid, vout, False),
                ("gettxspendingprevout", [_prevout(terms.outpoint)]),
            ]
        )
        (spender,) = need_rows(spenders, 1)
        if "spendingtxid" in spender:
            return await self._spent(terms, in_chain, need_hash(spender, "spendingtxid"))
        if need(in_mempool) is not None:
            self._strangers.pop(terms.outpoint, None)
            if not _pays(in_mempool, p2sh_script_pubkey(terms.redeem_script)):
                raise unavailable("The Bitcoin node's funding output pays to another script than the channel's")
            return FundingStatus(need_field(in_mempool, "confirmations", int))
        if settlement_txid and await self.confirmations(terms, settlement_txid) >= 0:
            return await self._spent(terms, in_chain, settlement_txid)
        confirmations = await self._locate(txid_of(terms.outpoint))
        if confirmations is None:
            raise unavailable("The Bitcoin node cannot tell whether the funding is spent or gone: it needs txindex=1")
        if confirmations == 0 or need(in_chain) is not None:
            raise unavailable("The Bitcoin node contradicts itself about the funding output; a block may just have come")
        if confirmations < 0:
            return FundingStatus(confirmations)
        return FundingStatus(confirmations, True, b"", min(confirmations, await self._stranger_depth(terms.outpoint)))

    async def _stranger_depth(self, outpoint: bytes) -> int:
        """Return the least depth of the unnamed transaction in a block that has spent an output: counted from the best block
        with which this was first seen, and anew if that block was reorganised away."""
        (info,) = await self._rpc.batch([("getblockchaininfo",)])
        height, block = need_field(info, "blocks", int), need_field(info, "bestblockhash", str)
        first, seen = self._strangers.get(outpoint, (height, block))
        (now_there,) = await self._rpc.batch([("getblockhash", first)])
        if first > height or now_there != seen:
            first, seen = height, block
        self._strangers[outpoint] = first, seen
        if len(self._strangers) > STRANGERS_MAX:
            self._strangers.popitem(last=False)
        return height - first + 1

    async def _spent(self, terms: ChannelTerms, in_chain: object, spender: bytes) -> FundingStatus:
        spent_confirmations = max(0, await self.confirmations(terms, spender))
        if need(in_chain) is not None:
            funding: int | None = need_field(in_chain, "confirmations", int)
        else:
            funding = await self._locate(txid_of(terms.outpoint))
        funding = max(funding or 0, spent_confirmations)  # nothing is younger than what spends it
        return FundingStatus(funding, True, spender, spent_confirmations)

    async def funding_transaction(self, terms: ChannelTerms) -> bytes:
        """Return the funding transaction without its witness. Raises Unavailable if the node no longer has it.

        It is asked for when a channel opens: from then on a node without `txindex` needs its wallet to tell what became of that.
        """
        txid = txid_of(terms.outpoint)
        if not self._has_txindex:
            await self._wallets.watch(p2sh_script_pubkey(terms.redeem_script))
        answer, output = await self._rpc.batch(
            [("getrawtransaction", txid_hex(txid), 0), ("gettxout", txid_hex(txid), vout_of(terms.outpoint), True)]
        )
        if not is_absent(answer):
            return await _proof(answer, txid)
        seen = await self._wallets.transaction(txid)
        if seen is not None:
            return await _proof(seen[1], txid)
        if need(output) is not None and need_field(output, "confirmations", int) > 0:
            answer = await self._from_block(txid, output)
            if not isinstance(answer, RpcError):
                return await _proof(answer, txid)
        why = "it is pruned" if self._is_pruned else "it needs txindex=1"
        raise unavailable(f"The Bitcoin node does not have the funding transaction: {why}")

    async def _from_block(self, txid: bytes, output: object) -> object:
        """Return getrawtransaction's answer, given the block that the output's confirmations lead to."""
        (header,) = await self._rpc.batch([("getblockheader", need_field(output, "bestblock", str), True)])
        height = need_field(header, "height", int) - need_field(output, "confirmations", int) + 1
        (block,) = await self._rpc.batch([("getblockhash", height)])
        (answer,) = await self._rpc.batch([("getrawtransaction", txid_hex(txid), 0, need(block))])
        return answer

    async def fee_per_byte(self, blocks: int) -> int | None:
        """Return the node's estimate, but no less than what its mempool and relay rules ask now. None from a node that has seen
        too little to estimate for so few blocks."""
        target = min(max(blocks, 1), FEE_TARGET_MAX)
        estimate, mempool = await self._rpc.batch([("estimatesmartfee", target, "conservative"), ("getmempoolinfo",)])
        floor = max(need_amount(mempool, "mempoolminfee"), need_amount(mempool, "minrelaytxfee"))
        if "feerate" not in need_object(estimate):
            if not need_field(estimate, "errors", list):
                raise unavailable("The Bitcoin node's answer is not understood: no fee and no reason")
            return None
        if need_field(estimate, "blocks", int) > max(target, FEE_TARGET_MIN):
            return None
        return max(1, -(-max(need_amount(estimate, "feerate"), floor) // SATOSHI_PER_KB_BYTE))

    async def spender(self, txid: bytes) -> Spender:
        """Return a spender's bytes, which prove themselves, and while it is in the mempool, the fees of its family there."""
        name = txid_hex(txid)
        answer, entry = await self._rpc.batch([("getrawtransaction", name, 0), ("getmempoolentry", name)])
        seen = await self._wallets.transaction(txid) if is_absent(answer) else None
        if seen is not None:
            answer = seen[1]
        elif isinstance(answer, RpcError):
            confirmations = await self._locate(txid)
            if confirmations is not None and confirmations > 0:
                answer = await self._at_depth(txid, confirmations)
        fees = entry.get("fees") if isinstance(entry, dict) else None  # not in the mempool, or an old or strange node
        return Spender(
            b"" if isinstance(answer, RpcError) else await _proof(answer, txid),
            need_amount(fees, "descendant") if fees is not None else None,
        )

    async def _at_depth(self, txid: bytes, confirmations: int) -> object:
        """Return getrawtransaction's answer for a transaction that has so many confirmations."""
        (info,) = await self._rpc.batch([("getblockchaininfo",)])
        (block,) = await self._rpc.batch([("getblockhash", need_field(info, "blocks", int) - confirmations + 1)])
        (answer,) = await self._rpc.batch([("getrawtransaction", txid_hex(txid), 0, need(block))])
        return answer

    async def relay_fee_per_kb(self) -> int | None:
        """Return the larger of what the node's mempool asks while it is full, and of what it relays at all."""
        (mempool,) = await self._rpc.batch([("getmempoolinfo",)])
        return max(need_amount(mempool, "mempoolminfee"), need_amount(mempool, "minrelaytxfee"))

    async def broadcast(self, transaction: bytes) -> None:
        """Publish a transaction; one that the mempool or the chain has already is no error. The node's own limit on the fee
        rate (0.1 BTC for 1000 bytes) holds."""
        text = transaction.hex()
        (tests,) = await self._rpc.batch([("testmempoolaccept", [text])])
        if not (isinstance(tests, RpcError) and tests.code == METHOD_NOT_FOUND):
            reason = tests.message if _is_refusal(tests) else _reject_reason(need_rows(tests, 1)[0])
            if reason == "txn-already-known":
                return
            if reason and reason != "txn-already-in-mempool":
                await self._refuse(transaction, reason)
                return
        try:
            await self._rpc.call("sendrawtransaction", text)
        except RpcError as error:
            if error.code == ALREADY_IN_CHAIN:
                return
            if not _is_refusal(error):
                need(error)
            await self._refuse(transaction, error.message)

    async def _refuse(self, transaction: bytes, reason: str) -> None:
        """Raise BroadcastRefused, unless inputs are missing because the transaction itself, in a block, has spent them."""
        if "missing" in reason:
            confirmations = await self._locate(CTransaction.deserialize(transaction).GetTxid())
            if confirmations is not None and confirmations > 0:
                return
        raise BroadcastRefused(clean(reason), is_for_fee(reason))

    async def confirmations(self, terms: ChannelTerms, txid: bytes) -> int:
        """Return the confirmations of a settlement. Without `txindex` a confirmed one is known by the watching wallet, or
        by one of its first two outputs being unspent; if neither knows it, the answer is UNKNOWN too."""
        confirmations = await self._locate(txid)
        return UNKNOWN if confirmations is None else confirmations

    async def _locate(self, txid: bytes) -> int | None:
        """Return a transaction's confirmations, 0 in the mempool; UNKNOWN if it is surely in neither; None if the node
        cannot tell (it has no index, and its wallet never saw it)."""
        name = txid_hex(txid)
        answer, *outputs = await self._rpc.batch(
            [("getrawtransaction", name, 1), ("gettxout", name, 0, False), ("gettxout", name, 1, False)]
        )
        if not is_absent(answer):
            if need_object(answer).get("blockhash") is None:
                return 0
            confirmations = need_field(answer, "confirmations", int)
            return confirmations if confirmations > 0 else UNKNOWN  # 0: its block was reorganised away
        for output in outputs:
            if need(output) is not None:
                return need_field(output, "confirmations", int)
        if self._has_txindex:
            return UNKNOWN
        seen = await self._wallets.transaction(txid)
        if seen is None:
            return None
        return seen[0] if seen[0] > 0 else UNKNOWN  # 0 or less, and not in the mempool: gone or replaced


def _prevout(outpoint: bytes) -> dict[str, object]:
    return {"txid": txid_hex(txid_of(outpoint)), "vout": vout_of(outpoint)}


def _pays(output: object, script_pubkey: bytes) -> bool:
    """Return whether gettxout's answer is an unspent output that pays exactly this script."""
    if need(output) is None:
        return False
    return need_bytes(need_field(need_field(output, "scriptPubKey", dict), "hex", str), "scriptPubKey") == script_pubkey


def _funding_output(outpoint: bytes, output: object) -> FundingOutput:
    confirmations = need_field(output, "confirmations", int)
    if confirmations < 0:
        raise unavailable("The Bitcoin node's answer is not understood: confirmations is negative")
    return FundingOutput(outpoint, need_amount(output, "value"), confirmations, need_field(output, "coinbase", bool))


def _is_refusal(answer: object) -> TypeGuard[RpcError]:
    codes = (DESERIALIZATION_ERROR, VERIFY_ERROR, VERIFY_REJECTED)
    return isinstance(answer, RpcError) and answer.code in codes


def _reject_reason(test: dict[str, object]) -> str:
    """Return why testmempoolaccept would not take a transaction, empty if it would."""
    return "" if need_field(test, "allowed", bool) else need_field(test, "reject-reason", str)


async def _proof(answer: object, txid: bytes) -> bytes:
    """Return the transaction without its witness if its id is `txid`."""
    if not isinstance(answer, str):
        raise unavailable("The Bitcoin node's answer is not understood: a transaction is no text")
    try:
        return await proof_of(answer, txid)
    except ValueError:
        raise unavailable("The Bitcoin node gave another transaction than the one asked for") from None
