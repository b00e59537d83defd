"""The signature of a delivery, as Standard Webhooks has it (standardwebhooks.com, version 1.0.0): HMAC-SHA-256 over what is sent.
Pure."""

import base64
import hmac

from ..events.endpoint import key_of


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`. secret: "whsec_..."; timestamp: unix seconds, as in `webhook-timestamp`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, "sha256")).decode()


def fields(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the fields of a delivery's head."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "paychan",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, message_id, timestamp, body),
    }
