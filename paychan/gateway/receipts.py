"""Signed receipts of what the gateway sells (docs/RECEIPTS.md), and their public keys at keys.WELL_KNOWN."""

import json

from ..client.errors import StateError
from ..core.errors import ConfigError
from ..sell.facts import Answer, Sign
from .models import GatewayConfig

WELL_KNOWN = "/.well-known/payment-receipts.json"
"""As paychan.receipts.keys has it, which needs an extra."""


def open_receipts(config: GatewayConfig) -> tuple[Sign | None, Answer | None]:
    """Return what signs, and the answer at WELL_KNOWN; None and None if nothing is signed. Raises ConfigError."""
    if config.receipts is None:
        return None, None
    try:
        from ..receipts.issuer import Issuer
        from ..receipts.keys import published
    except ImportError as error:
        raise ConfigError("[receipts] needs the extra: pip install 'paychan[receipts]'") from error
    try:
        keys = published(config.receipts.key, *config.receipts.older)()
        issuer = Issuer(config.receipts.key, config.public_url)
    except StateError as error:
        raise ConfigError(f"[receipts] {error}") from error
    headers = (("content-type", "application/jwk-set+json"), ("cache-control", "max-age=300"))
    return issuer.issue, Answer(200, headers, json.dumps(keys).encode())
