"""x402 version 2 as a facilitator hears it: the questions of a seller's middleware, parsed strictly. Pure.

A question has two halves. `paymentRequirements` are the seller's and trusted as far as its token goes. All in `paymentPayload` is
the payer's, and trusted with nothing that its signature does not cover. What is wrong with the former is refused with 400; what is
wrong with the latter is an answer like any other: no payment, and why not. docs/X402.md has the fields.
"""

import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson

from ...core.errors import Rejection
from ...core.outpoint import format_outpoint
from ...core.payment import Payment, parse_payment
from ...core.sales import ATTEMPT_MAX, ATTEMPTS_MAX
from ...core.units import MAX_MONEY
from ...mpp import CURRENCY, INTENT, METHOD
from ...mpp.challenge import Challenge
from ...mpp.credential import Credential, read_payload
from ...mpp.request import MAX_PREPAY_UNITS
from ...mpp.text import parse_amount

VERSION = 2
SCHEME = "batch-settlement"

ACTIONS = {"open": "open", "voucher": "voucher", "refund": "close"}
"""x402's `type` of a payload, and what it is in the Payment scheme, whose other members it has."""

NUMBER_MAX = 2**63 - 1
"""Of a purchase."""

_NONE = Challenge("", "", "", METHOD, INTENT, "")
"""x402 has no challenges."""


@dataclass(frozen=True)
class Demand:
    """What the seller wants. amount, max_prepay: satoshi. release: the number of the purchase to give back, as its handler has
    failed; 0: none is. attempts: what the seller calls this attempt, then those at the same before it that were not answered; what
    one of them has made counts."""

    amount: int
    max_prepay: int
    release: int
    attempts: tuple[int, ...]


@dataclass(frozen=True)
class Offer:
    """What the payer shows."""

    credential: Credential
    payment: Payment

    @property
    def action(self) -> str:
        """open, voucher or close."""
        return self.credential.action

    @property
    def key(self) -> str:
        """The purchase key: a payment of this worth buys this once, however it is signed."""
        return f"x402 {hashlib.sha256(f'{self.payment.change_value} {self.credential.purchase}'.encode()).hexdigest()}"

    @property
    def channel_path(self) -> str:
        """The channel's path in v1."""
        return f"/v1/channels/{format_outpoint(self.credential.outpoint)}"

    @property
    def open_query(self) -> str:
        """The query of v1's request to open the channel."""
        opening = self.credential.opening
        if opening is None:
            raise ValueError("this opens no channel")
        txid, vout = format_outpoint(self.credential.outpoint).split("/")
        return urlencode(
            {
                "client_pubkey": opening.client_pubkey.hex(),
                "exp_time": opening.exp_time,
                "change_address": opening.change_address,
                "payment": self.credential.payment_text,
                "funding_txid": txid,
                "funding_vout": vout,
            }
        )


@dataclass(frozen=True)
class Question:
    """payload: the payer's half, unread: `read_offer` judges it."""

    demand: Demand
    payload: Any


def parse_question(body: bytes, chain: str, pay_to: str) -> Question:
    """Return a question to verify or to settle. chain: CAIP-2; pay_to: the server's public key in hex; of this server.

    Raises Rejection("invalid_sale") if it is none, or the seller's half is not for this server.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _wrong("The body is no JSON") from None
    content = content if isinstance(content, dict) else {}
    if type(content.get("x402Version")) is not int or content["x402Version"] != VERSION:
        raise _wrong(f"x402Version must be {VERSION}", "x402Version")
    return Question(_read_demand(content.get("paymentRequirements"), chain, pay_to), content.get("paymentPayload"))


def _read_demand(wants: Any, chain: str, pay_to: str) -> Demand:
    if not isinstance(wants, dict):
        raise _wrong("Missing paymentRequirements", "paymentRequirements")
    for name, value in (("scheme", SCHEME), ("network", chain), ("asset", CURRENCY), ("payTo", pay_to)):
        if wants.get(name) != value:
            raise _wrong(f"{name} of the requirements must be {value}", name)
    extra = wants.get("extra", {})
    if not isinstance(extra, dict):
        raise _wrong("extra of the requirements must be an object", "extra")
    amount = _satoshi(wants, "amount")
    if not amount:
        raise _wrong("amount of the requirements must be at least 1 satoshi", "amount")
    max_prepay = _satoshi(extra, "maxPrepay") if "maxPrepay" in extra else min(MAX_PREPAY_UNITS * amount, MAX_MONEY)
    release = extra.get("release", 0)
    if type(release) is not int or not 0 <= release <= NUMBER_MAX:
        raise _wrong("release of the requirements must be the number of the purchase to give back", "release")
    return Demand(amount, max_prepay, release, _attempts(extra.get("attempts", [])))


def _attempts(value: Any) -> tuple[int, ...]:
    is_fit = isinstance(value, list) and len(value) <= ATTEMPTS_MAX
    if not is_fit or not all(type(one) is int and 1 <= one <= ATTEMPT_MAX for one in value):
        raise _wrong(f"attempts of the requirements must be up to {ATTEMPTS_MAX} integers from 1 to {ATTEMPT_MAX}", "attempts")
    return tuple(value)


def _satoshi(part: dict[str, Any], name: str) -> int:
    try:
        return parse_amount(part.get(name))
    except ValueError:
        raise _wrong(f"{name} of the requirements must be satoshi, as a decimal text", name) from None


def _wrong(detail: str, parameter: str = "") -> Rejection:
    return Rejection("invalid_sale", detail, parameter)


def read_offer(question: Question) -> Offer:
    """Return what the payer offers. Raises Rejection: as `mpp.credential.read_payload` does."""
    outer = question.payload if isinstance(question.payload, dict) else {}
    accepted, payload = outer.get("accepted"), outer.get("payload")
    if outer.get("x402Version") != VERSION or not isinstance(accepted, dict) or not isinstance(payload, dict):
        raise Rejection("malformed_credential", f"The payment is none of x402 version {VERSION}")
    try:
        agreed = parse_amount(accepted.get("amount"))
    except ValueError:
        agreed = 0
    if agreed < question.demand.amount:
        raise Rejection("invalid_challenge", "The payer has accepted another amount")
    kind = payload.get("type")
    if not isinstance(kind, str) or kind not in ACTIONS:
        raise Rejection("unknown_action", f"type must be one of {', '.join(ACTIONS)}", "type")
    credential = read_payload(_NONE, {**payload, "action": ACTIONS[kind]})
    payment = parse_payment(credential.payment)
    if credential.action == "open" and payment.exhausts:
        raise Rejection("invalid_member", "A channel is not opened by a payment that closes it", "payment")
    return Offer(credential, payment)
