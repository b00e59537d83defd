"""Two results side by side: `./bench/run.sh --compare A.json B.json`. Everything is a ratio, most over V, so that it holds across
machines; a row differs if no round of one run gave what a round of the other did.
"""

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load.failure import Failed
from bench.load.provenance import FORMAT

ONCE, WITHIN, BETTER, WORSE = "measured once", "within the spread", "**better**", "**worse**"


@dataclass(frozen=True)
class Line:
    """One number of both runs, round by round. is_most: smaller is better."""

    number: str
    what: str
    a: list[float]
    b: list[float]
    is_most: bool

    @property
    def verdict(self) -> str:
        """What B is, seen from A."""
        if min(len(self.a), len(self.b)) < 2:
            return ONCE
        if max(self.a) < min(self.b):
            return WORSE if self.is_most else BETTER
        if max(self.b) < min(self.a):
            return BETTER if self.is_most else WORSE
        return WITHIN

    @property
    def ratio(self) -> str:
        before = statistics.median(self.a)
        return f"{statistics.median(self.b) / before:.2f}" if before else ""


@dataclass(frozen=True)
class Side:
    """One of the two results, as far as it is compared. rows, cpu, rates: by what stands first in their line."""

    file: Path
    size: dict[str, Any]
    told: dict[str, str]
    sync: bool
    lacks: list[str]
    rows: dict[str, tuple[str, list[float], bool]]
    cpu: dict[str, list[float]]
    rates: dict[str, list[float]]


def compare(file_a: Path, file_b: Path) -> str:
    """Return the comparison in Markdown. Raises Failed, in one line, for what is no result, or results of different sizes."""
    a, b = load(file_a), load(file_b)
    _refuse_unlike(a, b)
    targets = list(_lines(a, b))
    parts = ["# Two runs compared", _told(a, b), "## Targets", _table(targets, "what")]
    for title, one, other, is_most in (
        ("CPU of a payment, workers and store, in V", a.cpu, b.cpu, True),
        ("Payments in the time of one V", a.rates, b.rates, False),
    ):
        lines = [Line("", name, one[name], other[name], is_most) for name in one if name in other]
        parts += [f"## {title}", _table(lines, "load")]
    return "\n\n".join([*parts, *_words(a, b, targets)]) + "\n"


# --- reading ---


def load(file: Path) -> Side:
    """Return what a JSON file of ours holds. Raises Failed."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failed(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Failed(f"{file}: is no JSON") from error
    if not isinstance(content, dict) or not {"rows", "slices", "size"} <= content.keys():
        raise Failed(f"{file}: is no result of ./bench/run.sh")
    if content.get("format") != FORMAT:
        raise Failed(f"{file}: has form {content.get('format', 'none, it is older')}, not {FORMAT}: measure its commit again")
    try:
        return _side(file, content)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise Failed(f"{file}: is damaged ({type(error).__name__}: {error})") from error


def _side(file: Path, content: Mapping[str, Any]) -> Side:
    verify, machine, slices = _numbers([content["verify"]])[0], content["machine"], content["slices"]
    if verify <= 0:
        raise ValueError("a verification takes no time")
    rows = {}
    for row in content["rows"]:
        values = _numbers(row["values"])
        what = str(row["what"])
        if row["unit"] == "s":  # in V, as everything that another processor does in another time
            what, values = f"{what}, in V", [seconds / verify for seconds in values]
        rows[str(row["number"])] = what, values, bool(row["is_most"])
    told = {
        "file": file.name,
        "commit": str(content["commit"]),
        "granian's door": str(content["granian_door"]),
        "begun": str(content["begun"]),
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}",
        "Python": str(machine["python"]),
        **{str(name): str(version) for name, version in machine["versions"].items()},
        "V": f"{verify * 1e6:.1f} µs",
        "rounds": str(content["size"]["rounds"]),
    }
    return Side(
        file,
        dict(content["size"]),
        told,
        bool(content["sync"]),
        [str(lack) for lack in content["lacks"]],
        rows,
        {str(name): _numbers(each["cpu_in_v"]) for name, each in slices.items()},
        {str(name): _numbers(each["rate_in_v"]) for name, each in slices.items()},
    )


def _numbers(values: Any) -> list[float]:
    """Return a list of numbers as it is. Raises ValueError, TypeError for anything else, or none."""
    if not isinstance(values, list) or not values or any(type(value) not in (int, float) for value in values):
        raise TypeError("a list of numbers was expected")
    if not all(map(math.isfinite, values)):
        raise ValueError("a number is not one that was measured")
    return [float(value) for value in values]


def _refuse_unlike(a: Side, b: Side) -> None:
    names = sorted((a.size.keys() | b.size.keys()) - {"rounds"})
    unlike = [f"{name} {a.size.get(name)} and {b.size.get(name)}" for name in names if a.size.get(name) != b.size.get(name)]
    if unlike:
        raise Failed(f"{a.file} and {b.file}: are of different sizes ({', '.join(unlike)}): compare --long with --long")
    if a.sync != b.sync:
        raise Failed(f"{a.file} and {b.file}: one was measured with sync, the other without")


# --- saying ---


def _lines(a: Side, b: Side) -> Iterator[Line]:
    for number, (what, values, is_most) in a.rows.items():
        if number in b.rows and b.rows[number][0] == what:
            yield Line(number, what, values, b.rows[number][1], is_most)


def _told(a: Side, b: Side) -> str:
    """Return what the two come from; what is alike stands in both columns."""
    names = dict.fromkeys((*a.told, *b.told))
    lines = [f"| {name} | {a.told.get(name, '')} | {b.told.get(name, '')} |" for name in names]
    return "\n".join(["|  | A | B |", "| --- | --- | --- |", *lines])


def _table(lines: Iterable[Line], what: str) -> str:
    made = [f"|  | {what} | A | B | B / A |  |", "| --- | --- | --- | --- | --- | --- |"]
    for line in lines:
        cells = [line.number, line.what, _spread(line.a), _spread(line.b), line.ratio, line.verdict]
        made.append("| " + " | ".join(cells) + " |")
    return "\n".join(made)


def _spread(values: list[float]) -> str:
    text = _short(statistics.median(values))
    return f"{text} ({_short(min(values))} to {_short(max(values))})" if len(values) > 1 else text


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _words(a: Side, b: Side, lines: list[Line]) -> Iterator[str]:
    """Yield what to know beside the numbers; the last paragraph says which rows differ."""
    for name, what in (("machine", "machines"), ("granian's door", "doors in granian")):
        if a.told[name] != b.told[name]:
            yield f"The {what} differ."
    for name, side in (("A", a), ("B", b)):
        for lack in side.lacks:
            yield f"{name}: {lack}."
    only = [number for number in (*a.rows, *b.rows) if number not in {line.number for line in lines}]
    if only:
        yield f"Not in both, or not of the same: {', '.join(dict.fromkeys(only))}."
    differing = [f"{line.number} {line.verdict}" for line in lines if line.verdict in (BETTER, WORSE)]
    if all(line.verdict == ONCE for line in lines):
        yield "One round has no spread: nothing can be said of these rows. Measure more rounds."
    elif differing:
        yield f"B differs from A by more than the rounds' spread in: {', '.join(differing)}."
    else:
        yield "No row differs by more than the rounds' spread."
