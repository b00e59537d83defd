"""Where a payer learns of its funding output, and publishes a refund: a block explorer, or a node of its own."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from bitcoin.core import CTransaction

from ..chain.base import FUNDING_OUTPUTS_MAX, BroadcastRefused, ChainBackend, FundingOutput, FundingRequest
from ..core.errors import Unavailable
from ..core.network import Network
from ..core.outpoint import make_outpoint, txid_hex
from ..core.units import is_satoshi
from .errors import Refused, Unreachable
from .record import Agreement, Funding
from .transport import Connection
from .wire import NoReply, Reply, parse_url

T = TypeVar("T")
TIMEOUT = 20.0
_TXID = re.compile(r"[0-9a-f]{64}\Z")


class Found(NamedTuple):
    """A funding output, and how many blocks confirm it."""

    funding: Funding
    confirmations: int


class FundingSource(Protocol):
    """What is asked of the block chain. Raises Unreachable if the source does not answer, or not sensibly."""

    def find(self, agreement: Agreement) -> list[Found]:
        """Return the unspent outputs at the channel's address, the mempool's too: the likeliest if there are many."""

    def broadcast(self, raw: bytes) -> None:
        """Publish a serialised transaction. Raises Refused with the source's reason."""


def choose(agreed: Agreement, found: Sequence[Found]) -> Found | None:
    """Return the output that funds the channel: of those with the amount asked for the one that most blocks confirm.

    Raises Refused if no amount was asked for and there are several.
    """
    if agreed.planned_value is None:
        if len(found) > 1:
            raise Refused("several outputs pay to this address: choose one, `open --funding TXID:VOUT:SATOSHI`", "ambiguous")
        return found[0] if found else None
    fitting = [output for output in found if output.funding.value == agreed.planned_value]
    return max(fitting, key=lambda output: output.confirmations, default=None)


class Esplora:
    """An Esplora server. It is not trusted with amounts: each is taken from the funding transaction, whose hash proves it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = Connection(parse_url(url))

    def _ask(self, method: str, target: str, body: bytes = b"") -> Reply:
        reply = self._connection.exchange(method, target, TIMEOUT, body)
        if isinstance(reply, NoReply):
            raise Unreachable(f"the block explorer {self._url}: {reply.reason}")
        return reply

    def _get(self, target: str) -> bytes:
        reply = self._ask("GET", target)
        if reply.status != 200:
            raise Unreachable(f"the block explorer {self._url} answers {reply.status}")
        return reply.body

    def find(self, agreement: Agreement) -> list[Found]:
        try:
            outputs: object = json.loads(self._get(f"/address/{agreement.funding_address}/utxo"))
            if not isinstance(outputs, list):
                raise ValueError("no list of outputs")
            height = int(self._get("/blocks/tip/height"))
            outputs.sort(key=lambda output: _likelihood(output, agreement.planned_value), reverse=True)
            return [self._prove(agreement, output, height) for output in outputs[:FUNDING_OUTPUTS_MAX]]
        except (ValueError, KeyError, IndexError, RecursionError) as error:
            raise Unreachable(f"the answer of the block explorer {self._url} makes no sense") from error

    def _prove(self, agreement: Agreement, output: object, tip_height: int) -> Found:
        if not isinstance(output, dict) or not isinstance(output["status"], dict):
            raise ValueError("no output")
        txid, vout, status = output["txid"], output["vout"], output["status"]
        if not isinstance(txid, str) or not _TXID.match(txid) or type(vout) is not int or vout < 0:
            raise ValueError("no outpoint")
        height = status["block_height"] if status["confirmed"] is True else tip_height + 1
        if type(height) is not int:
            raise ValueError("no height")
        try:
            transaction = CTransaction.deserialize(bytes.fromhex(self._get(f"/tx/{txid}/hex").decode()))
        except Unreachable:
            raise
        except Exception as error:
            raise ValueError("no transaction") from error
        spent = transaction.vout[vout]
        if txid_hex(transaction.GetTxid()) != txid or bytes(spent.scriptPubKey) != agreement.script_pubkey:
            raise ValueError("another transaction")
        if not is_satoshi(spent.nValue):
            raise ValueError("no amount")
        return Found(Funding(make_outpoint(transaction.GetTxid(), vout), spent.nValue), max(tip_height - height + 1, 0))

    def broadcast(self, raw: bytes) -> None:
        reply = self._ask("POST", "/tx", raw.hex().encode())
        if reply.status != 200:
            reason = "".join(c if c.isprintable() else " " for c in reply.body[:200].decode("latin-1"))
            raise Refused(f"the network refuses the transaction: {reason}", "broadcast_refused")


def _likelihood(output: object, planned_value: int | None) -> tuple[bool, int]:
    """Order what an explorer lists by what it claims: the amount asked for first, then by value. Dust may lie there without end."""
    value = output.get("value") if isinstance(output, dict) else 0
    value = value if type(value) is int else 0
    return value == planned_value, value


class BackendSource:
    """A server's chain backend (`paychan.chain`), one that the payer runs itself and trusts with amounts."""

    def __init__(self, make_backend: Callable[[], ChainBackend]) -> None:
        self._make_backend = make_backend

    def _run(self, ask: Callable[[ChainBackend], Coroutine[Any, Any, T]]) -> T:
        async def session() -> T:
            backend = self._make_backend()
            await backend.start()
            try:
                return await ask(backend)
            finally:
                await backend.stop()

        try:
            return asyncio.run(session())
        except Unavailable as error:
            raise Unreachable(error.detail) from error
        except BroadcastRefused as error:
            raise Refused(f"the network refuses the transaction: {error}", "broadcast_refused") from error

    def find(self, agreement: Agreement) -> list[Found]:
        request = FundingRequest(agreement.client_pubkey, agreement.exp_time, agreement.script_pubkey)

        async def ask(backend: ChainBackend) -> list[FundingOutput]:
            return await backend.find_funding(request)

        return [Found(Funding(output.outpoint, output.value), output.confirmations) for output in self._run(ask)]

    def broadcast(self, raw: bytes) -> None:
        self._run(lambda backend: backend.broadcast(raw))


class NodeAddress(NamedTuple):
    """Where a Bitcoin Core node answers RPC calls; user and password are empty where a cookie file has them."""

    host: str
    port: int
    user: str
    password: str


def parse_node_url(url: str) -> NodeAddress:
    """Return what http://[USER:PASSWORD@]HOST:PORT names. Raises ValueError, which does not repeat it."""
    form = "must be http://[USER:PASSWORD@]HOST:PORT"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(form) from None
    if not host or not port or parts.scheme != "http" or not url.isascii():
        raise ValueError(form)
    return NodeAddress(host, port, unquote(parts.username or ""), unquote(parts.password or ""))


def bitcoind(node: NodeAddress, cookie: str, network: Network) -> BackendSource:
    """Return the payer's own Bitcoin Core node. cookie: its cookie file, empty if the address has user and password."""

    def make() -> ChainBackend:
        from ..chain.bitcoind import BitcoindChain

        login = Path(cookie) if cookie else None
        return BitcoindChain(
            node.host,
            node.port,
            network,
            cookie=login,
            user=node.user,
            password=node.password,
            wallet="paychan-payer",
            must_replace=False,
        )

    return BackendSource(make)
