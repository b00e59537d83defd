"""What a till's refusals say, and what of the sellers' door's own refusals a payer is told."""

import logging
from typing import Any

from ..core.errors import BY_CODE, PaychanError, Rejection, Unavailable, held
from ..mpp import problems
from ..mpp.text import format_channel_id
from .facts import Answer, Standing
from .steps import Told

log = logging.getLogger("paychan.sell")


def figures_of(outpoint: bytes, standing: Standing, required: int) -> dict[str, Any]:
    """Return how a channel stands. required: satoshi that it must have received in all."""
    return {
        "channelId": format_channel_id(outpoint),
        "acceptedCumulative": standing.received,
        "spent": standing.spent,
        "requiredCumulative": required,
        "deposit": standing.funding_value,
    }


def error_of(told: Told) -> PaychanError:
    """Return a refusal of the door's as our error. Its text is not repeated: it is meant for the seller."""
    code = told.code if told.code in BY_CODE else "store_unavailable"
    if code in ("token_missing", "token_unknown", "token_scope"):
        log.error("the sellers' door refuses our token: %s", code)
    if code == "too_many_reservations":
        return held()
    kind = Unavailable if BY_CODE[code].status == 503 else Rejection
    figures = {name: told.content[name] for name in ("confirmations", "required") if type(told.content.get(name)) is int}
    return kind(code, figures=figures if code == "funding_unconfirmed" else {})


def too_long() -> Answer:
    """Return the answer to a request whose body cannot be a part of its purchase's name."""
    row, detail = Rejection("body_too_large").row, "A body of more than 1 MiB needs an Idempotency-Key"
    content = {"type": problems.BLANK, "title": row.title, "status": 413, "code": "body_too_large", "detail": detail}
    return Answer(413, (("content-type", problems.CONTENT_TYPE), ("cache-control", "no-store")), problems.render(content))
