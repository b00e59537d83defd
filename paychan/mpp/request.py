"""What a challenge asks for: the `request` of method bitcoin, intent session (section 2.1), parsed strictly and rendered in one
form."""

import re
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from ..core.units import DUST_LIMIT, MAX_MONEY
from . import CHANNEL_TYPE, CURRENCY
from .text import decode_json, encode_json, format_amount, parse_amount, parse_channel_id

MAX_PREPAY_UNITS = 20
"""How many times `amount` a voucher may run ahead of what is required, unless the challenge says otherwise."""

_PUBKEY = re.compile(r"0[23][0-9a-f]{64}\Z")
_CHAIN = re.compile(r"bip122:[0-9a-f]{32}\Z")
_TEXT_MAX = 1024
_NUMBER_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class MethodDetails:
    """How a channel with this server must be made. Times in seconds, money in satoshi.

    chain: CAIP-2. settlement_period: no payment is taken from the channel's expiry minus this on. min_duration, max_duration: how
    far ahead the expiry must lie, beyond the settlement period. open_price: spent from the start; it pays for the settlement. What
    is None is not told, and `SessionRequest` has its defaults. api: the base URL of the channel server, ending in /v1; not to be
    trusted.
    """

    chain: str
    funding_confirmations: int
    settlement_period: int
    min_duration: int
    max_duration: int
    open_price: int
    dust_limit: int = DUST_LIMIT
    channel_type: str = CHANNEL_TYPE
    max_funding: int | None = None
    min_voucher_delta: int | None = None
    max_prepay: int | None = None
    channel_id: str | None = None
    api: str | None = None

    def as_object(self) -> dict[str, Any]:
        """Return the JSON object; what is None is left out. Raises ValueError if an amount is out of its range."""
        return {
            wire: (format_amount(value) if kind is _amount else value)
            for name, (wire, kind, _) in _DETAILS.items()
            if (value := getattr(self, name)) is not None
        }


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """`amount`: the price of one unit. `recipient`: the server's public key, 33 bytes. `suggested_deposit`: satoshi."""

    amount: int
    recipient: bytes
    details: MethodDetails
    unit_type: str | None = None
    suggested_deposit: int | None = None
    description: str | None = None
    external_id: str | None = None

    @property
    def min_voucher_delta(self) -> int:
        """By so many satoshi at least a voucher must rise."""
        told = self.details.min_voucher_delta
        return self.amount if told is None else told

    @property
    def max_prepay(self) -> int:
        """So many satoshi a voucher may be above what is required, at most: what is not used is not paid back at the end."""
        told = self.details.max_prepay
        return min(MAX_PREPAY_UNITS * self.amount, MAX_MONEY) if told is None else told

    def encode(self) -> str:
        """Return the text that a challenge carries: base64url of canonical JSON."""
        return encode_json(self.as_object())

    def as_object(self) -> dict[str, Any]:
        """Return the JSON object. Raises ValueError if a member is out of its range."""
        content: dict[str, Any] = {
            "amount": format_amount(self.amount),
            "currency": CURRENCY,
            "recipient": self.recipient.hex(),
            "methodDetails": self.details.as_object(),
            "unitType": self.unit_type,
            "suggestedDeposit": None if self.suggested_deposit is None else format_amount(self.suggested_deposit),
            "description": self.description,
            "externalId": self.external_id,
        }
        content = {name: value for name, value in content.items() if value is not None}
        _read(content)
        return content


def _amount(value: Any) -> int:
    return parse_amount(value)


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _NUMBER_MAX:
        raise ValueError("no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise ValueError("no text")
    return value


def _chain(value: Any) -> str:
    if not isinstance(value, str) or not _CHAIN.match(value):
        raise ValueError("no chain of CAIP-2's namespace bip122")
    return value


def _channel_id(value: Any) -> str:
    parse_channel_id(value)
    return str(value)


_DETAILS: dict[str, tuple[str, Any, bool]] = {
    "chain": ("chain", _chain, True),
    "channel_type": ("channelType", _text, True),
    "funding_confirmations": ("fundingConfirmations", _number, True),
    "settlement_period": ("settlementPeriod", _number, True),
    "min_duration": ("minDuration", _number, True),
    "max_duration": ("maxDuration", _number, True),
    "dust_limit": ("dustLimit", _amount, True),
    "open_price": ("openPrice", _amount, True),
    "max_funding": ("maxFunding", _amount, False),
    "min_voucher_delta": ("minVoucherDelta", _amount, False),
    "max_prepay": ("maxPrepay", _amount, False),
    "channel_id": ("channelId", _channel_id, False),
    "api": ("api", _text, False),
}
"""Of each member of `methodDetails`: its name on the wire, how it is read, and whether it must be there."""

assert set(_DETAILS) == {row.name for row in fields(MethodDetails)}


@lru_cache(64)
def parse_request(text: str) -> SessionRequest:
    """Return what a challenge's `request` says. Members that are not known are left aside. Raises ValueError."""
    return _read(decode_json(text))


def read_request(content: Any) -> SessionRequest:
    """Return what a request says that came as a JSON object. Raises ValueError."""
    if not isinstance(content, dict):
        raise ValueError("a request is an object")
    return _read(content)


def _read(content: dict[str, Any]) -> SessionRequest:
    if content.get("currency") != CURRENCY:
        raise ValueError(f'currency must be "{CURRENCY}"')
    recipient, details = content.get("recipient"), content.get("methodDetails")
    if not isinstance(recipient, str) or not _PUBKEY.match(recipient):
        raise ValueError("recipient must be a compressed public key, 66 hexadecimal digits")
    if not isinstance(details, dict):
        raise ValueError("methodDetails must be an object")
    amount = _member(content, "amount", _amount, True)
    if amount < 1:
        raise ValueError("amount must be at least 1")
    return SessionRequest(
        amount=amount,
        recipient=bytes.fromhex(recipient),
        details=MethodDetails(**{name: _member(details, *row) for name, row in _DETAILS.items()}),
        unit_type=_member(content, "unitType", _text, False),
        suggested_deposit=_member(content, "suggestedDeposit", _amount, False),
        description=_member(content, "description", _text, False),
        external_id=_member(content, "externalId", _text, False),
    )


def _member(content: dict[str, Any], name: str, kind: Any, is_required: bool) -> Any:
    value = content.get(name)
    if value is None and not is_required:
        return None
    try:
        return kind(value)
    except Exception as error:
        raise ValueError(f"{name} is missing or makes no sense") from error
