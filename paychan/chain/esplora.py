"""The block chain as several Esplora servers tell it, by HTTP (API.md of Blockstream/esplora), believed where they agree.

Every question goes to all servers at once; `agreement.py` has the rules for what is believed of their answers. Amounts and scripts
are taken from the funding transaction's bytes, which prove themselves: their hash is the txid. It covers no witness, so that is cut
away before anything is read.

A server that is silent, malformed or of another network is left out (and logged when that changes), as long as `agree` others
answer. Choose `agree` above half the servers; two of three stands one failure, two of two none. Nothing is retried here.
"""

import asyncio
import json
import logging
import re
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bitcoin.core import CTransaction

from ..core.channel import ChannelTerms
from ..core.errors import Unavailable
from ..core.funding import is_coinbase, output_at
from ..core.network import Network
from ..core.outpoint import make_outpoint, txid_hex, txid_of, vout_of
from ..core.units import is_satoshi
from .agreement import (
    Contradiction,
    Listed,
    Sighting,
    agreed_fee,
    agreed_listing,
    agreed_status,
    agreed_tip,
    agreed_unspent,
    is_refused,
)
from .base import (
    HEIGHT_MAX,
    UNKNOWN,
    BroadcastRefused,
    FundingOutput,
    FundingRequest,
    FundingStatus,
    Spender,
    Tip,
    is_for_fee,
)
from .http import HttpClient, HttpFailure
from .proof import TRANSACTION_HEX_MAX, proof_of

ANSWER_SIZE_MAX = 4 * 1024 * 1024
"""Bytes of any answer but a transaction's (TRANSACTION_HEX_MAX): of some 20 000 unspent outputs, if anybody paid so many."""

ANSWER_SECONDS = 4.0
"""For all that one server is asked for one question, so that the slowest question stays below what callers wait."""

GRACE_SECONDS = 0.5
"""How long the others are waited for once enough servers agree."""

TIP_DEPTH = 4
"""Newest blocks of each server that are compared: servers within three blocks of each other still have one in common."""

PROOFS_MAX = 16
"""Transactions that were proven lately and are kept: an open wants its own twice."""

FEE_PER_BYTE_MAX = 1_000_000
"""Satoshi; an estimate above is none."""

REASON_SIZE_MAX = 200

_HASH = re.compile(r"[0-9a-f]{64}\Z")
_HEIGHT = re.compile(r"(0|[1-9][0-9]{0,9})\Z")
_TARGET = re.compile(r"[1-9][0-9]{0,4}\Z")
_KNOWN_ALREADY = ("txn-already-known", "txn-already-in-mempool", "already in block chain", "already in utxo set")

Kind = TypeVar("Kind")
Other = TypeVar("Other")
Verdict = TypeVar("Verdict")

log = logging.getLogger("paychan.chain")


class ServerTrouble(Exception):
    """One server gave no answer that can be used. `str()` names the server and says why, without what was asked."""


