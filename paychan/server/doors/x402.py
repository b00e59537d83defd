"""The three calls of an x402 facilitator, `/x402/supported`, `/x402/verify` and `/x402/settle`, at the sellers' door.

So every x402 middleware sells for this server, with a scheme object of some lines (`paychan.sell.x402`). Settling takes the payment
and charges for it, in one write. Who asks again for the same purchase is told `already_served`, unless it says `repeat`: then the
answer is the first one's, and nothing is charged. Of all who ask at once for one purchase, one has success. Closing a channel buys
nothing, so it is never a success: its `errorReason` is `channel_closed`, its `transaction` the settlement's txid.
"""

from typing import Any, Protocol

import orjson

from ...core.errors import PaychanError, Rejection, Unavailable
from ...core.sales import hash_key
from ...core.units import DUST_LIMIT
from ..channels.books import Books
from ..protocol.replies import Reply, json_reply
from ..protocol.sales import encode_sale
from ..protocol.x402 import SCHEME, VERSION, Demand, Offer, Question, Refused, parse_question, read_offer, refusal

SUPPORTED, VERIFY, SETTLE = "/x402/supported", "/x402/verify", "/x402/settle"

CLOSED = "channel_closed"


class Server(Protocol):
    """What is behind the calls; `paychan.server.worker.Worker` is it."""

    async def sell(self, sales: list[bytes]) -> list[bytes]: ...

    async def open(self, query: str) -> Reply: ...

    async def close(self, path: str, query: str) -> Reply: ...

    def channel_details(self) -> dict[str, Any]: ...

    def now(self) -> int: ...

    @property
    def books(self) -> Books: ...


async def answer(server: Server, path: str, scope: str, body: bytes) -> Reply:
    """Answer one of the calls. scope: what the shown token is for. Raises Rejection, Unavailable."""
    details = server.channel_details()
    network, pay_to = details.pop("chain"), details.pop("recipient")
    if path == SUPPORTED:
        return _supported(network, pay_to, details)
    if path == SETTLE and scope != "charge":
        raise Rejection("token_scope")
    question = parse_question(body, network, pay_to)
    facilitator = _Facilitator(server, network)
    return json_reply(200, await (facilitator.verify(question) if path == VERIFY else facilitator.settle(question)))


def _supported(network: str, pay_to: str, details: dict[str, Any]) -> Reply:
    kind = {
        "x402Version": VERSION,
        "scheme": SCHEME,
        "network": network,
        "extra": {**details, "payTo": pay_to, "paymentFlow": "upfront"},
    }
    return json_reply(200, {"kinds": [kind], "extensions": [], "signers": {"bip122:*": [pay_to]}})


