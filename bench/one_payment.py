"""How the benches measure: in rounds of many payments, of which one payment's share is reported, in microseconds and in V.

V, one raw libsecp256k1 verification, is taken beside each round, so that a slow moment of the machine falls on both. The clock is
this thread's CPU time: what else runs on the machine is not in it.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.samples import COUNT, verify_batch

VERIFICATIONS = 100
"""For V beside one round: some 3 ms."""


@dataclass(frozen=True)
class Row:
    """One line of the summary. us: microseconds of CPU for one payment; in_v: the same in V; both the median round's."""

    what: str
    us: float
    in_v: float


rows: list[Row] = []
"""Of this run, in the order in which they were measured."""

_batch = verify_batch(VERIFICATIONS)


def v_now() -> float:
    """Return the CPU seconds of one raw verification just now."""
    begun = time.thread_time()
    valid = _batch.run()
    seconds = time.thread_time() - begun
    assert valid == VERIFICATIONS
    return seconds / VERIFICATIONS


def measure(
    benchmark: Any,
    what: str,
    run: Callable[..., Any],
    setup: Callable[[], tuple[Any, ...]] = tuple,
    count: int = COUNT,
    rounds: int = 20,
) -> Any:
    """Have `run(*setup())` make `count` payments in each round; return what the last round returned.

    what: the line's name in the summary. In the suite, where nothing is measured, there is one round.
    """
    beside: list[float] = []

    def prepare() -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments = setup()
        if benchmark.enabled:
            beside.append(v_now())
        return arguments, {}

    result = benchmark.pedantic(run, setup=prepare, rounds=rounds, warmup_rounds=1)
    if benchmark.enabled:
        _share_out(benchmark, what, count, beside[-rounds:])
    return result


def _share_out(benchmark: Any, what: str, count: int, beside: list[float]) -> None:
    """Have pytest-benchmark report one payment, and note what its table has no column for."""
    measured = benchmark.stats
    measured.iterations = count
    measured.stats.data[:] = [seconds / count for seconds in measured.stats.data]
    in_v = statistics.median(seconds / v for seconds, v in zip(measured.stats.data, beside, strict=True))
    row = Row(what, statistics.median(measured.stats.data) * 1e6, in_v)
    rows.append(row)
    benchmark.extra_info.update(what=what, us=round(row.us, 4), in_v=round(row.in_v, 5))


def summary() -> list[str]:
    """Return the rows as README's table has them, the dearest first."""
    lines = ["| one payment | µs | in V |", "| --- | --- | --- |"]
    return lines + [f"| {row.what} | {_short(row.us)} | {_short(row.in_v)} |" for row in sorted(rows, key=lambda row: -row.us)]


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.2f}" if number >= 1 else f"{number:.2g}"
