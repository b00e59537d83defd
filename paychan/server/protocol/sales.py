"""A seller's requests: JSON in, the binary form of sales out (`_fast/sale.pyx`), strictly. docs/SELL_API.md describes them."""

import struct
from dataclasses import dataclass
from typing import Any

import orjson

from ..._fast.payment import decode_payment_text
from ...core.errors import BY_NUMBER, Rejection
from ...core.outpoint import OUTPOINT_SIZE, parse_outpoint
from ...core.sales import ATTEMPT_MAX, KEY_SIZE, KEY_TEXT_MAX, RESERVATION_SECONDS_MAX, hash_key
from ...core.units import MAX_MONEY

SALES_MAX = 256
"""In one request."""

BODY_BYTES_MAX = SALES_MAX * 1024
"""Of a request's body: more than so many of the longest sales take."""

_FORM = struct.Struct("<B36s16sQQII")
_SELL, _SETTLE, _PROVE, _SELL_AGAIN = 1, 2, 3, 4
_NUMBER_MAX = 2**63 - 1


@dataclass(frozen=True)
class _Verb:
    """What a seller may ask for, and with which members. `optional`: of these."""

    kind: int
    members: frozenset[str]
    optional: frozenset[str] = frozenset()


_ALWAYS = frozenset(("do", "channel"))
_PERHAPS = frozenset(("payment", "again", "attempt"))
_VERBS = {
    "charge": _Verb(_SELL, _ALWAYS | {"key", "amount"} | _PERHAPS, _PERHAPS),
    "reserve": _Verb(_SELL, _ALWAYS | {"key", "amount", "seconds"} | _PERHAPS, _PERHAPS),
    "settle": _Verb(_SETTLE, _ALWAYS | {"key", "number", "amount"}),
    "release": _Verb(_SETTLE, _ALWAYS | {"key", "number"}),
    "snapshot": _Verb(_PROVE, _ALWAYS | {"payment"}),
}


def parse_sales(body: bytes) -> list[Any]:
    """Return the sales in a request's body: a JSON object, or a list of up to SALES_MAX of them. Raises Rejection.

    What an element is, `encode_sale` asks: one that is no sale is refused alone.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Rejection("invalid_sale", "The body is no JSON") from None
    if isinstance(content, dict):
        return [content]
    if not isinstance(content, list) or not 1 <= len(content) <= SALES_MAX:
        raise Rejection("invalid_sale", f"The body is neither a sale nor a list of 1 to {SALES_MAX}")
    return content


def is_list(body: bytes) -> bool:
    """Return whether a body that was parsed is a list, and wants a list of answers."""
    return body.lstrip()[:1] == b"["


def encode_sale(sale: Any, now: int) -> bytes:
    """Return the binary form of one sale. now: unix seconds, from which on a reservation counts. Raises Rejection."""
    verb = _VERBS.get(sale.get("do", "")) if isinstance(sale, dict) and isinstance(sale.get("do", ""), str) else None
    if verb is None:
        raise Rejection("invalid_sale", f"do must be one of {', '.join(_VERBS)}", "do")
    for name in verb.members - verb.optional - sale.keys():
        raise Rejection("missing_parameter", f"Missing {name}", name)
    if not sale.keys() <= verb.members:
        raise Rejection("invalid_sale", f"{sale['do']} has the members {', '.join(sorted(verb.members))}, and no others")
    key = hash_key(_text(sale, "key", 1, KEY_TEXT_MAX)) if "key" in verb.members else bytes(KEY_SIZE)
    amount = _integer(sale, "amount", 0 if verb.kind == _SETTLE else 1, MAX_MONEY) if "amount" in verb.members else 0
    named = "again" if "again" in sale else "number"
    number = _integer(sale, named, 1, _NUMBER_MAX) if named in sale else 0
    attempt = _integer(sale, "attempt", 1, ATTEMPT_MAX) if "attempt" in sale else 0
    until = now + _integer(sale, "seconds", 1, RESERVATION_SECONDS_MAX) if "seconds" in verb.members else 0
    payment = _payment(sale) if "payment" in sale else b""
    kind = _SELL_AGAIN if "again" in sale else verb.kind
    return _FORM.pack(kind, _channel(sale), key, amount, number, until, attempt) + payment


def _text(sale: dict[str, Any], name: str, low: int, high: int) -> str:
    text = sale[name]
    if type(text) is not str or not low <= len(text) <= high:
        raise Rejection("invalid_sale", f"{name} must be a text of {low} to {high} characters", name)
    return text


def _integer(sale: dict[str, Any], name: str, low: int, high: int) -> int:
    value = sale[name]
    if type(value) is not int or not low <= value <= high:
        raise Rejection("invalid_sale", f"{name} must be an integer from {low} to {high}", name)
    return value


def _channel(sale: dict[str, Any]) -> bytes:
    return parse_channel(_text(sale, "channel", 3, 80))


def parse_channel(text: str) -> bytes:
    """Return the outpoint in FUNDING_TXID/VOUT; a colon in the middle is fine, too. Raises Rejection."""
    txid, _, vout = text.replace(":", "/", 1).partition("/")
    outpoint = parse_outpoint(txid, vout)
    assert len(outpoint) == OUTPOINT_SIZE
    return outpoint


def _payment(sale: dict[str, Any]) -> bytes:
    status, raw = decode_payment_text(_text(sale, "payment", 1, 256))
    if status:
        raise Rejection(BY_NUMBER[status].code, parameter="payment")
    return raw
