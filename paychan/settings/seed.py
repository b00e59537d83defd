"""The configuration files of the server of 2016 (`.cfg`), read and turned into ours.

Their form is Data.Configurator's: groups `name { ... }`, `key = value` with texts, numbers and booleans, `#` comments. What they
say of secrets is never repeated; `import` and `$(VAR)` are named, and not followed.
"""

import re
from dataclasses import dataclass, field

FILE_BYTES_MAX = 1 << 20
DEPTH_MAX = 8

_TOKEN = re.compile(r'\s*(?:#[^\n]*|(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<mark>[{}=])|(?P<word>[^\s{}=#"]+))')
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")

Value = str | int | bool


class SeedError(Exception):
    """A file that is no configuration of 2016; the text is one line, with its line's number, and quotes nothing."""


@dataclass(frozen=True)
class Entry:
    """One `key = value`. key: with its groups, dotted. line: from 1."""

    line: int
    key: str
    value: Value


@dataclass
class Note:
    """What became of a line."""

    line: int
    key: str
    what: str


@dataclass
class Imported:
    """What a file became: whose it is, values by (table, key) of our file, and a note for each line."""

    kind: str
    values: dict[tuple[str, str], Value] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


def parse(text: str) -> list[Entry]:
    """Return all entries, in order. Raises SeedError."""
    entries: list[Entry] = []
    groups: list[str] = []
    tokens = _tokens(text)
    while tokens:
        line, kind, word = tokens.pop(0)
        if (kind, word) == ("mark", "}") and groups:
            groups.pop()
        elif kind != "word" or not (_NAME.match(word)):
            raise SeedError(f"line {line}: no key, group or end of one")
        elif word == "import" and tokens and tokens[0][1] == "text":
            entries.append(Entry(line, "import", tokens.pop(0)[2]))
        elif tokens and tokens[0][1:] == ("mark", "{"):
            tokens.pop(0)
            groups.append(word)
            if len(groups) > DEPTH_MAX:
                raise SeedError(f"line {line}: groups are nested too deeply")
        elif len(tokens) > 1 and tokens[0][1:] == ("mark", "=") and tokens[1][1] != "mark":
            entries.append(Entry(line, ".".join([*groups, word]), _value(*tokens[1])))
            del tokens[:2]
        else:
            raise SeedError(f"line {line}: neither `key = value` nor `group {{`")
    if groups:
        raise SeedError("a group is not closed")
    return entries


def _tokens(text: str) -> list[tuple[int, str, str]]:
    found, at, line = [], 0, 1
    text = text.removeprefix("\ufeff").rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.end() == at:
            raise SeedError(f"line {line}: a text has no end, or something stands there that does not belong")
        line += text.count("\n", at, match.start(match.lastgroup) if match.lastgroup else match.end())
        if match.lastgroup:
            found.append((line, match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def _value(line: int, kind: str, word: str) -> Value:
    if kind == "text":
        return re.sub(r"\\(.)", r"\1", word[1:-1])
    if word in ("true", "on", "false", "off"):
        return word in ("true", "on")
    if re.fullmatch(r"-?\d{1,18}", word):
        return int(word)
    raise SeedError(f"line {line}: the value is no text, whole number or boolean")
