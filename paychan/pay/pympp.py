"""A payer for pympp, MPP's Python SDK, as it is:

    from paychan.pay.pympp import transport

    async with httpx.AsyncClient(transport=transport("purse/")) as client:
        await client.get("https://api.example.com/weather")

The SDK asks its method for a credential and does not say what became of it; its events do, so `transport` listens to them. It takes
two requests for each payment; paychan.pay.httpx takes one. With other methods beside: `transport("purse/", methods=[...])`.
"""

import asyncio
import os
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any

import httpx
from mpp.client.transport import PaymentTransport
from mpp.events import CHALLENGE_RECEIVED, PAYMENT_RESPONSE, EventDispatcher
from mpp.methods import Method
from mpp.runtime import ClientMethod, CredentialParams
from pydantic import BaseModel, ConfigDict

from ..client import Refused
from ..mpp import INTENT, METHOD
from ..mpp.challenge import Challenge
from ..mpp.credential import read_payload
from ..mpp.problems import parse_problem
from ..mpp.receipt import HEADER as RECEIPT
from ..mpp.receipt import parse_receipt
from ..mpp.request import read_request
from ..mpp.snapshot import HEADER as SNAPSHOT
from ..mpp.snapshot import parse_snapshot
from ..mpp.text import format_channel_id
from .payer import Asked
from .purse import Purse
from .terms import read_terms

_STATE = "paychan.purchase"


class _Model(BaseModel):
    """The SDK validates with it where it serves; a payer's challenges come checked by paychan.mpp."""

    model_config = ConfigDict(extra="allow")


@dataclass
class _Purchase:
    """One request: what was presented for it last, how much of that was signed for it, and what it costs as far as is known."""

    asked: Asked
    channel: str = ""
    added: int = 0
    cost: int = 0
    is_over: bool = False


_current: ContextVar[_Purchase | None] = ContextVar("paychan_purchase", default=None)


class _Reading(httpx.AsyncBaseTransport):
    """Reads refusals before the SDK closes them: what they say decides what is paid next."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if response.status_code == 402:
            await response.aread()
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class PurseMethod:
    """The SDK's method bitcoin/session, paid out of a purse. `client_method` is for the SDK, which must emit to `events`."""

    def __init__(self, purse: Purse, events: EventDispatcher | None = None) -> None:
        self.purse = purse
        self.events = events or EventDispatcher()
        self.events.on(CHALLENGE_RECEIVED, self._challenged)
        self.events.on(PAYMENT_RESPONSE, self._served)
        definition = Method(name=METHOD, intent=INTENT, request_model=_Model, payload_model=_Model)
        self.client_method = ClientMethod(method=definition, create_credential=self._pay)

    async def _pay(self, params: CredentialParams) -> str:
        """Return the credential that pays a challenge. Raises ClientError."""
        purchase = _current.get()
        if purchase is None:
            raise Refused("the SDK's events do not reach the purse: use paychan.pay.pympp.transport", "no_events")
        if purchase.is_over:
            raise Refused("the server took a payment, and gave nothing for it", "paid_unserved")
        told = params.challenge
        request = read_request(told.request)
        terms = read_terms(purchase.asked.origin, request, self.purse.settings.network)
        paid = await asyncio.to_thread(self.purse.pay_telling, terms, max(terms.amount, purchase.cost), purchase.asked.what)
        purchase.channel, purchase.added = paid.channel, paid.added
        return read_payload(_challenge(told), paid.payload).render()

    async def _challenged(self, payload: Any) -> None:
        """Take note of what a refusal says of the credential before, and of which request the next one is for."""
        request, response = payload["request"], payload["response"]
        purchase = request.extensions.get(_STATE)
        if purchase is None:
            asked = Asked(request.method, str(request.url), "authorization" in request.headers)
            purchase = request.extensions[_STATE] = _Purchase(asked)
        _current.set(purchase)
        if purchase.channel and not purchase.is_over:
            await asyncio.to_thread(self._refused, purchase, response)

    def _refused(self, purchase: _Purchase, response: httpx.Response) -> None:
        problem, channel = parse_problem(response.content, 402), purchase.channel
        accepted, spent = problem.amounts.get("acceptedCumulative"), problem.amounts.get("spent")
        if SNAPSHOT in response.headers:
            self.purse.adopt(channel, parse_snapshot(response.headers[SNAPSHOT]))
        elif problem.name == "session/insufficient-balance" and accepted is not None and spent is not None:
            purchase.is_over = bool(purchase.added) and accepted - spent < purchase.added
            if not purchase.is_over:
                self.purse.insufficient(channel, accepted, spent)
                purchase.cost = max(problem.amounts.get("requiredCumulative", 0) - spent, 0)
        elif problem.name == "session/channel-finalized":
            self.purse.end(channel)
        elif problem.name == "session/channel-not-found":
            self.purse.unknown(channel)
        elif problem.name in ("session/delta-too-small", "payment-insufficient"):
            self.purse.refused(channel)

    async def _served(self, payload: Any) -> None:
        """Take note of a receipt."""
        receipt = parse_receipt(payload["response"].headers.get(RECEIPT, ""))
        await asyncio.to_thread(self.purse.taken, format_channel_id(receipt.outpoint), receipt.accepted, receipt.spent)


def _challenge(told: Any) -> Challenge:
    """Return the SDK's challenge as this package has it, each parameter as it stood on the wire."""
    echo = told.to_echo()
    return Challenge(**{row.name: getattr(echo, row.name, None) or "" for row in fields(Challenge)})


def transport(
    purse: Purse | str | os.PathLike[str],
    methods: Sequence[ClientMethod] = (),
    inner: httpx.AsyncBaseTransport | None = None,
    **options: Any,
) -> PaymentTransport:
    """Return the SDK's transport, paying out of a purse. options: PaymentTransport's. Raises StateError, ConfigError."""
    ours = PurseMethod(purse if isinstance(purse, Purse) else Purse(purse))
    reading = _Reading(inner or httpx.AsyncHTTPTransport())
    return PaymentTransport([ours.client_method, *methods], inner=reading, events=ours.events, **options)
