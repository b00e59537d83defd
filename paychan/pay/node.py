"""A Bitcoin Core node's wallet as the purse's: it pays each channel's funding output once, whatever fails in between."""

import asyncio
import threading
from collections.abc import Coroutine
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
        self._path = f"/wallet/{quote(name, safe='')}" if name else "/"

    def fund(self, name: str, agreed: Agreement) -> Funding:
        """Return the funding output, paid now if the wallet has no payment to its address. Raises Unreachable, Refused."""
        return _run(self._fund(name, agreed))

    async def _fund(self, name: str, agreed: Agreement) -> Funding:
        rpc = JsonRpc(
            self._node.host,
            self._node.port,
            cookie=self._cookie,
            user=self._node.user,
            password=self._node.password,
            timeout=60.0,
        )
        try:
            txid = await self._paid_before(rpc, agreed) or await self._pay(rpc, name, agreed)
            details = await rpc.call("gettransaction", txid, path=self._path)
        except Unavailable as error:
            raise Unreachable(error.detail) from error
        except RpcError as error:
            raise Refused(f"the wallet does not fund the channel: {error}", "wallet_refused") from error
        finally:
            await rpc.close()
        raw = details.get("hex") if isinstance(details, dict) else None
        if not isinstance(raw, str):
            raise Unreachable("the node's answer to gettransaction makes no sense")
        return find_funding(agreed, bytes.fromhex(raw))

    async def _paid_before(self, rpc: JsonRpc, agreed: Agreement) -> str:
        """Return the id of the wallet's payment to the channel's address, empty if there is none that can still count."""
        rows = await rpc.call("listtransactions", "*", LOOKED_AT, 0, True, path=self._path)
        for row in rows if isinstance(rows, list) else []:
            sent = isinstance(row, dict) and row.get("address") == agreed.funding_address and row.get("category") == "send"
            if sent and not row.get("abandoned") and row.get("confirmations", 0) >= 0:
                return str(row.get("txid"))
        return ""

    async def _pay(self, rpc: JsonRpc, name: str, agreed: Agreement) -> str:
        amount = f"{Decimal(agreed.planned_value or 0) / COIN:.8f}"
        return str(await rpc.call("sendtoaddress", agreed.funding_address, amount, f"paychan {name}", path=self._path))


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
