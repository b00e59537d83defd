"""`Authorization: Payment`: the credential, an echo of the challenge and what pays it (section 2.2)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .._fast.payment import decode_payment_text, split_payment
from .._fast.scheme import read_voucher
from ..core.channel import ChannelTerms
from ..core.errors import BY_CODE, BY_NUMBER, Rejection
from ..core.payment import Payment
from ..core.units import is_expiry
from .challenge import Challenge, read_challenge
from .text import decode_json, encode_bytes, encode_json, format_channel_id, parse_channel_id, parse_json

CREDENTIAL_BYTES_MAX = 8192
"""Of a credential's text; what is longer is refused unread."""

_PUBKEY = re.compile(r"0[23][0-9a-f]{64}\Z")
_ADDRESS = re.compile(r"[0-9A-Za-z]{1,128}\Z")
_SOURCE_MAX = 256
PURCHASE_CHARACTERS_MAX = 64
_NO_TEXT = BY_CODE["invalid_base64"].number


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening a channel takes besides its first payment. client_pubkey: 33 bytes. exp_time: unix seconds."""

    client_pubkey: bytes
    exp_time: int
    change_address: str


@dataclass(frozen=True, slots=True)
class Credential:
    """`challenge`: echoed. `action`: open, voucher or close. `outpoint`: 36 bytes. `payment`: its binary form; for close, the
    newest.

    Whether the payment is signed truly, and what it is worth, is not known yet. `opening`: with action open alone.
    `purchase`: a text of the payer's choice that tells two purchases by one payment apart.
    """

    challenge: Challenge
    action: str
    outpoint: bytes
    payment: bytes
    opening: Opening | None = None
    source: str = ""
    purchase: str = ""

    @property
    def channel_id(self) -> str:
        """The channel's name in this scheme."""
        return format_channel_id(self.outpoint)

    @property
    def payment_text(self) -> str:
        """The payment as the scheme writes it: base64url without padding. A payment has one such text."""
        return encode_bytes(self.payment)

    @property
    def change_value(self) -> int:
        """Satoshi that the payment leaves the payer."""
        return int.from_bytes(self.payment[:8], "little")

    def encode(self) -> str:
        """Return the credential's text, without the name of the scheme."""
        payload: dict[str, Any] = {"action": self.action, "channelId": self.channel_id, "payment": self.payment_text}
        if self.opening is not None:
            payload["clientPubkey"] = self.opening.client_pubkey.hex()
            payload["expTime"] = self.opening.exp_time
            payload["changeAddress"] = self.opening.change_address
        if self.purchase:
            payload["purchase"] = self.purchase
        content: dict[str, Any] = {"challenge": self.challenge.params(), "payload": payload}
        return encode_json({**content, "source": self.source} if self.source else content)

    def render(self) -> str:
        """Return the header's value. It pays: it belongs into no log."""
        return f"Payment {self.encode()}"


def voucher(challenge: Challenge, outpoint: bytes, payment: Payment) -> Credential:
    """Return the credential that pays with an open channel."""
    return Credential(challenge, "voucher", outpoint, payment.serialize())


def open_channel(challenge: Challenge, terms: ChannelTerms, change_address: str, payment: Payment) -> Credential:
    """Return the credential that opens a channel with its first payment."""
    opening = Opening(terms.client_pubkey, terms.exp_time, change_address)
    return Credential(challenge, "open", terms.outpoint, payment.serialize(), opening)


def close_channel(challenge: Challenge, outpoint: bytes, newest: Payment) -> Credential:
    """Return the credential that has a channel settled. newest: the payment that the server took last."""
    return Credential(challenge, "close", outpoint, newest.serialize())


def find_credential(values: Sequence[str]) -> str | None:
    """Return the text of the Payment credential in the values of Authorization (or Payment-Authorization), None if there is none.

    Raises Rejection("two_credentials"): whichever were taken, the payer may have meant the other.
    """
    if len(values) == 1 and values[0].startswith("Payment ") and "," not in values[0]:  # as it mostly comes
        return values[0].strip(" \t")[8:].strip(" ")
    found = [part for value in values for part in _payments(value)]
    if len(found) > 1:
        raise Rejection("two_credentials")
    return found[0] if found else None


