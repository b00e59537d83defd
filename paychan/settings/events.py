"""The table `[events]` of store.toml: what is told, and for how long it is kept."""

from ..core.units import MAX_MONEY
from .models import EventsConfig
from .sections import Section

SECONDS_PER_DAY = 24 * 3600


def read_events(section: Section) -> EventsConfig:
    """Return the checked table; without it, what stands in `EventsConfig`."""
    days = section.integer("days", 1, 3650, 30)
    undelivered = section.integer("undelivered_days", 1, 3650, 90)
    value = section.integer("channel_value", 0, MAX_MONEY, 0)
    if undelivered < days:
        section.fail("undelivered_days", "must not be less than days")
    return EventsConfig(
        seconds=days * SECONDS_PER_DAY,
        count=section.integer("count", 1000, 1_000_000_000, 1_000_000),
        undelivered_seconds=undelivered * SECONDS_PER_DAY,
        channel_value=value or None,
    )
