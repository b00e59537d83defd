"""The block chain as a Bitcoin Core node (version 25 or later) tells it, by JSON-RPC.

What the operator configures on the node:
- `txindex=1`, recommended. Without it the node names old transactions only if the watching wallet has seen them, and some
  questions end in Unavailable, with a sentence that says so. `txospenderindex=1` (Core 31) also names confirmed spenders.
- wallets enabled (`disablewallet=0`): funding is found by address through watch-only wallets, never by `scantxoutset`.
- `blockfilterindex=1`, recommended: an import looks through the last four hours of blocks, which the filters make quick.
- not pruned: the signer wants funding transactions. (A pruned node cannot have `txindex`; it serves as long as its wallets
  have seen every funding transaction.)

Wallets are named NAME-1, NAME-2, ..: Core cannot forget a descriptor, so when one holds `watched_max` scripts the next is
made, and the one before the last is unloaded (its file stays; `loadwallet` brings it back). A script whose wallet was
unloaded is imported anew when it is asked for. Several workers share the wallets; each may overfill one a little.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from bitcoin.core import CTransaction

from ..channel import ChannelTerms
from ..network import REGTEST, Network, p2sh_address
from ..outpoint import make_outpoint, txid_hex, txid_of, vout_of
from ..script import p2sh_script_pubkey
from .base import FUNDING_OUTPUTS_MAX, UNKNOWN, BroadcastRefused, FundingOutput, FundingRequest, FundingStatus, Tip
from .jsonrpc import METHOD_NOT_FOUND, JsonRpc, RpcError, parse_amount, unavailable

VERSION_MIN = 250000
HEADERS_AHEAD_MAX = 3
"""Blocks by which the node may lag behind the headers it knows."""

PROGRESS_MIN = 0.999
"""Least `verificationprogress`: about three days behind on mainnet. Not looked at on regtest."""

FEE_TARGET_MAX = 1008
"""Blocks: the longest target for which Core estimates fees."""

SATOSHI_PER_KB_BYTE = 1000
RESCAN_SECONDS = 2 * 3600
"""How far before now an import looks for payments; Core adds two hours more."""

WATCHED_MAX = 10_000
PENDING_MAX = 1000
"""Scripts that wait for the import under way; beyond it, requests are refused."""

STRANGERS_MAX = 10_000
"""Outputs spent by transactions that the node does not name, whose depth is counted; few settlements are lost so."""

IMPORT_SECONDS_MAX = 60.0
RESCAN_TRIES = 20
RESCAN_DELAY = 0.25
REASON_SIZE_MAX = 200

NOT_FOUND = -5
WALLET_ERROR = -4
DESERIALIZATION_ERROR = -22
VERIFY_ERROR = -25
VERIFY_REJECTED = -26
ALREADY_IN_CHAIN = -27
WALLET_NOT_FOUND = -18
WALLET_ALREADY_LOADED = -35

Kind = TypeVar("Kind")

_INPUT_CHARSET = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
_CHECKSUM_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)


def with_checksum(descriptor: str) -> str:
    """Return an output descriptor followed by its checksum (BIP 380)."""
    symbols, groups = [], []
    for letter in descriptor:
        position = _INPUT_CHARSET.index(letter)
        symbols.append(position & 31)
        groups.append(position >> 5)
        if len(groups) == 3:
            symbols.append(groups[0] * 9 + groups[1] * 3 + groups[2])
            groups = []
    if len(groups) == 1:
        symbols.append(groups[0])
    elif len(groups) == 2:
        symbols.append(groups[0] * 3 + groups[1])
    check = 1
    for value in [*symbols, *(0,) * 8]:
        top = check >> 35
        check = (check & 0x7FFFFFFFF) << 5 ^ value
        for at, generator in enumerate(_GENERATOR):
            check ^= generator if (top >> at) & 1 else 0
    check ^= 1
    return descriptor + "#" + "".join(_CHECKSUM_CHARSET[(check >> 5 * (7 - at)) & 31] for at in range(8))


# Reading answers: nothing of another type than Core documents gets past these.


def _need(answer: Any) -> Any:
    """Return a call's result. An RpcError becomes Unavailable, with the node's own words."""
    if isinstance(answer, RpcError):
        raise unavailable(f"The Bitcoin node answers: {_clean(answer.message)} ({answer.code})")
    return answer


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(_need(answer), dict):
        raise unavailable("The Bitcoin node's answer is not understood: it is no object")
    return dict(answer)


def _rows(answer: Any, count: int) -> list[dict[str, Any]]:
    """Return a result that is a list of so many objects."""
    if not isinstance(_need(answer), list) or len(answer) != count:
        raise unavailable("The Bitcoin node's answer is not understood: it is no list, or of another length than asked")
    return [_object(row) for row in answer]


def _field(answer: Any, name: str, kind: type[Kind]) -> Kind:
    value = _object(answer).get(name)
    if type(value) is not kind:
        raise unavailable(f"The Bitcoin node's answer is not understood: {name} is missing or malformed")
    return value


def _amount(answer: Any, name: str) -> int:
    try:
        return parse_amount(_object(answer).get(name))
    except ValueError:
        raise unavailable(f"The Bitcoin node's answer is not understood: {name} is no amount") from None


def _hash(answer: Any, name: str) -> bytes:
    """Return a txid or block hash in internal order."""
    return _bytes(_field(answer, name, str), name, 32)[::-1]


def _bytes(text: Any, name: str, size: int = 0) -> bytes:
    try:
        value = bytes.fromhex(text)
    except (ValueError, TypeError):
        value = b""
    if not value or (size and len(value) != size):
        raise unavailable(f"The Bitcoin node's answer is not understood: {name} is not in hexadecimal")
    return value


def _clean(message: str) -> str:
    return re.sub(r"[^ -~]", "?", message)[:REASON_SIZE_MAX]


def _is_absent(answer: Any) -> bool:
    """Return whether the node says that it does not know a transaction. Other errors are raised as Unavailable."""
    if isinstance(answer, RpcError) and answer.code == NOT_FOUND:
        return True
    _need(answer)
    return False


class WatchingWallets:
    """The watch-only wallets: imports scripts in groups, and lists what pays to one."""

    def __init__(self, rpc: JsonRpc, network: Network, name: str, watched_max: int, clock: Callable[[], float]) -> None:
        self._rpc, self._network, self._name, self._clock = rpc, network, name, clock
        self._max = watched_max
        self._known: OrderedDict[bytes, str] = OrderedDict()  # script -> the wallet that has it, newest last
        self._count = 0  # descriptors in the current wallet, by our last look and our own imports since
        self._pending: dict[bytes, asyncio.Future[None]] = {}
        self._importing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load or make the current wallet and the one before."""
        loaded = await self._loaded()
        listed = _field(await self._rpc.call("listwalletdir"), "wallets", list)
        known = sorted({*loaded, *filter(None, (self._number(_field(row, "name", str)) for row in listed))})
        for number in known[-2:]:
            if number not in loaded:
                await self._wallet_call("loadwallet", number, WALLET_ALREADY_LOADED, True)
        if not known:
            await self._create(1)
        await self._count_descriptors(max(known, default=1))

    async def stop(self) -> None:
        """End an import under way."""
        if self._importing is not None:
            self._importing.cancel()
            await asyncio.gather(self._importing, return_exceptions=True)

    async def watch(self, script_pubkey: bytes) -> None:
        """Return when the wallet has the script and has looked for it in the last hours' blocks and the mempool.

        Calls that come while an import is under way go together into the next: one look through the blocks for all.
        """
        if script_pubkey in self._known:
            self._known.move_to_end(script_pubkey)
            return
        if script_pubkey not in self._pending:
            if len(self._pending) >= PENDING_MAX:
                raise unavailable("Too many addresses wait for the Bitcoin node's wallet")
            self._pending[script_pubkey] = asyncio.get_running_loop().create_future()
        if self._importing is None or self._importing.done():
            self._importing = asyncio.create_task(self._import_pending())
        await asyncio.shield(self._pending[script_pubkey])

    async def unspent(self, script_pubkey: bytes) -> list[bytes]:
        """Return outpoints that pay to the script, mempool included, as the loaded wallets know them."""
        await self.watch(script_pubkey)
        loaded = await self._loaded()
        if self._number(self._known.get(script_pubkey, "")) not in loaded:
            self._known.pop(script_pubkey, None)  # another worker has unloaded its wallet
            await self.watch(script_pubkey)
            loaded = await self._loaded()
        address = p2sh_address(self._network, script_pubkey[2:22])
        found: list[bytes] = []
        for number in loaded[-2:]:
            limits = {"maximumCount": FUNDING_OUTPUTS_MAX}
            rows = await self._call(number, "listunspent", 0, 9_999_999, [address], True, limits)
            if not isinstance(_need(rows), list):
                raise unavailable("The Bitcoin node's answer is not understood: listunspent gives no list")
            for row in rows:
                if _bytes(_field(row, "scriptPubKey", str), "scriptPubKey") == script_pubkey:
                    found.append(make_outpoint(_hash(row, "txid"), _field(row, "vout", int)))
        return list(dict.fromkeys(found))[:FUNDING_OUTPUTS_MAX]

    async def transaction(self, txid: bytes) -> tuple[int, bytes] | None:
        """Return confirmations (negative: a conflicting one is in a block) and bytes of a transaction, None if unseen."""
        for number in reversed(await self._loaded()):
            answer = await self._call(number, "gettransaction", txid_hex(txid))
            if isinstance(answer, RpcError) and answer.code == METHOD_NOT_FOUND:
                return None
            if not _is_absent(answer):
                return _field(answer, "confirmations", int), _bytes(_field(answer, "hex", str), "hex")
        return None

    async def _import_pending(self) -> None:
        while self._pending:
            group, self._pending = self._pending, {}
            try:
                await self._import(list(group))
            except (Exception, asyncio.CancelledError) as error:
                for future in group.values():
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else unavailable("Shutting down"))
                        future.exception()  # whoever waited may have gone
                if isinstance(error, asyncio.CancelledError):
                    raise
            else:
                for future in group.values():
                    if not future.done():
                        future.set_result(None)

    async def _import(self, scripts: list[bytes]) -> None:
        number = await self._current()
        since = int(self._clock()) - RESCAN_SECONDS
        requests = [{"desc": with_checksum(f"raw({script.hex()})"), "timestamp": since} for script in scripts]
        for row in _rows(await self._call_while_rescanning(number, requests), len(requests)):
            if not _field(row, "success", bool):
                raise unavailable("The Bitcoin node's wallet refuses to watch an address")
        self._count += len(scripts)
        for script in scripts:
            self._known[script] = self._wallet(number)
        while len(self._known) > self._max:
            self._known.popitem(last=False)

    async def _call_while_rescanning(self, number: int, requests: list[dict[str, Any]]) -> Any:
        """Import; while the wallet is busy with another worker's import, wait."""
        for _ in range(RESCAN_TRIES):
            answer = await self._call(number, "importdescriptors", requests, timeout=IMPORT_SECONDS_MAX)
            if not (isinstance(answer, RpcError) and answer.code == WALLET_ERROR and "rescan" in answer.message):
                return answer
            await asyncio.sleep(RESCAN_DELAY)
        raise unavailable("The Bitcoin node's wallet is busy with another rescan")

    async def _current(self) -> int:
        """Return the wallet to import into; a full one makes place for the next."""
        loaded = await self._loaded()
        if not loaded:
            await self.start()
            loaded = await self._loaded()
        number = loaded[-1] if loaded else 1
        if self._count < self._max or await self._count_descriptors(number) < self._max:
            return number
        await self._create(number + 1)
        for old in loaded[:-1]:
            await self._wallet_call("unloadwallet", old, WALLET_NOT_FOUND, False)
        return number + 1

    async def _count_descriptors(self, number: int) -> int:
        """Count what a wallet watches, and forget what we took it to watch but is not there: the node may be another one."""
        rows = _field(await self._call(number, "listdescriptors"), "descriptors", list)
        watched = {_field(row, "desc", str).partition("#")[0] for row in rows}
        for script in [script for script, wallet in self._known.items() if wallet == self._wallet(number)]:
            if f"raw({script.hex()})" not in watched:
                del self._known[script]
        self._count = len(rows)
        return self._count

    async def _create(self, number: int) -> None:
        """Make a wallet: no private keys, blank, no passphrase, no avoid_reuse, descriptors, loaded at the node's start."""
        arguments = (True, True, "", False, True, True)
        await self._wallet_call("createwallet", number, WALLET_ERROR, *arguments)
        if number not in await self._loaded():  # another worker made it, or it was unloaded
            await self._wallet_call("loadwallet", number, WALLET_ALREADY_LOADED, True)
        self._count = 0

    async def _wallet_call(self, method: str, number: int, accepted: int, *arguments: Any) -> None:
        """Create, load or unload a wallet; the error `accepted` means that it is so already."""
        try:
            await self._rpc.call(method, self._wallet(number), *arguments, timeout=IMPORT_SECONDS_MAX)
        except RpcError as error:
            if error.code != accepted:
                _need(error)

    async def _loaded(self) -> list[int]:
        """Return the numbers of our loaded wallets, ascending."""
        try:
            names = await self._rpc.call("listwallets")
        except RpcError as error:
            if error.code == METHOD_NOT_FOUND:
                raise unavailable("The Bitcoin node runs without wallets (disablewallet): it cannot find funding") from error
            raise unavailable(f"The Bitcoin node answers: {_clean(error.message)} ({error.code})") from error
        if not isinstance(names, list):
            raise unavailable("The Bitcoin node's answer is not understood: listwallets gives no list")
        return sorted(filter(None, (self._number(name) for name in names if isinstance(name, str))))

    def _number(self, name: str) -> int:
        """Return the number of one of our wallets, 0 for another's."""
        head, _, tail = name.rpartition("-")
        return int(tail) if head == self._name and re.fullmatch(r"[1-9][0-9]{0,8}", tail) else 0

    def _wallet(self, number: int) -> str:
        return f"{self._name}-{number}"

    async def _call(self, number: int, method: str, *parameters: Any, timeout: float = 0) -> Any:
        (answer,) = await self._rpc.batch(
            [(method, *parameters)], path=f"/wallet/{self._wallet(number)}", timeout=timeout
        )
        return answer


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
        clock: Callable[[], float] = time.time,
    ) -> None:
        """network: which chain the node must be of. cookie: the node's cookie file, or user and password. wallet: what the
        names of its watching wallets begin with. timeout: seconds for each request. clock: unix seconds."""
        self._network = network
        self._rpc = JsonRpc(
            host, port, cookie=cookie, user=user, password=password, timeout=timeout, connections_max=connections_max
        )
        self._wallets = WatchingWallets(self._rpc, network, wallet, watched_max, clock)
        self._has_txindex = False
        self._is_pruned = False
        self._strangers: OrderedDict[bytes, tuple[int, str]] = OrderedDict()  # spent outpoint -> the best block then

    async def start(self) -> None:
        """Check version, network and progress, and prepare the wallets. Raises Unavailable with what is wrong."""
        info, genesis, network_info, indexes = await self._rpc.batch(
            [("getblockchaininfo",), ("getblockhash", 0), ("getnetworkinfo",), ("getindexinfo",)]
        )
        if _need(genesis) != self._network.genesis:
            raise unavailable(f"The Bitcoin node is of another network than {self._network.name}")
        version = _field(network_info, "version", int)
        if version < VERSION_MIN:
            raise unavailable(f"The Bitcoin node's version is {version}, at least {VERSION_MIN} is needed")
        self._check_progress(info)
        self._is_pruned = _field(info, "pruned", bool)
        self._has_txindex = "txindex" in _object(indexes)
        if self._has_txindex and not _field(indexes["txindex"], "synced", bool):
            raise unavailable("The Bitcoin node is still building its transaction index")
        await self._wallets.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._wallets.stop()
        await self._rpc.close()

    async def tip(self) -> Tip:
        """Return the best block. A node that has fallen behind: Unavailable."""
        (info,) = await self._rpc.batch([("getblockchaininfo",)])
        self._check_progress(info)
        return Tip(
            _field(info, "blocks", int),
            _hash(info, "bestblockhash"),
            _field(info, "time", int),
            _field(info, "mediantime", int),
        )

    def _check_progress(self, info: Any) -> None:
        behind = _field(info, "headers", int) - _field(info, "blocks", int)
        told = info.get("verificationprogress")
        progress = float(told) if isinstance(told, int | Decimal) else 0.0
        late = self._network is not REGTEST and progress < PROGRESS_MIN
        if _field(info, "initialblockdownload", bool) or behind > HEADERS_AHEAD_MAX or late:
            raise unavailable(f"The Bitcoin node is still syncing: {behind} blocks behind, {progress:.4f} verified")

    async def watch(self, request: FundingRequest) -> None:
        """Have the node's wallet watch the script pubkey (a P2SH one)."""
        await self._wallets.watch(request.script_pubkey)

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        """Return the unspent outputs that pay exactly the script. By address it finds what was paid after the first
        `watch` of it, or up to two hours (of block time: four) before."""
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
            for outpoint, output, row in zip(outpoints, found, _rows(spenders, len(outpoints)), strict=True)
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
        (spender,) = _rows(spenders, 1)
        if "spendingtxid" in spender:
            return await self._spent(terms, in_chain, _hash(spender, "spendingtxid"))
        if _need(in_mempool) is not None:
            self._strangers.pop(terms.outpoint, None)
            if not _pays(in_mempool, p2sh_script_pubkey(terms.redeem_script)):
                raise unavailable("The Bitcoin node's funding output pays to another script than the channel's")
            return FundingStatus(_field(in_mempool, "confirmations", int))
        if settlement_txid and await self.confirmations(terms, settlement_txid) >= 0:
            return await self._spent(terms, in_chain, settlement_txid)
        confirmations = await self._locate(txid_of(terms.outpoint))
        if confirmations is None:
            raise unavailable("The Bitcoin node cannot tell whether the funding is spent or gone: it needs txindex=1")
        if confirmations == 0 or _need(in_chain) is not None:
            raise unavailable("The Bitcoin node contradicts itself about the funding output; a block may just have come")
        if confirmations < 0:
            return FundingStatus(confirmations)
        return FundingStatus(confirmations, True, b"", min(confirmations, await self._stranger_depth(terms.outpoint)))

    async def _stranger_depth(self, outpoint: bytes) -> int:
        """Return the least depth of the unnamed transaction in a block that has spent an output: counted from the best block
        with which this was first seen, and anew if that block was reorganised away."""
        (info,) = await self._rpc.batch([("getblockchaininfo",)])
        height, block = _field(info, "blocks", int), _field(info, "bestblockhash", str)
        first, seen = self._strangers.get(outpoint, (height, block))
        (now_there,) = await self._rpc.batch([("getblockhash", first)])
        if first > height or now_there != seen:
            first, seen = height, block
        self._strangers[outpoint] = first, seen
        if len(self._strangers) > STRANGERS_MAX:
            self._strangers.popitem(last=False)
        return height - first + 1

    async def _spent(self, terms: ChannelTerms, in_chain: Any, spender: bytes) -> FundingStatus:
        spent_confirmations = max(0, await self.confirmations(terms, spender))
        if _need(in_chain) is not None:
            funding: int | None = _field(in_chain, "confirmations", int)
        else:
            funding = await self._locate(txid_of(terms.outpoint))
        funding = max(funding or 0, spent_confirmations)  # nothing is younger than what spends it
        return FundingStatus(funding, True, spender, spent_confirmations)

    async def funding_transaction(self, terms: ChannelTerms) -> bytes:
        """Return the funding transaction's bytes. Raises Unavailable if the node no longer has them."""
        txid = txid_of(terms.outpoint)
        answer, output = await self._rpc.batch(
            [("getrawtransaction", txid_hex(txid), 0), ("gettxout", txid_hex(txid), vout_of(terms.outpoint), True)]
        )
        if not _is_absent(answer):
            return _checked(_bytes(answer, "transaction"), txid)
        seen = await self._wallets.transaction(txid)
        if seen is not None:
            return _checked(seen[1], txid)
        if _need(output) is not None and _field(output, "confirmations", int) > 0:
            answer = await self._from_block(txid, output)
            if not isinstance(answer, RpcError):
                return _checked(_bytes(answer, "transaction"), txid)
        why = "it is pruned" if self._is_pruned else "it needs txindex=1"
        raise unavailable(f"The Bitcoin node does not have the funding transaction: {why}")

    async def _from_block(self, txid: bytes, output: Any) -> Any:
        """Return getrawtransaction's answer, given the block that the output's confirmations lead to."""
        (header,) = await self._rpc.batch([("getblockheader", _field(output, "bestblock", str), True)])
        height = _field(header, "height", int) - _field(output, "confirmations", int) + 1
        (block,) = await self._rpc.batch([("getblockhash", height)])
        (answer,) = await self._rpc.batch([("getrawtransaction", txid_hex(txid), 0, _need(block))])
        return answer

    async def fee_per_byte(self, blocks: int) -> int:
        """Return the node's estimate, but no less than what its mempool and relay rules ask now. A node that has seen too
        little to estimate gives that least fee alone: the caller's own floor should be higher."""
        target = min(max(blocks, 1), FEE_TARGET_MAX)
        estimate, mempool = await self._rpc.batch([("estimatesmartfee", target, "conservative"), ("getmempoolinfo",)])
        floor = max(_amount(mempool, "mempoolminfee"), _amount(mempool, "minrelaytxfee"))
        fee = _amount(estimate, "feerate") if "feerate" in _object(estimate) else 0
        if not fee and not _field(estimate, "errors", list):
            raise unavailable("The Bitcoin node's answer is not understood: no fee and no reason")
        return max(1, -(-max(fee, floor) // SATOSHI_PER_KB_BYTE))

    async def broadcast(self, transaction: bytes) -> None:
        """Publish a transaction; one that the mempool or the chain has already is no error. The node's own limit on the fee
        rate (0.1 BTC for 1000 bytes) holds."""
        text = transaction.hex()
        (tests,) = await self._rpc.batch([("testmempoolaccept", [text])])
        if not (isinstance(tests, RpcError) and tests.code == METHOD_NOT_FOUND):
            reason = tests.message if _is_refusal(tests) else _reject_reason(_rows(tests, 1)[0])
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
                _need(error)
            await self._refuse(transaction, error.message)

    async def _refuse(self, transaction: bytes, reason: str) -> None:
        """Raise BroadcastRefused, unless inputs are missing because the transaction itself, in a block, has spent them."""
        if "missing" in reason:
            confirmations = await self._locate(CTransaction.deserialize(transaction).GetTxid())
            if confirmations is not None and confirmations > 0:
                return
        raise BroadcastRefused(_clean(reason))

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
        if not _is_absent(answer):
            if _object(answer).get("blockhash") is None:
                return 0
            confirmations = _field(answer, "confirmations", int)
            return confirmations if confirmations > 0 else UNKNOWN  # 0: its block was reorganised away
        for output in outputs:
            if _need(output) is not None:
                return _field(output, "confirmations", int)
        if self._has_txindex:
            return UNKNOWN
        seen = await self._wallets.transaction(txid)
        if seen is None:
            return None
        return seen[0] if seen[0] > 0 else UNKNOWN  # 0 or less, and not in the mempool: gone or replaced


def _prevout(outpoint: bytes) -> dict[str, Any]:
    return {"txid": txid_hex(txid_of(outpoint)), "vout": vout_of(outpoint)}


def _pays(output: Any, script_pubkey: bytes) -> bool:
    """Return whether gettxout's answer is an unspent output that pays exactly this script."""
    if _need(output) is None:
        return False
    return _bytes(_field(_field(output, "scriptPubKey", dict), "hex", str), "scriptPubKey") == script_pubkey


def _funding_output(outpoint: bytes, output: Any) -> FundingOutput:
    confirmations = _field(output, "confirmations", int)
    if confirmations < 0:
        raise unavailable("The Bitcoin node's answer is not understood: confirmations is negative")
    return FundingOutput(outpoint, _amount(output, "value"), confirmations, _field(output, "coinbase", bool))


def _is_refusal(answer: Any) -> bool:
    codes = (DESERIALIZATION_ERROR, VERIFY_ERROR, VERIFY_REJECTED)
    return isinstance(answer, RpcError) and answer.code in codes


def _reject_reason(test: dict[str, Any]) -> str:
    """Return why testmempoolaccept would not take a transaction, empty if it would."""
    return "" if _field(test, "allowed", bool) else _field(test, "reject-reason", str)


def _checked(raw: bytes, txid: bytes) -> bytes:
    """Return the transaction if its id is `txid`."""
    try:
        matches = CTransaction.deserialize(raw).GetTxid() == txid
    except Exception:  # python-bitcoinlib raises errors of many kinds
        matches = False
    if not matches:
        raise unavailable("The Bitcoin node gave another transaction than the one asked for")
    return raw
