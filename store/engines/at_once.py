"""An engine whose reads and writes are done when they return: what it needs to be an `Engine`."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from paychan.events.event import Event

from .. import keys
from ..events import DROPPED_MAX, Stamp
from ..group import Group, Reader
from .interface import Kept


class AtOnce:
    """Give a subclass with `Reads`, `Reader` and `commit(writes)` as plain methods the coroutines of `Engine`. newest_event: the
    number of the newest event that is durable; a subclass sets it when it opens."""

    newest_event = _newest_then = 0
    stamp = Stamp()

    def commit(self, writes: Mapping[bytes, bytes | None]) -> None:
        """Write a group, all or nothing; on return it is durable."""
        raise NotImplementedError

    def stream(self, after: int, limit: int) -> Kept:
        """Return events, see `Reads`."""
        raise NotImplementedError

    def note_of(self, name: str) -> bytes | None:
        """Return what a note says, None if there is none."""
        raise NotImplementedError

    def highest(self, _: int) -> int:
        """Return 0: there is no other machine."""
        return 0

    def run(self, steps: Coroutine[Any, Any, None]) -> None:
        try:
            steps.send(None)
        except StopIteration:
            return
        raise RuntimeError("an engine that is at once has waited")

    async def answer(self, ask: Callable[[Any], Any]) -> Any:
        return ask(self)

    async def prepare(self, _: Callable[[], list[bytes]]) -> Reader:
        return self  # type: ignore[return-value]  # a subclass is one

    def take(self, group: Group) -> dict[bytes, bytes | None]:
        """Return the pairs that a group puts (or with None deletes), the store's sums among them."""
        writes = group.writes
        unsettled = group.unsettled
        if unsettled != group.unsettled_before:
            writes[keys.UNSETTLED] = keys.encode_unsettled(unsettled)
        if group.open_spent != group.open_spent_before:
            writes[keys.OPEN_SPENT] = keys.encode_spent(group.open_spent)
        self._newest_then = self.newest_event
        if events := group.events():
            writes.update(self._numbered(events))
        return writes

    def _numbered(self, events: list[Event]) -> dict[bytes, bytes]:
        """Return the pairs of events that come next. Which is the newest is noted once they are durable."""
        bodies = self.stamp.encode(events)
        self._newest_then = self.newest_event + len(bodies)
        return {keys.event_key(self.newest_event + 1 + place): body for place, body in enumerate(bodies)}

    async def put(self, writes: Mapping[bytes, bytes | None]) -> None:
        self.commit(writes)
        self.newest_event = self._newest_then

    async def note(self, name: str, expected: bytes | None, value: bytes | None, events: list[Event]) -> tuple[bool, bytes | None]:
        now = self.note_of(name)
        if now != expected:
            return False, now
        await self.put({keys.note_key(name): value, **self._numbered(events)})
        return True, value

    async def tell_of(self, events: list[Event]) -> None:
        await self.put(self._numbered(events))

    async def drop(self, up_to: int) -> None:
        going = [number for number, _ in self.stream(0, DROPPED_MAX).events if number <= up_to and number != self.newest_event]
        if going:
            self.commit(dict.fromkeys(map(keys.event_key, going)))
