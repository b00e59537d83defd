"""The settlements that are under way: how far each has come, what it pays, and what is wrong with it."""

import time
from typing import Any

from ...core.channel import Phase
from ..answers import Answer, Request, json_answer
from ..books import Cursor, Row
from ..context import Context
from .channels import fee_of, freshness
from .queries import read_limit, read_query, refused

SETTLING = (Phase.CLOSING, Phase.SIGNED, Phase.BROADCAST)
STUCK_SECONDS = 900
"""A settlement that is not on its way to the chain for so long is stuck."""

LATE_SECONDS = 6 * 3600
"""One that waits for its first block for so long is late."""

NEAR_SECONDS = 3 * 3600
"""An expiry so near is urgent."""


async def listed(context: Context, request: Request) -> Answer:
    """Answer GET /operator/v1/settlements, those first that expire first."""
    asked = read_query(request.query, "limit", "after")
    try:
        after = Cursor.parse(asked["after"]) if asked["after"] else None
    except ValueError as error:
        raise refused(str(error)) from error
    books, now = context.following.books, int(time.time())
    rows, following = books.page(SETTLING, "expiry", read_limit(asked["limit"]), after)
    return json_answer(
        {
            "settlements": [_shown(row, now) for row in rows],
            "next": None if following is None else str(following),
            "total": books.total(SETTLING),
            "confirmations_needed": context.config.settlement_confirmations,
            **freshness(context),
        }
    )


def trouble_of(row: Row, now: int) -> str:
    """Return what is wrong with a settlement, empty if nothing is. now: unix seconds."""
    waited = now - row.phase_at
    if row.expires_at - now < NEAR_SECONDS and not row.confirmations:
        return "expires_soon"
    if row.phase == Phase.CLOSING and waited > STUCK_SECONDS:
        return "not_signed"
    if row.phase == Phase.SIGNED and waited > STUCK_SECONDS:
        return "not_published"
    if row.phase == Phase.BROADCAST and row.confirmations == 0 and waited > LATE_SECONDS:
        return "not_mined"
    return ""


def _shown(row: Row, now: int) -> dict[str, Any]:
    return {
        "outpoint": row.name,
        "phase": row.phase.name.lower(),
        "received_satoshi": row.received,
        "expires_at": row.expires_at,
        "seen_since_at": row.phase_at,
        "txid": row.txid,
        **fee_of(row.fee, row.size),
        "confirmations": row.confirmations,
        "trouble": trouble_of(row, now) or None,
    }
