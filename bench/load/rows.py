"""The table of targets, from the record: what each row's numbers are, round by round, and whether they hold."""

import statistics
from dataclasses import dataclass

from bench.load.cores import ONE_CORE
from bench.load.doors import GRANIAN, HALF, HALF_SHARED, KINDS, OWN_PORT, PUBLIC
from bench.load.forwarding import FORWARDED, OVER_TLS, OWNED
from bench.load.many import FEW, MANY
from bench.load.measure import Slice
from bench.load.scene import Record, Size
from bench.load.selling import ALONE, ALONE_BATCH, CHARGED, CHARGED_LIST, FREE_CALL, FREE_ROUTE, PAID_CALL, PAID_ROUTE
from bench.load.store_alone import SAMPLE

UNIT_FORMS = {"": "{:.2f}", "s": "{:.1f} s", "bytes": "{:.0f} bytes"}


@dataclass(frozen=True)
class Row:
    """One number to reach. values: one for each round, the median counts.

    at_least, reach_for: the targets, None where a number only stands beside another; with `is_most` smaller is better.
    """

    number: str
    what: str
    at_least: float | None
    reach_for: float | None
    values: list[float]
    is_most: bool = False
    unit: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if self.at_least is None or self.reach_for is None:
            return ""
        return "reached" if self._meets(self.reach_for) else "holds" if self._meets(self.at_least) else "**no**"

    def _meets(self, target: float) -> bool:
        return self.median <= target if self.is_most else self.median >= target

    def text(self, value: float) -> str:
        return UNIT_FORMS[self.unit].format(value)

    @property
    def measured(self) -> str:
        low, high = min(self.values), max(self.values)
        spread = f" ({self.text(low)} to {self.text(high)})" if len(self.values) > 1 else ""
        return self.text(self.median) + spread


def make_rows(record: Record, size: Size) -> list[Row]:
    """Return all rows, in the table's order."""
    return [
        _compiled_call(record),
        *_door(record, size, "2", GRANIAN, 0.52, 0.60, 0.95),
        *_public(record, size),
        *_door(record, size, "3", OWN_PORT, 0.70, 0.78, 0.92),
        _batch(record, size),
        _worse_door("5", "sync on / sync off, payments/s", _synced_to_unsynced(record, size), 0.85, 0.95),
        *forwarding_rows(record),
        *_refused(record, size),
        *_latency(record),
        _many(record, size),
        *_memory_and_restart(record, size),
        _store_alone(record),
        *selling_rows(record, size),
    ]


def _compiled_call(record: Record) -> Row:
    values = [item["pay"] / item["verify"] for item in record.of("compiled call")]
    return Row("1", "whole payment in one compiled call / V", 1.08, 1.04, values, is_most=True)


def fraction_of_limit(paid: Slice, constant: Slice) -> float:
    """Return payments/s in terms of a server that did nothing but HTTP and one verification for each."""
    return paid.rate * (1 / constant.rate + paid.verify)


def _door(record: Record, size: Size, number: str, door: str, share: float, share_reach: float, fraction_reach: float) -> list[Row]:
    paid, constants = record.of(f"{door} {size.main}"), record.of(f"{door} constant")
    pairs = list(zip(paid, constants, strict=True))
    by_cpu = [(constant.cpu_each + piece.verify) / piece.cpu_each for piece, constant in pairs]
    note = f"by CPU alone, (constant answer + V) / payment: {statistics.median(by_cpu):.2f}"
    fractions = [fraction_of_limit(*pair) for pair in pairs]
    return [
        Row(f"{number}a", f"{door}: verify share", share, share_reach, [piece.verify_share for piece in paid]),
        Row(f"{number}b", f"{door}: fraction of the limit", 0.85, fraction_reach, fractions, note=note),
    ]


def _public(record: Record, size: Size) -> list[Row]:
    """Return what granian's public interface gives in the same run, and what our own door in granian brings."""
    ours, public = (record.of(f"{door} {size.main}") for door in (GRANIAN, PUBLIC))
    brings = [own.verify_share / other.verify_share for own, other in zip(ours, public, strict=True)]
    note = f"our door in granian: {record.granian_door}"
    return [
        Row("2c", f"{PUBLIC}: verify share", None, None, [piece.verify_share for piece in public]),
        Row("2d", f"{GRANIAN} / {PUBLIC}, verify share", 1.2, 1.3, brings, note=note),
    ]


def _batch(record: Record, size: Size) -> Row:
    shares = [piece.verify_share for piece in record.of("batch")]
    return Row("4", f"batch route, {size.batch} payments a request: verify share", 0.88, 0.93, shares, note=OWN_PORT)


def _synced_to_unsynced(record: Record, size: Size) -> dict[str, list[float]]:
    return {door: _rate_ratios(record, f"{door} {size.main}", f"{door} unsynced") for door in (GRANIAN, OWN_PORT)}


def _rate_ratios(record: Record, over: str, under: str) -> list[float]:
    return [a.rate / b.rate for a, b in zip(record.of(over), record.of(under), strict=True)]


def _cpu_ratios(record: Record, over: str, under: str) -> list[float]:
    return [a.cpu_each / b.cpu_each for a, b in zip(record.of(over), record.of(under), strict=True)]


