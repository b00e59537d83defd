"""Prices in an OpenAPI description: `x-payment-info` (section 2.10)."""

from typing import Any

from . import CURRENCY, INTENT, METHOD
from .text import format_amount

NAME = "x-payment-info"


def payment_info(amount: int | None, description: str = "") -> dict[str, Any]:
    """Return the offers of a paid operation. amount: satoshi a unit; None: it depends on the request."""
    offer: dict[str, Any] = {
        "intent": INTENT,
        "method": METHOD,
        "amount": None if amount is None else format_amount(amount),
        "currency": CURRENCY,
    }
    return {"offers": [{**offer, "description": description} if description else offer]}


def mark(operation: dict[str, Any], amount: int | None, description: str = "") -> None:
    """Say of an OpenAPI operation, in place, that it costs something: `x-payment-info`, and the answer 402 that it may have."""
    operation[NAME] = payment_info(amount, description)
    responses = operation.setdefault("responses", {})
    responses.setdefault(
        "402",
        {
            "description": "Payment required: a challenge of the Payment scheme in WWW-Authenticate",
            "content": {"application/problem+json": {"schema": {"type": "object"}}},
        },
    )
