"""The report: Markdown for people, JSON for programs. Only form is decided here."""

import json
import os
import platform
import statistics
from array import array
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.load.cores import NO_RANK, ONE_CORE
from bench.load.doors import DOORS, HALF, HALF_SHARED, PUBLIC
from bench.load.measure import Slice, percentile
from bench.load.provenance import FORMAT, NOT_TOLD
from bench.load.rows import Row, make_rows
from bench.load.scene import LONG, Record, Size
from bench.load.store_alone import SAMPLE, SPREAD

PACKAGES = ("granian", "uvloop", "coincurve", "rocksdict", "cython")
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": f"Linux {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load_average": os.getloadavg()[0],
    }


def pooled(slices: list[Slice]) -> array:
    """Return the latencies of all rounds, in nanoseconds."""
    together = array("Q")
    for piece in slices:
        together.extend(piece.latencies)
    return together


def summary(slices: list[Slice]) -> dict[str, Any]:
    """Return what a name's rounds come to: medians; of the latencies (in seconds), percentiles over all rounds.

    cpu_in_v: CPU of a payment, rate_in_v: payments in the time of one V; round by round.
    """
    latencies = sorted(pooled(slices))

    def median(value) -> float:
        return statistics.median(map(value, slices))

    return {
        "rate": median(lambda piece: piece.rate),
        "rates": [piece.rate for piece in slices],
        "payments": sum(piece.payments for piece in slices),
        "cpu_each": {name: median(lambda piece: piece.cpu[name] / piece.payments) for name in slices[0].cpu},  # noqa: B023
        "client_cpu_each": median(lambda piece: piece.client_cpu / piece.payments),
        "verify": median(lambda piece: piece.verify),
        "cpu_in_v": [piece.cpu_each / piece.verify for piece in slices],
        "rate_in_v": [piece.rate * piece.verify for piece in slices],
        "latency": {name: percentile(latencies, share) for name, share in PERCENTILES.items()},
    }


@dataclass(frozen=True)
class Result:
    """A whole measurement. commit: as `provenance.commit` has it, when it began; seconds: how long it took."""

    record: Record
    size: Size
    commit: str
    begun: datetime
    seconds: float
    machine: dict[str, Any] = field(default_factory=machine)

    @property
    def rows(self) -> list[Row]:
        return make_rows(self.record, self.size)


def as_json(result: Result) -> str:
    """Return everything but the single latencies, as `compare` reads it."""
    rounds = result.record.rounds
    slices = {name: summary(items) for name, items in rounds.items() if isinstance(items[0], Slice)}
    return json.dumps(
        {
            "format": FORMAT,
            "commit": result.commit,
            "granian_door": result.record.granian_door,
            "begun": result.begun.isoformat(timespec="seconds"),
            "seconds": result.seconds,
            "machine": result.machine,
            "size": vars(result.size),
            "sync": True,
            "verify": statistics.median(each["verify"] for each in slices.values()),
            "lacks": list(result.record.lacks),
            "rows": [{**vars(row), "median": row.median, "verdict": row.verdict} for row in result.rows],
            "slices": slices,
            "other": {name: items for name, items in rounds.items() if not isinstance(items[0], Slice)},
            "facts": result.record.facts,
        },
        indent=1,
    )


def as_markdown(result: Result, name: str) -> str:
    """Return the report; name: what the names of its plots begin with."""
    record, size = result.record, result.size
    parts = [_head(result), targets(result.rows), _throughput(result, name), _waiting(record), _others(record)]
    return "\n\n".join([*parts, _notes(record, size)]) + "\n"


def _door(way: str) -> str:
    """Return a sentence about granian's door."""
    if way == "own":
        return "granian's requests come in through our own door."
    if way == NOT_TOLD:
        return "The server does not tell which way granian's requests come in."
    return f"**granian's requests come in through its public interface**, a fifth more CPU for each payment ({way})."


def _head(result: Result) -> str:
    here, size, record = result.machine, result.size, result.record
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    lacks = "".join(f"Not as it should be: {lack}.\n" for lack in record.lacks)
    return f"""# Load

Written by `./bench/run.sh`, {result.begun:%Y-%m-%d %H:%M} UTC, commit `{result.commit}`: {here["cpu"]}, {here["cores"]} cores,
{here["kernel"]}; Python {here["python"]}, {versions}.
{_door(record.granian_door)}
Sync on (each payment is on disk before its answer) except where "unsynced" is said. Rounds of short slices that take turns:
{size.rounds}, {size.seconds} s a slice, {result.seconds:.0f} s in all; the median round counts, the rounds' range is in brackets.
Every answer was checked. Server, store and load client share the machine; load average in the end {here["load_average"]:.1f}.
{lacks}
Flags: `paychan-server` as it is launched (granian, RSGI, HTTP/1.1, keep-alive, uvloop, one worker unless said), -O3;
{size.main} connections, one channel on each, one request in flight on each.

- V: CPU time of one raw libsecp256k1 verification, distinct signatures, taken before and after each slice.
- H: the rate of the same server for the same request with a constant answer.
- Verify share: V / (CPU of all workers and the store for each payment).
- Fraction of the limit: payments/s / (1 / (1/H + V))."""


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def _number(row: Row, target: float | None) -> str:
    if target is None:
        return ""
    return f"{target:g}" + (f" {row.unit}" if row.unit else "") + (" at most" if row.is_most else "")


