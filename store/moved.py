"""The mark of a store that was moved to another place, or is arriving there: it is not started (moving.py).

An embedded store has it in the file `STATE_DIR/store/moved`, one on PostgreSQL in `paychan.cluster.moved`: a line, "to DIRECTORY"
where the data was, "from DIRECTORY" where it is not all there yet. DIRECTORY is the other one's, with its store.toml.
"""

from pathlib import Path
from typing import NamedTuple

from paychan.durable import sync_directory

from .directory import replace_file

NAME = "moved"
TO, FROM = "to", "from"


class Moved(NamedTuple):
    """way: TO or FROM. other: the other place's directory of configurations."""

    way: str
    other: str

    def __str__(self) -> str:
        return f"{self.way} {self.other}"

    @classmethod
    def parse(cls, text: str) -> "Moved":
        """Raises ValueError for any other line than `str` makes."""
        way, _, other = text.strip().partition(" ")
        if way not in (TO, FROM) or not other:
            raise ValueError(f"{text[:80]!r} is no mark of a move")
        return cls(way, other)

    def why_not(self, here: Path) -> str:
        """Return why the store whose configuration is in `here` does not start, and what to do."""
        if self.way == TO:
            back = f"back: paychan-store migrate {self.other} {here}"
            return f"this store was moved to {self.other}, where it is started once `paychan-store migrate` has ended; {back}"
        return f"the move from {self.other} did not end: paychan-store migrate {self.other} {here} goes on with it"


def read_mark(directory: Path) -> Moved | None:
    """Return the mark of the embedded store in a store's directory. Raises OSError; ValueError if it is damaged."""
    path = directory / NAME
    return Moved.parse(path.read_text()) if path.exists() else None


def write_mark(directory: Path, mark: Moved | None) -> None:
    """Replace or remove the mark; on return it is on disk. Raises OSError."""
    path = directory / NAME
    if mark is None:
        path.unlink(missing_ok=True)
        sync_directory(directory)
    else:
        replace_file(path, f"{mark}\n")
