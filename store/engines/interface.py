"""What the store needs of an engine, whatever keeps the data: RocksDB on this machine (rocksdb.py), or PostgreSQL (postgres/).

The methods that touch data are coroutines, for an engine may answer later. RocksDB's never wait: `run` takes a coroutine to its end
there and then, without an event loop. What an engine cannot do or is not told the end of, ends the process (ending.py).
"""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol, TypeVar

from paychan.events.event import Event
from paychan.rpc.store_messages import Stored, Unsettled

from ..group import Group, Reader

T = TypeVar("T")


class Unread(Exception):
    """A group asked for a record that was not read before it was judged. It must be judged again when more has been read."""


class Kept(NamedTuple):
    """Events, in order. oldest, newest: numbers of the first and the last of all that are kept; 0: there is none."""

    oldest: int
    newest: int
    events: list[tuple[int, bytes]]


class Reads(Protocol):
    """What may be asked for beside the groups (`Engine.answer`). It sees what is durable, and nothing else. An engine that answers
    later has the same as coroutines."""

    def load(self, outpoints: list[bytes]) -> list[Stored | None]:
        """Return all records of each channel, None for those that do not exist."""

    def funding(self, txid: bytes) -> bytes | None:
        """Return a kept funding transaction without its witness, or None."""

    def scan_expiring(self, before: int, after_number: int, after: bytes, limit: int) -> list[tuple[int, bytes]]:
        """Return (expiry, outpoint) of open channels expiring before `before`, strictly after (after_number, after)."""

    def scan_unfinished(self, after: bytes, limit: int) -> list[tuple[int, bytes]]:
        """Return (phase, outpoint) of begun and unsettled settlements, with outpoints strictly after `after`."""

    def scan_received(self, before: int, after_number: int, after: bytes, limit: int) -> list[tuple[int, int, bytes]]:
        """Return (expiry, satoshi received, outpoint) of the channels that `scan_expiring` finds."""

    def scan_settled(self, after_number: int, after: bytes, limit: int) -> list[tuple[int, bytes, bytes]]:
        """Return (time, outpoint, outcome record) of settled channels, strictly after (after_number, after), in this order."""

    def highest(self, seconds: int) -> int:
        """Return the highest time (unix seconds) that any machine was sure of, `seconds` among them; 0: there is no other."""

    def stream(self, after: int, limit: int) -> Kept:
        """Return the events whose number is above `after`, the first `limit` of them."""

    def notes(self, prefix: str) -> dict[str, bytes]:
        """Return all notes whose name begins so."""


class Engine(Protocol):
    """An open engine: whatever an earlier process left in flight is over."""

    def epochs(self, shard_count: int) -> list[int]:
        """Return the newest epoch of each shard and then of each `Lease`, as of the last durable group."""

    def unsettled(self) -> Unsettled:
        """Return what has been received on channels that are not settled, as of the start."""

    def open_spent(self) -> int:
        """Return the satoshi spent on open channels, as of the start."""

    def run(self, steps: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that awaits this engine, at once or by and by."""

    async def answer(self, ask: Callable[[Any], Any]) -> Any:
        """Return what `ask` gets from this engine's `Reads`. Raises Exception if it cannot be read."""

    async def prepare(self, missing: Callable[[], list[bytes]]) -> Reader:
        """Return what a group reads while it is judged. missing(): the outpoints that it will ask for; an engine that reads when it
        is asked does not call it, and an engine that cannot raises `Unread` out of the reader for all others."""

    def take(self, group: Group) -> Any:
        """Return what a judged group writes, in this engine's form; false if nothing."""

    async def put(self, writes: Any) -> None:
        """Write what `take` returned, all or nothing; on return it is durable. Raises BaseException if that is not sure."""

    # Events and notes beside the groups: from a step of the sequencer only, so that no group is in flight.

    async def note(self, name: str, expected: bytes | None, value: bytes | None, events: list[Event]) -> tuple[bool, bytes | None]:
        """Replace a note (None: remove it), and write events with it, if it is as expected (None: there is none). Return whether
        that was done, and what it says now. On return it is durable."""

    async def tell_of(self, events: list[Event]) -> None:
        """Write events that go with no other write."""

    async def drop(self, up_to: int) -> None:
        """Remove the events up to a number, but for the newest one."""
