"""Texts that the scheme is made of: base64url of JSON, decimal amounts, and a channel's name (section 2.1)."""

import base64
import binascii
import json
import re
from typing import Any

from ..core.errors import Rejection
from ..core.outpoint import OUTPOINT_SIZE, format_outpoint, parse_outpoint
from ..core.units import MAX_MONEY

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_LAST = ("", "", "AQgw", "AEIMQUYcgkosw048")
"""What a text may end with, by its length modulo 4, if its unused bits are zero."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,15})\Z")
_CHANNEL_ID = re.compile(r"([0-9a-f]{64}):(0|[1-9][0-9]{0,9})\Z")


def encode_bytes(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def decode_bytes(text: str) -> bytes:
    """Return what base64url without padding holds. Only its one canonical spelling is taken. Raises ValueError."""
    letters, rest = text.encode("ascii", "replace"), len(text) % 4
    if not letters or rest == 1 or letters.translate(None, _ALPHABET):
        raise ValueError("no base64url without padding")
    if rest and text[-1] not in _LAST[rest]:
        raise ValueError("no canonical base64url")
    return binascii.a2b_base64(letters.translate(_TO_STANDARD) + b"=" * (-rest % 4))


def canonical_json(value: dict[str, Any]) -> str:
    """Return the one form of a JSON object that RFC 8785 (JCS) knows, for what this package writes: names in ASCII, texts,
    integers below 2^53, booleans, lists and objects."""
    return _ENCODER.encode(value)


def encode_json(value: dict[str, Any]) -> str:
    """Return base64url of the canonical JSON."""
    return encode_bytes(canonical_json(value).encode())


def decode_json(text: str) -> dict[str, Any]:
    """Return the JSON object in base64url. Raises ValueError as `parse_json`."""
    try:
        return parse_json(decode_bytes(text))
    except binascii.Error as error:
        raise ValueError("no base64") from error


def parse_json(text: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for anything else, a name that stands twice in an object included."""
    try:
        value = _DECODER.decode(text.decode())
    except (UnicodeDecodeError, RecursionError) as error:
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


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


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
