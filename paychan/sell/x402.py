"""Sell through x402's own middleware: its scheme object for channels, and its facilitator client, at the sellers' door.

    from paychan.sell.x402 import offer, patient, seller
    from x402.http.middleware.fastapi import payment_middleware

    server = seller("state/debug/run/sell.sock")                        # or a URL, and a token
    app.middleware("http")(patient(payment_middleware({"GET /news": offer(5, "test")}, server)))

Prices are satoshi. The payment is taken and charged for, on disk, before the handler runs (`paymentFlow` upfront); if the handler
fails, what was charged is given back as credit. The middleware of Flask takes `seller(..., is_async=False)`, and then
`app.wsgi_app = patient_wsgi(app.wsgi_app)`. Patient is who starts before the channel server does: so long, it answers 503.
"""

import asyncio
import hashlib
import inspect
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import httpx
from x402 import x402ResourceServer, x402ResourceServerSync
from x402.http import FacilitatorConfig, HTTPFacilitatorClient, HTTPFacilitatorClientSync
from x402.http.facilitator_client_base import CreateHeadersAuthProvider
from x402.interfaces import PaymentFlowConfig
from x402.schemas import AssetAmount, PaymentRequirements, SettleResponse, SupportedKind, SupportedResponse
from x402.schemas.hooks import SettleContext, SettleResultContext, SkipSettleResult

from ..core.errors import ConfigError, Rejection, Unavailable
from ..core.network import BY_NAME, caip2
from ..core.payment import decode_payment
from ..core.sales import ATTEMPTS_MAX, revision_of
from ..core.units import MAX_MONEY
from ..mpp import CURRENCY, problems
from ..mpp.text import parse_amount
from ..receipts.claims import Bought
from ..rpc.connection import reachable_path
from .asgi import send_answer
from .attempts import draw
from .facts import Answer
from .owed import Last
from .wire import SLOW_SECONDS, Door, find_door

SCHEME = "batch-settlement"
LOCAL_URL = "http://localhost/x402"

REMEMBERED_MAX = 10_000
"""Payments that a process remembers; some 2 MB."""

log = logging.getLogger("paychan.sell.x402")


def seller(at: str, token: str = "", is_async: bool = True) -> x402ResourceServer | x402ResourceServerSync:
    """Return x402's resource server for the sellers' door. at, token: see `facilitator`. Raises ConfigError."""
    calls = facilitator(at, token, is_async)
    server = x402ResourceServer(calls) if is_async else x402ResourceServerSync(calls)  # type: ignore[arg-type]
    return server.register("bip122:*", ChannelScheme(calls))


def offer(price: int, network: str = "live", description: str = "") -> dict[str, Any]:
    """Return a route's configuration. price: satoshi. network: live, test or regtest. Raises ConfigError."""
    if network not in BY_NAME:
        raise ConfigError(f"network must be one of {', '.join(sorted(BY_NAME))}")
    accepts = {"scheme": SCHEME, "network": caip2(BY_NAME[network]), "payTo": "", "price": price}
    return {"accepts": accepts, **({"description": description} if description else {})}


def facilitator(at: str, token: str = "", is_async: bool = True) -> HTTPFacilitatorClient | HTTPFacilitatorClientSync:
    """Return x402's facilitator client for the sellers' door: at a URL, with a token of scope `charge`; or at a Unix socket's path,
    where the token that the server left beside it does. Raises ConfigError."""
    door = find_door(at, token)

    def headers() -> dict[str, dict[str, str]]:
        door.approach()
        return dict.fromkeys(("supported", "verify", "settle"), {"Authorization": f"Bearer {door.token}"})

    auth = CreateHeadersAuthProvider(headers)
    url, socket = f"{at.rstrip('/')}/x402", ""
    if door.server is None:
        url, socket = LOCAL_URL, _spelled(door.socket)
    client = httpx.Client(transport=httpx.HTTPTransport(uds=socket or None), timeout=SLOW_SECONDS)
    blocking = _Blocking(door, FacilitatorConfig(url=url, auth_provider=auth, http_client=client))
    return _Local(url, socket, auth, blocking) if is_async else blocking


def _spelled(socket: str) -> str:
    """Return a spelling of a Unix socket's path that fits a socket address; a long one's directory stays open for it."""
    try:
        return reachable_path(os.path.abspath(socket))[0]
    except OSError:  # it is not there: whoever connects hears so
        return socket


class Unreachable(Exception):
    """The sellers' door has not said yet what a channel must be like."""


