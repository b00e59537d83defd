"""Sell through x402's own middleware: its scheme object for channels, and its facilitator client with a seller's token.

    from paychan.sell.x402 import ChannelScheme, facilitator
    from x402 import x402ResourceServer
    from x402.http.middleware.fastapi import payment_middleware

    server_calls = facilitator("http://127.0.0.1:8443", TOKEN)      # the sellers' door of the channel server
    server = x402ResourceServer(server_calls).register("bip122:*", ChannelScheme(server_calls))
    app.middleware("http")(payment_middleware(
        {"GET /news": {"accepts": {"scheme": "batch-settlement", "network": NETWORK, "payTo": "", "price": 5}}}, server))

Prices are satoshi. The payment is taken and charged for, on disk, before the handler runs (`paymentFlow` upfront); if the handler
fails, what was charged is given back as credit. The middleware of Flask takes `facilitator(..., is_async=False)`.
"""

import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from typing import Any

from x402.http import FacilitatorConfig, HTTPFacilitatorClient, HTTPFacilitatorClientSync
from x402.http.facilitator_client_base import CreateHeadersAuthProvider
from x402.interfaces import PaymentFlowConfig
from x402.schemas import AssetAmount, PaymentRequirements, SettleResponse, SupportedKind
from x402.schemas.hooks import SettleContext, SkipSettleResult

from ..core.units import MAX_MONEY
from ..mpp import CURRENCY

SCHEME = "batch-settlement"

REMEMBERED_MAX = 10_000
"""Payments that a process remembers; some 2 MB."""


def facilitator(url: str, token: str, is_async: bool = True) -> HTTPFacilitatorClient | HTTPFacilitatorClientSync:
    """Return x402's facilitator client for the sellers' door at `url`. token: of scope `charge`."""
    headers = {"Authorization": f"Bearer {token}"}
    auth = CreateHeadersAuthProvider(lambda: dict.fromkeys(("supported", "verify", "settle"), headers))
    config = FacilitatorConfig(url=f"{url.rstrip('/')}/x402", auth_provider=auth)
    return HTTPFacilitatorClient(config) if is_async else HTTPFacilitatorClientSync(config)


class ChannelScheme:
    """x402's SchemeNetworkServer. facilitator: as `facilitator` makes it.

    A payment buys once: shown again, it is refused as `already_served`. Only where the channel server could not be asked is the
    outcome unknown; then this process serves the same payment once when it comes again, for it may have been charged for.
    """

    scheme = SCHEME
    default_asset_transfer_method = "default"
    payment_flows: Mapping[str, PaymentFlowConfig] = {"default": {"supported": ("upfront",), "default": "upfront"}}

    def __init__(self, facilitator: HTTPFacilitatorClient | HTTPFacilitatorClientSync) -> None:
        self._facilitator = facilitator
        self._is_known: OrderedDict[str, bool] = OrderedDict()  # by the name of a payment: whether it is known what became of it

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

    def settle_on_cancel(self, context: SettleContext) -> PaymentRequirements:
        """The handler has failed: what it was charged for is given back."""
        return _with(context.requirements, release=True)

    # --- outcomes that are unknown ---

    def before_settle(self, context: SettleContext) -> SkipSettleResult | Awaitable[SkipSettleResult] | None:
        """Have the payment taken, here and not by the middleware: it tells nobody of a call that raised. A payment whose outcome is
        unknown counts, if it was charged for before; one request has that chance at a time."""
        if context.phase != "before-handler":
            return None
        name = _name(context.payment_payload)
        is_unknown = not self._is_known.get(name, True)
        wants = _with(context.requirements, repeat=True) if is_unknown else context.requirements
        if is_unknown:
            self._remember(name, True)
        try:
            answer = self._facilitator.settle(context.payment_payload, wants)
        except Exception:
            self._lose(name, is_unknown)
            raise
        return self._await(name, is_unknown, answer) if inspect.isawaitable(answer) else self._found(name, answer)

    async def _await(self, name: str, was_unknown: bool, answer: Awaitable[SettleResponse]) -> SkipSettleResult:
        try:
            return self._found(name, await answer)
        except BaseException:
            self._lose(name, was_unknown)
            raise

    def _found(self, name: str, answer: SettleResponse) -> SkipSettleResult:
        """Remember what was bought: shown again, it is never taken for a payment whose outcome is unknown."""
        if answer.success:
            self._remember(name, True)
        return SkipSettleResult(result=answer)

    def _lose(self, name: str, was_unknown: bool) -> None:
        """The call has raised: unless this process knows what became of the payment, nobody does."""
        if was_unknown or name not in self._is_known:
            self._remember(name, False)

    def _remember(self, name: str, is_known: bool) -> None:
        self._is_known[name] = is_known
        while len(self._is_known) > REMEMBERED_MAX:
            self._is_known.popitem(last=False)


def _with(requirements: Any, **marks: bool) -> PaymentRequirements:
    """Return requirements with a mark for the channel server, which takes none from payers."""
    copy: PaymentRequirements = requirements.model_copy(update={"extra": {**requirements.extra, **marks}})
    return copy


def _name(payload: Any) -> str:
    """Return what tells a payment from others, without being it."""
    return hashlib.sha256(json.dumps(payload.payload, sort_keys=True).encode()).hexdigest()
