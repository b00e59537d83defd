"""The till before the tools of a server that is written with the MCP SDK (`mcp`, 2.3 or later): an extension of it.

    from mcp.server import MCPServer
    from paychan.sell.mcpserver import Till

    server = MCPServer("words", extensions=[Till("state/debug/run/sell.sock", {"shout": 3}, realm="words")])  # satoshi a call

A tool that is not listed is free; a price may be a function of the call's arguments. What is not charged for: a tool that raises or
whose result is an error, and a call that asks the client for more input first. Other SDKs: paychan.sell.mcp.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolRequestParams, CallToolResult

from . import mcp
from .facts import Price
from .prices import Amount, as_price

__all__ = ["Price", "Till"]

ToolPrice = Amount | Callable[[dict[str, Any]], Amount]
"""satoshi, a Price, None (free), or a function from a call's arguments to one of these."""


class _Unfinished(Exception):
    """The tool has not run to its end: the client is asked for more."""

    def __init__(self, result: HandlerResult) -> None:
        self.result = result


class Till(Extension):
    """at: the sellers' door, a path or URL; prices: by a tool's name; token: needed at a URL; realm: what payers see you as.

    The prices that are no functions are shown to clients, in satoshi, among the server's capabilities. Raises ValueError for
    what is no price.
    """

    identifier = "org.paymentauth/payment"

    def __init__(
        self,
        at: str,
        prices: Mapping[str, ToolPrice],
        token: str = "",
        realm: str = "paychan",
        secret: bytes = b"",
        ca_file: str = "",
    ) -> None:
        self._prices = {name: price if callable(price) else as_price(price) for name, price in prices.items()}
        self._till = mcp.Till(at, token, realm, secret, ca_file)

    def settings(self) -> dict[str, Any]:
        """See Extension."""
        return {"satoshi": {name: price.amount for name, price in self._prices.items() if isinstance(price, Price)}}

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Have a call paid, and run it. See Extension."""
        price = self._prices.get(params.name)
        if callable(price):
            price = as_price(price(params.arguments or {}))
        if price is None:
            return await call_next(ctx)

        async def tool() -> dict[str, Any]:
            result = await call_next(ctx)
            if not isinstance(result, CallToolResult):
                raise _Unfinished(result)
            return result.model_dump(by_alias=True, mode="json", exclude_none=True)

        try:
            told = await self._till.call(params.name, params.arguments, dict(params.meta or {}), price, tool)
        except mcp.PaymentError as error:
            raise MCPError(error.code, error.message, error.data) from None
        except _Unfinished as unfinished:
            return unfinished.result
        return CallToolResult.model_validate(told)