class _Blocking(HTTPFacilitatorClientSync):
    """A facilitator client that says why nothing can be sold, once."""

    def __init__(self, door: Door, config: FacilitatorConfig) -> None:
        super().__init__(config)
        self._door, self._complaint = door, ""

    def get_supported(self) -> SupportedResponse:
        """See HTTPFacilitatorClientSync. Raises Unreachable."""
        try:
            return super().get_supported()
        except Exception as error:
            is_gone = isinstance(error, (httpx.TransportError, OSError))
            why = self._door.explain() if is_gone else "the sellers' door does not take what we ask: is the token of scope charge?"
        if why != self._complaint:
            self._complaint = why
            log.warning("nothing can be sold: %s", why)
        raise Unreachable(why)


class _Local(HTTPFacilitatorClient):
    """A facilitator client for asyncio. socket: a Unix socket's path, or empty. x402 asks what is supported without a loop."""

    def __init__(self, url: str, socket: str, auth: CreateHeadersAuthProvider, blocking: HTTPFacilitatorClientSync) -> None:
        client = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=socket or None), timeout=SLOW_SECONDS)
        super().__init__(FacilitatorConfig(url=url, auth_provider=auth, http_client=client))
        self._blocking = blocking

    def get_supported(self) -> SupportedResponse:
        """See HTTPFacilitatorClient."""
        return self._blocking.get_supported()


Handler = Callable[[Any, Any], Awaitable[Any]]


def patient(middleware: Handler) -> Handler:
    """Return x402's FastAPI middleware, answering 503 to what has a price until the sellers' door was reached."""

    async def answer(request: Any, call_next: Any) -> Any:
        try:
            return await middleware(request, call_next)
        except Unreachable:
            return refuse

    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send_answer(send, Answer(503, tuple(_NOT_YET.items()), _not_yet()))

    return answer


