"""The till before the tools of an MCP server, with whatever SDK that is written (docs/PAYMENT_SCHEME.md section 2.11).

    from paychan.sell.mcp import PaymentError, Till

    till = Till("state/debug/run/sell.sock", realm="jokes")

    # tools/call; meta: the `_meta` of its params, or None
    result = await till.call("joke", arguments, meta, 5, lambda: tell_joke(**arguments))       # satoshi

`call` runs the tool once it is paid for, and returns its result with a receipt in `_meta`. It raises PaymentError, whose
`as_object()` is the JSON-RPC error to answer with. A tool that raises, or whose result has `isError`, is not charged for.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from ..core.errors import Rejection
from ..mpp import mcp, receipt
from ..mpp.challenge import parse_challenges
from ..mpp.problems import BLANK
from ..mpp.snapshot import HEADER as SNAPSHOT
from ..mpp.text import decode_json
from . import till as asyncio_till
from .facts import KEPT_BYTES_MAX, Answer, Headers, Price, Request, Sale, body_hash
from .prices import Amount, as_price
from .wire import dumps, find_door, loads

__all__ = ["PaymentError", "Price", "Till"]

Result = dict[str, Any]
"""A tool's result, as JSON-RPC has it."""

Tool = Callable[[], Awaitable[Result]]


class PaymentError(Exception):
    """A call that is not served. code, message, data: of the JSON-RPC error."""

    def __init__(self, code: int, message: str, data: dict[str, Any]) -> None:
        self.code, self.message, self.data = code, message, data
        super().__init__(message)

    def as_object(self) -> dict[str, Any]:
        """Return the JSON-RPC error object."""
        return {"code": self.code, "message": self.message, "data": self.data}


class Till:
    """at: the sellers' door, a path or URL; token: needed at a URL; realm: what payers see you as."""

    def __init__(self, at: str, token: str = "", realm: str = "paychan", secret: bytes = b"", ca_file: str = "") -> None:
        self.till = asyncio_till.Till(find_door(at, token, ca_file), realm, secret)

    async def call(
        self, name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None, price: Amount, tool: Tool
    ) -> Result:
        """Have a call paid, run the tool, and return its result. price: satoshi, a Price, or None: free. Raises PaymentError, and
        what the tool raises."""
        wanted = as_price(price)
        if wanted is None:
            return await tool()
        decision = await self.till.decide(_request(name, arguments or {}, meta or {}), wanted)
        if isinstance(decision, Answer):
            return _result_of(decision)
        try:
            result = await tool()
        except BaseException:
            await self.till.failed(decision)
            raise
        more = await self.till.finish(decision, 500 if result.get("isError") else 200)
        if isinstance(more, Answer):
            return _result_of(more)
        return self._with_receipt(decision, result, more)

    def _with_receipt(self, sale: Sale, result: Result, more: Headers) -> Result:
        """Return the result with the receipt that is among the till's headers, and keep it for who asks again."""
        if not more:
            return result
        result = {**result, "_meta": {**result.get("_meta", {}), **_receipt_meta(more)}}
        body = dumps(result)
        if len(body) <= KEPT_BYTES_MAX:
            self.till.keep(sale, Answer(200, more, body))
        else:
            self.till.forget(sale)
        return result


def _request(name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> Request:
    """Return a call as the till knows requests: what makes it another one are the tool and its arguments."""
    try:
        credential = mcp.read_credential(meta)
    except Rejection as error:
        raise _malformed(error) from None
    body = json.dumps(arguments, sort_keys=True, separators=(",", ":")).encode()
    return Request(
        method="POST",
        target=f"/tools/{quote(name, safe='')}",
        credentials=() if credential is None else (credential.render(),),
        body=body_hash(body),
    )


def _malformed(error: Rejection) -> PaymentError:
    problem = {"type": BLANK, "title": error.row.title, "status": 400, "code": error.code, "detail": error.detail}
    return PaymentError(mcp.INVALID_PARAMS, error.row.title, {"httpStatus": 400, "problem": problem})


def _result_of(answer: Answer) -> Result:
    """Return the result that was kept from before, or what a payer gets that closed its channel. Raises PaymentError for a
    refusal."""
    if answer.status == 204:
        return {"content": [], "_meta": _receipt_meta(answer.headers)}
    if answer.status < 300:
        kept: Result = loads(answer.body)
        return kept
    problem = loads(answer.body)
    challenges = parse_challenges(_values(answer.headers, "www-authenticate"))
    error = mcp.error(challenges, problem)
    for snapshot in _values(answer.headers, SNAPSHOT):
        error["data"]["snapshot"] = decode_json(snapshot)
    raise PaymentError(error["code"], error["message"], error["data"])


def _receipt_meta(headers: Headers) -> dict[str, Any]:
    (value,) = _values(headers, receipt.HEADER)
    return {mcp.RECEIPT: decode_json(value)}


def _values(headers: Headers, name: str) -> list[str]:
    return [value for known, value in headers if known.lower() == name.lower()]
