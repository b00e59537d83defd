"""The three calls of an x402 facilitator, `/x402/supported`, `/x402/verify` and `/x402/settle`, at the sellers' door.

So every x402 middleware sells for this server, with a scheme object of some lines (`paychan.sell.x402`). Settling takes the payment
and charges for it, in one write. Who asks again for the same purchase is told `already_served`, unless it names the attempt that
has made it: then that was its own, which was not answered, and nothing is charged. Of all who ask at once for one purchase, one has
success. Closing a channel buys nothing, so it is never a success: its `errorReason` is `channel_closed`, its `transaction` the
settlement's txid.
"""

from typing import Any, Protocol

import orjson

from ...core.errors import Rejection, Unavailable, held
from ...core.sales import attempt_of
from ...core.units import DUST_LIMIT
from ...mpp.request import MethodDetails
from ..channels.books import Books
from ..protocol.replies import Reply, json_reply
from ..protocol.sales import encode_sale
from ..protocol.x402 import SCHEME, VERSION, Demand, Offer, Question, parse_question, read_offer

SUPPORTED, VERIFY, SETTLE = "/x402/supported", "/x402/verify", "/x402/settle"

CLOSED = "channel_closed"


class Server(Protocol):
    """What is behind the calls; `paychan.server.worker.Worker` is it."""

    async def sell(self, sales: list[bytes]) -> list[bytes]: ...

    async def open(self, query: str) -> Reply: ...

    async def close(self, path: str, query: str) -> Reply: ...

    def terms(self) -> Reply: ...

    def now(self) -> int: ...

    @property
    def books(self) -> Books: ...


async def answer(server: Server, path: str, scope: str, body: bytes) -> Reply:
    """Answer one of the calls. scope: what the shown token is for. Raises Rejection, Unavailable."""
    terms = orjson.loads(server.terms().body)
    if path == SUPPORTED:
        return _supported(terms)
    if path == SETTLE and scope != "charge":
        raise Rejection("token_scope")
    question = parse_question(body, terms["chain"], terms["server_pubkey"])
    facilitator = _Facilitator(server, terms["chain"])
    return json_reply(200, await (facilitator.verify(question) if path == VERIFY else facilitator.settle(question)))


def _supported(terms: dict[str, Any]) -> Reply:
    """Say what is settled here, and what a channel must be like, as the Payment scheme's `methodDetails`."""
    details = MethodDetails(
        chain=terms["chain"],
        funding_confirmations=terms["funding_tx_min_conf"],
        settlement_period=terms["settlement_period"],
        min_duration=terms["duration_min"],
        max_duration=terms["duration_max"],
        open_price=terms["open_price"],
        max_funding=terms["funding_value_max"],
        api=terms["api"],
    )
    kind = {
        "x402Version": VERSION,
        "scheme": SCHEME,
        "network": terms["chain"],
        "extra": {**details.as_object(), "payTo": terms["server_pubkey"], "paymentFlow": "upfront"},
    }
    return json_reply(200, {"kinds": [kind], "extensions": [], "signers": {"bip122:*": [terms["server_pubkey"]]}})


