"""A Bitcoin Core node's wallet as the purse's: it pays each channel's funding output once, whatever fails in between."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from ..chain.jsonrpc import JsonRpc, RpcError
from ..client import Agreement, Funding, Refused, Unreachable, find_funding
from ..client.sources import NodeAddress
from ..core.errors import Unavailable
from ..core.units import COIN

T = TypeVar("T")
LOOKED_AT = 10_000
"""The wallet's newest transactions among which an earlier payment is looked for."""


class NodeWallet:
    """See the module. cookie: the node's cookie file, None if the address has user and password. name: the wallet's."""

    is_free = False

    def __init__(self, node: NodeAddress, cookie: Path | None, name: str = "") -> None:
        self._node, self._cookie = node, cookie
        self._path = f"/wallet/{quote(name, safe='', errors='surrogateescape')}" if name else "/"

    def fund(self, name: str, agreed: Agreement) -> Funding:
        """Return the funding output, paid now if the wallet has no payment to its address. Raises Unreachable, Refused."""

        txid = self._ask(lambda rpc: self._paid_before(rpc, agreed))
        if not txid:  # on a connection of its own: on one that was kept, a call that got no answer would be made again
            txid = self._ask(lambda rpc: self._pay(rpc, name, agreed))
        details = self._ask(lambda rpc: rpc.call("gettransaction", txid, path=self._path))
        return find_funding(agreed, _hex(details, "hex"))

    def psbt(self, agreed: Agreement) -> str:
        """Return a PSBT (base64) that pays what was agreed out of the wallet's coins, for keys elsewhere. Raises as `fund`."""

        async def make(rpc: JsonRpc) -> str:
            made = await rpc.call("walletcreatefundedpsbt", [], [{agreed.funding_address: _bitcoins(agreed)}], path=self._path)
            return _text(made, "psbt")

        return self._ask(make)

    def broadcast(self, agreed: Agreement, psbt: str) -> Funding:
        """Send what a signed PSBT (base64) holds; return the funding output in it. Raises as `fund`; Refused if it is not signed,
        or does not pay the channel: then nothing was sent."""

        async def send(rpc: JsonRpc) -> Funding:
            final = await rpc.call("finalizepsbt", psbt)
            if not isinstance(final, dict) or final.get("complete") is not True:
                raise Refused("the PSBT lacks signatures", "psbt_incomplete")
            raw = _hex(final, "hex")
            funding = find_funding(agreed, raw)
            if funding.value != agreed.planned_value:
                raise Refused(f"the PSBT pays {funding.value} satoshi, agreed were {agreed.planned_value}", "other_amount")
            await rpc.call("sendrawtransaction", raw.hex())
            return funding

        return self._ask(send)

    def _ask(self, work: Callable[[JsonRpc], Coroutine[Any, Any, T]]) -> T:
        async def session() -> T:
            rpc = JsonRpc(
                self._node.host,
                self._node.port,
                cookie=self._cookie,
                user=self._node.user,
                password=self._node.password,
                timeout=60.0,
            )
            try:
                return await work(rpc)
            except Unavailable as error:
                raise Unreachable(error.detail) from error
            except RpcError as error:
                raise Refused(f"the wallet does not fund the channel: {error}", "wallet_refused") from error
            finally:
                await rpc.close()

        return _run(session())

    async def _paid_before(self, rpc: JsonRpc, agreed: Agreement) -> str:
        """Return the id of the wallet's payment to the channel's address, empty if there is none that can still count."""
        rows = await rpc.call("listtransactions", "*", LOOKED_AT, 0, True, path=self._path)
        for row in rows if isinstance(rows, list) else []:
            sent = isinstance(row, dict) and row.get("address") == agreed.funding_address and row.get("category") == "send"
            if sent and not row.get("abandoned") and row.get("confirmations", 0) >= 0:
                return str(row.get("txid"))
        return ""

    async def _pay(self, rpc: JsonRpc, name: str, agreed: Agreement) -> str:
        return str(await rpc.call("sendtoaddress", agreed.funding_address, _bitcoins(agreed), f"paychan {name}", path=self._path))


def _bitcoins(agreed: Agreement) -> str:
    return f"{Decimal(agreed.planned_value or 0) / COIN:.8f}"


def _text(answer: object, name: str) -> str:
    """Return a text in an answer. Raises Unreachable if it is not there."""
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, str):
        raise Unreachable("the node's answer makes no sense")
    return found


def _hex(answer: object, name: str) -> bytes:
    try:
        return bytes.fromhex(_text(answer, name))
    except ValueError as error:
        raise Unreachable("the node's answer makes no sense") from error


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run in a thread of its own: the caller's may have an event loop."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
