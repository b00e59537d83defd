"""The query parameters of fundingInfo and open, strictly (spec section 2): text in, checked values out."""

import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from coincurve import PublicKey

from ..._fast.request import QUERY_SIZE_MAX
from ...core.errors import Rejection
from ...core.outpoint import parse_outpoint
from ...core.units import LOCKTIME_MAX, LOCKTIME_THRESHOLD, MAX_MONEY

_PUBKEY_HEX = re.compile(r"0[23][0-9a-fA-F]{64}\Z")
_INTEGER = re.compile(r"[1-9][0-9]{8,9}\Z")
_SATOSHI = re.compile(r"[1-9][0-9]{0,15}\Z")
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")

T = TypeVar("T")


class Query:
    """A query string, split at `&` and `;` as in v1. Unknown parameters are ignored, repeated known ones are refused."""

    def __init__(self, query: str) -> None:
        if len(query.encode(errors="surrogatepass")) > QUERY_SIZE_MAX:
            raise Rejection("request_too_large")
        self._values: dict[str, list[str]] = {}
        for part in re.split("[&;]", query):
            name, equals, value = part.partition("=")
            if equals:
                self._values.setdefault(name, []).append(value)

    def optional(self, name: str, decode: Callable[[str], T]) -> T | None:
        """Return the decoded value, None if it is not given. Raises Rejection naming the parameter."""
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise Rejection("repeated_parameter", f"{name} is given more than once", name)
        return decode(_unescape(values[0]))

    def required(self, name: str, decode: Callable[[str], T]) -> T:
        """Return the decoded value. Raises Rejection naming the parameter."""
        value = self.optional(name, decode)
        if value is None:
            raise Rejection("missing_parameter", f"Missing {name} query parameter", name)
        return value


def _unescape(value: str) -> str:
    """Resolve %-escapes and `+`; a bad escape stays, and makes the value invalid, since no value holds a `%`."""
    if _BAD_ESCAPE.search(value):
        return value
    return unquote_to_bytes(value.replace("+", " ")).decode("utf-8", "replace")


def decode_pubkey(text: str) -> bytes:
    """Return the 33 bytes of a compressed public key in hex. Raises Rejection("invalid_pubkey")."""
    if _PUBKEY_HEX.match(text):
        key = bytes.fromhex(text)
        try:
            PublicKey(key)
        except ValueError:
            pass
        else:
            return key
    raise Rejection("invalid_pubkey", parameter="client_pubkey")


def decode_exp_time(text: str) -> int:
    """Return an expiry in unix seconds. Raises Rejection("invalid_exp_time")."""
    if not _INTEGER.match(text) or not LOCKTIME_THRESHOLD <= int(text) <= LOCKTIME_MAX:
        raise Rejection("invalid_exp_time", parameter="exp_time")
    return int(text)


def decode_funding_value(text: str) -> int:
    """Return an amount of at least 1 satoshi. Raises Rejection("invalid_funding_value")."""
    if not _SATOSHI.match(text) or int(text) > MAX_MONEY:
        raise Rejection("invalid_funding_value", parameter="funding_value")
    return int(text)


def decode_funding_outpoint(query: Query) -> bytes | None:
    """Return the outpoint in the optional funding_txid and funding_vout; both or none. Raises Rejection."""
    txid = query.optional("funding_txid", str)
    vout = query.optional("funding_vout", str)
    if txid is None and vout is None:
        return None
    for name, value in (("funding_txid", txid), ("funding_vout", vout)):
        if value is None:
            raise Rejection("missing_parameter", f"Missing {name} query parameter", name)
    return parse_outpoint(str(txid), str(vout))
