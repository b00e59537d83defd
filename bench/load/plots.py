"""The two plots of a report."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from bench.load.doors import DOORS  # noqa: E402
from bench.load.measure import percentile  # noqa: E402
from bench.load.report import pooled  # noqa: E402
from bench.load.scene import Record, Size  # noqa: E402

SHARES = [step / 200 for step in range(200)] + [0.996, 0.998, 0.999, 0.9995]


def draw(record: Record, size: Size, directory: Path, name: str) -> None:
    """Write NAME-throughput.png and NAME-latency.png."""
    _throughput(record, size, directory / f"{name}-throughput.png")
    _latency(record, size, directory / f"{name}-latency.png")


def _throughput(record: Record, size: Size, file: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for door in DOORS:
        rounds = {count: sorted(piece.rate for piece in record.of(f"{door} {count}")) for count in size.connections}
        (line,) = axes.plot(list(rounds), [rates[len(rates) // 2] for rates in rounds.values()], marker="o", label=door)
        lows, highs = [rates[0] for rates in rounds.values()], [rates[-1] for rates in rounds.values()]
        axes.fill_between(list(rounds), lows, highs, alpha=0.15, color=line.get_color())
    axes.set_xscale("log", base=2)
    axes.set_xticks(size.connections, [str(count) for count in size.connections])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("connections")
    axes.set_ylabel("payments/s, synced (median and range)")
    _finish(figure, axes, file)


def _latency(record: Record, size: Size, file: Path) -> None:
    """Draw what share of the answers took longer: log against log, as the tail is what matters."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for door in DOORS:
        for name, style in ((f"{door} {size.main}", "-"), (f"{door} half", "--")):
            latencies = sorted(pooled(record.of(name)))
            times = [percentile(latencies, share) * 1e3 for share in SHARES]
            axes.plot(times, [1 - share for share in SHARES], style, label=name + (" the peak rate" if "half" in name else ""))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("share of answers that took longer")
    _finish(figure, axes, file)


def _finish(figure, axes, file: Path) -> None:
    axes.grid(True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