class EsploraServer:
    """Questions to one server. Every method raises ServerTrouble; nothing of another type than documented gets past it."""

    def __init__(self, url: str, network: Network, tls: ssl.SSLContext | None) -> None:
        """url: http or https, up to where `/blocks` and the like follow. Raises ValueError for one with more in it."""
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch(r"[!-~]*", url):
            raise ValueError("an Esplora URL is http://HOST/PATH or https://HOST/PATH")
        if parts.query or parts.fragment or parts.username is not None or parts.password is not None:
            raise ValueError("an Esplora URL has no user, password, query or fragment")
        self.name = parts.netloc.lower()
        self.trouble = ""
        self.is_checked = False
        self._base = parts.path.rstrip("/")
        self._network = network
        context = (tls or ssl.create_default_context()) if is_tls else None
        port = parts.port or (443 if is_tls else 80)
        self._http = HttpClient(parts.hostname, port, tls=context)

    def close(self) -> None:
        """Close the kept connections."""
        self._http.close()

    async def check_network(self) -> None:
        """Check once that the server is of our network: before anything else is asked of it."""
        if not self.is_checked:
            genesis = await self._text("/block-height/0")
            if genesis is None or not _HASH.match(genesis):
                raise self._malformed("the first block's hash is none")
            if genesis != self._network.genesis:
                raise ServerTrouble(f"{self.name} is of another network than {self._network.name}")
            self.is_checked = True

    async def newest_blocks(self) -> list[Tip]:
        """Return the best block and those before it, newest first, TIP_DEPTH at most."""
        rows = await self._json("/blocks")
        if type(rows) is not list or not rows:
            raise self._malformed("the newest blocks are no list")
        chain: list[Tip] = []
        expected = bytes(32)
        for row in rows[:TIP_DEPTH]:
            block = self._block(row)
            if chain and (block.block_hash != expected or block.height != chain[-1].height - 1):
                raise self._malformed("the newest blocks do not follow one another")
            chain.append(block)
            expected = self._hash_in(row, "previousblockhash") if block.height > 0 else bytes(32)
        return chain

    async def sighting(self, outpoint: bytes) -> Sighting:
        """Return what became of an output. An unknown transaction's status is "not confirmed", its outputs "not spent"."""
        name = txid_hex(txid_of(outpoint))
        told = _both(self._json(f"/tx/{name}/status"), self._json(f"/tx/{name}/outspend/{vout_of(outpoint)}"))
        height, (status, spending) = await _both(self._height(), told)
        confirmations = UNKNOWN if status is None else self._confirmations(status, height)
        if confirmations == 0 and await self.transaction(txid_of(outpoint)) is None:
            confirmations = UNKNOWN
        if spending is None or not self._field(spending, "spent", bool):
            return Sighting(confirmations)
        spender = self._hash_in(spending, "txid")
        depth = self._confirmations(self._field(spending, "status", dict), height)
        return Sighting(max(confirmations, depth), spender, depth)  # nothing is younger than what spends it

    async def listing(self, script_pubkey: bytes) -> dict[bytes, Listed]:
        """Return the unspent outputs that pay to a script pubkey. The route's hash is in plain, not in reversed order."""
        height, rows = await _both(self._height(), self._json(f"/scripthash/{sha256(script_pubkey).hexdigest()}/utxo"))
        if type(rows) is not list:
            raise self._malformed("the unspent outputs are no list")
        listing: dict[bytes, Listed] = {}
        for row in rows:
            vout, value = self._field(row, "vout", int), self._field(row, "value", int)
            if not 0 <= vout <= 0xFFFFFFFF or not is_satoshi(value):
                raise self._malformed("an output's index or value is out of range")
            confirmations = self._confirmations(self._field(row, "status", dict), height)
            listing[make_outpoint(self._hash_in(row, "txid"), vout)] = Listed(value, confirmations)
        return listing

    async def transaction(self, txid: bytes) -> bytes | None:
        """Return a transaction without its witness, which its id would not prove; None if the server does not know it."""
        text = await self._text(f"/tx/{txid_hex(txid)}/hex", TRANSACTION_HEX_MAX)
        if text is None:
            return None
        try:
            return await proof_of(text, txid)
        except ValueError:
            raise self._malformed("it gave another transaction than the one asked for") from None

    async def fee_estimates(self) -> dict[int, float]:
        """Return satoshi for each byte by the number of blocks in which a transaction should confirm; may be empty."""
        rows = await self._json("/fee-estimates")
        if type(rows) is not dict:
            raise self._malformed("the fee estimates are no object")
        for target, fee in rows.items():
            if not _TARGET.match(target) or type(fee) not in (int, float) or not 0 <= fee <= FEE_PER_BYTE_MAX:
                raise self._malformed("a fee estimate is none")
        return {int(target): float(fee) for target, fee in rows.items()}

    async def broadcast(self, transaction: bytes, txid: bytes) -> str:
        """Publish; return why the server refuses, empty if it took the transaction, or had it."""
        status, text = await self._ask("POST", "/tx", transaction.hex().encode())
        if status == 200:
            if text != txid_hex(txid):
                raise self._malformed("it names another transaction than the one sent")
            return ""
        if status != 400:
            raise ServerTrouble(f"{self.name} answers with HTTP status {status}")
        reason = _clean(text)
        if any(known in reason.lower() for known in _KNOWN_ALREADY):
            return ""
        if "missing" in reason.lower() and await self._is_confirmed(txid):
            return ""  # its inputs are missing because it has spent them itself
        return reason or "no reason given"

    async def _is_confirmed(self, txid: bytes) -> bool:
        status = await self._json(f"/tx/{txid_hex(txid)}/status")
        return status is not None and self._field(status, "confirmed", bool)

    # --- reading answers ---

    async def _ask(self, method: str, path: str, body: bytes = b"", size_max: int = ANSWER_SIZE_MAX) -> tuple[int, str]:
        fields = {"Content-Type": "text/plain"} if body else {}
        try:
            status, answer = await self._http.request(method, self._base + path, fields, body, body_size_max=size_max)
        except HttpFailure as error:
            raise ServerTrouble(f"{self.name} {error}") from None
        if 300 <= status < 400:
            raise ServerTrouble(f"{self.name} sends us elsewhere (HTTP status {status}), and we do not follow")
        try:
            return status, answer.decode().strip()
        except UnicodeDecodeError:
            raise self._malformed("it is no text") from None

    async def _text(self, path: str, size_max: int = ANSWER_SIZE_MAX) -> str | None:
        """Return an answer, None for HTTP 404: Esplora does not know what was asked for."""
        status, text = await self._ask("GET", path, size_max=size_max)
        if status not in (200, 404):
            raise ServerTrouble(f"{self.name} answers with HTTP status {status}")
        return text if status == 200 else None

    async def _json(self, path: str) -> object:
        """Return an answer that is JSON, None for HTTP 404."""
        text = await self._text(path)
        if text is None:
            return None
        try:
            answer = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            answer = None
        if answer is None:
            raise self._malformed("it is no JSON, or null")
        return answer

    async def _height(self) -> int:
        text = await self._text("/blocks/tip/height")
        if text is None or not _HEIGHT.match(text) or int(text) > HEIGHT_MAX:
            raise self._malformed("the best block's height is none")
        return int(text)

    def _block(self, row: object) -> Tip:
        height, time, median = (self._field(row, name, int) for name in ("height", "timestamp", "mediantime"))
        tip = Tip(height, self._hash_in(row, "id"), time, median)
        if not tip.is_possible:
            raise self._malformed("a block's height or time is out of range")
        return tip

    def _confirmations(self, status: object, tip_height: int) -> int:
        """Return a transaction's confirmations from its status. One in a block newer than the height has just come: 1."""
        if not self._field(status, "confirmed", bool):
            return 0
        height = self._field(status, "block_height", int)
        if not 0 <= height <= HEIGHT_MAX:
            raise self._malformed("block_height is out of range")
        return max(1, tip_height - height + 1)

    def _field(self, row: object, name: str, kind: type[Kind]) -> Kind:
        value = row.get(name) if type(row) is dict else None
        if type(value) is not kind:
            raise self._malformed(f"{name} is missing or malformed")
        return value

    def _hash_in(self, row: object, name: str) -> bytes:
        """Return a txid or block hash, internal order."""
        text = self._field(row, name, str)
        if not _HASH.match(text):
            raise self._malformed(f"{name} is missing or malformed")
        return bytes.fromhex(text)[::-1]

    def _malformed(self, why: str) -> ServerTrouble:
        return ServerTrouble(f"{self.name}'s answer is not understood: {why}")