def _payments(value: str) -> list[str]:
    """Return the Payment credentials in one value; a list of them is none that HTTP knows, but may be made of two fields."""
    if "ayment" not in value.lower():
        return []
    parts = [part.strip(" \t").split(" ", 1) for part in value.split(",")]
    return [part[1].strip(" ") if len(part) == 2 else "" for part in parts if part[0].lower() == "payment"]


def parse_credential(text: str) -> Credential:
    """Return the credential in a text, of method bitcoin and intent session, all of its members of the right form.

    Raises Rejection: malformed_credential, method_unsupported, missing_member, invalid_member, unknown_action, or a code of a
    payment's form (invalid_base64 to change_value_range). Whether the challenge is ours is for who knows the secret.
    """
    if len(text) > CREDENTIAL_BYTES_MAX:
        raise Rejection("malformed_credential", "The credential is too long")
    plain = read_voucher(text)
    content: Mapping[str, Any] = {}
    try:
        if plain is None:
            content = decode_json(text)
        challenge = _plain_challenge(plain[0]) if plain is not None else read_challenge(content["challenge"])
        payload = content["payload"] if plain is None else {}
        if not isinstance(payload, dict):
            raise ValueError("no payload")
    except (ValueError, KeyError, TypeError):
        raise Rejection("malformed_credential") from None
    if not challenge.is_ours:
        raise Rejection("method_unsupported")
    if plain is not None:
        return Credential(challenge, "voucher", plain[1], plain[2])
    return _credential(challenge, payload, _source(content))


@lru_cache(256)
def _plain_challenge(json: bytes) -> Challenge:
    """Return the challenge that a credential echoes: the same one comes with payment after payment. Raises ValueError."""
    return read_challenge(parse_json(json))


def read_payload(challenge: Challenge, payload: Mapping[str, Any], source: str = "") -> Credential:
    """Return the credential of a challenge and a payload that came otherwise than in a header. Raises as `parse_credential`."""
    return _credential(challenge, payload, source)


def _source(content: Mapping[str, Any]) -> str:
    source = content.get("source", "")
    if not isinstance(source, str) or len(source) > _SOURCE_MAX:
        raise Rejection("malformed_credential", "source must be a text")
    return source


def _credential(challenge: Challenge, payload: Mapping[str, Any], source: str) -> Credential:
    action = payload.get("action")
    if action not in ("open", "voucher", "close"):
        raise Rejection("unknown_action", parameter="action")
    outpoint = parse_channel_id(_needed(payload, "channelId"))
    text = _needed(payload, "payment")
    status, raw = decode_payment_text(text) if isinstance(text, str) else (_NO_TEXT, b"")
    status = status or split_payment(raw)[0]
    if status:
        raise Rejection(BY_NUMBER[status].code, parameter="payment")
    opening = _opening(payload) if action == "open" else None
    return Credential(challenge, action, outpoint, raw, opening, source, _purchase(payload))


def _needed(payload: Mapping[str, Any], name: str) -> Any:
    if name not in payload:
        raise Rejection("missing_member", f"Missing {name}", name)
    return payload[name]


def _purchase(payload: Mapping[str, Any]) -> str:
    purchase = payload.get("purchase", "")
    if not isinstance(purchase, str) or not purchase.isascii() or len(purchase) > PURCHASE_CHARACTERS_MAX:
        raise Rejection("invalid_member", f"purchase must be up to {PURCHASE_CHARACTERS_MAX} plain characters", "purchase")
    return purchase


def _opening(payload: Mapping[str, Any]) -> Opening:
    pubkey, exp_time = _needed(payload, "clientPubkey"), _needed(payload, "expTime")
    address = _needed(payload, "changeAddress")
    if not isinstance(pubkey, str) or not _PUBKEY.match(pubkey):
        raise Rejection("invalid_pubkey", parameter="clientPubkey")
    if not is_expiry(exp_time):
        raise Rejection("invalid_exp_time", parameter="expTime")
    if not isinstance(address, str) or not _ADDRESS.match(address):
        raise Rejection("invalid_change_address", parameter="changeAddress")
    return Opening(bytes.fromhex(pubkey), exp_time, address)