class _Facilitator:
    def __init__(self, server: Server, network: str) -> None:
        self._server, self._network = server, network

    async def verify(self, question: Question) -> dict[str, object]:
        """Say whether settling would take the payment now. Nothing is changed."""
        try:
            offer = read_offer(question)
            if offer.kind == "open":
                raise Refused("unknown_action", "What opens a channel is judged when it is settled")
            standing = await self._standing(offer)
            proved = await self._prove(offer)  # from here on the payer has shown that it holds the key
            self._check(offer, question.demand, standing)
            if standing["funding_value"] - offer.payment.change_value < standing["received"]:
                raise Refused("out_of_order", "The payment leaves the payer more than an earlier one")
            if standing["spent"] + question.demand.amount > standing["funding_value"] - offer.payment.change_value:
                raise Refused("insufficient_credit", "The channel's credit is below the amount")
        except Refused as error:
            extra = await self._correction(error, question)
            return {"isValid": False, "invalidReason": error.reason, "invalidMessage": error.message, "extra": extra}
        return {"isValid": True, "payer": proved["client_pubkey"], "extra": {"channelState": _state(offer, standing)}}

    async def settle(self, question: Question) -> dict[str, object]:
        """Take the payment and charge for it; or give back what was charged; or close the channel."""
        try:
            offer = read_offer(question)
            if question.demand.release:
                return await self._release(offer)
            if offer.kind == "refund":
                return await self._close(offer)
            if offer.kind == "open":
                await self._open(offer)
            return await self._charge(offer, question.demand)
        except Refused as error:
            return {
                "success": False,
                "errorReason": error.reason,
                "errorMessage": error.message,
                "transaction": "",
                "network": self._network,
                "extra": await self._correction(error, question),
            }

    # --- what a settlement does ---

    async def _open(self, offer: Offer) -> None:
        """Open the channel; one that is there is paid on."""
        try:
            reply = await self._server.open(offer.open_query)
        except PaychanError as error:
            raise refusal(error) from error
        if reply.is_problem:
            _check_answer(orjson.loads(reply.body), but="channel_exists")

    async def _charge(self, offer: Offer, demand: Demand) -> dict[str, object]:
        standing = await self._standing(offer)
        self._check(offer, demand, standing)
        told = await self._sell(offer, do="charge", key=offer.key, amount=demand.amount, payment=offer.payment_text)
        if told["repeated"] and not demand.repeat:
            raise Refused("already_served", "This payment has bought this before")
        return self._success(offer, standing, told, demand.amount)

    async def _release(self, offer: Offer) -> dict[str, object]:
        """Give back what this purchase holds, if it was made; the payer has it as credit."""
        try:
            purchase = await self._server.books.purchase(offer.outpoint, hash_key(offer.key))
        except Rejection as error:
            raise refusal(error) from error
        if purchase is None:
            raise Refused("no_such_purchase", "No such purchase is remembered")
        standing = await self._standing(offer)
        told = await self._sell(offer, do="release", key=offer.key, number=purchase.number)
        return self._success(offer, standing, told, 0)

    async def _close(self, offer: Offer) -> dict[str, object]:
        try:
            reply = await self._server.close(offer.channel_path, f"payment={offer.payment_text}")
        except PaychanError as error:
            raise refusal(error) from error
        content = orjson.loads(reply.body)
        if reply.is_problem:
            _check_answer(content)
        standing = await self._standing(offer)
        return {
            "success": False,
            "errorReason": CLOSED,
            "errorMessage": "The channel is closed; this bought nothing",
            "transaction": content["settlement_txid"],
            "network": self._network,
            "payer": standing["client_pubkey"],
            "extra": {"channelState": _state(offer, standing), "final": True},
        }

    # --- their parts ---

    async def _standing(self, offer: Offer) -> dict[str, Any]:
        try:
            return await self._server.books.standing(offer.outpoint)
        except Rejection as error:
            raise refusal(error) from error

    def _check(self, offer: Offer, demand: Demand, standing: dict[str, Any]) -> None:
        """Refuse what runs too far ahead: what is not used is not paid back at the end. Raises Refused."""
        deposit, required = standing["funding_value"], standing["spent"] + demand.amount
        if required > deposit:
            raise Refused("amount_exceeds_deposit", "The channel's funding value does not reach for this")
        signed = deposit - offer.payment.change_value
        must_exhaust = offer.payment.exhausts and required > deposit - DUST_LIMIT
        if signed > standing["received"] and signed > required + demand.max_prepay and not must_exhaust:
            raise Refused("prepay_too_large", "The payment runs further ahead of what is required than is taken")

    async def _sell(self, offer: Offer, **sale: Any) -> dict[str, Any]:
        raw = encode_sale({"channel": offer.channel_id, **sale}, self._server.now())
        told: dict[str, Any] = orjson.loads((await self._server.sell([raw]))[0])
        _check_answer(told)
        return told

    async def _prove(self, offer: Offer) -> dict[str, Any]:
        """Return the channel's snapshot to who has signed a payment on it. Raises Refused."""
        return await self._sell(offer, do="snapshot", payment=offer.payment_text)

    def _success(self, offer: Offer, standing: dict[str, Any], told: dict[str, Any], amount: int) -> dict[str, object]:
        state = {**standing, "received": told["received"], "spent": told["spent"]}
        return {
            "success": True,
            "transaction": f"{offer.channel_id}:{told['received']}",
            "network": self._network,
            "payer": standing["client_pubkey"],
            "amount": str(amount),
            "extra": {"channelState": _state(offer, state), "purchase": told["purchase"]["number"]},
        }

    async def _correction(self, error: Refused, question: Question) -> dict[str, object] | None:
        """Return how the channel stands and its newest payment, to a payer that has signed one: it may have lost what it knew."""
        if error.reason not in _CORRECTED:
            return None
        try:
            offer = read_offer(question)
            snapshot = await self._prove(offer)
        except (Refused, Unavailable):
            return None
        return {"channelState": _state(offer, snapshot), "voucherState": {"payment": snapshot["payment"]}}


_CORRECTED = frozenset(("out_of_order", "insufficient_credit", "prepay_too_large", "amount_exceeds_deposit", "already_served"))
_CORRECTED |= {"not_newest_payment", "purchase_differs"}


def _check_answer(content: dict[str, Any], but: str = "") -> None:
    """Raise Refused, or Unavailable, if an answer of the channel server is a problem document; but not for one code."""
    if content.get("status", 0) < 400 or content["code"] == but:
        return
    error = Unavailable if content["status"] >= 500 else Rejection
    raise refusal(error(content["code"], content["detail"]))


def _state(offer: Offer, standing: dict[str, Any]) -> dict[str, str]:
    return {
        "channelId": offer.channel_id,
        "deposit": str(standing["funding_value"]),
        "accepted": str(standing["received"]),
        "spent": str(standing["spent"]),
    }
