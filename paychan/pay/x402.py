"""Pay x402 offers (scheme batch-settlement, asset sat, networks bip122:*) out of a purse, with x402's own clients:

    from paychan.pay.x402 import ChannelScheme, pay_with
    from x402 import x402Client
    from x402.http.clients import x402HttpxClient

    scheme = ChannelScheme(Purse("purse/"))
    async with x402HttpxClient(pay_with(x402Client(), scheme)) as client:
        answer = await client.get("https://api.example.com/news")

With `x402ClientSync` for requests. The purse's budget counts; x402's spend controls count beside it. A payment whose outcome is not
known is shown again, and no other is signed before it is: so of two requests at once one is refused, and may be repeated.

    with scheme.closing("api.example.com-1"):          # the channel's name in the purse
        await client.get("https://api.example.com/news")
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, TypeVar

from x402.schemas import PaymentRequirements, SettleResponse
from x402.schemas.hooks import PaymentCreationContext, PaymentResponseContext, RecoveredResponseResult

from ..client import ChannelMissing
from ..core.errors import Rejection
from ..core.payment import decode_payment
from ..mpp.request import read_request
from ..mpp.snapshot import Snapshot
from ..mpp.text import parse_amount, parse_channel_id
from .errors import TermsRefused
from .payer import Asked
from .purse import Purse
from .receipts import keep_receipt
from .terms import Terms, read_terms

SCHEME = "batch-settlement"
TYPES = {"open": "open", "voucher": "voucher", "close": "refund"}
"""What the Payment scheme calls an action, and x402 the type of a payload."""

BOUGHT_MAX = 1000
_ENDED = frozenset(("channel_settled", "no_such_payment", "channel_closing", "channel_expiring", "funding_spent"))

C = TypeVar("C")


def pay_with(client: C, scheme: "ChannelScheme") -> C:
    """Register the scheme with an x402Client or x402ClientSync, allow the asset, and return the client. Other spend controls are as
    x402 has them by default."""
    any_client: Any = client
    any_client.register("bip122:*", scheme)
    any_client.set_spend_controls({"allowed_assets": [{"network": "bip122:*", "asset": "sat"}]})
    return client


class ChannelScheme:
    """x402's SchemeNetworkClient."""

    scheme = SCHEME

    def __init__(self, purse: Purse) -> None:
        self.purse = purse
        self.scheme_hooks = SimpleNamespace(on_before_payment_creation=self._before_payment, on_payment_response=self._on_response)
        self._url: ContextVar[str] = ContextVar("url", default="")
        self._closing: ContextVar[str] = ContextVar("closing", default="")
        self._bought: OrderedDict[tuple[str, str], None] = OrderedDict()  # payments and purchases that were answered here

    @contextmanager
    def closing(self, name: str) -> Iterator[None]:
        """Have the next offer that is answered in this context settle a channel instead of buying. The answer is 402 then, too."""
        token = self._closing.set(name)
        try:
            yield
        finally:
            self._closing.reset(token)

    def create_payment_payload(self, requirements: PaymentRequirements) -> dict[str, Any]:
        """Return what pays for an offer; it is on disk before it is returned. Raises TermsRefused, BudgetExceeded, FundingNeeded,
        PurseBusy, StateError: nothing was signed then."""
        asked = Asked("x402", self._url.get())
        terms = self._terms(asked.origin, requirements)
        name = self._closing.get()
        if name:
            with self.purse.turn_on(name, terms) as turn:
                payload = turn.closing()
        else:
            paid = self.purse.pay_telling(terms, terms.amount, asked.what)
            payload = {**paid.payload, **_purchase(paid.credit)}
        return {"type": TYPES[payload.pop("action")], **payload}

    def _terms(self, origin: str, requirements: PaymentRequirements) -> Terms:
        extra = requirements.extra or {}
        try:
            request = read_request(
                {
                    "amount": requirements.amount,
                    "currency": requirements.asset,
                    "recipient": requirements.pay_to,
                    "methodDetails": {**extra, "chain": requirements.network},
                }
            )
        except ValueError as error:
            raise TermsRefused(f"the server's offer makes no sense: {error}") from error
        if extra.get("paymentFlow") != "upfront":
            raise TermsRefused("the server does not take the payment before it serves")
        return read_terms(origin, request, self.purse.settings.network)

    # --- what became of it ---

    def _before_payment(self, context: PaymentCreationContext) -> None:
        resource = getattr(context.payment_required, "resource", None)
        self._url.set(getattr(resource, "url", "") or "")

    def _on_response(self, context: PaymentResponseContext) -> RecoveredResponseResult | None:
        """Note what became of a payment; whether the request may be made again with another one."""
        payload, told = getattr(context.payment_payload, "payload", {}), context.settle_response
        if told is None:
            return None
        try:
            is_mended = self._note(payload, told)
        except (ValueError, ChannelMissing, Rejection):
            return None  # what makes no sense says nothing: the payment stays pending
        return RecoveredResponseResult() if is_mended else None

    def _note(self, payload: dict[str, Any], told: SettleResponse) -> bool:
        """Return whether another payment may do better."""
        channel, extra = payload["channelId"], told.extra or {}
        state = extra.get("channelState") or {}
        if told.success:
            self._remember(_bought_by(payload))
            self.purse.taken(channel, parse_amount(state.get("accepted")), parse_amount(state.get("spent")))
            keep_receipt(self.purse.directory, self.purse.find(channel), str(extra.get("receipt", "")))
            return False
        if payload["type"] == "refund":
            if told.error_reason == "channel_closed":
                self.purse.closed(channel, told.transaction)
            return False
        if told.error_reason in _ENDED:
            self.purse.end(channel)
            return True
        if told.error_reason == "no_such_channel":
            self.purse.unknown(channel)
            return bool(payload["type"] == "voucher")
        return self._correct(payload, told.error_reason or "", extra)

    def _correct(self, payload: dict[str, Any], reason: str, extra: dict[str, Any]) -> bool:
        """Go on from how the channel stands, by the payer's own signature."""
        channel, state, newest = payload["channelId"], extra.get("channelState"), (extra.get("voucherState") or {}).get("payment")
        if not isinstance(state, dict) or not isinstance(newest, str):
            return False
        spent, accepted, payment = parse_amount(state.get("spent")), parse_amount(state.get("accepted")), decode_payment(newest)
        snapshot = Snapshot(
            outpoint=parse_channel_id(channel),
            chain="",
            client_pubkey=b"",
            exp_time=0,
            change_address="",
            deposit=parse_amount(state.get("deposit")),
            accepted=accepted,
            spent=spent,
            required=spent,
            payment=payment,
        )
        self.purse.adopt(channel, snapshot)
        if payment.change_value > decode_payment(payload["payment"]).change_value:
            self.purse.refused(channel)  # it was not taken
            return reason == "insufficient_credit"
        if reason == "already_served":
            return _bought_by(payload) in self._bought  # by another request of this process
        return True

    def _remember(self, bought: tuple[str, str]) -> None:
        self._bought[bought] = None
        while len(self._bought) > BOUGHT_MAX:
            self._bought.popitem(last=False)


def _purchase(credit: int) -> dict[str, str]:
    """Return the name of a purchase, as a payload has it. One payment may buy several things while there is credit: that falls with
    each of them, and stands still while the outcome of one is unknown, so that this one is asked for under the same name again."""
    return {"purchase": f"from {credit}"} if credit else {}


def _bought_by(payload: dict[str, Any]) -> tuple[str, str]:
    return payload["payment"], str(payload.get("purchase", ""))
