"""What the till's rules ask their driver to do. They are generators: one yields a step and is sent its result, so the asyncio and
the blocking till cannot differ in anything but how they wait."""

import logging
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

log = logging.getLogger("paychan.sell")


class Told(NamedTuple):
    """What the sellers' door answered. None in its place: it did not, so whether anything took effect is unknown."""

    status: int
    content: dict[str, Any]

    @property
    def is_unknown(self) -> bool:
        """Whether the answer says no more than that: ours, and may pass."""
        return self.status >= 500

    @property
    def code(self) -> str:
        """The stable code of a refusal."""
        return str(self.content.get("code", ""))


Sold = tuple[int, int, int, int]
"""A charge that was sold just now, and that is all: the purchase's number, and what its channel has received, spent, and left to
the payer, in satoshi."""

UNSENT = Told(503, {"status": 503, "code": "store_unavailable"})
"""In an answer's place: the sale did not leave this process, so it is known that it took no effect."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for sales, which may share a request with others'. The result is a Told for each (UNSENT: nobody was there), or None for
    all."""

    sales: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """Make another request, on a connection where it keeps no sale waiting. The result is a Told, or None."""

    method: str
    target: str


@dataclass(frozen=True, slots=True)
class Await:
    """Wait for what another request finds out, for so long at most. The result is the future's, or None."""

    future: "Future[Any]"
    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; no result."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Do:
    """Do work on files, which may block. The result is its result, or None: it has raised, and the log says so."""

    work: Callable[[], Any]

    def done(self) -> Any:
        """Do it, in the thread that this is called in."""
        try:
            return self.work()
        except Exception as error:  # its text could hold what belongs into no log
            log.warning("what a receipt needs cannot be done: %s", type(error).__name__)
            return None


@dataclass(frozen=True, slots=True)
class Tell:
    """Send this to the payer at once, as a part of the answer; no result. Only streams do."""

    event: bytes


Step = Ask | Call | Await | Pause | Tell | Do
Steps = Generator[Step, Any, T]
