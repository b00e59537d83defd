"""The block chain as several Esplora servers tell it, by HTTP (API.md of Blockstream/esplora), believed where they agree.

Every question goes to all servers at once. What fewer than `agree` of them say is not believed, so the trust is: fewer than `agree`
servers lie, or are wrong, together. The rules, all in the pure functions `agreed_*` and `attested` below:

- *Amounts and scripts* are taken from the funding transaction's bytes, which prove themselves: their hash is the txid.
- *Confirmations*: as many as `agree` servers attest at least. With just `agree` answers that is the minimum.
- *Spent or not*: `agree` servers must say the same. A spender is named, and its depth told, only if `agree` name it; else it is
  "spent", with no confirmation, which ends nothing. Our own settlement, seen by too few, counts as not there: it is published
  again. A lone "spent" or "unspent" changes nothing, for a liar must be able neither to have a spent output taken for
  money, nor to hold up a settlement until it is too late.
- *The best block* is the highest one of which `agree` servers tell the same height, hash, time and median time. The clock trusts
  the median time (it never goes back), so it is never taken from fewer. A server may be a few blocks ahead.
- *Fees*: the median; the caller has bounds besides.
- If two answers that exclude each other both have, or both lack, enough support: Unavailable, "contradict each other".

A server that is silent, malformed or of another network is left out (and logged when that changes), as long as `agree` others
answer. Choose `agree` above half the servers; two of three stands one failure, two of two none. Nothing is retried here.
"""

import asyncio
import json
import logging
import math
import re
import ssl
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bitcoin.core import CTransaction

from ..core.channel import ChannelTerms
from ..core.errors import Unavailable
from ..core.network import Network
from ..core.outpoint import make_outpoint, txid_hex, txid_of, vout_of
from ..core.units import is_satoshi
from .base import FUNDING_OUTPUTS_MAX, HEIGHT_MAX, UNKNOWN, BroadcastRefused, FundingOutput, FundingRequest, FundingStatus, Tip
from .http import HttpClient, HttpFailure

ANSWER_SIZE_MAX = 4 * 1024 * 1024
"""Bytes. Above the hex of any transaction that nodes relay (100 kB), and most of those that only miners can make."""

ANSWER_SECONDS = 4.0
"""For all that one server is asked for one question, so that the slowest question stays below what callers wait."""

GRACE_SECONDS = 0.5
"""How long the others are waited for once enough servers agree."""

TIP_DEPTH = 4
"""Newest blocks of each server that are compared: servers within three blocks of each other still have one in common."""

FEE_PER_BYTE_MAX = 1_000_000
"""Satoshi; an estimate above is none."""

FEE_PER_BYTE_LEAST = 1
"""What a server without any estimate is taken to say; the caller's floor should be higher."""

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


class Contradiction(Exception):
    """The answers that there are do not decide the question; further ones might. `str()` says how they differ."""


@dataclass(frozen=True)
class Sighting:
    """What one server says of a funding output. confirmations: of its transaction, or UNKNOWN. spender: txid (internal
    order) of what spends it, None if nothing does."""

    confirmations: int
    spender: bytes | None = None
    spender_confirmations: int = 0


@dataclass(frozen=True)
class Listed:
    """What one server says of an unspent output. value: satoshi."""

    value: int
    confirmations: int


# Agreement: from what each server says (by its name) to what is believed. Pure; all raise Contradiction.


def attested(levels: Collection[int], agree: int) -> int:
    """Return the highest number of confirmations that `agree` servers attest at least, UNKNOWN if too few answered."""
    return sorted(levels, reverse=True)[agree - 1] if len(levels) >= agree else UNKNOWN


def agreed_tip(chains: Mapping[str, Sequence[Tip]], agree: int) -> Tip:
    """Return the highest block that `agree` servers have among their newest, told alike in every respect."""
    votes = Counter(block for chain in chains.values() for block in set(chain))
    agreed = [block for block, count in votes.items() if count >= agree]
    heights = ", ".join(f"{name} is at height {chain[0].height}" for name, chain in sorted(chains.items()))
    if not agreed:
        raise Contradiction(f"no recent block is the same for {agree} of them: {heights}")
    best = max(block.height for block in agreed)
    if sum(block.height == best for block in agreed) > 1:
        raise Contradiction(f"they are on different chains: {heights}")
    return next(block for block in agreed if block.height == best)


def agreed_status(sightings: Mapping[str, Sighting], agree: int, settlement_txid: bytes = b"") -> FundingStatus:
    """Return what became of a funding output. settlement_txid: our own spender, if any."""
    spent = {name: seen for name, seen in sightings.items() if seen.spender is not None}
    if len(spent) < agree:
        spent = {name: seen for name, seen in spent.items() if seen.spender != settlement_txid}
    unspent = len(sightings) - len(spent)
    if (len(spent) >= agree) == (unspent >= agree):
        others = _names(sightings.keys() - spent.keys())
        raise Contradiction(f"{_names(spent)} say that a funding output is spent, {others} that it is not")
    if unspent >= agree:  # one that does not know the transaction says nothing against its being spent, nor for it
        return FundingStatus(attested([seen.confirmations for name, seen in sightings.items() if name not in spent], agree))
    confirmations = attested([seen.confirmations for seen in spent.values()], agree)
    votes = Counter(seen.spender for seen in spent.values())
    named = [spender for spender, count in votes.items() if spender is not None and count >= agree]
    if len(named) != 1:
        return FundingStatus(confirmations, is_spent=True)
    depths = [seen.spender_confirmations for seen in spent.values() if seen.spender == named[0]]
    return FundingStatus(confirmations, True, named[0], attested(depths, agree))


