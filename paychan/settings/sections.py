"""Reading TOML tables strictly. Every complaint is one line that names file and key; all of a file are collected, then raised."""

import os
import tomllib
from pathlib import Path
from typing import TypeVar

from ..core.errors import ConfigError
from ..rpc.connection import Address

FILE_BYTES_MAX = 1 << 20
"""Ours have 2 kB; a device may have no end."""

Kind = TypeVar("Kind")
_KIND_NAMES: dict[type, str] = {int: "an integer", str: "text", bool: "true or false", list: "a list", dict: "a table"}


class Section:
    """One table of a file. Accessors note a problem and return something harmless, so that the next key is looked at too."""

    def __init__(self, source: str, name: str, values: object, problems: list[str]) -> None:
        self.source, self.name, self.problems = source, name, problems
        self._known: set[str] = set()
        self._tables: list[Section] = []
        self._values: dict[str, object] = values if isinstance(values, dict) else {}
        if not isinstance(values, dict):
            self.fail("", "must be a table")

    def fail(self, key: str, why: str) -> None:
        """Note a problem with a key."""
        path = ".".join(part for part in (self.name, key) if part)
        line = "".join(symbol if symbol.isprintable() else "?" for symbol in f"{path}: {why}")  # a key may be any text
        self.problems.append(f"{self.source}: {line}")

    def table(self, key: str) -> "Section":
        """Return a table of this file, the same each time; an empty one if it is not there."""
        self._known.add(key)
        path = f"{self.name}.{key}" if self.name else key
        for section in self._tables:
            if section.name == path:
                return section
        section = Section(self.source, path, self._values.get(key, {}), self.problems)
        self._tables.append(section)
        return section

    def tables(self, key: str) -> list["Section"]:
        """Return an optional list of tables, `[[key]]` in the file; complaints count them from 1."""
        self._known.add(key)
        values = self._values.get(key, [])
        if type(values) is not list:
            self.fail(key, f"must be a list of tables, each headed [[{key}]]")
            return []
        path = f"{self.name}.{key}" if self.name else key
        sections = [Section(self.source, f"{path}[{number}]", value, self.problems) for number, value in enumerate(values, 1)]
        self._tables += sections
        return sections

    def named_tables(self, key: str) -> dict[str, "Section"]:
        """Return an optional table of tables by their names, `[key.NAME]` in the file."""
        self._known.add(key)
        values = self._values.get(key, {})
        if type(values) is not dict:
            self.fail(key, f"must be tables, each headed [{key}.NAME]")
            return {}
        path = f"{self.name}.{key}" if self.name else key
        sections = {name: Section(self.source, f"{path}.{name}", value, self.problems) for name, value in values.items()}
        self._tables += sections.values()
        return sections

    def text_pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """Return an optional table of texts, in the file's order."""
        values = self._get(key, dict, {}) or {}
        if not all(type(value) is str for value in values.values()):
            self.fail(key, "must be a table of texts")
            return ()
        return tuple(values.items())

    def has(self, key: str) -> bool:
        """Return whether the file gives this key."""
        return key in self._values

    def peek(self, key: str) -> object:
        """Return a value of whatever kind, None if it is not there, for keys that take several kinds."""
        return self._values.get(key)

    def finish(self, config: object) -> None:
        """Complain about keys that nobody asked for, then raise ConfigError if there were any problems. config: what was read."""
        self._complain_of_unknown()
        self.raise_problems(config)

    def _complain_of_unknown(self) -> None:
        for key in self._values:
            if key not in self._known:
                self.fail(key, "is unknown")
        for section in self._tables:
            section._complain_of_unknown()

    def raise_problems(self, config: object = None) -> None:
        """Raise ConfigError with all problems so far, if there are any."""
        if self.problems:
            raise ConfigError(*self.problems, config=config)

    def _get(self, key: str, kind: type[Kind], default: Kind | None) -> Kind | None:
        """Return the value, or None after noting a problem. Without a default the key must be there."""
        self._known.add(key)
        value = self._values.get(key, default)
        if value is None:
            self.fail(key, "is missing")
            return None
        if type(value) is not kind:
            self.fail(key, f"must be {_KIND_NAMES[kind]}")
            return None
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._get(key, int, default)
        if value is not None and not low <= value <= high:
            self.fail(key, f"must be from {low} to {high}")
        return low if value is None else value

    def boolean(self, key: str, default: bool | None = None) -> bool:
        return bool(self._get(key, bool, default))

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text; an empty one is a problem unless it is the default."""
        value = self._get(key, str, default)
        if value == "" != default:
            self.fail(key, "is empty")
        return value or ""

    def path(self, key: str) -> Path | None:
        """Return the path in an optional text."""
        value = self._get(key, str, "")
        return Path(value) if value else None

    def texts(self, key: str) -> tuple[str, ...]:
        """Return an optional list of texts."""
        values = self._get(key, list, []) or []
        if not all(type(value) is str and value for value in values):
            self.fail(key, "must be a list of texts")
            return ()
        return tuple(values)

    def pairs(self, key: str) -> tuple[tuple[int, int], ...]:
        """Return an optional list of [satoshi, confirmations]."""
        values = self._get(key, list, []) or []
        for value in values:
            if type(value) is not list or [type(number) for number in value] != [int, int] or not min(value) >= 0:
                self.fail(key, "must be a list of [satoshi, confirmations]")
                return ()
        return tuple((value, confirmations) for value, confirmations in values)

    def address(self, key: str, state_dir: Path) -> Address:
        text = self.text(key)
        try:
            return Address.parse(text, state_dir)
        except ValueError as error:
            if text:
                self.fail(key, str(error))
            return Address()


def read_sections(path: str | os.PathLike[str]) -> Section:
    """Return the top table of a TOML file. Raises ConfigError if there is none."""
    source = os.fspath(path)
    try:
        with open(source, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise ConfigError(f"{source}: is no TOML: it is longer than {FILE_BYTES_MAX} bytes")
        values = tomllib.loads(content.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: is no TOML: it is nested too deeply") from error
    except ValueError as error:  # also a number of thousands of digits
        raise ConfigError(f"{source}: is no TOML: {' '.join(str(error).split())}") from error
    return Section(source, "", values, [])
