"""A JSON-RPC client over HTTP/1.1 for a Bitcoin node: kept connections, batches, strict parsing, exact amounts.

Every request is a batch, even of one, so there is one form of answer. Nothing is logged: neither credentials nor bodies.
A request is sent again only when connecting failed, when the cookie was stale, or when a kept connection turned out to be
closed before one byte of the answer came. The last might repeat a call, so only calls that may be repeated belong here.
"""

import asyncio
import base64
import json
from collections.abc import Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation
from pathlib import Path

from ..core.errors import Unavailable
from ..core.units import COIN, MAX_MONEY
from .http import HttpClient, HttpFailure

BODY_SIZE_MAX = 16 * 1024 * 1024
"""Bytes of an answer. The largest that we ask for is a raw transaction in hex: 8 MB."""

CONNECT_DELAYS = (0.05, 0.2)
"""Seconds before the second and third attempt to connect."""

METHOD_NOT_FOUND = -32601
_EXACT = Context(prec=40, traps=[Inexact, InvalidOperation])
_COIN = Decimal(COIN)


def unavailable(detail: str) -> Unavailable:
    """Return what every trouble with the node is raised as. detail: a sentence for the operator, without secrets."""
    return Unavailable("chain_unavailable", detail)


class RpcError(Exception):
    """The node answered a call with an error: its code and its message."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")


def parse_amount(value: object) -> int:
    """Return an amount of bitcoins, as JSON gave it (int or Decimal), in satoshi. Raises ValueError unless that is exact."""
    if type(value) is int or isinstance(value, Decimal):
        number = Decimal(value) if isinstance(value, int) else value
        try:
            if number.is_finite() and 0 <= number <= MAX_MONEY // COIN:
                return int(_EXACT.to_integral_exact(_EXACT.multiply(number, _COIN)))
        except (Inexact, InvalidOperation):
            pass
    raise ValueError("not an amount of bitcoins in whole satoshi")


class JsonRpc:
    """Calls to one node. Either `cookie` (the file that the node writes at each start) or `user` and `password`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        cookie: Path | None = None,
        user: str = "",
        password: str = "",
        timeout: float = 10.0,
        connections_max: int = 4,
    ) -> None:
        self._host, self._port = host, port
        self._cookie, self._login = cookie, f"{user}:{password}"
        self._timeout = timeout
        self._http = HttpClient(host, port, connections_max=connections_max, connect_delays=CONNECT_DELAYS)

    async def call(self, method: str, *params: object, path: str = "/", timeout: float = 0) -> object:
        """Return one call's result. Raises RpcError, Unavailable."""
        (answer,) = await self.batch([(method, *params)], path=path, timeout=timeout)
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def batch(self, calls: Sequence[tuple[object, ...]], *, path: str = "/", timeout: float = 0) -> list[object]:
        """Send calls, each (method, parameter, ...), in one request; return their results in order, an RpcError in place
        of a result that is one. path: "/" or a wallet's. timeout: seconds, instead of the usual. Raises Unavailable."""
        body = json.dumps(
            [{"jsonrpc": "1.0", "id": at, "method": call[0], "params": call[1:]} for at, call in enumerate(calls)]
        ).encode()
        try:
            async with asyncio.timeout(timeout or self._timeout):
                status, answer = await self._post(path, body)
        except TimeoutError:
            raise unavailable("The Bitcoin node did not answer in time") from None
        return _parse_answers(status, answer, len(calls))

    async def close(self) -> None:
        """Close the kept connections."""
        self._http.close()

    async def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer, after at most one more try with a new cookie."""
        for _ in range(2 if self._cookie else 1):
            fields = {"Authorization": f"Basic {self._token()}", "Content-Type": "application/json"}
            try:
                status, answer = await self._http.request("POST", path, fields, body, body_size_max=BODY_SIZE_MAX)
            except HttpFailure as error:
                raise unavailable(f"The Bitcoin node {error}") from None
            if status != 401:
                return status, answer
        raise unavailable("The Bitcoin node refuses our credentials (HTTP 401)")

    def _token(self) -> str:
        """Return the credentials. The cookie is read each time: the node writes a new one at each start."""
        login = self._login
        if self._cookie is not None:
            try:
                login = self._cookie.read_text().strip()
            except (OSError, UnicodeDecodeError):
                raise unavailable("The Bitcoin node's cookie file cannot be read; is the node running?") from None
        return base64.b64encode(login.encode()).decode()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _parse_answers(status: int, body: bytes, count: int) -> list[object]:
    """Return results and RpcErrors in the order of the calls. Raises Unavailable."""
    if status == 403:
        raise unavailable("The Bitcoin node does not accept us (HTTP 403): see its rpcallowip and rpcwhitelist")
    if status == 503:
        raise unavailable("The Bitcoin node has too many requests waiting (HTTP 503)")
    try:
        answers = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
        if isinstance(answers, dict):  # an error that concerns the batch as a whole
            error = _parse_answer(answers)
            if not isinstance(error, RpcError):
                raise ValueError("one answer for a batch")
            return [error] * count
        by_id = {answer["id"]: _parse_answer(answer) for answer in answers}
        if len(answers) != count:
            raise ValueError("a wrong number of answers")
        return [by_id[at] for at in range(count)]
    except (ValueError, KeyError, TypeError, RecursionError, InvalidOperation):
        raise unavailable(f"The Bitcoin node's answer (HTTP {status}) is no JSON-RPC") from None


def _parse_answer(answer: dict[str, object]) -> object:
    error = answer.get("error")
    if error is None:
        return answer["result"]
    code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
    if type(code) is not int or type(message) is not str:
        raise ValueError("a malformed error")
    return RpcError(code, message)
