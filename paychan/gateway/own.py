"""What the gateway answers itself: whether it is well, what it sells, whether a request that another proxy holds is paid; and what
handles channels and buys nothing."""

import json

from ..sell.facts import Answer
from .discovery import describe
from .forward_auth import asked_about
from .load import DESCRIPTION, HEALTH, READY
from .models import GatewayConfig
from .receipts import WELL_KNOWN
from .refusals import Refused
from .requests import Request
from .routes import RouteTable
from .selling import Instead, Selling

_TEXT = (("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store"))


STATUS, PROBLEM = "paychan-status", "paychan-problem"
"""Header fields of a refusal, which say what status and body have: nginx gives neither of them to who asked."""


def _refusal(answer: Answer) -> Answer:
    more = ((STATUS, str(answer.status)), (PROBLEM, answer.body.decode("ascii", "replace")))
    return Answer(answer.status, (*answer.headers, *more), answer.body)


class Own:
    """One in each worker."""

    def __init__(self, config: GatewayConfig, selling: Selling, routes: RouteTable) -> None:
        self._config, self._selling, self._routes = config, selling, routes
        self._description = json.dumps(describe(config), ensure_ascii=False).encode() if config.discovery else b""

    async def answer(self, request: Request, is_stopping: bool) -> Answer | None:
        """Return the answer if the request is the gateway's own; None if it is for a route."""
        if request.is_websocket:
            return None
        if request.path in (HEALTH, READY):
            why = "" if request.path == HEALTH else "stopping" if is_stopping else await self._selling.trouble()
            return Answer(503 if why else 200, _TEXT, f"{why or 'ok'}\n".encode())
        if self._description and request.path == DESCRIPTION:
            return Answer(200, (("content-type", "application/json"), ("cache-control", "max-age=300")), self._description)
        if request.path == self._config.forward_auth:
            try:
                return await self._judge(request)
            except Refused as refused:
                return _refusal(Answer(refused.status, tuple(refused.headers()), refused.body()))
        if self._selling.published is not None and request.path == WELL_KNOWN:
            return self._selling.published
        return await self._selling.manage(request)

    async def _judge(self, request: Request) -> Answer:
        """Say whether a request that another proxy holds may pass: 2xx, or what is to be answered instead. Raises Refused."""
        asked = asked_about(request, self._config.trusted_proxies)
        managed = await self._selling.manage(asked)
        if managed is not None:  # 2xx would let it pass
            return _refusal(Answer(403, managed.headers) if managed.status == 204 else managed)
        route = self._routes.find(asked.host, asked.path, asked.method)
        if route.price is None:
            return Answer(204)
        if route.price.is_metered:
            raise Refused("not_metered_here")
        decision = await self._selling.decide(asked, route, b"")
        if isinstance(decision, Answer):
            return _refusal(decision)
        try:
            headers = await self._selling.finish(decision, route, 200)
        except Instead as instead:
            return _refusal(instead.answer)
        self._selling.close(decision, None)
        return Answer(200, tuple(headers))
