"""What is wrong now, and what to do about it: the rules of deploy/prometheus/alerts.yml that need no history, for who has no
Prometheus.

What is said, and its order, are here; docs/OPERATING.md and docs/METRICS.md have the whole story.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...metrics import exposition
from ..answers import Answer, Request, json_answer
from ..context import Context
from ..looking import Table, slots
from .cluster import ask
from .queries import read_query
from .settlements import SETTLING, trouble_of

LOOKED_AT = 500
"""Settlements that are looked at for trouble, those first that expire first."""

SILENCE_SECONDS = 30
GONE_SECONDS = 86_400
"""A store that has been silent for so long has been taken out for good, or everybody knows."""

TIP_SECONDS = 7200
WAITING_MAX = 10_000
NEAR_LIMIT_PERCENT = 80
CERTIFICATE_SECONDS = 14 * 86_400


@dataclass(frozen=True)
class Trouble:
    """code: stable. is_urgent: somebody should be woken. what, do: sentences. see: where more is said, below docs/."""

    code: str
    is_urgent: bool
    what: str
    do: str
    see: str


NOT_READY = {
    "signer_unavailable": "See the signer's log. Payments and closes wait.",
    "store_unavailable": "See the store's log; exit status 70 means the disk.",
    "owner_moved": "It passes within lease_ms; if not, a worker is starved.",
    "shard_stopped": "Keep the log line, and read “A stopped shard” before any restart.",
    "overloaded": "More workers, or a faster disk.",
    "too_much_unsettled": "See why settlements wait: the log, fees, the node. Or raise the limit.",
    "clock_doubtful": "See the clock (timedatectl) and the node.",
    "chain_unavailable": "See the node: does it run, is it synced, are the credentials right?",
}
"""What OPERATING.md says to do about each code of /readyz."""

WATCHING = "OPERATING.md#watching"
SETTLING_METRICS = "METRICS.md#settling"


class Figures:
    """The gauges by name."""

    def __init__(self, families: dict[str, list[dict[str, Any]]]) -> None:
        self._families = families

    def value(self, name: str, default: float | None = None, **labels: str) -> float | None:
        """Return a sample; `default` if there is none."""
        for row in self._families.get(name, []):
            if "value" in row and all(row["labels"].get(key) == value for key, value in labels.items()):
                return float(row["value"])
        return default

    def labelled(self, name: str, label: str) -> Iterator[tuple[str, float]]:
        """Yield a label's values and their samples."""
        for row in self._families.get(name, []):
            if label in row["labels"]:
                yield row["labels"][label], float(row["value"])


async def listed(context: Context, request: Request) -> Answer:
    """Answer GET /operator/v1/trouble."""
    read_query(request.query)
    stores = (await ask(context))["stores"] if context.store.postgres is not None else []  # on disk there is one store: ours
    now, table = time.time(), Table()
    exposition.tell(table, slots(context), {"network": context.config.common.network.name})
    found = [*of_figures(Figures(table.families), now), *of_stores(stores), *_of_books(context, int(now))]
    since = context.trouble_since
    for gone in since.keys() - {trouble.code for trouble in found}:
        del since[gone]
    return json_answer(
        {
            "trouble": [
                {
                    "code": trouble.code,
                    "since_at": since.setdefault(trouble.code, int(now)),
                    "is_urgent": trouble.is_urgent,
                    "what": trouble.what,
                    "do": trouble.do,
                    "see": trouble.see,
                }
                for trouble in sorted(found, key=lambda one: not one.is_urgent)
            ],
            "looked_at": int(now),
        }
    )


def of_figures(figures: Figures, now: float) -> Iterator[Trouble]:
    """Yield what the counts say is wrong. now: unix seconds."""
    if not figures.value("paychan_processes", 0, role="worker"):
        yield Trouble("no_workers", True, "No worker runs: every request fails.", "See the log of the server.", WATCHING)
        return
    yield from _of_processes(figures)
    yield from _of_chain(figures, now)
    yield from _of_money(figures)


def _of_processes(figures: Figures) -> Iterator[Trouble]:
    for code, count in figures.labelled("paychan_workers_not_ready", "code"):
        if count:
            what = f"{count:.0f} {'worker is' if count == 1 else 'workers are'} not ready: {code}."
            yield Trouble(f"not_ready.{code}", True, what, NOT_READY.get(code, "See the log."), WATCHING)
    silence = figures.value("paychan_worker_silence_seconds", 0) or 0
    if silence > SILENCE_SECONDS:
        what = f"A worker has shown nothing for {silence:.0f} seconds: its channels take nothing."
        yield Trouble(
            "worker_silent", True, what, "It is stuck, stopped or starved: see the log and the load.", "METRICS.md#processes"
        )
    owned, shards = figures.value("paychan_owned_shards", 0) or 0, figures.value("paychan_shards", 0) or 0
    if figures.value("paychan_stopped_shards", 0):
        what = "A shard is stopped: figures that must be equal differ."
        do = "Keep the log line. Do not restart before you have read “A stopped shard”."
        yield Trouble("shard_stopped", True, what, do, "OPERATING.md#a-stopped-shard")
    if shards and not owned:
        yield Trouble("no_shards", True, "This machine owns no shard.", "It passes within a lease; if not, see the log.", WATCHING)
    if (figures.value("paychan_waiting_requests", 0) or 0) > WAITING_MAX:
        what = "More than 10 000 requests wait for the disk."
        yield Trouble("queue_grows", False, what, "A faster disk, or more workers.", "METRICS.md#payments")


