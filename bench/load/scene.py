"""What scenes have in common: a scene starts the servers that some rows need, and measures a slice of each kind in every round."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load.measure import VerifyMeter
from bench.load.provenance import NOT_TOLD

Step = tuple[str, Callable[[], None]]
"""What is being measured, in words, and what measures it."""


@dataclass(frozen=True)
class Size:
    """How much is measured. seconds: of one slice; main: connections where one number counts; few, many: channels of row 9."""

    rounds: int
    seconds: float
    connections: tuple[int, ...]
    main: int
    batch: int
    few: int
    many: int
    visited: int
    """Channels that row 9 visits in each round."""
    updates: int
    """Of the store alone, in each round."""
    loaded: int
    """Channels that are loaded to see how a worker grows, by a table alone and by a real worker."""


TINY = Size(1, 0.05, (1, 8), 8, 16, 50, 500, 100, 1024, 200)
SHORT = Size(7, 0.45, (1, 5, 64, 128, 256), 128, 64, 1000, 100_000, 4000, 20_480, 50_000)
LONG = Size(15, 1.0, (1, 5, 64, 128, 256), 128, 64, 1000, 1_000_000, 10_000, 102_400, 200_000)


class Record:
    """What was measured, by name: a list with one item for each round.

    granian_door: as `provenance.granian_door` has it; lacks: what the machine did not allow, in words (the values are None).
    """

    def __init__(self) -> None:
        self.rounds: dict[str, list[Any]] = defaultdict(list)
        self.facts: dict[str, Any] = {}
        self.granian_door = NOT_TOLD
        self.lacks: dict[str, None] = {}

    def add(self, name: str, item: Any) -> None:
        self.rounds[name].append(item)

    def of(self, name: str) -> list[Any]:
        """Return what was measured of a name so far, [] if nothing."""
        return self.rounds.get(name, [])


class Scene:
    """A scene's servers live from `start` to `stop`."""

    def __init__(self, directory: Path, size: Size, verify: VerifyMeter, record: Record) -> None:
        self.directory, self.size, self.verify, self.record = directory, size, verify, record
        self.exits = ExitStack()
        directory.mkdir()

    def start(self) -> None:
        """Start the servers, and open the channels."""

    def steps(self) -> list[Step]:
        """Return what is to be done in each round."""
        return []

    def finish(self) -> None:
        """Measure what is measured once, after the last round."""

    def stop(self) -> None:
        """Stop whatever was started; it need not have started well."""
        self.exits.close()
