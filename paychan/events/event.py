"""An event: what it says, and its form, which the store keeps and everybody reads. Pure. docs/EVENTS.md has each type.

An event's number is its place in the stream; numbers rise, and may leave some out. The form is JSON, and is kept for as long as
events are: what is added later is added as another member.
"""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

BODY_SIZE_MAX = 4096
"""Bytes of an event's form."""

NUMBER_MAX = (1 << 53) - 1
"""Of an event: what every reader of JSON takes exactly."""

NUMBERS_SKIPPED = 1 << 32
"""By a store that was restored: more events than were told since the backup. So no number tells of two events."""


class Type(StrEnum):
    """The types. What is not here is not told."""

    OPENED = "channel.opened"
    VALUE = "channel.value"
    EXHAUSTED = "channel.exhausted"
    EXPIRING = "channel.expiring"
    CLOSING = "channel.closing"
    BROADCAST = "channel.settlement_broadcast"
    SETTLED = "channel.settled"
    LOST = "channel.lost"
    SHARD_STOPPED = "shard.stopped"
    CHAIN_DOUBTFUL = "chain.doubtful"
    CHAIN_TRUSTED = "chain.trusted"
    SALES = "sales.period"
    RESTORED = "store.restored"
    WEBHOOK_DISABLED = "webhook.disabled"


TOLD = frozenset((Type.EXPIRING, Type.CHAIN_DOUBTFUL, Type.CHAIN_TRUSTED, Type.SALES, Type.WEBHOOK_DISABLED))
"""What a process may tell the store. All others come of what the store writes or finds itself: nobody can invent one."""


@dataclass(frozen=True)
class Event:
    """outpoint: "TXID/VOUT" of the channel, if it is about one. data: see docs/EVENTS.md. at: unix seconds by the store's clock.
    machine: the store that wrote it, where there are several."""

    type: Type
    data: dict[str, Any] = field(default_factory=dict)
    outpoint: str = ""
    at: int = 0
    machine: str = ""

    def members(self) -> dict[str, Any]:
        """Return what the event says, without its number."""
        said: dict[str, Any] = {"at": self.at, "type": str(self.type)}
        if self.outpoint:
            said["outpoint"] = self.outpoint
        if self.machine:
            said["machine"] = self.machine
        return said | {"data": self.data}

    def encode(self) -> bytes:
        """Return the form that is kept."""
        return json.dumps(self.members(), separators=(",", ":")).encode()

    @classmethod
    def parse(cls, body: bytes) -> "Event":
        """Raises ValueError for any other bytes than `encode` makes of an event."""
        said = json.loads(body) if len(body) <= BODY_SIZE_MAX else None
        if not isinstance(said, dict) or not said.keys() <= {"at", "type", "outpoint", "machine", "data"}:
            raise ValueError("this is no event")
        kinds = {"at": int, "type": str, "outpoint": str, "machine": str, "data": dict}
        if {"at", "type", "data"} - said.keys() or any(type(value) is not kinds[name] for name, value in said.items()):
            raise ValueError("an event does not say what it must say")
        return cls(Type(said["type"]), said["data"], said.get("outpoint", ""), said["at"], said.get("machine", ""))


@dataclass(frozen=True)
class Numbered:
    """An event with its place in the stream."""

    number: int
    event: Event

    def members(self) -> dict[str, Any]:
        """Return what is sent of it."""
        return {"id": self.number, **self.event.members()}