def agreed_unspent(sightings: Mapping[str, Sighting], agree: int) -> int:
    """Return the confirmations of an output that is there and unspent, else UNKNOWN."""
    status = agreed_status(sightings, agree)
    knowing = {name for name, seen in sightings.items() if seen.confirmations != UNKNOWN}
    if status.confirmations == UNKNOWN and knowing and len(sightings) - len(knowing) < agree:
        raise Contradiction(f"{_names(knowing)} know a funding transaction, {_names(sightings.keys() - knowing)} do not")
    return UNKNOWN if status.is_spent else status.confirmations


def agreed_listing(listings: Mapping[str, Mapping[bytes, Listed]], agree: int) -> dict[bytes, Listed]:
    """Return the outputs that `agree` servers list with the same value, those of most value first, FUNDING_OUTPUTS_MAX at
    most: who would crowd out a payer's output must pay more than the payer."""
    found: dict[bytes, Listed] = {}
    disputed: set[str] = set()
    for outpoint in {outpoint for listing in listings.values() for outpoint in listing}:
        holders = {name: listing[outpoint] for name, listing in listings.items() if outpoint in listing}
        value, count = Counter(listed.value for listed in holders.values()).most_common(1)[0]
        if count >= agree > len(listings) - count:
            levels = [listed.confirmations for listed in holders.values() if listed.value == value]
            found[outpoint] = Listed(value, attested(levels, agree))
        elif count >= agree or len(listings) - len(holders) < agree:
            disputed |= holders.keys()
    if disputed and not found:
        raise Contradiction(f"{_names(disputed)} list a funding output, others do not, or not alike")
    ranked = sorted(found, key=lambda outpoint: (-found[outpoint].value, outpoint))
    return {outpoint: found[outpoint] for outpoint in ranked[:FUNDING_OUTPUTS_MAX]}


def _names(names: Collection[str]) -> str:
    return " and ".join(sorted(names))


def fee_for(estimates: Mapping[int, float], blocks: int) -> int:
    """Return satoshi for each byte, rounded up: the estimate for the nearest target at or below `blocks`, else the shortest."""
    if not estimates:
        return FEE_PER_BYTE_LEAST
    reached = [target for target in estimates if target <= blocks]
    return max(FEE_PER_BYTE_LEAST, math.ceil(estimates[max(reached) if reached else min(estimates)]))


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
        self._http = HttpClient(parts.hostname, port, tls=context, body_size_max=ANSWER_SIZE_MAX)

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
        """Return a transaction's bytes, proven by its id; None if the server does not know it."""
        text = await self._text(f"/tx/{txid_hex(txid)}/hex")
        if text is None:
            return None
        with suppress(Exception):  # python-bitcoinlib raises errors of many kinds
            raw = bytes.fromhex(text)
            if CTransaction.deserialize(raw).GetTxid() == txid:
                return raw
        raise self._malformed("it gave another transaction than the one asked for")

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

    async def _ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        fields = {"Content-Type": "text/plain"} if body else {}
        try:
            status, answer = await self._http.request(method, self._base + path, fields, body)
        except HttpFailure as error:
            raise ServerTrouble(f"{self.name} {error}") from None
        if 300 <= status < 400:
            raise ServerTrouble(f"{self.name} sends us elsewhere (HTTP status {status}), and we do not follow")
        try:
            return status, answer.decode().strip()
        except UnicodeDecodeError:
            raise self._malformed("it is no text") from None

    async def _text(self, path: str) -> str | None:
        """Return an answer, None for HTTP 404: Esplora does not know what was asked for."""
        status, text = await self._ask("GET", path)
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

    async def watch(self, request: FundingRequest) -> None:
        """Nothing to prepare: Esplora finds outputs by script at any time."""

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
        """Return the funding transaction, from whichever server gives it first."""
        return await self._transaction(txid_of(terms.outpoint))

    async def fee_per_byte(self, blocks: int) -> int:
        """Return the median of the servers' estimates; of an even number, the higher of the middle ones."""
        return await self._collect(
            EsploraServer.fee_estimates,
            lambda said: statistics.median_high(fee_for(estimates, blocks) for estimates in said.values()),
        )

    async def broadcast(self, transaction: bytes) -> None:
        """Publish through every server; one that takes it, or has it, is enough."""
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
        if "" in results:
            return
        said = zip(self._servers, results, strict=True)
        reasons = [f"{server.name}: {result}" for server, result in said if isinstance(result, str)]
        if reasons:
            raise BroadcastRefused(_clean("; ".join(reasons)))
        raise _unavailable("No Esplora server took the transaction: " + "; ".join(map(str, results)))

    async def _output(self, outpoint: bytes, script_pubkey: bytes, confirmations: int) -> FundingOutput | None:
        """Return an output as its transaction's bytes prove it, None if it is not there or pays to another script."""
        transaction = CTransaction.deserialize(await self._transaction(txid_of(outpoint)))
        if vout_of(outpoint) >= len(transaction.vout):
            return None
        output = transaction.vout[vout_of(outpoint)]
        if bytes(output.scriptPubKey) != script_pubkey or not is_satoshi(output.nValue):
            return None
        return FundingOutput(outpoint, output.nValue, confirmations, transaction.is_coinbase())

    async def _transaction(self, txid: bytes) -> bytes:
        """Return a transaction's bytes from the first server that gives them: they prove themselves."""
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
                log.warning("Esplora server %s answers again", server.name)
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
