"""What a signed receipt says (pure): its members, in JSON that has one form, and how a receipt names the one before it."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from ..mpp.text import canonical_json, encode_bytes, format_amount, parse_amount, parse_channel_id

VERSION = 1
ALGORITHM = "Ed25519"
"""RFC 9864's name of it: the one that a receipt may have."""

TYPE = "payment-receipt+jws"
RECEIPT_CHARACTERS_MAX = 8192
NUMBER_MAX = 2**53 - 1
"""Of a purchase, as JSON's readers have it in common."""

RESOURCE_CHARACTERS_MAX = 2048
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}\Z")
_HASH = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_DIGEST = re.compile(r"sha-256=:[A-Za-z0-9+/]{43}=:\Z")


@dataclass(frozen=True, slots=True)
class Claims:
    """channel_id: TXID:VOUT. number: the purchase's, `core.sales.revision_of` it. Satoshi: amount, what it cost; accepted, what
    the payments were worth then; spent, what was charged by then, this included. time: unix seconds. body: RFC 9530's digest of
    the request's body, or empty. payment: the hash of the payment that bought it (`payment_hash`), empty if credit did. previous:
    the hash of the receipt before it (`receipt_hash`), empty for a channel's first.
    """

    channel_id: str
    number: int
    method: str
    resource: str
    amount: int
    accepted: int
    spent: int
    time: int
    body: str = ""
    payment: str = ""
    previous: str = ""

    def encode(self) -> bytes:
        """Return what is signed. Raises ValueError if a member is out of its range."""
        content: dict[str, Any] = {
            "v": VERSION,
            "channelId": self.channel_id,
            "number": self.number,
            "method": self.method,
            "resource": self.resource,
            "amount": format_amount(self.amount),
            "acceptedCumulative": format_amount(self.accepted),
            "spent": format_amount(self.spent),
            "iat": self.time,
        }
        for name, value in (("bodyDigest", self.body), ("paymentHash", self.payment), ("previous", self.previous)):
            if value:
                content[name] = value
        read_claims(content)
        return canonical_json(content).encode()


@dataclass(frozen=True, slots=True)
class Bought:
    """A purchase that was charged for and is served. As `Claims` has it, but `payment`: the payment itself, in binary form, or
    empty."""

    channel_id: str
    number: int
    method: str
    resource: str
    amount: int
    accepted: int
    spent: int
    body: str = ""
    payment: bytes = b""


def read_claims(content: Any) -> Claims:
    """Return what a receipt's JSON says. Members that are not known are left aside. Raises ValueError."""
    if not isinstance(content, dict) or content.get("v") != VERSION:
        raise ValueError("no receipt of this version")
    try:
        parse_channel_id(content.get("channelId"))
    except Exception as error:
        raise ValueError("channelId makes no sense") from error
    claims = Claims(
        channel_id=content["channelId"],
        number=_number(content, "number", 1),
        method=_text(content, "method", _METHOD),
        resource=_resource(content),
        amount=_satoshi(content, "amount"),
        accepted=_satoshi(content, "acceptedCumulative"),
        spent=_satoshi(content, "spent"),
        time=_number(content, "iat", 0),
        body=_text(content, "bodyDigest", _DIGEST, ""),
        payment=_text(content, "paymentHash", _HASH, ""),
        previous=_text(content, "previous", _HASH, ""),
    )
    if not claims.amount <= claims.spent <= claims.accepted:
        raise ValueError("amount, spent and acceptedCumulative contradict each other")
    return claims


def _number(content: dict[str, Any], name: str, low: int) -> int:
    value = content.get(name)
    if type(value) is not int or not low <= value <= NUMBER_MAX:
        raise ValueError(f"{name} makes no sense")
    return value


def _satoshi(content: dict[str, Any], name: str) -> int:
    try:
        return parse_amount(content.get(name))
    except ValueError as error:
        raise ValueError(f"{name} makes no sense") from error


def _text(content: dict[str, Any], name: str, form: re.Pattern[str], default: str | None = None) -> str:
    value = content.get(name, default)
    if value == default == "":
        return ""
    if not isinstance(value, str) or not form.match(value):
        raise ValueError(f"{name} makes no sense")
    return value


def _resource(content: dict[str, Any]) -> str:
    value = content.get("resource")
    if not isinstance(value, str) or not 1 <= len(value) <= RESOURCE_CHARACTERS_MAX or any(mark < " " for mark in value):
        raise ValueError("resource makes no sense")
    return value


def receipt_hash(jws: str) -> str:
    """Return how the next receipt names this one: base64url of the SHA-256 of its text, signature included."""
    return encode_bytes(hashlib.sha256(jws.encode("ascii")).digest())


def payment_hash(payment: bytes) -> str:
    """Return what a receipt has of a payment (in binary form): base64url of its SHA-256. The payment itself closes channels."""
    return encode_bytes(hashlib.sha256(payment).digest())