def patient_wsgi(application: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same for Flask's, after x402's middleware has put itself before the application."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        try:
            return application(environ, start_response)
        except Unreachable:
            start_response("503 Service Unavailable", [*_NOT_YET.items()])
            return [_not_yet()]

    return answer


_NOT_YET = {
    "content-type": problems.CONTENT_TYPE,
    "cache-control": "no-store",
    "retry-after": str(problems.RETRY_AFTER_SECONDS),
}


def _not_yet() -> bytes:
    return problems.render(problems.document(Unavailable("store_unavailable")))


class Signer(Protocol):
    """Signs receipts; `paychan.receipts.issuer.Issuer` is it. Its methods may block."""

    def issue(self, bought: Bought) -> str: ...

    def withdraw(self, channel_id: str, number: int) -> bool: ...


class ChannelScheme:
    """x402's SchemeNetworkServer. facilitator: as `facilitator` makes it. issuer: signs receipts, which the payer gets as
    `extra.receipt` (`paychan.receipts.issuer.Issuer`; docs/RECEIPTS.md).

    A payment buys once: shown again, it is refused as `already_served`. Only where the channel server did not answer is the outcome
    unknown; then this process serves the same payment when it comes again, if it was its own attempt that was charged for.
    """

    scheme = SCHEME
    default_asset_transfer_method = "default"
    payment_flows: Mapping[str, PaymentFlowConfig] = {"default": {"supported": ("upfront",), "default": "upfront"}}

    def __init__(self, facilitator: HTTPFacilitatorClient | HTTPFacilitatorClientSync, issuer: Signer | None = None) -> None:
        self._facilitator, self._issuer = facilitator, issuer
        self._lost = Last(REMEMBERED_MAX)  # by the name of a payment: attempts that were not answered
        self._made = Last(REMEMBERED_MAX)  # by a payload's id: the number of its purchase

    def parse_price(self, price: Any, network: str) -> AssetAmount:
        """Return a price in satoshi: an integer, a decimal text, or an amount of asset sat. Raises ValueError."""
        if isinstance(price, AssetAmount):
            price = price.model_dump()
        if isinstance(price, Mapping):
            if price.get("asset") != CURRENCY:
                raise ValueError(f"a price is an amount of asset {CURRENCY}")
            price = price.get("amount")
        if isinstance(price, str) and price.isascii() and price.isdigit():
            price = int(price)
        if type(price) is not int or not 1 <= price <= MAX_MONEY:
            raise ValueError("a price is a number of satoshi, from 1 on")
        return AssetAmount(amount=str(price), asset=CURRENCY)

    def enhance_payment_requirements(
        self, requirements: PaymentRequirements, supported_kind: SupportedKind, extensions: list[str]
    ) -> PaymentRequirements:
        """Say what a channel must be like and whom it pays, as the channel server says it. Raises ValueError if the route pays
        somebody else."""
        told = dict(supported_kind.extra or {})
        pay_to = told.pop("payTo")
        if requirements.pay_to not in ("", pay_to):
            raise ValueError("payTo must be empty, or the channel server's public key")
        return requirements.model_copy(update={"pay_to": pay_to, "extra": {**told, **requirements.extra}})

    def settle_on_cancel(self, context: SettleContext) -> PaymentRequirements | None:
        """The handler has failed: what it was charged for is given back."""
        number = self._made.pop(id(context.payment_payload), 0)
        return _with(context.requirements, release=number) if number else None

    def after_settle(self, context: SettleResultContext) -> None:
        """What was given back has no receipt: it was not shown."""
        extra = context.result.extra
        if context.phase != "cancel" or not context.result.success or self._issuer is None or extra is None:
            return
        try:
            channel, number = extra["channelState"]["channelId"], revision_of(extra["purchase"])
            if not self._issuer.withdraw(channel, number):
                log.warning("a purchase that was given back has a receipt: others follow it")
        except Exception as error:
            log.warning("no receipt was withdrawn: %s", type(error).__name__)

    # --- outcomes that are unknown ---

    def before_settle(self, context: SettleContext) -> SkipSettleResult | Awaitable[SkipSettleResult] | None:
        """Have the payment taken, here and not by the middleware: it tells nobody of a call that raised. What an attempt has bought
        that was not answered counts; one request has that chance at a time."""
        if context.phase != "before-handler":
            return None
        name = _name(context.payment_payload)
        attempts = [draw(), *self._lost.pop(name, ())][:ATTEMPTS_MAX]
        try:
            answer = self._facilitator.settle(context.payment_payload, _with(context.requirements, attempts=attempts))
        except Exception:
            self._lose(name, attempts)
            raise
        if inspect.isawaitable(answer):
            return self._await(name, attempts, answer, context)
        self._found(answer, context)
        return SkipSettleResult(result=self._signed(answer, context))

    async def _await(
        self, name: str, attempts: list[int], answer: Awaitable[SettleResponse], context: SettleContext
    ) -> SkipSettleResult:
        try:
            found = await answer
        except BaseException:
            self._lose(name, attempts)
            raise
        self._found(found, context)
        if self._issuer is not None and found.success:
            found = await asyncio.to_thread(self._signed, found, context)
        return SkipSettleResult(result=found)

    def _lose(self, name: str, attempts: list[int]) -> None:
        """The call has raised: nobody knows whether it took effect."""
        self._lost.note(name, [*attempts, *self._lost.get(name, ())])

    def _found(self, answer: SettleResponse, context: SettleContext) -> None:
        """Remember what was bought."""
        if answer.success:
            self._made.note(id(context.payment_payload), int((answer.extra or {}).get("purchase", 0)))

    def _signed(self, answer: SettleResponse, context: SettleContext) -> SettleResponse:
        """Put a signed receipt to a success. Without one it is a success, too."""
        if self._issuer is None or not answer.success:
            return answer
        try:
            receipt = self._issuer.issue(_bought(answer, context))
        except Exception as error:
            log.warning("no receipt was signed: %s", type(error).__name__)
            return answer
        return answer.model_copy(update={"extra": {**(answer.extra or {}), "receipt": receipt}})


def _bought(answer: SettleResponse, context: SettleContext) -> Bought:
    extra: Any = answer.extra
    state, request, payload = extra["channelState"], context.transport_context.request, context.payment_payload
    return Bought(
        channel_id=state["channelId"],
        number=revision_of(extra["purchase"]),
        method=request.method,
        resource=request.adapter.get_url(),
        amount=parse_amount(answer.amount),
        accepted=parse_amount(state["accepted"]),
        spent=parse_amount(state["spent"]),
        payment=decode_payment(payload.payload["payment"]).serialize(),
    )


def _with(requirements: Any, **marks: int | list[int]) -> PaymentRequirements:
    """Return requirements with a mark for the channel server, which takes none from payers."""
    copy: PaymentRequirements = requirements.model_copy(update={"extra": {**requirements.extra, **marks}})
    return copy


def _name(payload: Any) -> str:
    """Return what tells a purchase from others, without showing its payment: by what the channel server tells them apart, however a
    payer writes it."""
    shown = payload.payload
    try:
        names: Any = [shown["channelId"], decode_payment(shown["payment"]).change_value, shown.get("purchase", "")]
    except (Rejection, KeyError, TypeError, AttributeError, ValueError):  # it buys nothing
        names = shown
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()