class EsploraChain:
    """`ChainBackend` on Esplora servers, of which `agree` must say the same. See this module's head."""

    def __init__(
        self,
        urls: tuple[str, ...],
        agree: int,
        network: Network,
        *,
        timeout: float = ANSWER_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """timeout: seconds that one server has for one question. tls: instead of the default context. Raises ValueError."""
        self._servers = [EsploraServer(url, network, tls) for url in urls]
        if not 1 <= agree <= len(urls):
            raise ValueError("agree must be from 1 to the number of Esplora URLs")
        if len({server.name for server in self._servers}) != len(urls):
            raise ValueError("two Esplora URLs have one host: its agreement with itself says nothing")
        self._agree, self._timeout = agree, timeout
        self._proofs: OrderedDict[bytes, bytes] = OrderedDict()

    async def start(self) -> None:
        """Check that enough servers answer and are of our network; others are checked when they first answer."""
        for server in self._servers:
            server.is_checked = False
        await self._collect(EsploraServer.check_network, len)

    async def stop(self) -> None:
        """Close connections."""
        for server in self._servers:
            server.close()

    async def tip(self) -> Tip:
        """Return the best block on which enough servers agree."""
        return await self._collect(EsploraServer.newest_blocks, lambda chains: agreed_tip(chains, self._agree))

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        """Return the unspent outputs that pay exactly the script pubkey, the one asked for or those of most value."""
        if request.outpoint is None:
            listing = await self._collect(
                lambda server: server.listing(request.script_pubkey), lambda said: agreed_listing(said, self._agree)
            )
            found = await _together(
                self._output(outpoint, request.script_pubkey, row.confirmations) for outpoint, row in listing.items()
            )
            outputs = [output for output in found if output and output.value == listing[output.outpoint].value]
            if len(outputs) != len(listing):
                raise _unavailable("The Esplora servers list an output otherwise than its transaction has it")
            return outputs
        outpoint = request.outpoint
        confirmations = await self._collect(
            lambda server: server.sighting(outpoint), lambda seen: agreed_unspent(seen, self._agree)
        )
        output = None
        if confirmations != UNKNOWN:
            output = await self._output(outpoint, request.script_pubkey, confirmations)
        return [] if output is None else [output]

    async def funding_status(self, terms: ChannelTerms, settlement_txid: bytes = b"") -> FundingStatus:
        """Return what became of a channel's funding output."""
        return await self._collect(
            lambda server: server.sighting(terms.outpoint),
            lambda sightings: agreed_status(sightings, self._agree, settlement_txid),
        )

    async def funding_transaction(self, terms: ChannelTerms) -> bytes:
        """Return the funding transaction without its witness, from whichever server gives it first."""
        return await self._transaction(txid_of(terms.outpoint))

    async def fee_per_byte(self, blocks: int) -> int | None:
        """Return the fee that enough servers have an estimate for, None if they have not."""
        return await self._collect(EsploraServer.fee_estimates, lambda said: agreed_fee(said.values(), blocks, self._agree))

    async def spender(self, txid: bytes) -> Spender:
        """Return a spender's bytes, which prove themselves. What hangs on it, no server's word is taken for."""
        try:
            return Spender(await self._transaction(txid))
        except Unavailable:
            return Spender()

    async def relay_fee_per_kb(self) -> int | None:
        """None: Esplora does not tell."""
        return None

    async def broadcast(self, transaction: bytes) -> None:
        """Publish through every server."""
        txid = CTransaction.deserialize(transaction).GetTxid()
        tasks = [
            asyncio.create_task(self._of(server, lambda server: server.broadcast(transaction, txid))) for server in self._servers
        ]
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await _end(tasks)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ServerTrouble):
                raise result
        said = zip(self._servers, results, strict=True)
        reasons = {server.name: result for server, result in said if result and isinstance(result, str)}
        if is_refused(len(reasons), results.count(""), self._agree):
            for_fee = sum(map(is_for_fee, reasons.values())) >= self._agree
            raise BroadcastRefused(_clean("; ".join(f"{name}: {reason}" for name, reason in reasons.items())), for_fee)
        if "" not in results:
            raise _unavailable("No Esplora server took the transaction: " + "; ".join(map(str, results)))

    async def _output(self, outpoint: bytes, script_pubkey: bytes, confirmations: int) -> FundingOutput | None:
        """Return an output as its transaction's bytes prove it, None if it is not there or pays to another script."""
        transaction = await self._transaction(txid_of(outpoint))
        value, script = output_at(transaction, vout_of(outpoint)) or (0, b"")
        if script != script_pubkey or not is_satoshi(value):
            return None
        return FundingOutput(outpoint, value, confirmations, is_coinbase(transaction))

    async def _transaction(self, txid: bytes) -> bytes:
        """Return a transaction without its witness from the first server that gives it: its hash proves it, for good."""
        if txid in self._proofs:
            self._proofs.move_to_end(txid)
            return self._proofs[txid]
        tasks = [asyncio.create_task(self._of(server, lambda server: server.transaction(txid))) for server in self._servers]
        troubles = []
        try:
            for task in asyncio.as_completed(tasks):
                try:
                    raw = await task
                except ServerTrouble as error:
                    troubles.append(str(error))
                else:
                    if raw is not None:
                        self._proofs[txid] = raw
                        if len(self._proofs) > PROOFS_MAX:
                            self._proofs.popitem(last=False)
                        return raw
        finally:
            await _end(tasks)
        raise _unavailable("; ".join(["No Esplora server has the funding transaction", *troubles]))

    async def _collect(
        self, ask: Callable[[EsploraServer], Awaitable[Kind]], decide: Callable[[dict[str, Kind]], Verdict]
    ) -> Verdict:
        """Ask every server at once and return what `decide` makes of the answers, by server name.

        Once enough have answered, the others get GRACE_SECONDS more; while the answers contradict each other, all their time.
        """
        pending = {asyncio.create_task(self._of(server, ask), name=server.name) for server in self._servers}
        tasks, answers, troubles = list(pending), dict[str, Kind](), list[str]()
        try:
            while pending:
                wait = GRACE_SECONDS if len(answers) >= self._agree else None
                done, pending = await asyncio.wait(pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        answers[task.get_name()] = task.result()
                    except ServerTrouble as error:
                        troubles.append(str(error))
                if not done:
                    with suppress(Contradiction):
                        return decide(answers)
        finally:
            await _end(tasks)
        if len(answers) < self._agree:
            few = f"Too few Esplora servers answer, {len(answers)} where {self._agree} must agree: "
            raise _unavailable(few + "; ".join(sorted(troubles)))
        try:
            return decide(answers)
        except Contradiction as error:
            raise _unavailable(f"The Esplora servers contradict each other: {error}") from None

    async def _of(self, server: EsploraServer, ask: Callable[[EsploraServer], Awaitable[Kind]]) -> Kind:
        """Ask one server, within its time. Log when it gets into trouble, or out of it. Raises ServerTrouble."""
        try:
            async with asyncio.timeout(self._timeout):
                await server.check_network()
                answer = await ask(server)
        except TimeoutError:
            trouble = ServerTrouble(f"{server.name} did not answer in time")
        except ServerTrouble as error:
            trouble = error
        else:
            if server.trouble:
                log.info("Esplora server %s answers again", server.name)
                server.trouble = ""
            return answer
        if str(trouble) != server.trouble:
            log.warning("Esplora server: %s", trouble)
            server.trouble = str(trouble)
        raise trouble


def _unavailable(detail: str) -> Unavailable:
    return Unavailable("chain_unavailable", detail)


def _clean(text: str) -> str:
    """Return a reason fit for a log: printable, bounded, and without long hexadecimal, which would be a transaction."""
    short = re.sub(r"[0-9a-fA-F]{65,}", "...", text)
    return re.sub(r"[^ -~]", "?", short)[:REASON_SIZE_MAX]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


async def _both(first: Awaitable[Kind], second: Awaitable[Other]) -> tuple[Kind, Other]:
    """Return both answers. If one fails, the other is ended before its error is raised."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _together(questions: Iterable[Awaitable[Kind]]) -> list[Kind]:
    """Return the answers in order. If one fails, the others are ended before its error is raised."""
    tasks = [asyncio.ensure_future(question) for question in questions]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _end(tasks: Collection["asyncio.Future[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
