"""Texts that the scheme is made of: base64url of JSON, decimal amounts, and a channel's name (section 2.1)."""

import base64
import binascii
import json
import re
from typing import Any

from ..core.errors import Rejection
from ..core.outpoint import OUTPOINT_SIZE, format_outpoint, parse_outpoint
from ..core.units import MAX_MONEY

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,15})\Z")
_CHANNEL_ID = re.compile(r"([0-9a-f]{64}):(0|[1-9][0-9]{0,9})\Z")


def encode_bytes(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_bytes(text: str) -> bytes:
    """Return what base64url without padding holds. Only its one canonical spelling is taken. Raises ValueError."""
    if not _BASE64URL.match(text) or len(text) % 4 == 1:
        raise ValueError("no base64url without padding")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_bytes(raw[-(len(raw) % 3 or 3) :]) != text[-((len(text) % 4) or 4) :]:
        raise ValueError("no canonical base64url")
    return raw


def canonical_json(value: dict[str, Any]) -> str:
    """Return the one form of a JSON object that RFC 8785 (JCS) knows, for what this package writes: names in ASCII, texts,
    integers below 2^53, booleans, lists and objects."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def encode_json(value: dict[str, Any]) -> str:
    """Return base64url of the canonical JSON."""
    return encode_bytes(canonical_json(value).encode())


def decode_json(text: str) -> dict[str, Any]:
    """Return the JSON object in base64url. Raises ValueError for anything else, a name that stands twice in an object included."""
    try:
        value = json.loads(decode_bytes(text), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (binascii.Error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("no JSON") from error
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def format_amount(satoshi: int) -> str:
    """Return an amount as the scheme writes it. Raises ValueError if it is none."""
    if type(satoshi) is not int or not 0 <= satoshi <= MAX_MONEY:
        raise ValueError(f"an amount is an integer from 0 to {MAX_MONEY} satoshi")
    return str(satoshi)


def parse_amount(value: Any) -> int:
    """Return the satoshi that a decimal text without sign or leading zero spells. Raises ValueError."""
    if not isinstance(value, str) or not _AMOUNT.match(value) or int(value) > MAX_MONEY:
        raise ValueError("no amount in satoshi")
    return int(value)


def format_channel_id(outpoint: bytes) -> str:
    """Return a channel's name in this scheme: txid as displayed, in lower-case hex, a colon, the output's number."""
    return format_outpoint(outpoint).replace("/", ":")


def parse_channel_id(value: Any) -> bytes:
    """Return the outpoint (36 bytes) of a channel's name. It has one spelling. Raises Rejection("invalid_member")."""
    match = _CHANNEL_ID.match(value) if isinstance(value, str) else None
    if match is None:
        raise Rejection("invalid_member", "channelId must be FUNDING_TXID:VOUT, in lower case", "channelId")
    outpoint = parse_outpoint(match[1], match[2])
    assert len(outpoint) == OUTPOINT_SIZE
    return outpoint