def _worse_door(
    number: str, what: str, by_door: dict[str, list[float]], at_least: float, reach_for: float, is_most: bool = False
) -> Row:
    """Return the row of the door whose median is worse; the note names it, and tells the other's."""
    medians = {door: statistics.median(values) for door, values in by_door.items()}
    worse = (max if is_most else min)(medians, key=lambda door: medians[door])
    others = "".join(f"; {door} {value:.2f}" for door, value in medians.items() if door != worse)
    return Row(number, what, at_least, reach_for, by_door[worse], is_most, note=worse + others)


def forwarding_rows(record: Record) -> list[Row]:
    """Return the rows of what it costs that a payment came to another worker than its channel's."""
    ratios = _cpu_ratios(record, FORWARDED, OWNED)
    rows = [Row("6", "forwarded / owned payment, CPU", 1.25, 1.12, ratios, is_most=True)]
    if record.of(OVER_TLS):
        over = _cpu_ratios(record, OVER_TLS, FORWARDED)
        rows.append(Row("6b", "forwarded to another machine over TLS / to another worker, CPU", None, None, over))
    return rows


def _refused(record: Record, size: Size) -> list[Row]:
    names = {
        "unknown": "refused payment, unknown channel",
        "malformed": "refused payment, malformed",
        "replayed": "replayed payment",
    }
    rows = []
    for letter, kind in zip("abc", KINDS, strict=True):
        ratios = {door: _cpu_ratios(record, f"{door} {kind}", f"{door} {size.main}") for door in (GRANIAN, OWN_PORT)}
        rows.append(_worse_door(f"7{letter}", f"{names[kind]} / accepted one, CPU", ratios, 0.35, 0.2, is_most=True))
    return rows


def _latency(record: Record) -> list[Row]:
    rows = []
    for letter, door in zip("ab", (GRANIAN, OWN_PORT), strict=True):
        ratios, shared = (_spreads(record, f"{door} {half}") for half in (HALF, HALF_SHARED))
        where = ONE_CORE if ONE_CORE in record.lacks else "worker on a core of its own"
        note = f"{where}; all processes on all cores: {statistics.median(shared):.2f}"
        rows.append(Row(f"8{letter}", f"{door}: p99 / p50 latency at half the peak rate", 4, 2.5, ratios, True, note=note))
    return rows


def _spreads(record: Record, name: str) -> list[float]:
    return [piece.latency(0.99) / piece.latency(0.5) for piece in record.of(name)]


def _many(record: Record, size: Size) -> Row:
    what = f"CPU of a payment with {size.many:,} open channels / with {size.few:,}".replace(",", " ")
    return Row("9", what, 1.15, 1.05, _cpu_ratios(record, MANY, FEW), is_most=True)


def _memory_and_restart(record: Record, size: Size) -> list[Row]:
    facts = record.facts
    worker, table = facts["bytes for each channel"], facts["bytes for each channel, table alone"]
    start = facts["seconds from start to first payment"]
    channels = f"{size.many:,} channels".replace(",", " ")
    alone = f"the table alone: {table:.0f}; {facts['channels loaded']} channels were loaded"
    return [
        Row("10a", "memory for each loaded channel", 512, 400, [worker], True, "bytes", alone),
        Row("10b", f"start to first payment on {channels}", 10, 2, [start], True, "s"),
    ]


def _store_alone(record: Record) -> Row:
    items = record.of(SAMPLE)
    values = [item["rate"] * item["verify"] for item in items]
    rate, cpu = (statistics.median(item[key] for item in items) for key in ("rate", "cpu"))
    note = f"{rate:.0f} durable updates/s, {cpu * 1e6:.1f} µs of the store's CPU each"
    return Row("11", "store alone, 256 updates outstanding: durable updates/s / verifications/s of a core", 4, 8, values, note=note)


def selling_rows(record: Record, size: Size) -> list[Row]:
    """Return the rows of what a price costs."""
    single = _cpu_ratios(record, CHARGED, ALONE)
    listed = [a.cpu_each / size.batch / b.cpu_each for a, b in zip(record.of(CHARGED_LIST), record.of(ALONE_BATCH), strict=True)]
    return [
        Row("12a", "payment with a charge / payment at the own port, CPU", None, None, single),
        Row("12b", f"the same, in lists of {size.batch} / in batches", None, None, listed),
        *_over("13", "FastAPI call", record, PAID_CALL, FREE_CALL),
        *_over("14", "gateway's route", record, PAID_ROUTE, FREE_ROUTE),
    ]


def _over(number: str, what: str, record: Record, paid: str, free: str) -> list[Row]:
    """Return what a price costs: CPU of all processes but the client, beyond the same without one; and the rates."""
    pairs = list(zip(record.of(paid), record.of(free), strict=True))
    over = [(priced.cpu_each - plain.cpu_each) / priced.verify for priced, plain in pairs]
    shares = ", ".join(
        f"{who} {statistics.median(piece.cpu[who] / piece.payments / piece.verify for piece in record.of(paid)):.2f}"
        for who in record.of(paid)[0].cpu
    )
    plain = statistics.median(piece.cpu_each / piece.verify for piece in record.of(free))
    note = f"V of CPU a paid one: {shares}; a free one: {plain:.2f}"
    return [
        Row(f"{number}a", f"paid {what}: CPU over the free one's, in V", 2.5, 2.0, over, is_most=True, note=note),
        Row(f"{number}b", f"paid / free {what}, calls/s", None, None, _rate_ratios(record, paid, free)),
    ]
