"""A payer for the tools of MCP servers (docs/PAYMENT_SCHEME.md section 2.11). With a Client or a ClientSession of the MCP SDK:

    from paychan.pay.mcp import Payer

    payer = Payer("purse/", server="https://tools.example.com")
    result = await payer.call_tool(client, "joke", {"about": "money"})

With any other client, `call`: it takes a function that calls the tool once, with what goes into `_meta` of the request's params.
That returns the result as JSON has it, or raises CallError.

`server` is the name under which the purse keeps what was agreed with this server: its URL. For one that is a program here, and is
spoken to over its standard input and output, take any other, https://jokes.localhost for example.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from ..mpp import mcp, receipt
from ..mpp.credential import parse_credential
from ..mpp.snapshot import HEADER as SNAPSHOT
from ..mpp.text import encode_json
from .errors import TermsRefused
from .payer import Asked
from .payer import Payer as Core
from .steps import Answer, Try, drive_async

Meta = dict[str, Any]
Send = Callable[[Meta], Awaitable[dict[str, Any]]]

UNKNOWN = (OSError, EOFError)
"""How a call may end whose outcome is unknown, besides what a Payer is told."""


class CallError(Exception):
    """A JSON-RPC error. error: its object. The exceptions of the MCP SDK do as well: they have `error`, too."""

    def __init__(self, error: dict[str, Any]) -> None:
        self.error = error
        super().__init__(str(error.get("message", "")))


class Payer(Core):
    """See paychan.pay.payer.Payer for its arguments. server: see the module. lost: exceptions of your client that leave open
    whether the server had the call; the same payment is presented again then."""

    def __init__(self, purse: Any, *arguments: Any, server: str, lost: tuple[type[Exception], ...] = (), **named: Any) -> None:
        super().__init__(purse, *arguments, **named)
        self._server = server.rstrip("/")
        self._lost: tuple[type[Exception], ...] = (*UNKNOWN, *lost)

    async def call_tool(self, session: Any, name: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        """Call a tool, and pay for it. session: a ClientSession of the MCP SDK; options: what its call_tool takes besides. Returns
        what that returns, and raises what that and `purchase` do."""
        latest: list[Any] = []

        async def send(meta: Meta) -> dict[str, Any]:
            latest[:] = [await session.call_tool(name, arguments, **options, **({"meta": meta} if meta else {}))]
            return {"_meta": getattr(latest[0], "meta", None) or {}}

        await self.call(send, name)
        return latest[0]

    async def call(self, send: Send, name: str) -> dict[str, Any]:
        """Call a tool by `send`, and pay for it. Returns what `send` does, and raises what it and `purchase` do."""
        latest: list[dict[str, Any] | Exception] = []

        async def exchange(step: Try) -> Answer | None:
            try:
                result = await send(_meta(step))
            except self._lost as lost:
                latest[:] = [lost]
                return None
            except Exception as error:
                answer = _refusal(error)
                if answer is None:
                    raise
                latest[:] = [error]
                return answer
            latest[:] = [result]
            return _success(result)

        await drive_async(self.purchase(Asked("POST", f"{self._server}/tools/{quote(name, safe='')}")), exchange)
        if isinstance(latest[0], Exception):
            raise latest[0]
        return latest[0]


def _meta(step: Try) -> Meta:
    """Return a step's header as `_meta`."""
    if step.method:
        raise TermsRefused("a tool takes no payment but for a call")
    for value in step.headers.values():
        return mcp.credential_meta(parse_credential(value.removeprefix("Payment ")))
    return {}


def _refusal(error: Exception) -> Answer | None:
    """Return a JSON-RPC error as the answer that it would be in HTTP, None for what is no refusal of a payment."""
    told = getattr(error, "error", None)
    data = told.get("data") if isinstance(told, dict) else getattr(told, "data", None)
    if not isinstance(data, dict) or not isinstance(data.get("problem"), dict):
        return None
    headers = [("www-authenticate", challenge.render()) for challenge in mcp.read_challenges({"data": data})]
    if isinstance(data.get("snapshot"), dict):
        headers.append((SNAPSHOT.lower(), encode_json(data["snapshot"])))
    status = data.get("httpStatus")
    body = json.dumps(data["problem"]).encode()
    return Answer(status if type(status) is int and 400 <= status < 600 else 500, tuple(headers), body)


def _success(result: dict[str, Any]) -> Answer:
    told = (result.get("_meta") or {}).get(mcp.RECEIPT)
    return Answer(200, ((receipt.HEADER.lower(), encode_json(told)),) if isinstance(told, dict) else ())
