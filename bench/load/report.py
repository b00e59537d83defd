"""The report: Markdown for people, JSON for programs. Only form is decided here."""

import json
import os
import platform
import statistics
from array import array
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.load.doors import DOORS, HALF, HALF_SHARED
from bench.load.measure import Slice, percentile
from bench.load.rows import Row
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
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_average": os.getloadavg()[0],
    }


def pooled(slices: list[Slice]) -> array:
    """Return the latencies of all rounds, in nanoseconds."""
    together = array("Q")
    for piece in slices:
        together.extend(piece.latencies)
    return together


def summary(slices: list[Slice]) -> dict[str, Any]:
    """Return what a name's rounds come to: medians; of the latencies (in seconds), percentiles over all rounds."""
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
        "latency": {name: percentile(latencies, share) for name, share in PERCENTILES.items()},
    }


def as_json(rows: list[Row], record: Record, size: Size) -> str:
    """Return everything but the single latencies."""
    return json.dumps(
        {
            "machine": machine(),
            "size": vars(size),
            "sync": True,
            "rows": [{**vars(row), "median": row.median, "verdict": row.verdict} for row in rows],
            "slices": {name: summary(items) for name, items in record.rounds.items() if isinstance(items[0], Slice)},
            "other": {name: items for name, items in record.rounds.items() if not isinstance(items[0], Slice)},
            "facts": record.facts,
        },
        indent=1,
    )


def as_markdown(rows: list[Row], record: Record, size: Size, seconds: float) -> str:
    """Return the report."""
    parts = [_head(size, seconds), _targets(rows), _throughput(record, size), _waiting(record), _others(record)]
    return "\n\n".join([*parts, _notes(record, size)]) + "\n"


def _head(size: Size, seconds: float) -> str:
    here = machine()
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    return f"""# Load

Written by `./bench/run.sh`, {here["date"]}: {here["cpu"]}, {here["cores"]} cores, {here["kernel"]};
Python {here["python"]}, {versions}.
Sync on (each payment is on disk before its answer) except where "unsynced" is said. {size.rounds} rounds of short slices
that take turns, {size.seconds} s each; the median round counts, with the range over rounds in brackets; {seconds:.0f} s in all.
Every answer was checked. Server, store and load client share the machine; load average at the end {here["load_average"]:.1f}.

Flags: `paychan-server` as it is launched (granian, RSGI, HTTP/1.1, keep-alive, uvloop, one worker unless said), -O3;
{size.main} connections, one channel on each, one request in flight on each.

- V: CPU time of one raw libsecp256k1 verification, distinct signatures, taken before and after each slice.
- H: the rate of the same server for the same request with a constant answer.
- Verify share: V / (CPU of all workers and the store for each payment).
- Fraction of the limit: payments/s / (1 / (1/H + V))."""


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def _number(row: Row, target: float) -> str:
    return f"{target:g}" + (f" {row.unit}" if row.unit else "") + (" at most" if row.is_most else "")


def _targets(rows: list[Row]) -> str:
    lines = [
        [row.number, row.what, _number(row, row.at_least), _number(row, row.reach_for), row.measured, row.verdict, row.note]
        for row in rows
    ]
    return "## Targets\n\n" + _table(["", "what", "at least", "reach for", "measured", "holds?", "note"], lines)


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}" if seconds < 1e-4 else f"{seconds * 1e6:.0f}"


def _throughput(record: Record, size: Size) -> str:
    names = [f"{door} {count}" for door in DOORS for count in (*size.connections, HALF, HALF_SHARED)]
    lines = [_slice_line(name, record.of(name)) for name in names]
    head = ["door, connections", "payments/s", *(f"{name} (ms)" for name in PERCENTILES)]
    head += ["CPU each (µs): workers", "store", "client", "V (µs)", "verify share"]
    title = """## Throughput against connections

Closed loop; "half" is the open loop at half the peak, the worker on a core of its own, load client and store on the other, all
three before everybody else's threads ("shared": all on all cores, no rank), with latencies from the instant at which each request
was due.

"""
    plots = "\n\n![throughput against connections](throughput.png)\n\n![latency](latency.png)"
    return title + _table(head, lines) + plots


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
