"""x402 version 2 as a facilitator hears it: the questions of a seller's middleware, parsed strictly. Pure.

A question has two halves. `paymentRequirements` are the seller's and trusted as far as its token goes. All in `paymentPayload` is
the payer's, and trusted with nothing that its signature does not cover. What is wrong with the former is refused with 400; what is
wrong with the latter is an answer like any other: no payment, and why not. docs/X402.md has the fields.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson

from ...core.errors import PaychanError, Rejection
from ...core.outpoint import format_outpoint, parse_outpoint
from ...core.payment import Payment, decode_payment
from ...core.units import MAX_MONEY

VERSION = 2
SCHEME = "batch-settlement"
ASSET = "sat"
BODY_BYTES_MAX = 32 * 1024
MAX_PREPAY_UNITS = 20
"""How many times the amount a payment may run ahead of what is required, unless the requirements say otherwise."""

KINDS = {
    "open": ("channelId", "payment", "clientPubkey", "expTime", "changeAddress"),
    "voucher": ("channelId", "payment"),
    "refund": ("channelId", "payment"),
}
"""Of each `type` of a payload: the members that it must have."""

_CHANNEL_ID = re.compile(r"[0-9a-f]{64}:(0|[1-9][0-9]{0,9})\Z")
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,15})\Z")
_TEXT_MAX = 256


class Refused(Exception):
    """The payment is not taken. `reason`: for programs; one of x402's or one of our codes."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True)
class Demand:
    """What the seller wants. amount, max_prepay: satoshi. release: give the purchase back, the handler has failed.
    repeat: the purchase may have been made before, and still counts."""

    amount: int
    max_prepay: int
    release: bool
    repeat: bool


@dataclass(frozen=True)
class Offer:
    """What the payer shows. purchase: a text of its own choice that tells two purchases by one payment apart."""

    kind: str
    outpoint: bytes
    payment_text: str
    payment: Payment
    purchase: str
    client_pubkey: str = ""
    exp_time: int = 0
    change_address: str = ""

    @property
    def channel_id(self) -> str:
        return format_channel_id(self.outpoint)

    @property
    def channel_path(self) -> str:
        """The channel's path in v1."""
        return f"/v1/channels/{format_outpoint(self.outpoint)}"

    @property
    def key(self) -> str:
        """The purchase key: a payment of this worth buys this once, however it is signed."""
        return f"x402 {hashlib.sha256(f'{self.payment.change_value} {self.purchase}'.encode()).hexdigest()}"

    @property
    def open_query(self) -> str:
        """The query of v1's request to open the channel."""
        txid, vout = format_outpoint(self.outpoint).split("/")
        return urlencode(
            {
                "client_pubkey": self.client_pubkey,
                "exp_time": self.exp_time,
                "change_address": self.change_address,
                "payment": self.payment_text,
                "funding_txid": txid,
                "funding_vout": vout,
            }
        )


@dataclass(frozen=True)
class Question:
    """payload: the payer's half, unread: `read_offer` judges it."""

    demand: Demand
    payload: Any


def format_channel_id(outpoint: bytes) -> str:
    """Return a channel's name on the wire: TXID:VOUT."""
    return format_outpoint(outpoint).replace("/", ":")


def parse_question(body: bytes, network: str, pay_to: str) -> Question:
    """Return a question to verify or to settle. network: CAIP-2; pay_to: the server's public key in hex; of this server.

    Raises Rejection("invalid_sale") if it is none, or the seller's half is not for this server.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _wrong("The body is no JSON") from None
    content = content if isinstance(content, dict) else {}
    if type(content.get("x402Version")) is not int or content["x402Version"] != VERSION:
        raise _wrong(f"x402Version must be {VERSION}", "x402Version")
    return Question(_read_demand(content.get("paymentRequirements"), network, pay_to), content.get("paymentPayload"))


def _read_demand(wants: Any, network: str, pay_to: str) -> Demand:
    if not isinstance(wants, dict):
        raise _wrong("Missing paymentRequirements", "paymentRequirements")
    for name, value in (("scheme", SCHEME), ("network", network), ("asset", ASSET), ("payTo", pay_to)):
        if wants.get(name) != value:
            raise _wrong(f"{name} of the requirements must be {value}", name)
    extra = wants.get("extra") or {}
    if not isinstance(extra, dict):
        raise _wrong("extra of the requirements must be an object", "extra")
    amount = _satoshi(wants.get("amount"))
    max_prepay = _satoshi(extra.get("maxPrepay", str(min(MAX_PREPAY_UNITS * (amount or 0), MAX_MONEY))))
    if not amount:
        raise _wrong("amount of the requirements must be a decimal text of at least 1 satoshi", "amount")
    if max_prepay is None:
        raise _wrong("maxPrepay of the requirements must be a decimal text", "maxPrepay")
    return Demand(amount, max_prepay, extra.get("release") is True, extra.get("repeat") is True)


def _wrong(detail: str, parameter: str = "") -> Rejection:
    return Rejection("invalid_sale", detail, parameter)


def _satoshi(value: Any) -> int | None:
    if not isinstance(value, str) or not _AMOUNT.match(value) or int(value) > MAX_MONEY:
        return None
    return int(value)


def read_offer(question: Question) -> Offer:
    """Return what the payer offers. Raises Refused."""
    outer = question.payload if isinstance(question.payload, dict) else {}
    accepted, payload = outer.get("accepted"), outer.get("payload")
    if outer.get("x402Version") != VERSION:
        raise Refused("invalid_x402_version", f"x402Version must be {VERSION}")
    if not isinstance(accepted, dict) or not isinstance(payload, dict):
        raise Refused("invalid_payload", "The payload has no payload, or not what it accepted")
    agreed = _satoshi(accepted.get("amount"))
    if agreed is None or agreed < question.demand.amount:
        raise Refused("invalid_payment_requirements", "The payer has accepted another amount")
    kind = payload.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Refused("unknown_action", f"type must be one of {', '.join(KINDS)}")
    for name in KINDS[kind]:
        if name not in payload:
            raise Refused("missing_member", f"Missing {name}")
    return _read_offer(kind, payload)


def _read_offer(kind: str, payload: dict[str, Any]) -> Offer:
    channel, text = _text(payload, "channelId"), _text(payload, "payment")
    exp_time = payload.get("expTime", 0)
    if not _CHANNEL_ID.match(channel):
        raise Refused("invalid_member", "channelId must be TXID:VOUT")
    if type(exp_time) is not int:
        raise Refused("invalid_member", "expTime must be a number")
    try:
        outpoint, payment = parse_outpoint(*channel.split(":")), decode_payment(text)
    except PaychanError as error:
        raise refusal(error) from error
    if kind == "open" and payment.exhausts:
        raise Refused("invalid_payment", "A channel is not opened by a payment that closes it")
    return Offer(
        kind,
        outpoint,
        text,
        payment,
        _text(payload, "purchase", ""),
        _text(payload, "clientPubkey", ""),
        exp_time,
        _text(payload, "changeAddress", ""),
    )


def _text(payload: dict[str, Any], name: str, default: str | None = None) -> str:
    value = payload.get(name, default)
    if not isinstance(value, str) or len(value) > _TEXT_MAX or not value.isascii():
        raise Refused("invalid_member", f"{name} must be a text of up to {_TEXT_MAX} plain characters")
    return value


def refusal(error: PaychanError) -> Refused:
    """Return a refusal of the channel server as x402's. Of what is ours (503) nothing is known, so it is raised as it is."""
    if error.row.status >= 500:
        raise error
    return Refused(error.code, error.detail)
