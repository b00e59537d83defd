"""Which database a state directory belongs to: the file `STATE_DIR/store/postgres`, so that no store ever starts on another one.

JSON: instance, 16 random bytes in hex, by which the database knows this state directory; and, once a store has begun, the
database's system identifier and its identity record in hex. Beside it stands the mark (store/mark.py) with the number of the newest
group that was confirmed.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ...directory import replace_file

NAME = "postgres"


@dataclass(frozen=True)
class Pinned:
    """instance: hex. system, identity: None, empty before the first start is over."""

    instance: str
    system: int | None = None
    identity: str = ""


def path_of(directory: Path) -> Path:
    """directory: the store's, `STATE_DIR/store`."""
    return directory / NAME


def read_or_make(directory: Path) -> Pinned:
    """Return what is pinned in a store's directory; a new one gets its instance. Raises OSError; ValueError for a damaged file."""
    path = path_of(directory)
    try:
        text = path.read_text()
    except FileNotFoundError:
        pinned = Pinned(os.urandom(16).hex())
        write(directory, pinned)
        return pinned
    try:
        found = Pinned(**json.loads(text))
        if len(bytes.fromhex(found.instance)) != 16:
            raise ValueError("a wrong length")
        bytes.fromhex(found.identity)
        return found
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def write(directory: Path, pinned: Pinned) -> None:
    """Replace the file; on return it is on disk. Raises OSError."""
    replace_file(path_of(directory), json.dumps(asdict(pinned)) + "\n")
