"""Money: what is unsettled, when it is at risk, and what became of it day by day."""

import time
from datetime import UTC, datetime
from typing import Any

from ...core.channel import Phase
from ...core.errors import Unavailable
from ..answers import Answer, Request, json_answer
from ..books import DAY_SECONDS, UNSETTLED, Day
from ..context import Context
from .channels import freshness
from .queries import read_query

DAYS_SHOWN = 90


async def money(context: Context, request: Request) -> Answer:
    """Answer GET /operator/v1/money. What is unsettled in all is the store's own sum; the rest is the books'."""
    read_query(request.query)
    following = context.following
    if not following.is_up:
        raise Unavailable("store_unavailable")
    now, counts, told = int(time.time()), following.books.counts(), following.unsettled
    return json_answer(
        {
            "unsettled_satoshi": told.total,
            "open_satoshi": told.open,
            "settling_satoshi": told.begun,
            "by_phase": {
                phase.name.lower(): {"channels": counts[phase][0], "received_satoshi": counts[phase][1]} for phase in UNSETTLED
            },
            "settled_rows": counts[Phase.SETTLED][0],
            "at_risk": [
                {"until_at": until, "channels": channels, "satoshi": satoshi}
                for until, channels, satoshi in following.books.at_risk(now)
            ],
            "days": days(following.books.days(), now),
            **freshness(context),
        }
    )


def days(found: dict[int, Day], now: int) -> list[dict[str, Any]]:
    """Return the sums of the last days, also of those on which nothing happened since the first one. now: unix seconds."""
    today = now // DAY_SECONDS
    first = max(today - DAYS_SHOWN + 1, min(found, default=today))
    return [_day(number, found.get(number, Day())) for number in range(first, today + 1)]


def _day(number: int, day: Day) -> dict[str, Any]:
    return {
        "day": datetime.fromtimestamp(number * DAY_SECONDS, UTC).strftime("%Y-%m-%d"),
        "opened": day.opened,
        "settled": day.settled,
        "lost": day.lost_channels,
        "received_satoshi": day.received,
        "settled_satoshi": day.arrived,
        "fees_satoshi": day.fees,
        "lost_satoshi": day.lost,
    }
