"""The counts of all slots, told to a sink: as text, in Prometheus' format (0.0.4) or OpenMetrics' (1.0.0), or whatever another
sink makes of them."""

import math
import platform
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from .. import __version__
from .._fast import tally
from . import families
from .families import NANOSECONDS, Family, Join, Kind
from .file import Role, Slot

INFO = "paychan_build_info", Kind.GAUGE, "Always 1; its labels say which version serves this."
PROCESSES = "paychan_processes", Kind.GAUGE, "Processes that count now, by role."
SILENCE = "paychan_worker_silence_seconds", Kind.GAUGE, "How long ago the worker that is furthest behind has renewed its gauges."
OF_ITSELF = (INFO, PROCESSES, SILENCE)
"""What is known without a cell of its own."""

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


def names() -> dict[str, str]:
    """Return the name of every metric, with its kind."""
    answers = {name: Kind.COUNTER for name, _ in (families.PAYMENTS, families.REQUESTS)}
    of_itself = {name: kind for name, kind, _ in OF_ITSELF}
    return {name: kind.value for name, kind in {**of_itself, **answers, **{f.name: f.kind for f in families.FAMILIES}}.items()}


class Sink(Protocol):
    """What is made of the metrics, one after the other."""

    def head(self, name: str, kind: Kind, help: str) -> None:
        """Begin a metric."""

    def sample(self, name: str, value: float, labels: Labels = ()) -> None:
        """Take a sample of it."""

    def histogram(self, name: str, buckets: list[tuple[float, int]], total: float, count: int) -> None:
        """Take what a histogram has: upper bounds, each with how many are not above it, the last infinite; their sum and count."""


class Text:
    """The text as it grows. constant: labels that every sample has."""

    def __init__(self, constant: Labels, is_open: bool) -> None:
        self._constant, self._is_open, self._lines = constant, is_open, list[str]()

    def head(self, name: str, kind: Kind, help: str) -> None:
        """Begin a metric."""
        shown = name.removesuffix("_total") if self._is_open and kind is Kind.COUNTER else name
        self._lines += [f"# HELP {shown} {help}", f"# TYPE {shown} {kind.value}"]

    def sample(self, name: str, value: float, labels: Labels = ()) -> None:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in (*self._constant, *labels))
        self._lines.append(f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}")

    def histogram(self, name: str, buckets: list[tuple[float, int]], total: float, count: int) -> None:
        for bound, below in buckets:
            self.sample(f"{name}_bucket", below, (("le", "+Inf" if bound == math.inf else repr(bound)),))
        self.sample(f"{name}_sum", total)
        self.sample(f"{name}_count", count)

    def end(self) -> bytes:
        """Return all of it."""
        return "\n".join([*self._lines, "# EOF\n"] if self._is_open else [*self._lines, ""]).encode()


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(value)


def expose(slots: list[Slot], labels: dict[str, str], machine: str = "", is_open: bool = False) -> bytes:
    """Return the text. labels: of the build, besides its version; machine: this one's name in a cluster, or empty."""
    text = Text((("machine", machine),) if machine else (), is_open)
    tell(text, slots, labels)
    return text.end()


def tell(text: Sink, slots: list[Slot], labels: dict[str, str]) -> None:
    """Tell all metrics. labels: as above."""
    _of_itself(text, slots, labels)
    sums = [sum(cells) for cells in zip(*(slot.cells for slot in slots), strict=True)] or [0] * tally.CELLS
    _answers(text, sums)
    for family in families.FAMILIES:
        if family.kind is Kind.GAUGE:
            role = Role.OPERATOR if family.is_operators else Role.WORKER
            _show_gauge(text, family, [slot.cells for slot in slots if _has_gauges(slot, role)])
        elif family.kind is Kind.COUNTER:
            text.head(family.name, family.kind, family.help)
            for value, count in zip(family.values, sums[family.at : family.at + family.size], strict=True):
                if count or value not in family.sparse:
                    text.sample(family.name, count, ((family.label, value),) if family.label else ())
        else:
            _show_histogram(text, family, sums[family.at : family.at + family.size])


def _has_gauges(slot: Slot, role: Role = Role.WORKER) -> bool:
    return slot.is_live and slot.role == role and slot.cells[families.BEAT_AT] > 0


def _of_itself(text: Sink, slots: list[Slot], labels: dict[str, str]) -> None:
    text.head(*INFO)
    text.sample(INFO[0], 1, (("version", __version__), ("python", platform.python_version()), *labels.items()))
    text.head(*PROCESSES)
    for role in Role:
        text.sample(PROCESSES[0], sum(slot.is_live and slot.role == role for slot in slots), (("role", role.name.lower()),))
    beats = [slot.cells[families.BEAT_AT] for slot in slots if _has_gauges(slot)]
    text.head(*SILENCE)
    if beats:
        text.sample(SILENCE[0], max(0, time.time_ns() - min(beats)) / NANOSECONDS)


def _answers(text: Sink, sums: list[int]) -> None:
    text.head(families.PAYMENTS[0], Kind.COUNTER, families.PAYMENTS[1])
    for door, where in families.DOORS.items():
        for outcome, count in outcomes(sums, door, families.PAID):
            text.sample(families.PAYMENTS[0], count, (("door", where), ("outcome", outcome)))
    text.head(families.REQUESTS[0], Kind.COUNTER, families.REQUESTS[1])
    for outcome, count in outcomes(sums, tally.REQUESTS, ("done",)):
        text.sample(families.REQUESTS[0], count, (("outcome", outcome),))


def outcomes(sums: list[int], door: int, usual: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield the outcomes of a door that are shown: the usual ones and the troubles always. A number without a name would be a bug
    of ours; it is shown as `done`."""
    at = tally.OUTCOMES_AT + door * tally.OUTCOMES
    counts = dict.fromkeys(families.OUTCOMES.values(), 0)
    for number, count in enumerate(sums[at : at + tally.OUTCOMES]):
        counts[families.OUTCOMES.get(number, "done")] += count
    yield from ((outcome, count) for outcome, count in counts.items() if count or outcome in usual or outcome in families.TROUBLES)


def _show_gauge(text: Sink, family: Family, cells: list[list[int]]) -> None:
    text.head(family.name, family.kind, family.help)
    for place, value in enumerate(family.values, family.at):
        found = [row[place] for row in cells if row[place] or not family.is_optional]
        if found:
            text.sample(family.name, _joined(family.join, found), ((family.label, value),) if family.label else ())


def _joined(join: Join, values: Iterable[int]) -> int:
    return sum(values) if join is Join.SUM else max(values) if join is Join.MAX else min(values)


def _show_histogram(text: Sink, family: Family, cells: list[int]) -> None:
    unit = NANOSECONDS if family.is_seconds else 1
    text.head(family.name, family.kind, family.help)
    below, buckets = 0, list[tuple[float, int]]()
    for bucket, count in enumerate(cells[: tally.BUCKETS - 1]):
        below += count
        bound = (1 << family.first_power + bucket) / unit if family.is_seconds else (1 << family.first_power + bucket) - 1
        buckets.append((float(bound), below))
    below += cells[tally.BUCKETS - 1]
    buckets.append((math.inf, below))
    text.histogram(family.name, buckets, cells[tally.BUCKETS] / unit if family.is_seconds else cells[tally.BUCKETS], below)
