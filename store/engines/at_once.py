"""An engine whose reads and writes are done when they return: what it needs to be an `Engine`."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from .. import keys
from ..group import Group, Reader


class AtOnce:
    """Give a subclass with `Reads`, `Reader` and `commit(writes)` as plain methods the coroutines of `Engine`."""

    def commit(self, writes: Mapping[bytes, bytes | None]) -> None:
        """Write a group, all or nothing; on return it is durable."""
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
        return writes

    async def put(self, writes: Mapping[bytes, bytes | None]) -> None:
        self.commit(writes)