def targets(rows: list[Row]) -> str:
    """Return the table of targets."""
    lines = [
        [row.number, row.what, _number(row, row.at_least), _number(row, row.reach_for), row.measured, row.verdict, row.note]
        for row in rows
    ]
    return "## Targets\n\n" + _table(["", "what", "at least", "reach for", "measured", "holds?", "note"], lines)


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}" if seconds < 1e-4 else f"{seconds * 1e6:.0f}"


def _throughput(result: Result, name: str) -> str:
    record, size = result.record, result.size
    names = [f"{door} {count}" for door in DOORS for count in (*size.connections, HALF, HALF_SHARED)]
    names.insert(len(names) // len(DOORS), f"{PUBLIC} {size.main}")
    lines = [_slice_line(name, record.of(name)) for name in names]
    head = ["door, connections", "payments/s", *(f"{name} (ms)" for name in PERCENTILES)]
    head += ["CPU each (µs): workers", "store", "client", "V (µs)", "verify share"]
    title = f"""## Throughput against connections

Closed loop; "half" is the open loop at half the peak, {_place(record)} ("shared": all on all cores, no rank), with latencies
from the instant at which each request was due.

"""
    plots = f"\n\n![throughput against connections]({name}-throughput.png)\n\n![latency]({name}-latency.png)"
    return title + _table(head, lines) + plots


def _place(record: Record) -> str:
    """Return where the open loop's processes were."""
    if ONE_CORE in record.lacks:
        return "all on the one core"
    rank = "" if NO_RANK in record.lacks else ", all three before everybody else's threads"
    return "the worker on a core of its own, load client and store on the other" + rank


def _slice_line(name: str, slices: list[Slice]) -> list[str]:
    total = summary(slices)
    share = statistics.median(piece.verify_share for piece in slices)
    cells = [name, f"{total['rate']:.0f}", *(f"{seconds * 1e3:.2f}" for seconds in total["latency"].values())]
    cpu = [total["cpu_each"]["workers"], total["cpu_each"]["store"], total["client_cpu_each"], total["verify"]]
    return cells + [_microseconds(seconds) for seconds in cpu] + [f"{share:.2f}"]


def _waiting(record: Record) -> str:
    """Return how long the open loop's processes were ready to run and waited: what their scheduling adds to a latency."""
    names = [f"{door} {half}" for door in DOORS for half in (HALF, HALF_SHARED)]
    whom = ("client", "workers", "store")
    lines = [[name, *(f"{statistics.median(record.of(f'{name}: {who} waiting')):.2f}" for who in whom)] for name in names]
    title = "## Waiting for a core, seconds in a second\n\nAll threads of a process together; a granian worker has several.\n\n"
    return title + _table(["open loop", *whom], lines)


def _others(record: Record) -> str:
    """Return the slices that are in no table yet: what the ratios were made from."""
    lines = []
    for name, items in record.rounds.items():
        if isinstance(items[0], Slice) and not name.endswith((HALF, HALF_SHARED, *"0123456789")):
            total = summary(items)
            cpu = [total["cpu_each"].get(process) for process in ("workers", "store")]
            lines.append([name, f"{total['rate']:.0f}", *("" if value is None else _microseconds(value) for value in cpu)])
    for name in (SAMPLE, SPREAD):
        rate, cpu = (statistics.median(item[key] for item in record.of(name)) for key in ("rate", "cpu"))
        lines.append([name, f"{rate:.0f}", "", _microseconds(cpu)])
    return "## What the ratios were made from\n\n" + _table(["what", "per second", "CPU each (µs): workers", "store"], lines)


def _notes(record: Record, size: Size) -> str:
    facts = [f"- {name}: {value:.1f}" if isinstance(value, float) else f"- {name}: {value}" for name, value in record.facts.items()]
    if size.many < LONG.many:
        facts.append(f"- Rows 9 and 10 are of {size.many} channels here; `./bench/run.sh --long` takes {LONG.many}.")
    return "\n".join(["## Facts\n", *facts])
