"""Events on their way into an engine, and which of them may go. Pure."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from paychan.events.event import Event
from paychan.settings.models import EventsConfig

DROPPED_MAX = 1000
"""Events that are removed in one write. Payments wait meanwhile."""


@dataclass(frozen=True)
class Stamp:
    """Puts on events when and where they are written. machine: empty where there is one store. clock(): unix seconds."""

    machine: str = ""
    clock: Callable[[], float] = time.time

    def encode(self, events: list[Event]) -> list[bytes]:
        """Return the forms of events that are written now."""
        if not events:
            return []
        now = int(self.clock())
        return [replace(event, at=now, machine=self.machine).encode() for event in events]


def may_go(event: Event, number: int, newest: int, heard: int, now: int, config: EventsConfig) -> bool:
    """Return whether an event need not be kept: it is too old, or too many came after it, and every enabled endpoint has heard it
    (those up to `heard`) or did not for too long. The newest one stays: the next one's number follows from it."""
    if number >= newest:
        return False
    age = now - event.at
    if number > heard:
        return age > config.undelivered_seconds
    return age > config.seconds or newest - number >= config.count