class _Facilitator:
    def __init__(self, server: Server, chain: str) -> None:
        self._server, self._chain = server, chain

    async def verify(self, question: Question) -> dict[str, object]:
        """Say whether settling would take the payment now. Nothing is changed. Raises Unavailable."""
        try:
            offer = read_offer(question)
            if offer.action == "open":
                raise Rejection("unknown_action", "What opens a channel is judged when it is settled")
            standing = await self._prove(offer)
            _check(offer, question.demand, standing)
            signed = standing["funding_value"] - offer.payment.change_value
            if signed < standing["received"]:
                raise Rejection("out_of_order")
            if standing["spent"] + question.demand.amount > signed:
                raise Rejection("insufficient_credit")
        except Rejection as error:
            told = {"isValid": False, "invalidReason": error.code, "invalidMessage": error.detail}
            return {**told, "extra": await self._correction(error, question)}
        return {"isValid": True, "payer": standing["client_pubkey"], "extra": {"channelState": _state(standing)}}

    async def settle(self, question: Question) -> dict[str, object]:
        """Take the payment and charge for it; or give back what was charged; or close the channel. Raises Unavailable."""
        try:
            offer = read_offer(question)
            if question.demand.release:
                return await self._release(offer, question.demand.release)
            if offer.action == "close":
                return await self._close(offer)
            if offer.action == "open":
                await self._open(offer)
            return await self._charge(offer, question.demand)
        except Rejection as error:
            return self._failure(error.code, error.detail, "", extra=await self._correction(error, question))

    # --- what a settlement does ---

    async def _open(self, offer: Offer) -> None:
        """Open the channel; one that is there is paid on."""
        reply = await self._server.open(offer.open_query)
        if reply.is_problem and (error := _problem(orjson.loads(reply.body))).code != "channel_exists":
            raise error

    async def _charge(self, offer: Offer, demand: Demand) -> dict[str, object]:
        standing = await self._server.books.standing(offer.credential.outpoint)
        _check(offer, demand, standing)
        charge: dict[str, Any] = {"do": "charge", "key": offer.key, "amount": demand.amount}
        if demand.attempts:
            charge["attempt"] = demand.attempts[0]
        told = await self._sell(offer, **charge, payment=offer.credential.payment_text)
        if told["repeated"] and attempt_of(told["purchase"]["number"]) not in demand.attempts:
            raise Rejection("already_served", "This payment has bought this before")
        return self._success(standing, told, demand.amount)

    async def _release(self, offer: Offer, number: int) -> dict[str, object]:
        """Give back what this purchase holds, if it still has this number: the payer has it as credit."""
        told = await self._sell(offer, do="release", key=offer.key, number=number)
        return self._success(await self._server.books.standing(offer.credential.outpoint), told, 0)

    async def _close(self, offer: Offer) -> dict[str, object]:
        reply = await self._server.close(offer.channel_path, f"payment={offer.credential.payment_text}")
        content = orjson.loads(reply.body)
        if reply.is_problem:
            raise _problem(content)
        standing = await self._server.books.standing(offer.credential.outpoint)
        extra = {"channelState": _state(standing), "final": True}
        return self._failure(CLOSED, "The channel is closed; this bought nothing", content["settlement_txid"], extra)

    # --- their parts ---

    async def _sell(self, offer: Offer, **sale: Any) -> dict[str, Any]:
        raw = encode_sale({"channel": offer.credential.channel_id, **sale}, self._server.now())
        told: dict[str, Any] = orjson.loads((await self._server.sell([raw]))[0])
        if told["status"] >= 400:
            raise _problem(told)
        return told

    async def _prove(self, offer: Offer) -> dict[str, Any]:
        """Return the channel's snapshot to who has signed a payment on it, whatever the payment is worth."""
        return await self._sell(offer, do="snapshot", payment=offer.credential.payment_text)

    async def _correction(self, error: Rejection, question: Question) -> dict[str, object] | None:
        """Return how the channel stands and its newest payment, to a payer that has signed one: it may have lost what it knew."""
        if error.code not in _CORRECTED:
            return None
        try:
            snapshot = await self._prove(read_offer(question))
        except (Rejection, Unavailable):
            return None
        return {"channelState": _state(snapshot), "voucherState": {"payment": snapshot["payment"]}}

    def _success(self, standing: dict[str, Any], told: dict[str, Any], amount: int) -> dict[str, object]:
        state = _state({**standing, "received": told["received"], "spent": told["spent"]})
        return {
            "success": True,
            "transaction": f"{state['channelId']}:{state['accepted']}",
            "network": self._chain,
            "payer": standing["client_pubkey"],
            "amount": str(amount),
            "extra": {"channelState": state, "purchase": told["purchase"]["number"], "repeated": told["repeated"]},
        }

    def _failure(self, reason: str, message: str, transaction: str, extra: dict[str, object] | None) -> dict[str, object]:
        told = {"success": False, "errorReason": reason, "errorMessage": message}
        return {**told, "transaction": transaction, "network": self._chain, "extra": extra}


_CORRECTED = frozenset(
    (
        "already_served",
        "insufficient_credit",
        "not_newest_payment",
        "out_of_order",
        "prepay_too_large",
        "purchase_differs",
    )
)
"""Refusals of a payment that may be authentic: with them comes what a payer must know to go on, if it is."""


def _check(offer: Offer, demand: Demand, standing: dict[str, Any]) -> None:
    """Refuse what runs too far ahead: what is not used is not paid back at the end. Raises Rejection."""
    deposit, required = standing["funding_value"], standing["spent"] + demand.amount
    signed = deposit - offer.payment.change_value
    must_exhaust = offer.payment.exhausts and required > deposit - DUST_LIMIT
    if signed > standing["received"] and signed > required + demand.max_prepay and not must_exhaust:
        raise Rejection("prepay_too_large")


def _problem(content: dict[str, Any]) -> Rejection:
    """Return the refusal in a problem document of the channel server. Raises Unavailable if it is ours: nothing is known then."""
    if content["status"] >= 500:
        raise Unavailable(content["code"], content["detail"])
    if content["code"] == "too_many_reservations":
        raise held()
    return Rejection(content["code"], content["detail"])


def _state(standing: dict[str, Any]) -> dict[str, str]:
    return {
        "channelId": standing["channel"].replace("/", ":"),
        "deposit": str(standing["funding_value"]),
        "accepted": str(standing["received"]),
        "spent": str(standing["spent"]),
    }