def _of_chain(figures: Figures, now: float) -> Iterator[Trouble]:
    if figures.value("paychan_chain_doubtful", 0):
        what = "The chain source is not trusted: it is silent, syncs, or its best block is old."
        yield Trouble("chain_doubtful", True, what, NOT_READY["chain_unavailable"], WATCHING)
    tip = figures.value("paychan_tip_timestamp_seconds")
    if tip is not None and now - tip > TIP_SECONDS:
        what = f"The best block is {(now - tip) / 3600:.1f} hours old."
        yield Trouble("tip_old", False, what, "Is the node synced, and has it peers?", "METRICS.md#opens-and-the-chain")
    if figures.value("paychan_clock_doubtful", 0):
        what = "The time is not trusted: nothing is taken until it is."
        yield Trouble("clock_doubtful", True, what, NOT_READY["clock_doubtful"], WATCHING)
    if figures.value("paychan_fee_estimate_missing", 0):
        what = "The chain source estimates no fees."
        do = "settlement.fee_per_byte is taken for an estimate: is it what is usual?"
        yield Trouble("no_fee_estimate", False, what, do, "METRICS.md#opens-and-the-chain")
    ends = figures.value("paychan_certificate_end_timestamp_seconds")
    if ends and ends - now < CERTIFICATE_SECONDS:
        what = f"The cluster's certificate ends in {max(0.0, ends - now) / 86_400:.0f} days."
        yield Trouble("certificate_ends", False, what, "paychan cluster certificates renews it.", "FORWARDING.md")


def _of_money(figures: Figures) -> Iterator[Trouble]:
    at_risk = figures.value("paychan_value_at_risk_satoshi", 0, within="3h") or 0
    if at_risk:
        what = f"{at_risk:.0f} satoshi expire within three hours and are not settled."
        do = "Before anything else: see Settlements; settle by hand, with a higher ceiling."
        yield Trouble("value_near_expiry", True, what, do, SETTLING_METRICS)
    value, limit = (figures.value(f"paychan_unsettled_value{name}_satoshi", 0) or 0 for name in ("", "_limit"))
    if limit and value * 100 > NEAR_LIMIT_PERCENT * limit:
        what = "Unsettled value is near its limit, at which nothing more is taken."
        yield Trouble("exposure_near_limit", True, what, "Why do settlements wait? See Settlements.", WATCHING)
    lost = sum(figures.value("paychan_settlements_total", 0, step=step) or 0 for step in ("lost", "settled_older"))
    if lost:
        what = f"{lost:.0f} channels were not settled by their newest payment, since counting began: money is gone."
        yield Trouble("settlement_lost", True, what, "The log names the channel; Money has the day.", SETTLING_METRICS)
    count = figures.value("paychan_uneconomic_channels", 0) or 0
    if count:
        what = f"{count:.0f} channels are worth less than their settlement's fee."
        do = "They settle as fees fall, or lower settlement.fee_per_byte_min."
        yield Trouble("uneconomic", False, what, do, SETTLING_METRICS)


def of_stores(stores: list[dict[str, Any]]) -> Iterator[Trouble]:
    """Yield what is wrong with other machines' stores, as `/operator/v1/cluster` tells of them."""
    silent = [one for one in stores if one["life"] == "silent" and one["unmoved_seconds"] < GONE_SECONDS]
    if not silent:
        return
    names, held = ", ".join(one["name"] for one in silent), sum(one["shards"] for one in silent)
    what = f"{'Store' if len(silent) == 1 else 'Stores'} {names} of this cluster: silent, so lost, stopped or cut off."
    what += f" Nobody serves {held} of its shards yet." if held else " Others serve what it served."
    yield Trouble("store_silent", held > 0, what, "Bring the machine back; it is given its share by itself.", "CLUSTER.md")


WHAT = {
    "expires_soon": ("expire within three hours and are not in a block", True, "Settle by hand, with a higher ceiling."),
    "not_signed": ("wait to be signed", True, "See the signer's log, and what the settler says of fees."),
    "not_published": ("are signed and not published", True, "See the node: it may refuse the transaction."),
    "not_mined": ("wait for a block", False, "Their fee is raised by itself, up to the ceiling. Is that high enough?"),
}


def _of_books(context: Context, now: int) -> Iterator[Trouble]:
    following = context.following
    if not following.is_up:
        what = "The store does not answer the operator's process: what is shown of channels is old."
        yield Trouble("store_away", True, what, NOT_READY["store_unavailable"], WATCHING)
    rows, _ = following.books.page(SETTLING, "expiry", LOOKED_AT)
    found = [trouble_of(row, now) for row in rows]
    for code, (what, is_urgent, do) in WHAT.items():
        if count := found.count(code):
            subject = f"{count} {'settlement' if count == 1 else 'settlements'}"
            yield Trouble(f"settlement.{code}", is_urgent, f"{subject}: {what}.", do, SETTLING_METRICS)
