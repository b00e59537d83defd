"""What the till's rules ask their driver to do. They are generators: one yields a step and is sent its result, so the asyncio and
the blocking till cannot differ in anything but how they wait."""

from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for sales, which may share a request with others'. The result is a Told for each, or None for all."""

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
class Tell:
    """Send this to the payer at once, as a part of the answer; no result. Only streams do."""

    event: bytes


Step = Ask | Call | Await | Pause | Tell
Steps = Generator[Step, Any, T]
