"""Which problem document, status and challenge each of our refusals becomes (section 2.7). One table: who reads it need not
think."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import BY_CODE, OPERATORS_FROM, PaychanError, Rejection
from .text import canonical_json, parse_amount

CONTENT_TYPE = "application/problem+json"
TYPES = "https://paymentauth.org/problems/"
"""Where the scheme's registry of problem types is."""

BLANK = "about:blank"
RETRY_AFTER_SECONDS = 1

AMOUNTS = ("acceptedCumulative", "spent", "requiredCumulative", "deposit")
"""Members of a document that are satoshi, as decimal texts. `channelId` may stand beside them."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a refusal looks. has_challenge: a new credential may help, so a challenge comes with it. is_passing: Retry-After does."""

    type: str
    status: int
    has_challenge: bool = False
    is_passing: bool = False
    has_snapshot: bool = False


def _wanted(name: str, is_passing: bool = False, has_snapshot: bool = False) -> Kind:
    return Kind(TYPES + name, 402, True, is_passing, has_snapshot)


_UNKNOWN = Kind(BLANK, 503, is_passing=True)
_FAULT = Kind(TYPES + "internal-payment-error", 500)
_INVALID_PAYLOAD = _wanted("invalid-payload")
_FINALIZED = _wanted("session/channel-finalized")
_NOT_VERIFIED = _wanted("verification-failed")

_KINDS: dict[Kind, tuple[str, ...]] = {
    _wanted("payment-required"): ("payment_required",),
    _wanted("malformed-credential"): ("malformed_credential",),
    _INVALID_PAYLOAD: (
        "unknown_action", "missing_member", "invalid_member", "invalid_txid", "invalid_vout", "invalid_pubkey", "pubkey_is_servers",
        "invalid_exp_time", "invalid_change_address", "invalid_base64", "invalid_payment", "invalid_der", "invalid_sighash_type",
        "change_value_not_zero", "change_value_range", "missing_parameter", "repeated_parameter",
    ),
    _wanted("invalid-challenge"): ("invalid_challenge",),
    _wanted("payment-expired"): ("payment_expired",),
    Kind(TYPES + "method-unsupported", 400): ("method_unsupported",),
    Kind(TYPES + "bad-request", 400): ("two_credentials",),
    _wanted("session/invalid-signature"): ("bad_signature", "high_s"),
    _wanted("verification-failed", has_snapshot=True): ("out_of_order", "not_newest_payment"),
    _NOT_VERIFIED: (
        "prepay_too_large", "exp_time_too_soon", "exp_time_too_far", "funding_too_large", "funding_immature", "not_settleable",
    ),
    _wanted("verification-failed", is_passing=True): ("funding_not_found",),
    _wanted("session/delta-too-small"): ("delta_too_small",),
    _wanted("session/insufficient-balance"): ("insufficient_credit",),
    _wanted("session/amount-exceeds-deposit"): ("dust_change", "amount_exceeds_deposit"),
    _wanted("payment-insufficient"): ("open_price_short",),
    _wanted("payment-action-required", is_passing=True): ("funding_unconfirmed",),
    _wanted("session/channel-not-found"): ("no_such_channel",),
    _FINALIZED: ("channel_settled", "no_such_payment", "channel_closing", "channel_expiring", "funding_spent"),
    _UNKNOWN: tuple(row.code for row in BY_CODE.values() if row.status == 503 and row.number < OPERATORS_FROM),
    Kind(BLANK, 409): ("already_served",),
    Kind(BLANK, 403): ("payment_forbidden",),
}  # fmt: skip

BY_OUR_CODE = {code: kind for kind, codes in _KINDS.items() for code in codes}
"""Of each of our codes that a payer may meet. Any other is the fault of who sits between payer and channel server: `kind_of`."""


def kind_of(code: str) -> Kind:
    """Return how a refusal with this code looks."""
    return BY_OUR_CODE.get(code, _FAULT)


def document(error: PaychanError, facts: Mapping[str, int | str] | None = None) -> dict[str, Any]:
    """Return the problem document (RFC 9457). facts: what is known of the channel, by the names of AMOUNTS in satoshi, channelId,
    and whatever else a program may want. The error's figures are added to them."""
    kind = kind_of(error.code)
    content: dict[str, Any] = {
        "type": kind.type,
        "title": error.row.title if kind is not _FAULT else "The payment could not be handled",
        "status": kind.status,
        "code": error.code,
    }
    if error.detail != error.row.title:
        content["detail"] = error.detail
    if error.parameter:
        content["parameter"] = error.parameter
    for name, value in {**error.figures, **(facts or {})}.items():
        content[name] = str(value) if name in AMOUNTS else value
    return content


def render(content: Mapping[str, Any]) -> bytes:
    """Return a document as the body of an answer."""
    return canonical_json(dict(content)).encode()


@dataclass(frozen=True, slots=True)
class Problem:
    """A document as a payer reads it. `amounts`: those of AMOUNTS that it has, satoshi. `members`: all of it."""

    type: str
    status: int
    code: str
    detail: str
    amounts: Mapping[str, int]
    members: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The type's last part, below the scheme's registry; empty if it is none of its types."""
        return self.type.removeprefix(TYPES) if self.type.startswith(TYPES) else ""


def parse_problem(body: bytes, status: int) -> Problem:
    """Return the document in an answer's body; what is missing or of a wrong form is left out. Never raises."""
    try:
        content = json.loads(body) if len(body) <= 1 << 20 else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        content = {}
    amounts = {}
    for name in AMOUNTS:
        try:
            amounts[name] = parse_amount(content.get(name))
        except ValueError:
            continue

    def text(name: str) -> str:
        value = content.get(name)
        return value[:1024] if isinstance(value, str) else ""

    return Problem(text("type"), status, text("code"), text("detail") or text("title"), amounts, content)


def is_authentic_but_stale(error: PaychanError) -> bool:
    """Return whether the refused payment was signed by the payer, so that it may be shown the channel's snapshot."""
    return isinstance(error, Rejection) and kind_of(error.code).has_snapshot
