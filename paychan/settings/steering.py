"""What an operator has changed while the system runs: `STATE_DIR/steering`, of this machine. It outlives restarts.

    {"version": 1, "revision": 7, "frozen_at": 1790000000 or null, "why": "...", "is_drained": false, "limits": {KEY: NUMBER}}

Limits only tighten what server.toml says: whoever reads the file takes the stricter of both, whatever stands in it. The file is
replaced whole, durably, under a lock; each change has a higher revision, by which workers say what they obey.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import ConfigError
from ..core.units import MAX_MONEY, SECONDS_PER_HOUR
from ..durable import locked, replace_file
from .models import ServerConfig

VERSION = 1
FILE_BYTES_MAX = 64 << 10
WHY_LENGTH_MAX = 200
"""Characters of the reason that is given for a freeze."""

LOCK_SECONDS_MAX = 2.0
"""Whoever changes the file holds its lock for one synced write."""

T = TypeVar("T", "Steering", "Freeze")

DAMAGED = "STATE_DIR/steering cannot be read: see the log"


@dataclass(frozen=True)
class Limit:
    """One limit that can be tightened. field: of ServerConfig, which has it in units of `unit`. is_floor: higher is tighter.
    most: the largest number that makes sense."""

    field: str
    most: int
    is_floor: bool = False
    unit: int = 1

    def of(self, config: ServerConfig) -> int:
        """Return the limit as a configuration has it."""
        value: int = getattr(config, self.field)
        return value // self.unit

    def is_looser(self, value: int, than: int) -> bool:
        """Return whether one value allows more than another."""
        return value < than if self.is_floor else value > than


LIMITS: dict[str, Limit] = {
    "channel_value_max_satoshi": Limit("channel_exposure_max", MAX_MONEY),
    "total_value_max_satoshi": Limit("total_exposure_max", MAX_MONEY),
    "unsettled_value_max_satoshi": Limit("unsettled_value_max", MAX_MONEY),
    "funding_value_max_satoshi": Limit("funding_value_max", MAX_MONEY),
    "funding_tx_min_conf": Limit("funding_tx_min_conf", 1000, is_floor=True),
    "duration_hours_max": Limit("duration_max", 1_200_000, unit=SECONDS_PER_HOUR),
}
"""`exposure.*` and `open.*` of server.toml, by the names that an operator uses."""


@dataclass(frozen=True)
class Steering:
    """What the file says. frozen_at: unix seconds since which no channel is opened, None: they are opened. is_drained: this
    machine's workers own nothing. limits: by LIMITS' names."""

    revision: int = 0
    frozen_at: int | None = None
    why: str = ""
    is_drained: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)

    def tighten(self, config: ServerConfig) -> ServerConfig:
        """Return a configuration with the stricter of its own limits and these."""
        stricter: dict[str, Any] = {}
        for name, value in self.limits.items():
            limit = LIMITS[name]
            if not limit.is_looser(value, limit.of(config)):
                stricter[limit.field] = value * limit.unit
        return replace(config, **stricter) if stricter else config


FREEZE_NOTE = "steer/opens"
"""The note in the store (rpc/event_messages.py) that freezes openings on all machines that share it."""


@dataclass(frozen=True)
class Freeze:
    """What that note says: {"version": 1, "revision": 7, "frozen_at": 1790000000 or null, "why": "..."}, as in `Steering`."""

    revision: int = 0
    frozen_at: int | None = None
    why: str = ""

    def encode(self) -> bytes:
        """Return the note."""
        return json.dumps({"version": VERSION, **asdict(self)}).encode()

    @classmethod
    def parse(cls, note: bytes) -> "Freeze":
        """Return what a note says, empty: there is none. Raises ValueError."""
        return _read(cls, note) if note else cls()


DAMAGED_FREEZE = Freeze(why="the note of the freeze of all machines cannot be read: freeze or thaw again", frozen_at=0)


def read_freeze(note: bytes) -> Freeze:
    """Return what a note says. One that cannot be read opens no channel."""
    try:
        return Freeze.parse(note)
    except ValueError:
        return DAMAGED_FREEZE


def steering_file(state_dir: Path) -> Path:
    """Return where it is kept."""
    return state_dir / "steering"


def read_steering(path: Path) -> Steering:
    """Return what the file says; nothing is changed if it is not there. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return Steering()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return _parse(raw)
    except ValueError as error:
        raise ConfigError(f"{path}: is damaged, or of another version") from error


def _parse(raw: bytes) -> Steering:
    """Raises ValueError."""
    found = _read(Steering, raw)
    is_good = type(found.is_drained) is bool and type(found.limits) is dict
    if not is_good or not all(name in LIMITS and is_limit(name, value) for name, value in found.limits.items()):
        raise ValueError("no steering")
    return found


def _read(kind: type[T], raw: bytes) -> T:
    """Return what is written in a file or a note. Raises ValueError for what is neither, or of another version."""
    try:
        content = json.loads(raw)
        if type(content) is not dict or content.pop("version") != VERSION:
            raise ValueError("of another version")
        found = kind(**content)
    except (RecursionError, TypeError, KeyError) as error:
        raise ValueError("damaged") from error
    if type(found.revision) is not int or type(found.frozen_at) not in (int, type(None)) or type(found.why) is not str:
        raise ValueError("damaged")
    return found


def is_limit(name: str, value: object) -> bool:
    """Return whether a value is one that a limit can have."""
    return type(value) is int and 0 <= value <= LIMITS[name].most


def change_steering(state_dir: Path, change: Callable[[Steering], Steering]) -> Steering:
    """Replace the file by what `change` makes of it, and return that: it is on disk. A change that changes nothing writes nothing.

    Raises OSError, ConfigError (what is there cannot be read), and what `change` raises; then nothing has changed.
    """
    path = steering_file(state_dir)
    with _locked(path):
        before = read_steering(path)
        after = change(before)
        if replace(after, revision=before.revision) == before:
            return before
        after = replace(after, revision=before.revision + 1)
        replace_file(path, json.dumps({"version": VERSION, **asdict(after)}) + "\n")
        return after


def _locked(path: Path) -> AbstractContextManager[None]:
    """Keep others from changing the file. Raises OSError: somebody else does for too long, who is stopped, maybe."""
    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return locked(handle, LOCK_SECONDS_MAX)


class SteeringFile:
    """One worker's view of the file, read again when it has changed. What cannot be read opens no channel, and drains nothing."""

    def __init__(self, state_dir: Path, tell: Callable[[str], None]) -> None:
        """tell(why): what is said once about a file that cannot be read."""
        self._path, self._tell = steering_file(state_dir), tell
        self._stamp: tuple[int, int, int] | None = None
        self.now = Steering()
        self.look()

    def look(self) -> bool:
        """Return whether it says something else than before."""
        try:
            status = os.stat(self._path)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            stamp = (0, 0, 0)
        except OSError:
            stamp = (-1, 0, 0)
        if stamp == self._stamp:
            return False
        self._stamp, before = stamp, self.now
        try:
            self.now = read_steering(self._path)
        except ConfigError as error:
            self._tell(str(error))
            self.now = replace(before, revision=0, frozen_at=before.frozen_at or 0, why=DAMAGED)
        return self.now != before
